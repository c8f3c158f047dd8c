//! A device that holds only so much.

use graph::{
    Device, DeviceError, DeviceInfo, Graph, MemoryUse, Plan, PlanOptions, WeightSource, Work, estimate_memory,
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

impl Device for Limited {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn plan_async<'a>(
        &'a self,
        graph: &'a Graph,
        weights: &'a dyn WeightSource,
        options: PlanOptions,
    ) -> Work<'a, Box<dyn Plan>> {
        Box::pin(async move {
            let need = estimate_memory(graph, weights, options, self.device.info().kind);
            self.full(need.weights + need.activations)?;
            let plan = self.device.plan_async(graph, weights, options).await?;
            let memory = plan.memory();
            let bytes = memory.weights + memory.activations;
            self.used.fetch_add(bytes, Ordering::Relaxed);
            Ok(Box::new(LimitedPlan { plan, bytes, used: Arc::clone(&self.used) }) as Box<dyn Plan>)
        })
    }

    fn ways(&self, graph: &Graph, weights: &dyn WeightSource, options: PlanOptions) -> Vec<Vec<&'static str>> {
        self.device.ways(graph, weights, options)
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

    fn run_async(&mut self) -> Work<'_, ()> {
        self.plan.run_async()
    }

    fn read_async<'a>(&'a mut self, output: &'a str) -> Work<'a, Vec<f32>> {
        self.plan.read_async(output)
    }

    #[cfg(not(target_family = "wasm"))]
    fn profile(&mut self) -> Result<Vec<graph::NodeTime>, DeviceError> {
        self.plan.profile()
    }

    fn memory(&self) -> MemoryUse {
        self.plan.memory()
    }
}
