//! Text to image: a prompt or a class, a seed, a picture.

use crate::autoencoder::Autoencoder;
use crate::binning;
use crate::denoiser::{Conditioning, Denoiser, ModelInputs, SampleShape, denoiser_graph};
use crate::error::PipelineError;
use crate::image::{RgbImage, nhwc_from_nchw};
use crate::image_to_image::{Source, Task};
use crate::inpaint::Kept;
use crate::model::TextModel;
use crate::noise::Rng;
use crate::text_encoder::TextEncoders;
use crate::unconditional::label_of_seed;
use graph::{Device, MemoryUse, NodeTime, PlanOptions, Rate};
use models::ModelFiles;
use scheduler::{NamedSchedule, Outcome, Sampler, Sampling, SchedulerConfig, Steps};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What is asked for. [`TextToImage::defaults`] gives the model's own values.
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

/// What a plan was built for; another size or guidance needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlanKey {
    shape: SampleShape,
    guided: bool,
    unguided: bool,
}

/// The task: owns its plans and runs sampler programs.
pub struct TextToImage<'d> {
    device: &'d dyn Device,
    options: PlanOptions,
    model: TextModel,
    scheduler: SchedulerConfig,
    denoiser: Option<(PlanKey, Denoiser)>,
}

impl<'d> TextToImage<'d> {
    /// Reads a diffusers folder (or the same files from memory): every config, name and shape is checked here; weights
    /// are uploaded when the first picture's size is known.
    ///
    /// # Errors
    /// When a file is missing or damaged, or a configuration is one we cannot honour.
    pub fn from_pretrained(
        device: &'d dyn Device,
        files: &ModelFiles,
        options: PlanOptions,
    ) -> Result<Self, PipelineError> {
        let model = TextModel::load(files)?;
        let scheduler = crate::config::scheduler_config(files)?;
        Ok(Self { device, options, model, scheduler, denoiser: None })
    }

    /// Whether pictures come out; otherwise they are latents of an autoencoder that the checkpoint lacks.
    #[must_use]
    pub fn makes_pictures(&self) -> bool {
        self.model.makes_pictures()
    }

    /// Whether the samples of every step are pictures; otherwise they are latents.
    #[must_use]
    pub fn samples_are_pictures(&self) -> bool {
        self.model.samples_are_pictures()
    }

    /// Whether it reads a prompt.
    #[must_use]
    pub fn takes_prompt(&self) -> bool {
        self.model.network.takes_text()
    }

