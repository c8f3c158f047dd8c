//! A device that holds only so much.

use graph::shape::numel;
use graph::{
    Device, DeviceError, DeviceInfo, DeviceKind, Graph, MemoryUse, NodeTime, Op, Plan, PlanOptions, Slots, Storage,
    StorageType, WeightSource, passes,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Another device whose plans together may take so many bytes: one that would take more is [`DeviceError::OutOfMemory`] before anything
/// of it is allocated.
///
/// Systems that promise more memory than they have end a process in the middle of its work; this fails in time, when something else can
/// still be let go.
pub(crate) struct Limited {
    device: Box<dyn Device>,
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Limited {
    pub(crate) fn new(device: Box<dyn Device>, limit: u64) -> Self {
        Self { device, limit, used: Arc::default() }
    }

    fn full(&self, need: u64) -> Result<(), DeviceError> {
        if self.used.load(Ordering::Relaxed).saturating_add(need) <= self.limit {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        let doing = format!(
            "planning {} MiB beside {} MiB of {}",
            mib(need),
            mib(self.used.load(Ordering::Relaxed)),
            mib(self.limit)
        );
        Err(DeviceError::OutOfMemory { device: self.device.info().name.clone(), doing })
    }
}

/// What a plan of this graph will hold, without making it.
pub(crate) fn estimate(
    device: &DeviceInfo,
    graph: &Graph,
    weights: &dyn WeightSource,
    options: PlanOptions,
) -> MemoryUse {
    let native = device.kind == DeviceKind::Cpu;
    let weight = |node: &graph::Node| {
        let Op::Weight(weight) = &node.op else { return 0 };
        let half = match options.storage {
            // Products are computed in singles there.
            _ if native => false,
            Storage::F32 => false,
            Storage::F16 => true,
            Storage::Auto => weights.stored_as(&weight.name) == Some(StorageType::F16),
        };
        // Biases and norms stay in single precision.
        numel(&node.shape) as u64 * if half && node.shape.len() > 1 { 2 } else { 4 }
    };
    let values: usize = Slots::assign(&passes::hoist(graph)).sizes().iter().sum();
    MemoryUse { weights: graph.nodes().iter().map(weight).sum(), activations: 4 * values as u64 }
}

impl Device for Limited {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn plan(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
    ) -> Result<Box<dyn Plan>, DeviceError> {
        let need = estimate(self.info(), graph, weights, options);
        self.full(need.weights + need.activations)?;
        let plan = self.device.plan(graph, weights, options)?;
        let memory = plan.memory();
        let bytes = memory.weights + memory.activations;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(Box::new(LimitedPlan { plan, bytes, used: Arc::clone(&self.used) }))
    }
}

struct LimitedPlan {
    plan: Box<dyn Plan>,
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Drop for LimitedPlan {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Plan for LimitedPlan {
    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), DeviceError> {
        self.plan.write(input, data)
    }

    fn run(&mut self) -> Result<(), DeviceError> {
        self.plan.run()
    }

    fn read(&mut self, output: &str) -> Result<Vec<f32>, DeviceError> {
        self.plan.read(output)
    }

    fn profile(&mut self) -> Result<Vec<NodeTime>, DeviceError> {
        self.plan.profile()
    }

    fn memory(&self) -> MemoryUse {
        self.plan.memory()
    }
}
