//! A request with nothing left open.

use crate::conditioning::{Layout, SampleShape};
use crate::edit::Method;
use crate::error::PipelineError;
use crate::guidance::GuidanceInterval;
use crate::noise::{Noise, Rng, slerp::Slerp};
use crate::parts::{Prompt, PromptSyntax, Size};
use crate::picture::nhwc_from_nchw;
use crate::picture::tiles::Grid;
use crate::request::StartingNoise;
use crate::reuse::Part;
use crate::step_cache::StepCache;
use crate::tasks::Prepared;
use crate::warning::Warning;
use scheduler::{NamedSchedule, Op, Program, Sampling, Steps};
use std::sync::Arc;

/// Everything that is decided before anything is computed: what [`Pipeline::job`](crate::Pipeline::job) makes of a request, and what
/// [`Pipeline::start`](crate::Pipeline::start) runs.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) settings: Settings,
    pub(crate) sampling: Sampling,
    pub(crate) program: Program,
    pub(crate) noise: StartingNoise,
    /// Extents of the sample.
    pub(crate) shape: SampleShape,
    /// The parts that it is denoised in, if it is not denoised as a whole.
    pub(crate) grid: Option<Grid>,
    /// Of the graph: of the sample, or of a part of it.
    pub(crate) layout: Layout,
    /// The largest magnitude of denoised images, which are clipped before the task changes them.
    pub(crate) clips: Option<f64>,
    /// The size that the picture is made at where it is fitted to another afterwards.
    pub(crate) bin: Option<Size>,
    pub(crate) text: Option<Text>,
    pub(crate) prepared: Arc<dyn Prepared>,
    pub(crate) warnings: Vec<Warning>,
}

/// What was asked for, with the model's and the task's own values where nothing was.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the picture shows.
    pub prompt: String,
    /// What it should not show.
    pub negative_prompt: String,
    /// Pixels (or latents, where there is no autoencoder).
    pub width: usize,
    /// As the width.
    pub height: usize,
    /// Where to step.
    pub steps: Steps,
    /// The schedule that was asked for, by itself or after the sampler's name.
    pub schedule: Option<NamedSchedule>,
    /// Share of fresh noise that was asked for.
    pub eta: Option<f64>,
    /// Weight of the prompt against the negative prompt.
    pub guidance_scale: f64,
    /// The noise levels at which guidance acts, where it does not at all.
    pub guidance_interval: Option<GuidanceInterval>,
    /// What is kept from one step for the next, where something is.
    pub step_cache: Option<StepCache>,
    /// Seed of the noise.
    pub seed: u64,
    /// Whose noise the seed means.
    pub rng: Rng,
    /// Layers of CLIP that the prompt leaves out.
    pub clip_skip: usize,
    /// How prompts are read, where it was said.
    pub prompt_syntax: Option<PromptSyntax>,
    /// The class that is drawn, of a class-conditional model.
    pub class_label: Option<usize>,
    /// How much of the schedule is run, of an image that is made from a picture.
    pub strength: Option<f64>,
    /// Of enlarging, how much noise is put over the picture.
    pub noise_level: Option<usize>,
    /// The noise that a picture is under, or is put under, of a task that begins there: told or measured.
    pub sigma: Option<f64>,
    /// How a picture is held to what is known of it, where something is.
    pub method: Option<Method>,
}

/// The prompts as the text encoders take them.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// The negative prompt under guidance, then the prompt.
    pub(crate) prompts: Vec<Prompt>,
    /// Tokens that did not fit.
    pub(crate) dropped: usize,
}

impl Job {
    /// What was asked for, nothing left open.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How the sampler steps, where, and what the model predicts.
    #[must_use]
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The sampler applied to its noise levels.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Extents of the sample.
    #[must_use]
    pub fn shape(&self) -> SampleShape {
        self.shape
    }

