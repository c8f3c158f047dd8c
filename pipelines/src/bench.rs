//! What a denoising step costs.

use crate::error::PipelineError;
use crate::job::Job;
use crate::networks::Concatenated;
use crate::picture::RgbImage;
use crate::pipeline::Pipeline;
use crate::run::Batch;
use crate::tasks::{Inpaint, Task, Upscale};
use graph::{MemoryWeights, NodeTime, PlanOptions, Rate, Scope};
use std::time::{Duration, Instant};

/// What a denoising step costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Bench {
    /// Samples that are denoised together.
    pub samples: usize,
    /// Every timed step of all samples, reading the result included.
    pub seconds: Vec<f64>,
    /// Floating-point operations of one step.
    pub flops: u64,
    /// Every operation of a step, timed alone.
    pub nodes: Vec<NodeTime>,
}

impl Pipeline {
    /// Times `steps` denoising steps of `samples` samples after one that warms up, then every operation alone.
    ///
    /// # Errors
    /// As [`start_all`](Self::start_all) and [`Batch::next`].
    pub fn bench(&self, job: &Job, samples: usize, steps: usize) -> Result<Bench, PipelineError> {
        let mut batch = self.start_all(&vec![job.clone(); samples.max(1)])?;
        batch.bench(steps)
    }
}

impl Pipeline {
    /// A task that this model can do, of a grey picture where it needs one: what a denoising step costs does not depend on what it shows.
    #[must_use]
    pub fn any_task(&self) -> Task {
        let grey = |value| RgbImage { width: 8, height: 8, pixels: vec![value; 8 * 8 * 3] };
        match self.concatenated() {
            Concatenated::Nothing => Task::default(),
            Concatenated::Mask(_) => Inpaint::new(grey(128), grey(255)).into(),
            Concatenated::Picture { .. } => Upscale::new(grey(128)).into(),
        }
    }
}

/// Side of the product that a device's speed is told from.
const CALIBRATION: usize = 512;

/// The share of that product's speed at which a whole network runs, roughly.
const EFFICIENCY: f64 = 0.5;

impl Pipeline {
    /// About how long a job's steps will take, told from the speed of one matrix product on this device. It may be wrong by a factor of
    /// two.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forecast(&self, job: &Job) -> Result<Duration, PipelineError> {
        let evaluations = job.evaluations().unwrap_or(100) as f64;
        let flops = self.graph(job)?.cost(Rate::Step).flops as f64 * evaluations * job.parts() as f64;
        Ok(Duration::from_secs_f64(flops / self.rate()?))
    }

    /// About how many floating-point operations of a network this device does in a second.
    fn rate(&self) -> Result<f64, PipelineError> {
        let s = Scope::root();
        let [a, b] = ["a", "b"].map(|name| s.input(name, &[CALIBRATION, CALIBRATION], Rate::Step));
        let product = s.finish(&[("product", &a.matmul(&b))])?;
        let mut plan = self.device().device().plan(&product, &MemoryWeights::default(), PlanOptions::default())?;
        for input in ["a", "b"] {
            plan.write(input, &vec![0.5; CALIBRATION * CALIBRATION])?;
        }
        // The first run warms up.
        let mut fastest = f64::INFINITY;
        for _ in 0..3 {
            let started = Instant::now();
            plan.run()?;
            plan.read("product")?;
            fastest = fastest.min(started.elapsed().as_secs_f64());
        }
        Ok(2.0 * (CALIBRATION as f64).powi(3) / fastest * EFFICIENCY)
    }

    /// About how long each replacement of what is known in latents takes: a decoding and an encoding. None where nothing is decoded.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forecast_replacement(&self, job: &Job) -> Result<Option<Duration>, PipelineError> {
        let Some(flops) = self.replacement_flops(job)? else { return Ok(None) };
        Ok(Some(Duration::from_secs_f64(flops / self.rate()?)))
    }
}

impl Batch {
    /// Denoises what the runs start from, again and again.
    fn bench(&mut self, steps: usize) -> Result<Bench, PipelineError> {
        self.reach_model()?;
        let mut seconds = Vec::with_capacity(steps);
        let samples = self.samples_at_once();
        self.with_denoiser(|denoiser, evaluations| {
            for i in 0..=steps {
                let started = Instant::now();
                denoiser.denoise(evaluations)?;
                if i > 0 {
                    seconds.push(started.elapsed().as_secs_f64());
                }
            }
            let mut nodes = denoiser.profile()?;
            nodes.retain(|node| node.rate == Rate::Step);
            Ok(Bench { samples, seconds, flops: nodes.iter().map(|node| node.flops).sum(), nodes })
        })
    }
}
