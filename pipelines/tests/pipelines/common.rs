//! What the tests of this crate share.

use graph::{Device, DeviceError, DeviceInfo, Graph, MemoryUse, NodeTime, Plan, PlanOptions, WeightSource, Work};
use models::ModelFiles;
use pipelines::{DeviceChoice, DeviceSettings, Pipeline, Request, SharedDevice, open_device};
use scheduler::Steps;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) fn files(name: &str) -> ModelFiles {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines").join(name);
    ModelFiles::folder(folder).expect("a golden checkpoint")
}

pub(crate) fn cpu() -> SharedDevice {
    open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).expect("the CPU is always there")
}

/// The native executor with so many bytes.
pub(crate) fn limited(bytes: u64) -> SharedDevice {
    let settings = DeviceSettings { max_memory: Some(bytes), ..Default::default() };
    open_device(&DeviceChoice::Cpu, &settings).expect("the CPU is always there")
}

/// The first adapter: a software driver where there is no other.
pub(crate) fn adapter() -> SharedDevice {
    open_device(&DeviceChoice::Adapter("gpu".into()), &DeviceSettings::default())
        .unwrap_or_else(|error| panic!("{error} (`cargo xtask test` sets one up)"))
}

pub(crate) fn pipeline(device: &SharedDevice, name: &str) -> Pipeline {
    Pipeline::from_pretrained(device, &files(name), PlanOptions::default()).expect("a whole checkpoint")
}

/// A few steps of a prompt.
pub(crate) fn request(prompt: &str, steps: usize) -> Request {
    Request { prompt: prompt.into(), steps: Some(Steps::Count(steps)), ..Request::default() }
}

/// Counts what is planned and how often prompts are encoded.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) denoisers: AtomicUsize,
    pub(crate) text_encoders: AtomicUsize,
    pub(crate) encodings: AtomicUsize,
    /// Rows that denoisers were run for: two for each sample under guidance.
    pub(crate) rows: AtomicUsize,
}

impl Counts {
    /// (denoisers planned, text encoders planned, prompts encoded) since the last call.
    pub(crate) fn take(&self) -> (usize, usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(&self.denoisers), take(&self.text_encoders), take(&self.encodings))
    }
}

struct Counting {
    device: cpu::CpuDevice,
    counts: Arc<Counts>,
}

/// The native executor, counted.
pub(crate) fn counting() -> (SharedDevice, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let device = cpu::CpuDevice::new(None).expect("the CPU is always there");
    (SharedDevice::new(Box::new(Counting { device, counts: Arc::clone(&counts) })), counts)
}

impl Device for Counting {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn plan_async<'a>(
        &'a self,
        graph: &'a Graph,
        weights: &'a dyn WeightSource,
        options: PlanOptions,
    ) -> Work<'a, Box<dyn Plan>> {
        let is_text = graph.input("input_ids").is_some();
        if is_text {
            self.counts.text_encoders.fetch_add(1, Ordering::Relaxed);
        } else if graph.input("timestep").is_some() {
            self.counts.denoisers.fetch_add(1, Ordering::Relaxed);
        }
        let samples = graph.input("timestep").map_or(0, |input| graph.node(input).shape[0]);
        let rows = samples * if graph.input("guidance_scale").is_some() { 2 } else { 1 };
        Box::pin(async move {
            let plan = self.device.plan_async(graph, weights, options).await?;
            Ok(Box::new(CountedPlan { plan, is_text, rows, counts: Arc::clone(&self.counts) }) as Box<dyn Plan>)
        })
    }
}

struct CountedPlan {
    plan: Box<dyn Plan>,
    is_text: bool,
    rows: usize,
    counts: Arc<Counts>,
}

impl Plan for CountedPlan {
    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), DeviceError> {
        self.plan.write(input, data)
    }

    fn run_async(&mut self) -> Work<'_, ()> {
        self.counts.rows.fetch_add(self.rows, Ordering::Relaxed);
        self.counts.encodings.fetch_add(usize::from(self.is_text), Ordering::Relaxed);
        self.plan.run_async()
    }

    fn read_async<'a>(&'a mut self, output: &'a str) -> Work<'a, Vec<f32>> {
        self.plan.read_async(output)
    }

    fn profile(&mut self) -> Result<Vec<NodeTime>, DeviceError> {
        self.plan.profile()
    }

    fn memory(&self) -> MemoryUse {
        self.plan.memory()
    }
}
