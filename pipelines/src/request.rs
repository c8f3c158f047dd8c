//! What is asked of a pipeline.

use crate::guidance::GuidanceInterval;
use crate::noise::Rng;
use crate::parts::PromptSyntax;
use crate::step_cache::StepCache;
use crate::tasks::Task;
use scheduler::{NamedSampler, NamedSchedule, Steps};
use std::sync::Arc;

/// What is asked for. Whatever is left out is the model's own, or the task's: [`Request::default`] leaves everything out.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What the picture shows.
    pub prompt: String,
    /// What it should not show; matters only with guidance.
    pub negative_prompt: Option<String>,
    /// Pixels (or latents, where there is no autoencoder).
    pub width: Option<usize>,
    /// As the width.
    pub height: Option<usize>,
    /// Where to step.
    pub steps: Option<Steps>,
    /// How to step; the name may carry a schedule ("DPM++ 2M Karras").
    pub sampler: Option<NamedSampler>,
    /// Which noise levels to step over; goes before the one that the sampler's name carries.
    pub schedule: Option<NamedSchedule>,
    /// Share of fresh noise, of the samplers that have one.
    pub eta: Option<f64>,
    /// Weight of the prompt against the negative prompt; 1 and below turns guidance off, as in diffusers, except for the CFG++ samplers,
    /// whose guidance lies between 0 and 1.
    pub guidance_scale: Option<f64>,
    /// The noise levels at which guidance acts; all if absent. Outside it the network predicts once and not twice.
    pub guidance_interval: Option<GuidanceInterval>,
    /// What is kept from one step for the next instead of being computed; nothing if absent.
    pub step_cache: Option<StepCache>,
    /// The same seed, model and settings give the same picture.
    pub seed: u64,
    /// Whose noise the seed means.
    pub rng: Rng,
    /// The noise that the run starts with.
    pub noise: StartingNoise,
    /// Layers of CLIP that the prompt leaves out at its end, diffusers' `clip_skip`: one less than other tools count. The negative prompt
    /// and the embedding of a whole prompt leave out none, as in diffusers.
    pub clip_skip: usize,
    /// How both prompts are read. If absent, as in AUTOMATIC1111's web UI where the model is a UNet beside CLIP, and otherwise as plain
    /// text.
    pub prompt_syntax: Option<PromptSyntax>,
    /// Which of its classes a class-conditional model draws; chosen by the seed if absent.
    pub class_label: Option<usize>,
    /// What the picture is made from; noise alone by default.
    pub task: Task,
}

/// The noise that a run starts with.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum StartingNoise {
    /// Drawn from the seed.
    #[default]
    Seed,
    /// The caller's own: standard normal numbers, `[H, W, C]` of the sample. Later draws are the seed's, as if the first had been used.
    Given(Arc<[f32]>),
    /// On the way from the seed's noise to another seed's, along the great circle through both (Shoemake 1985), so that it stays as long as
    /// noise is: pictures change smoothly with the share. All draws of the run are made this way.
    Slerp {
        /// The other seed.
        to: u64,
        /// How far on the way, 0 being the request's own seed and 1 the other.
        share: f64,
    },
}
