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
use crate::request::{Bench, Event, Generated, Outcomes, Request, Timings};
use crate::text_encoder::TextEncoders;
use crate::unconditional::label_of_seed;
use graph::{Device, DeviceError, MemoryUse, PlanOptions, Rate};
use models::ModelFiles;
use scheduler::{NamedSchedule, Outcome, Sampler, Sampling, SchedulerConfig, Steps};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What a plan was built for; another size or guidance needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlanKey {
    shape: SampleShape,
    tokens: usize,
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
    /// The last request, whether it was guided, and what its prompts gave.
    encoded: Option<((Request, bool), (Conditioning, usize))>,
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
        Ok(Self { device, options, model, scheduler, denoiser: None, encoded: None })
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
            prompt_syntax: None,
            class_label: None,
            source: None,
        }
    }

    /// A request with the model's own values for a picture: its size, or as often that as the model enlarges it, each side rounded down to
    /// a multiple that the model makes (but not to nothing).
    #[must_use]
    pub fn defaults_for(&self, source: Source) -> Request {
        let [width, height] = self.model.default_size_for(&source);
        let mut defaults = self.defaults();
        if let Some(scale) = self.model.default_guidance_for(&source) {
            defaults.guidance_scale = scale;
        }
        Request { width, height, source: Some(source), ..defaults }
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
            timed(&mut timings.encode, || self.conditioning(request, guided, class_label))?;
        let mut noise = request.rng.stream(request.seed);
        let device = (self.device, self.options);
        let denoiser = &mut self.denoiser;
        let mut make_room = || denoiser.take().is_some();
        let start = timed(&mut timings.encode, || {
            self.model.start(device, request, &sampling, shape, noise.as_mut(), &mut make_room)
        })?;
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
        let (conditioning, _) = self.conditioning(request, request.guidance_scale > 1.0 || unguided, class_label)?;
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
        if let Some(syntax) = request.prompt_syntax.filter(|_| !network.takes_text()) {
            let syntax = syntax.name();
            return refuse(format!("the syntax {syntax} is not possible: this model reads no text"));
        }
        if network.embeds_guidance() && !request.negative_prompt.is_empty() {
            return refuse(
                "a negative prompt is not possible: this model takes guidance as an input and reads no second prompt"
                    .into(),
            );
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
        let (denoiser, text) = (&mut self.denoiser, &mut self.model.text);
        let (decoded, shape) = autoencoder.decode(self.device, self.options, sample, shape, || {
            text.as_mut().is_some_and(TextEncoders::let_go) || denoiser.take().is_some()
        })?;
        if !decoded.iter().all(|v| v.is_finite()) {
            return Err(PipelineError::NotDecoded);
        }
        if self.model.binned(request).is_some() {
            let (fitted, shape) = binning::cover(&decoded, shape, request.height, request.width);
            return Ok(RgbImage::from_sample(&fitted, shape));
        }
        Ok(RgbImage::from_sample(&decoded, shape))
    }

    /// What [`encode`](Self::encode) gives, kept for the next picture of the same request: the text encoders may be gone by then.
    fn conditioning(
        &mut self,
        request: &Request,
        guided: bool,
        class_label: Option<usize>,
    ) -> Result<(Conditioning, usize), PipelineError> {
        // A picture to start from says nothing of the prompt.
        let key = (Request { seed: 0, class_label, source: None, ..request.clone() }, guided);
        if let Some((known, encoded)) = &self.encoded
            && *known == key
        {
            return Ok(encoded.clone());
        }
        let encoded = match self.encode(request, guided, class_label) {
            Err(error) if is_full(&error) => {
                self.denoiser = None;
                self.model.let_go();
                self.encode(request, guided, class_label)
            }
            result => result,
        }?;
        self.encoded = Some((key, encoded.clone()));
        Ok(encoded)
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
        let syntax = request.prompt_syntax;
        let (positive, mut dropped) = text.tokenize(&request.prompt, syntax)?;
        let negative = guided.then(|| text.tokenize(&request.negative_prompt, syntax)).transpose()?;
        // Both sides of guidance are one batch.
        let chunks = negative.iter().map(|(prompt, _)| prompt.chunks()).fold(positive.chunks(), usize::max);
        conditioning.tokens = chunks * text.max_tokens();
        dropped += negative.as_ref().map_or(0, |(_, dropped)| *dropped);
        let negative =
            negative.map(|(prompt, _)| text.encode_negative(device, options, (&prompt, chunks), skip)).transpose()?;
        let positive = text.encode(device, options, (&positive, chunks), (true, skip))?;
        for encoded in negative.into_iter().chain([positive]) {
            conditioning.encoder_hidden_states.extend(encoded.hidden_states);
            conditioning.encoder_attention_mask.extend(encoded.attention_mask);
            conditioning.text_embeds.extend(encoded.text_embeds);
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
        let key =
            PlanKey { shape, tokens: conditioning.tokens, guided: conditioning.guidance_scale.is_some(), unguided };
        match &mut self.denoiser {
            Some((known, denoiser)) if *known == key => denoiser.set_prediction(sampling.prediction),
            _ => {
                // The old plan's memory is free before the new one asks for more.
                self.denoiser = None;
                let model = &self.model;
                let graph = denoiser_graph(shape, conditioning, unguided, |s, inputs: &ModelInputs<'_>| {
                    model.build(s, inputs)
                })?;
                let plan = |model: &TextModel| {
                    Denoiser::new(self.device, &graph, model.weights(), self.options, sampling.prediction)
                };
                let denoiser = match plan(&self.model) {
                    Err(error) if is_full(&error) && self.model.let_go() => plan(&self.model),
                    result => result,
                }?;
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

/// Whether a device had no room for something.
fn is_full(error: &PipelineError) -> bool {
    matches!(error, PipelineError::Device(DeviceError::OutOfMemory { .. }))
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
