//! What is asked of a pipeline, and what comes back.

use crate::denoiser::SampleShape;
use crate::image::RgbImage;
use crate::image_to_image::Source;
use crate::noise::Rng;
use crate::prompt::PromptSyntax;
use graph::NodeTime;
use scheduler::Steps;
use std::time::Duration;

/// What is asked for. [`TextToImage::defaults`](crate::TextToImage::defaults) gives the model's own values.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What the picture shows.
    pub prompt: String,
    /// What it should not show; matters only with guidance.
    pub negative_prompt: String,
    /// Pixels (or latents, where there is no autoencoder).
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Where to step.
    pub steps: Steps,
    /// A sampler's name; the checkpoint's own if absent.
    pub sampler: Option<String>,
    /// A schedule's name; the checkpoint's own if absent.
    pub schedule: Option<String>,
    /// Share of fresh noise of the samplers that have one; the sampler's own if absent.
    pub eta: Option<f64>,
    /// Weight of the prompt against the negative prompt; 1 and below turns guidance off, as in diffusers, except for the CFG++ samplers,
    /// whose guidance lies between 0 and 1.
    pub guidance_scale: f64,
    /// The same seed, model and settings give the same picture.
    pub seed: u64,
    /// Whose noise the seed means.
    pub rng: Rng,
    /// Layers of CLIP that the prompt leaves out at its end, diffusers' `clip_skip`: one less than other tools count. The negative prompt
    /// and the embedding of a whole prompt leave out none, as in diffusers.
    pub clip_skip: usize,
    /// How both prompts are read. If absent, as in AUTOMATIC1111's web UI where the model is a UNet beside CLIP, and otherwise as plain
    /// text.
    pub prompt_syntax: Option<PromptSyntax>,
    /// Which of its classes a class-conditional model draws; chosen by the seed if absent.
    pub class_label: Option<usize>,
    /// The picture that the image is made from; absent where it is made from noise alone.
    pub source: Option<Source>,
}

/// One denoising step, as it happens.
#[derive(Debug)]
pub struct Event<'a> {
    /// Counts from 0.
    pub index: usize,
    /// How many there will be; 0 if the sampler chooses its own steps.
    pub steps: usize,
    /// Noise level of `x`.
    pub sigma: f64,
    /// The noisy sample this step starts from, `[H, W, C]`.
    pub x: &'a [f32],
    /// The model's estimate of the clean sample.
    pub denoised: &'a [f32],
    /// Extents of both.
    pub shape: SampleShape,
    /// Since the first step began.
    pub elapsed: Duration,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The final sample, `[H, W, C]`, values about −1..1.
    pub sample: Vec<f32>,
    /// Its extents.
    pub shape: SampleShape,
    /// The picture, where the sample is one (latents without an autoencoder are not).
    pub image: Option<RgbImage>,
    /// Tokens of the prompts that did not fit the text encoder.
    pub tokens_dropped: usize,
    /// The sampler that ran.
    pub sampler: &'static str,
    /// The schedule that was asked for, by itself or after the sampler's name.
    pub schedule: Option<&'static str>,
    /// Steps taken.
    pub steps: usize,
    /// How often the model ran.
    pub evaluations: usize,
    /// How long it took.
    pub timings: Timings,
    /// The class that was drawn, of a class-conditional model.
    pub class_label: Option<usize>,
    /// How much of the schedule was run, of an image that was made from a picture.
    pub strength: Option<f64>,
    /// Of inpainting the whole picture as the model made it, before what the mask keeps was put back to the bit.
    pub repainted: Option<RgbImage>,
    /// Of enlarging, how much noise was put over the picture.
    pub noise_level: Option<usize>,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Planning the denoiser and uploading its weights: only the first generation of a size pays this.
    pub prepare: Duration,
    /// Reading the prompts and the picture; the first generation also plans what reads them.
    pub encode: Duration,
    /// All steps.
    pub sample: Duration,
    /// The autoencoder, planned on the first picture of a size.
    pub decode: Duration,
}

/// What a denoising step costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Bench {
    /// Every timed step, reading the result included.
    pub seconds: Vec<f64>,
    /// Floating-point operations of one step.
    pub flops: u64,
    /// Every operation of a step, timed alone.
    pub nodes: Vec<NodeTime>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcomes {
    /// With a picture.
    Finished(Box<Generated>),
    /// The event handler asked to stop.
    Stopped,
}