    /// How many overlapping parts the sample is denoised in at every step; 1 if as a whole.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.grid.as_ref().map_or(1, |grid| grid.tiles().count())
    }

    /// How many steps there will be; none if the sampler chooses its own.
    #[must_use]
    pub fn steps(&self) -> Option<usize> {
        self.program.is_fixed().then(|| self.program.steps())
    }

    /// How often the model will run for a sample; none if the sampler chooses its own steps.
    #[must_use]
    pub fn evaluations(&self) -> Option<usize> {
        self.program.is_fixed().then(|| self.program.evaluations())
    }

    /// How often the network will predict for a sample: in each evaluation once, and twice where classifier-free guidance acts. None if the
    /// sampler chooses its own steps.
    #[must_use]
    pub fn predictions(&self) -> Option<usize> {
        let level = |op: &Op| if let Op::Denoise { sigma, .. } = op { Some(*sigma) } else { None };
        let levels = self.program.ops().iter().filter_map(level);
        let gate = if let Some(StepCache::TGate { gate }) = self.settings.step_cache { gate } else { usize::MAX };
        let of = |(i, sigma)| 1 + usize::from(i < gate && self.is_guided_at(sigma));
        self.program.is_fixed().then(|| levels.enumerate().map(of).sum())
    }

    /// What is kept from one evaluation for the next; none where that would be used in no evaluation.
    pub(crate) fn step_cache(&self) -> Option<StepCache> {
        self.settings.step_cache.filter(|cache| match cache {
            StepCache::TGate { gate } => self.evaluations().is_none_or(|all| all > *gate),
            StepCache::Deep { interval } => *interval > 1,
            StepCache::FirstBlock { .. } => true,
        })
    }

    /// The layouts of all graphs that it may need, the largest first.
    pub(crate) fn layouts(&self) -> Vec<Layout> {
        let guided = if self.guidance_may_rest() { &[true, false][..] } else { &[self.layout.guided] };
        let parts = self.step_cache().map_or(&[Part::Whole][..], StepCache::parts);
        let mut all: Vec<Layout> = Vec::new();
        for (part, guided) in parts.iter().flat_map(|part| guided.iter().map(move |guided| (*part, *guided))) {
            let layout = self.layout.of(guided && !part.predicts_once(), part);
            if !all.contains(&layout) {
                all.push(layout);
            }
        }
        all
    }

    /// The same with every evaluation whole: what a step cache comes near to.
    #[must_use]
    pub fn without_step_cache(&self) -> Self {
        Self { settings: Settings { step_cache: None, ..self.settings.clone() }, ..self.clone() }
    }

    /// Whether the network predicts twice at this noise level.
    pub(crate) fn is_guided_at(&self, sigma: f64) -> bool {
        self.layout.guided && self.settings.guidance_interval.is_none_or(|interval| interval.contains(sigma))
    }

    /// Whether guidance may rest at some noise level.
    fn guidance_may_rest(&self) -> bool {
        let rests = |op: &Op| if let Op::Denoise { sigma, .. } = op { !self.is_guided_at(*sigma) } else { false };
        let may = !self.program.is_fixed() || self.program.ops().iter().any(rests);
        self.layout.guided && self.settings.guidance_interval.is_some() && may
    }

    /// The noise level of every step.
    #[must_use]
    pub fn sigmas(&self) -> Vec<f64> {
        let level = |op: &Op| if let Op::Step { sigma, .. } = op { Some(*sigma) } else { None };
        self.program.ops().iter().filter_map(level).collect()
    }

    /// Whether it can run in one graph with another job of the same model ([`Pipeline::start_all`](crate::Pipeline::start_all)): both have
    /// one size and take prompts of one length, and are guided or not alike.
    #[must_use]
    pub fn runs_with(&self, other: &Self) -> bool {
        self.layout == other.layout && self.shape == other.shape
    }

    /// Whether it ends in noise and not in a picture.
    #[must_use]
    pub fn inverts(&self) -> bool {
        self.sampling.sampler.inverts
    }

    /// Tokens of the prompts that do not fit the text encoder.
    #[must_use]
    pub fn tokens_dropped(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.dropped)
    }

    /// What the request asks for that does nothing with this model, or does harm: to be shown to whoever asked.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The same with other steps: same noise to start with, same prompt, same model. A reference solution, say, from where another sampler starts.
    #[must_use]
    pub fn with_sampling(&self, sampling: Sampling) -> Self {
        let program = sampling.program();
        Self { sampling, program, ..self.clone() }
    }

    /// The same with the steps' noise of another seed; the noise to start with stays.
    ///
    /// # Errors
    /// Where the start is no noise that a seed alone gives: one between two seeds.
    pub fn with_other_draws(&self, seed: u64) -> Result<Self, PipelineError> {
        let noise = match &self.noise {
            StartingNoise::Given(noise) => Arc::clone(noise),
            StartingNoise::Seed => {
                let mut nchw = vec![0.0; self.shape.numel()];
                self.stream().fill(&mut nchw);
                nhwc_from_nchw(&nchw, self.shape).into()
            }
            StartingNoise::Slerp { .. } => {
                let message = "noise between two seeds belongs to both: it cannot start other draws";
                return Err(PipelineError::Request(message.into()));
            }
        };
        let settings = Settings { seed, ..self.settings.clone() };
        Ok(Self { settings, noise: StartingNoise::Given(noise), ..self.clone() })
    }

    /// The stream of all its noise, at its beginning.
    pub(crate) fn stream(&self) -> Box<dyn Noise> {
        let (rng, seed) = (self.settings.rng, self.settings.seed);
        match self.noise {
            StartingNoise::Slerp { to, share } => Box::new(Slerp::new(rng.stream(seed), rng.stream(to), share)),
            StartingNoise::Seed | StartingNoise::Given(_) => rng.stream(seed),
        }
    }

    /// The caller's own noise to start with.
    pub(crate) fn given_noise(&self) -> Option<&[f32]> {
        if let StartingNoise::Given(noise) = &self.noise { Some(noise) } else { None }
    }
}