    /// How many classes a class-conditional model has.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.model.network.classes()
    }

    /// A request with the model's own values.
    #[must_use]
    pub fn defaults(&self) -> Request {
        let defaults = self.model.defaults();
        let (guidance_scale, steps) = self.model.network.defaults();
        let [height, width] = self.model.default_size();
        Request {
            prompt: String::new(),
            negative_prompt: defaults.negative_prompt.clone().unwrap_or_default(),
            width: defaults.width.unwrap_or(width),
            height: defaults.height.unwrap_or(height),
            steps: Steps::Count(defaults.num_inference_steps.unwrap_or(steps)),
            sampler: None,
            schedule: None,
            eta: None,
            guidance_scale: defaults.guidance_scale.unwrap_or(guidance_scale),
            seed: 0,
            rng: Rng::Philox,
            clip_skip: 0,
            class_label: None,
            source: None,
        }
    }

    /// A request with the model's own values for a picture: its size, or as often that as the model enlarges it, each side rounded down to
    /// a multiple that the model makes (but not to nothing).
    #[must_use]
    pub fn defaults_for(&self, source: Source) -> Request {
        let [width, height] = self.model.default_size_for(&source);
        Request { width, height, source: Some(source), ..self.defaults() }
    }

    /// How this checkpoint, sampler and schedule step, without running anything.
    ///
    /// # Errors
    /// When a name is unknown or the combination cannot be honoured.
    pub fn sampling(&self, request: &Request) -> Result<Sampling, PipelineError> {
        let (sampler, schedule) = named(request)?;
        if let Some(sampler) = sampler.filter(|sampler| sampler.inverts) {
            let name = sampler.name;
            let reason = format!("the sampler {name} leads from an image to noise, not to an image");
            return Err(PipelineError::Request(reason));
        }
        // Explicit timesteps are a schedule, and leave no room for the configuration's own (karras, say). A consistency model has but one.
        let several = self.scheduler.class() != "CMStochasticIterativeScheduler";
        let explicit = (matches!(request.steps, Steps::Timesteps(_)) && several).then_some(NamedSchedule::Normal);
        let schedule = schedule.or(explicit);
        let patches = self.model.patches(request);
        let wanted = scheduler::Request {
            steps: request.steps.clone(),
            sampler,
            schedule,
            eta: request.eta,
            image_seq_len: Some(patches),
        };
        let Some(strength) = self.model.strength(request) else { return Ok(self.scheduler.plan(&wanted)?) };
        // Only the image-to-image pipeline of latent consistency models spreads its steps over what is left.
        let task = request.source.as_ref().map(|source| &source.task);
        let distilled = self.model.network.embeds_guidance() && matches!(task, Some(Task::ImageToImage { .. }));
        Ok(self.scheduler.plan_for_strength(&wanted, strength, distilled)?)
    }

    /// Makes one picture. `on_step` sees every step and may stop the run.
    ///
    /// # Errors
    /// When the request makes no sense, the device fails, or the model's values are not finite.
    pub fn run(
        &mut self,
        request: &Request,
        mut on_step: impl FnMut(&Event<'_>) -> ControlFlow<()>,
    ) -> Result<Outcomes, PipelineError> {
        self.model.check_source(request)?;
        let shape = self.model.request_shape(request)?;
        check_guidance(request.guidance_scale)?;
        let class_label = self.class_label(request)?;
        let sampling = self.sampling(request)?;
        let schedule = named(request)?.1.map(NamedSchedule::name);
        let program = sampling.program();
        let mut timings = Timings::default();

        let unguided = self.wants_unguided(&program);
        let guided = request.guidance_scale > 1.0 || unguided;
        let (mut conditioning, tokens_dropped) =
            timed(&mut timings.encode, || self.encode(request, guided, class_label))?;
        let mut noise = request.rng.stream(request.seed);
        let device = (self.device, self.options);
        let start = timed(&mut timings.encode, || self.model.start(device, request, &sampling, shape, noise.as_mut()))?;
        conditioning.beside = start.beside;
        #[allow(clippy::cast_precision_loss, reason = "levels are whole numbers below 2²⁴")]
        if let Some(level) = start.noise_level {
            conditioning.class_labels = vec![level as f32; conditioning.batch()];
        }
        timed(&mut timings.prepare, || self.prepare(shape, &conditioning, unguided, &sampling))?;
        let (_, denoiser) = self.denoiser.as_mut().expect("prepared above");
        denoiser.condition(&conditioning)?;

        // PyTorch's stream goes on behind the copy's noise; ours counts draws, and has no use for it.
        let both = guided && self.model.network.steps_two_samples() && request.rng != Rng::Philox;
        let mut draw = |interval: Option<(f64, f64)>, samples: usize, out: &mut [f32]| {
            let mut nchw = vec![0.0; out.len() * samples];
            match interval {
                Some(interval) => noise.fill_between(interval, &mut nchw),
                None => noise.fill(&mut nchw),
            }
            out.copy_from_slice(&nhwc_from_nchw(&nchw[..out.len()], shape));
        };

        let started = Instant::now();
        let mut not_finite = None;
        // Samplers that choose their own steps cannot tell this number beforehand, nor that of evaluations.
        let mut steps = 0;
        let mut counted = Counted { denoiser, unguided, evaluations: 0, kept: start.kept };
        let outcome = scheduler::run(
            &program,
            &start.x,
            &mut counted,
            |wanted, out| draw(wanted.between, if both { 2 } else { 1 }, out),
            |event| {
                steps += 1;
                if !event.denoised.iter().all(|v| v.is_finite()) {
                    not_finite = Some(event.index + 1);
                    return ControlFlow::Break(());
                }
                on_step(&Event {
                    index: event.index,
                    steps: event.steps,
                    sigma: event.sigma,
                    x: event.x,
                    denoised: event.denoised,
                    shape,
                    elapsed: started.elapsed(),
                })
            },
        )?;
        let evaluations = counted.evaluations;
        timings.sample = started.elapsed();
        if let Some(step) = not_finite {
            return Err(PipelineError::NotFinite { step });
        }
        let Outcome::Finished(mut sample) = outcome else { return Ok(Outcomes::Stopped) };
        if let Some(kept) = counted.kept {
            kept.finish(&mut sample);
        }
        if !sample.iter().all(|v| v.is_finite()) {
            return Err(PipelineError::NotFinite { step: steps });
        }
        let image = timed(&mut timings.decode, || self.picture(&sample, shape, request))?;
        let (image, repainted) = self.model.put_back(request, image);
        Ok(Outcomes::Finished(Box::new(Generated {
            image,
            sample,
            shape,
            tokens_dropped,
            sampler: sampling.sampler.name,
            schedule,
            steps,
            evaluations,
            timings,
            class_label,
            strength: self.model.strength(request),
            repainted,
            noise_level: start.noise_level,
        })))
    }

    /// Times `steps` denoising steps after one that warms up, then every operation alone.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn bench(&mut self, request: &Request, steps: usize) -> Result<Bench, PipelineError> {
        self.model.check_source(request)?;
        let shape = self.model.request_shape(request)?;
        let sampling = self.sampling(request)?;
        let unguided = self.wants_unguided(&sampling.program());
        let class_label = self.class_label(request)?;
        let (conditioning, _) = self.encode(request, request.guidance_scale > 1.0 || unguided, class_label)?;
        self.prepare(shape, &conditioning, unguided, &sampling)?;
        let (_, denoiser) = self.denoiser.as_mut().expect("prepared above");
        denoiser.condition(&conditioning)?;
        let mut x = vec![0.0; shape.numel()];
        request.rng.stream(request.seed).fill(&mut x);
        let mut seconds = Vec::with_capacity(steps);
        for i in 0..=steps {
            let started = Instant::now();
            denoiser.denoise(&x, 1.0, 500.0)?;
            if i > 0 {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
        let mut nodes = denoiser.profile()?;
        nodes.retain(|node| node.rate == Rate::Step);
        Ok(Bench { seconds, flops: nodes.iter().map(|node| node.flops).sum(), nodes })
    }

    /// Whether the denoiser must give unguided images too. A network that takes guidance as an input, or knows none, has none: CFG++ is
    /// then the plain sampler.
    fn wants_unguided(&self, program: &scheduler::Program) -> bool {
        program.wants_unguided() && self.model.network.guides()
    }

    /// The class to draw, of a model that has classes; refuses what the model cannot be asked for.
    fn class_label(&self, request: &Request) -> Result<Option<usize>, PipelineError> {
        let refuse = |message: String| Err(PipelineError::Request(message));
        let network = &self.model.network;
        let asked = !request.prompt.is_empty() || !request.negative_prompt.is_empty();
        if asked && !network.takes_text() {
            return refuse("this model reads no text: leave the prompt out".into());
        }
        if !network.guides() && !network.embeds_guidance() && request.guidance_scale > 1.0 {
            let scale = request.guidance_scale;
            return refuse(format!(
                "guidance {scale} is not possible: this model was not trained for it, so leave it out"
            ));
        }
        match (network.classes(), request.class_label) {
            (None, None) => Ok(None),
            (None, Some(label)) => refuse(format!("class {label} is not possible: this model has no classes")),
            (Some(classes), Some(label)) if label >= classes => {
                refuse(format!("class {label} is not possible: this model has classes 0 to {}", classes - 1))
            }
            (Some(_), Some(label)) => Ok(Some(label)),
            (Some(classes), None) => Ok(Some(label_of_seed(request.seed, classes))),
        }
    }

    /// Memory the current plans hold.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        let text = self.model.text.iter().flat_map(TextEncoders::memory);
        let denoiser = self.denoiser.iter().map(|(_, denoiser)| denoiser.memory());
        let autoencoder = self.model.autoencoder.iter().filter_map(Autoencoder::memory);
        text.chain(denoiser).chain(autoencoder).fold(MemoryUse::default(), |sum, m| MemoryUse {
            weights: sum.weights + m.weights,
            activations: sum.activations + m.activations,
        })
    }

    /// The picture of a sample, if it is one or can be decoded to one.
    fn picture(
        &mut self,
        sample: &[f32],
        shape: SampleShape,
        request: &Request,
    ) -> Result<Option<RgbImage>, PipelineError> {
        if !self.makes_pictures() {
            return Ok(None);
        }
        let Some(autoencoder) = &mut self.model.autoencoder else { return Ok(RgbImage::from_sample(sample, shape)) };
        let (decoded, shape) = autoencoder.decode(self.device, self.options, sample, shape)?;
        if !decoded.iter().all(|v| v.is_finite()) {
            return Err(PipelineError::NotDecoded);
        }
        if self.model.binned(request).is_some() {
            let (fitted, shape) = binning::cover(&decoded, shape, request.height, request.width);
            return Ok(RgbImage::from_sample(&fitted, shape));
        }
        Ok(RgbImage::from_sample(&decoded, shape))
    }

    /// The prompt, and with guidance the negative prompt before it, as the text encoder reads them.
    fn encode(
        &mut self,
        request: &Request,
        guided: bool,
        class_label: Option<usize>,
    ) -> Result<(Conditioning, usize), PipelineError> {
        let null = self.model.network.null_class().filter(|_| guided);
        #[allow(clippy::cast_precision_loss, reason = "ids are whole numbers below 2²⁴")]
        let class_labels = null.into_iter().chain(class_label).map(|label| label as f32).collect();
        let embeds = self.model.network.embeds_guidance();
        let guided = guided && !embeds;
        let (device, options) = (self.device, self.options);
        let skip = request.clip_skip;
        let mut conditioning = Conditioning {
            encoder_hidden_states: Vec::new(),
            encoder_attention_mask: Vec::new(),
            text_embeds: Vec::new(),
            tokens: self.model.text.as_ref().map_or(0, TextEncoders::max_tokens),
            channels: self.model.text.as_ref().map_or(0, TextEncoders::channels),
            guidance_scale: guided.then_some(request.guidance_scale),
            embedded_guidance: embeds.then_some(request.guidance_scale),
            class_labels,
            beside: Vec::new(),
        };
        let Some(text) = &mut self.model.text else {
            if skip > 0 {
                let message = format!("clip_skip = {skip} is not possible: this model reads no text");
                return Err(PipelineError::Request(message));
            }
            return Ok((conditioning, 0));
        };
        text.check_skip(skip)?;
        let mut dropped = 0;
        let negative =
            guided.then(|| text.encode_negative(device, options, &request.negative_prompt, skip)).transpose()?;
        for encoded in negative.into_iter().chain([text.encode(device, options, &request.prompt, (true, skip))?]) {
            conditioning.encoder_hidden_states.extend(encoded.hidden_states);
            conditioning.encoder_attention_mask.extend(encoded.attention_mask);
            conditioning.text_embeds.extend(encoded.text_embeds);
            dropped += encoded.tokens_dropped;
        }
        Ok((conditioning, dropped))
    }

    /// Makes sure that the plan fits this size and guidance.
    fn prepare(
        &mut self,
        shape: SampleShape,
        conditioning: &Conditioning,
        unguided: bool,
        sampling: &Sampling,
    ) -> Result<(), PipelineError> {
        let key = PlanKey { shape, guided: conditioning.guidance_scale.is_some(), unguided };
        match &mut self.denoiser {
            Some((known, denoiser)) if *known == key => denoiser.set_prediction(sampling.prediction),
            _ => {
                // The old plan's memory is free before the new one asks for more.
                self.denoiser = None;
                let model = &self.model;
                let graph = denoiser_graph(shape, conditioning, unguided, |s, inputs: &ModelInputs<'_>| {
                    model.build(s, inputs)
                })?;
                let denoiser = Denoiser::new(self.device, &graph, model.weights(), self.options, sampling.prediction)?;
                self.denoiser = Some((key, denoiser));
            }
        }
        Ok(())
    }
}

