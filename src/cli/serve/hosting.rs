//! The models and devices that a server or a worker has: the flags that both share, and what comes of them.

use super::super::error::CliError;
use super::super::image_args::{DType, gib, whole};
use super::App;
use super::http::guard::Guard;
use super::limits::{self, LARGE_BODIES, Limits};
use super::metrics::Metrics;
use super::models::{Models, Worksite};
use super::queue::Queue;
use pipelines::DeviceChoice;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Which models on which devices.
#[derive(Debug, clap::Args)]
pub(super) struct Hosting {
    /// A model to use: a bundled model's name, a folder in diffusers' layout, a single .safetensors file, or a hub's id; repeatable, the first
    /// being the one that jobs without a model mean [default: the bundled models]
    #[arg(short, long, value_name = "NAME|DIR|FILE|OWNER/REPO")]
    pub(super) model: Vec<PathBuf>,

    /// Most images that are made together, in one graph, be they of one job or of several; fewer where memory is short
    #[arg(long, help_heading = "Device", value_name = "N", default_value_t = 8, allow_negative_numbers = true, value_parser = whole::<1, 1024>)]
    pub(super) batch: u32,

    /// auto (the best GPU, else cpu), cpu, gpu, gpu:N, or part of an adapter's name; repeatable: jobs go to whichever device is free
    #[arg(long, help_heading = "Device", value_name = "DEVICE", default_value = "auto")]
    pub(super) device: Vec<DeviceChoice>,

    /// How weights are stored
    #[arg(long, help_heading = "Device", value_enum, default_value_t = DType::Auto)]
    pub(super) dtype: DType,

    /// Threads of the cpu device [default: all cores]
    #[arg(short, long, help_heading = "Device", value_name = "N", allow_negative_numbers = true, value_parser = whole::<1, 1024>)]
    pub(super) threads: Option<u32>,

    /// Memory that plans may hold on each device; what was used longest ago is dropped to stay below it [default: what the driver has, or what is
    /// free]
    #[arg(long, help_heading = "Device", value_name = "GIB", allow_negative_numbers = true, value_parser = gib)]
    pub(super) max_memory: Option<f64>,

    /// Folder in which the adapters lie that prompts may name: <lora:NAME:WEIGHT> is NAME.safetensors there
    #[arg(long, help_heading = "Model", value_name = "DIR")]
    pub(super) lora_dir: Option<PathBuf>,
}

impl Hosting {
    /// Opens one of the devices.
    pub(super) fn site(&self, choice: &DeviceChoice) -> Result<Worksite, CliError> {
        let max_memory = self.max_memory.map(|gib| (gib * f64::from(1 << 30)) as u64);
        Worksite::open(choice, self.dtype, self.threads.map(|n| n as usize), max_memory)
    }

    /// Opens the models on the devices: what is wrong with one is found out before the first job.
    pub(super) fn open(&self, limits: Limits, guard: Guard, quiet: bool) -> Result<App, CliError> {
        let models = Models::open(&self.model, quiet)?;
        let sites = self.device.iter().map(|choice| self.site(choice)).collect::<Result<Vec<_>, CliError>>()?;
        for site in &sites {
            for index in 0..models.all().len() {
                site.pipeline(&models, index, &[])?;
            }
        }
        Ok(App {
            queue: Queue::new(limits.queue, sites.len(), limits.kept_for),
            limits,
            guard,
            models,
            sites,
            dtype: self.dtype,
            lora_dir: self.lora_dir.clone(),
            chosen: Mutex::default(),
            onlookers: Mutex::default(),
            large_bodies: Semaphore::new(LARGE_BODIES),
            checked_at_once: Arc::new(Semaphore::new(limits::CHECKED_AT_ONCE)),
            metrics: Arc::new(Metrics::new()),
        })
    }
}
