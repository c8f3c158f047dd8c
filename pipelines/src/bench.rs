//! What a denoising step costs.

use crate::error::PipelineError;
use crate::job::Job;
use crate::networks::Concatenated;
use crate::picture::RgbImage;
use crate::pipeline::Pipeline;
use crate::run::Batch;
use crate::tasks::{Inpaint, Task, Upscale};
use graph::{NodeTime, Rate};
use std::time::Instant;

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
            Concatenated::Mask(_) => Inpaint { image: grey(128), mask: grey(255), strength: None }.into(),
            Concatenated::Picture { .. } => Upscale { image: grey(128), noise_level: None, scale: None }.into(),
        }
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