/// The sampler and schedule that a request names. A sampler's name may end in a schedule's, as in "DPM++ 2M Karras"; a schedule asked for
/// by itself wins.
fn named(request: &Request) -> Result<(Option<&'static Sampler>, Option<NamedSchedule>), PipelineError> {
    let named = request.sampler.as_deref().map(scheduler::sampler_and_schedule).transpose()?;
    let asked = request.schedule.as_deref().map(str::parse::<NamedSchedule>).transpose()?;
    Ok(named.map_or((None, asked), |(sampler, suffix)| (Some(sampler), asked.or(suffix))))
}

/// A denoiser whose evaluations are counted.
struct Counted<'a> {
    denoiser: &'a mut Denoiser,
    /// Whether its graph gives unguided images.
    unguided: bool,
    evaluations: usize,
    kept: Option<Kept>,
}

impl scheduler::Denoiser<f32, PipelineError> for Counted<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f64, timestep: f64, out: &mut [f32]) -> Result<(), PipelineError> {
        self.evaluations += 1;
        out.copy_from_slice(&self.denoiser.denoise(x, sigma, timestep)?);
        Ok(())
    }

    fn constrain(&mut self, x: &mut [f32], sigma: f64) {
        if let Some(kept) = &mut self.kept {
            kept.constrain(x, sigma);
        }
    }

    fn unguided(&mut self, denoised: &[f32], out: &mut [f32]) -> Result<(), PipelineError> {
        if self.unguided {
            out.copy_from_slice(&self.denoiser.unguided()?);
        } else {
            out.copy_from_slice(denoised);
        }
        Ok(())
    }
}

/// Guidance is an `f32` on every device, and must be a number there.
fn check_guidance(scale: f64) -> Result<(), PipelineError> {
    if scale.is_finite() && scale.abs() <= f64::from(f32::MAX) {
        return Ok(());
    }
    Err(PipelineError::Request(format!("guidance must be a number of single precision, not {scale}")))
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *total += started.elapsed();
    result
}
