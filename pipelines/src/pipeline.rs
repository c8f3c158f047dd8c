//! A loaded model, and what can be asked of it.

use crate::conditioning::{Condition, Conditioning, Layout};
use crate::denoiser::{Denoiser, denoiser_graph};
use crate::devices::SharedDevice;
use crate::devices::residency::{Host, Places, add};
use crate::edit::Method;
use crate::error::PipelineError;
use crate::job::{Job, Text};
use crate::lane::{Beginning, Lane};
#[cfg(not(target_family = "wasm"))]
use crate::memo::Memo;
use crate::networks::{Concatenated, Guidance, NETWORKS, ReadNetwork, Source};
use crate::noise::Rng;
use crate::parts::{Autoencoder, Model, Size, TextEncoders, scheduler_config};
use crate::picture::{RgbImage, binning};
use crate::request::Request;
use crate::run::{Batch, Generated, Run, RunId, Timings};
use crate::tasks::{Begin, Finished, Task, TaskDefaults};
#[cfg(not(target_family = "wasm"))]
use graph::block_on;
use graph::{Graph, MemoryUse, PlanOptions, WeightSource};
use models::ModelFiles;
use scheduler::{SchedulerConfig, Steps};
use std::sync::Arc;
use web_time::Instant;

/// A loaded model on a device: the one type that jobs are made and started with.
///
/// Copies share everything. A pipeline may be sent to another thread, and used by several at once: their runs take turns at its plans.
///
/// ```
/// # use pipelines::{DeviceChoice, DeviceSettings, Pipeline, Request, open_device};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/pipelines/pixels");
/// let device = open_device(&DeviceChoice::Cpu, &DeviceSettings::default())?;
/// let pipe = Pipeline::from_pretrained(&device, &models::ModelFiles::folder(folder)?, Default::default())?;
/// let job = pipe.job(&Request { prompt: "a red square".into(), seed: 7, ..Request::default() })?; // checked; nothing is computed yet
/// let mut run = pipe.start(&job)?;
/// while let Some(step) = run.next()? {
///     println!("step {}: sigma {}", step.index, step.sigma);
/// }
/// let image = run.finish()?.image;
/// # assert!(image.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
}

/// Memory that the plans of a job will hold. Not all of them need be there at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Of the text encoders.
    pub text: MemoryUse,
    /// Of the network with its scalings and guidance; where that acts in an interval, also of the same without it, and where values are kept from step
    /// to step, of all parts that are run by themselves.
    pub denoiser: MemoryUse,
    /// Of the autoencoder's half that makes pictures.
    pub decoder: MemoryUse,
}

/// What all copies of a pipeline and its runs share.
pub(crate) struct Shared {
    pub(crate) host: Host,
    pub(crate) model: Model,
    pub(crate) denoisers: Places<Layout, Denoiser>,
    scheduler: SchedulerConfig,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("network", &self.shared.model.network).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Reads a diffusers folder (or the same files from memory): every config, name and shape is checked here; weights
    /// are uploaded when the first picture's size is known.
    ///
    /// # Errors
    /// When a file is missing or damaged, or a configuration is one we cannot honour.
    pub fn from_pretrained(
        device: &SharedDevice,
        files: &ModelFiles,
        options: PlanOptions,
    ) -> Result<Self, PipelineError> {
        Self::with_networks(device, files, options, NETWORKS)
    }

    /// The same where the network is one of these kinds.
    pub(crate) fn with_networks(
        device: &SharedDevice,
        files: &ModelFiles,
        options: PlanOptions,
        kinds: &[ReadNetwork],
    ) -> Result<Self, PipelineError> {
        let model = Model::load(files, kinds)?;
        let scheduler = scheduler_config::own(files)?;
        let host = Host { shared: device.clone(), options };
        Ok(Self { shared: Arc::new(Shared { host, model, scheduler, denoisers: Places::default() }) })
    }

    /// The device that it computes on.
    #[must_use]
    pub fn device(&self) -> &SharedDevice {
        &self.shared.host.shared
    }

    /// Tensors of the model's files that nothing reads, by the files' own names: what trainers and mergers left behind. Pictures
    /// do not depend on them; a name that surprises is worth a line to whoever brought the model.
    #[must_use]
    pub fn left_over(&self) -> &[String] {
        self.shared.model.left_over()
    }

    /// Whether pictures come out; otherwise they are latents of an autoencoder that the checkpoint lacks.
    #[must_use]
    pub fn makes_pictures(&self) -> bool {
        self.shared.model.makes_pictures()
    }

    /// Whether the samples of every step are pictures; otherwise they are latents.
    #[must_use]
    pub fn samples_are_pictures(&self) -> bool {
        self.shared.model.samples_are_pictures()
    }

    /// Whether the picture of any sample of a job can be had at every step, because it takes a processor some tens of milliseconds at most: of pixels,
    /// and of latents whose autoencoder is small.
    #[must_use]
    pub fn decodes_quickly(&self, job: &Job) -> bool {
        const MOST_OPERATIONS: u64 = 5_000_000_000;
        let model = &self.shared.model;
        let decodes = |autoencoder: &Autoencoder| {
            autoencoder.makes_pictures()
                && autoencoder.decoding_flops(job.shape).is_ok_and(|operations| operations <= MOST_OPERATIONS)
        };
        model.samples_are_pictures() || model.autoencoder.as_ref().is_some_and(decodes)
    }

    /// Whether it reads a prompt.
    #[must_use]
    pub fn takes_prompt(&self) -> bool {
        self.shared.model.network.text.is_some()
    }

    /// How many classes a class-conditional model has.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.shared.model.network.classes.map(|classes| classes.count)
    }

    /// A request with the model's own values for a picture made from noise alone.
    #[must_use]
    pub fn defaults(&self) -> Request {
        self.defaults_for(Task::default())
    }

    /// A request with the model's and the task's own values.
    #[must_use]
    pub fn defaults_for(&self, task: Task) -> Request {
        let (own, steps) = self.shared.defaults(&task);
        Request {
            negative_prompt: Some(self.shared.model.defaults().negative_prompt.clone().unwrap_or_default()),
            width: Some(own.size.width),
            height: Some(own.size.height),
            steps: Some(steps),
            guidance_scale: Some(own.guidance_scale),
            task,
            ..Request::default()
        }
    }

    /// The size, (width, height), nearest in shape to a picture's that has about as many pixels as the model was trained on.
    #[must_use]
    pub fn fitted_size(&self, width: usize, height: usize) -> (usize, usize) {
        let Size { height, width } = self.shared.model.fitted_size(Size { height, width });
        (width, height)
    }

    /// Whether a picture of this size is so much larger than those that the model was trained on that it is made in parts.
    #[must_use]
    pub fn is_much_larger(&self, width: usize, height: usize) -> bool {
        crate::tasks::is_much_larger(&self.shared.model, Size { height, width })
    }

    /// The graph of a job's denoiser.
    pub(crate) fn graph(&self, job: &Job) -> Result<Graph, PipelineError> {
        self.shared.graph(&job.layout)
    }

    /// Decides everything that a request leaves open, and checks it. Nothing is computed on the device.
    ///
    /// # Errors
    /// When the request makes no sense or asks for something that the model cannot do.
    pub fn job(&self, request: &Request) -> Result<Job, PipelineError> {
        crate::resolve::resolve(&self.shared, request)
    }

    /// Encodes what the job says, and plans for its size. No step is taken yet.
    ///
    /// # Errors
    /// When the device fails or has too little memory.
    #[cfg(not(target_family = "wasm"))]
    pub fn start(&self, job: &Job) -> Result<Run, PipelineError> {
        block_on(self.start_async(job))
    }

    /// [`start`](Self::start), to be awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn start_async(&self, job: &Job) -> Result<Run, PipelineError> {
        Ok(Run::new(self.start_all_async(std::slice::from_ref(job)).await?))
    }

    /// The same, taking over what another run with this memo was answered where both ask exactly the same of the model: samplers that start
    /// from one noise share their first evaluation at least.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(not(target_family = "wasm"))]
    pub fn start_sharing(&self, job: &Job, memo: &Memo) -> Result<Run, PipelineError> {
        Ok(Run::new(self.start_all(std::slice::from_ref(job))?.sharing(memo)))
    }

    /// The same for several jobs, which run together where memory allows.
    ///
    /// # Errors
    /// When they differ in size, in the number of their prompts' chunks, or in whether they are guided; and as [`start`](Self::start).
    #[cfg(not(target_family = "wasm"))]
    pub fn start_all(&self, jobs: &[Job]) -> Result<Batch, PipelineError> {
        block_on(self.start_all_async(jobs))
    }

    /// [`start_all`](Self::start_all), to be awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn start_all_async(&self, jobs: &[Job]) -> Result<Batch, PipelineError> {
        let Some(first) = jobs.first() else {
            return Err(PipelineError::Request("there is nothing to run: give one job at least".into()));
        };
        if !jobs.iter().all(|job| job.runs_with(first)) {
            let message = "jobs that run together must have one size, and be guided or not alike";
            return Err(PipelineError::Request(message.into()));
        }
        let encoding = Instant::now();
        let mut lanes = Vec::with_capacity(jobs.len());
        for job in jobs {
            lanes.push(Shared::begin(&self.shared, job).await?);
        }
        if let Some(autoencoder) = &self.shared.model.autoencoder {
            autoencoder.finish_encoding().await;
        }
        let timings = Timings { encode: encoding.elapsed(), ..Timings::default() };
        Batch::new(&self.shared, lanes, timings).await
    }

    /// Keeps the plans of so many other sizes, and other numbers of samples at once, than the one that is used, as long as there is memory for
    /// them: for a server, whose requests differ. None are kept by default.
    pub fn keep_other_plans(&self, count: usize) {
        self.shared.denoisers.spare(count);
    }

    /// The picture of any sample of a job, a step's denoised one, say; none where this model makes no pictures.
    ///
    /// # Errors
    /// When the device fails, or the autoencoder overflows.
    #[cfg(not(target_family = "wasm"))]
    pub fn decode(&self, job: &Job, sample: &[f32]) -> Result<Option<RgbImage>, PipelineError> {
        block_on(self.decode_async(job, sample))
    }

    /// [`decode`](Self::decode), to be awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn decode_async(&self, job: &Job, sample: &[f32]) -> Result<Option<RgbImage>, PipelineError> {
        let (found, wanted) = (sample.len(), job.shape().numel());
        if found != wanted {
            let message = format!("a sample of this job has {wanted} numbers, not {found}");
            return Err(PipelineError::Request(message));
        }
        self.shared.picture(job, sample).await
    }

    /// Makes one picture.
    ///
    /// # Errors
    /// As [`job`](Self::job), [`start`](Self::start) and [`Run::next`].
    #[cfg(not(target_family = "wasm"))]
    pub fn generate(&self, request: &Request) -> Result<Generated, PipelineError> {
        self.start(&self.job(request)?)?.finish()
    }

    /// What the network sees besides its sample, which only some tasks give it.
    pub(crate) fn concatenated(&self) -> Concatenated {
        self.shared.model.network.concatenated
    }

    /// Of the network.
    pub(crate) fn weights(&self) -> &dyn WeightSource {
        self.shared.model.weights()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.shared.host
    }

    pub(crate) fn text_encoders(&self) -> Option<&TextEncoders> {
        self.shared.model.text.as_ref()
    }

    pub(crate) fn autoencoder(&self) -> Option<&Autoencoder> {
        self.shared.model.autoencoder.as_ref()
    }

    /// Floating-point operations of a decoding and an encoding; none where the job's method needs neither.
    pub(crate) fn replacement_flops(&self, job: &Job) -> Result<Option<f64>, PipelineError> {
        let through = job.settings.method == Some(Method::Replace);
        let autoencoder = self.shared.model.autoencoder.as_ref().filter(|_| through);
        autoencoder.map(|own| own.flops(job.shape)).transpose()
    }

    /// Memory that its plans hold now.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        add(self.shared.model.memory(), self.shared.denoisers.memory())
    }

    /// Memory that the plans of `samples` such jobs run together will hold, without making any.
    ///
    /// # Errors
    /// When the model cannot be built at this size.
    pub fn estimate(&self, job: &Job, samples: usize) -> Result<Estimate, PipelineError> {
        let Shared { host, model, .. } = self.shared.as_ref();
        let mut denoiser = MemoryUse::default();
        for layout in job.layouts() {
            let graph = self.shared.graph(&Layout { samples, ..layout })?;
            denoiser = add(denoiser, host.estimate(&graph, model.weights()));
        }
        let text = model.text.as_ref().map(|text| text.estimate(host, job.settings.clip_skip)).transpose()?;
        let decoder = model.autoencoder.as_ref().map(|own| own.estimate(host, job.shape)).transpose()?;
        Ok(Estimate { text: text.unwrap_or_default(), denoiser, decoder: decoder.unwrap_or_default() })
    }
}

impl Shared {
    pub(crate) fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// What the task takes where a request does not say, and the model's steps.
    pub(crate) fn defaults(&self, task: &Task) -> (TaskDefaults, Steps) {
        let (said, network) = (self.model.defaults(), &self.model.network.defaults);
        let trained = self.model.default_size();
        let own = TaskDefaults {
            size: Size { width: said.width.unwrap_or(trained.width), height: said.height.unwrap_or(trained.height) },
            guidance_scale: said.guidance_scale.unwrap_or(network.guidance_scale),
        };
        let steps = Steps::Count(said.num_inference_steps.unwrap_or(network.steps));
        (task.kind().defaults(&self.model, own), steps)
    }

    pub(crate) fn graph(&self, layout: &Layout) -> Result<Graph, PipelineError> {
        denoiser_graph(layout, &self.model.network.build, self.model.pixels_per_element())
    }

    /// Plans a denoiser.
    pub(crate) async fn denoiser(&self, layout: &Layout) -> Result<Denoiser, PipelineError> {
        Denoiser::new(&self.host, &self.graph(layout)?, layout, self.model.weights()).await
    }

    /// Encodes what a job says, and draws what it starts from.
    pub(crate) async fn begin(shared: &Arc<Self>, job: &Job) -> Result<Lane, PipelineError> {
        let text = match &job.text {
            Some(text) => shared.encode(text).await?,
            None => Encoded::default(),
        };
        let mut noise = job.stream();
        let mut begin = Begin {
            shared,
            model: &shared.model,
            host: &shared.host,
            sampling: &job.sampling,
            shape: job.shape,
            strength: job.settings.strength,
            clips: job.clips,
            noise: noise.as_mut(),
            given: job.given_noise(),
        };
        let start = job.prepared.start(&mut begin).await?;
        let conditions = job.layout.conditions.iter().zip(&shared.model.network.conditions);
        let conditions = conditions.map(|((name, shape), taken)| Condition {
            name,
            shape: shape.clone(),
            data: shared.condition(job, &text, taken.source),
        });
        let conditioning = Conditioning {
            conditions: conditions.collect(),
            concatenated: start.concatenated,
            guidance_scale: job.settings.guidance_scale,
        };
        // PyTorch's stream goes on behind the copy's noise; ours counts draws, and has no use for it.
        let both = job.layout.guided && shared.model.network.draws_twice && job.settings.rng != Rng::Philox;
        Ok(Lane::new(
            RunId::new(),
            job,
            Beginning {
                x: start.x,
                conditioning,
                noise,
                draws: if both { 2 } else { 1 },
                constraint: start.constraint,
                replacement: start.replacement,
            },
        ))
    }

    /// Hidden states, mask and embeddings of a job's prompts, under guidance the negative one's first.
    async fn encode(&self, text: &Text) -> Result<Encoded, PipelineError> {
        let Some(encoders) = &self.model.text else { return Ok(Encoded::default()) };
        let mut all = Encoded::default();
        for prompt in &text.prompts {
            let encoded = encoders.encode(&self.host, prompt).await?;
            all.hidden_states.extend_from_slice(&encoded.hidden_states);
            all.attention_mask.extend_from_slice(&encoded.attention_mask);
            all.text_embeds.extend_from_slice(&encoded.text_embeds);
        }
        Ok(all)
    }

    /// All rows of a condition.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "ids are below 2²⁴; devices compute in f32"
    )]
    fn condition(&self, job: &Job, text: &Encoded, source: Source) -> Vec<f32> {
        match source {
            Source::Text => text.hidden_states.clone(),
            Source::TextMask => text.attention_mask.clone(),
            Source::TextEmbeds => text.text_embeds.clone(),
            Source::Guidance => vec![job.settings.guidance_scale as f32],
            Source::AestheticScore => {
                // diffusers' negative_aesthetic_score and aesthetic_score.
                if job.layout.guided { vec![2.5, 6.0] } else { vec![6.0] }
            }
            Source::Class => {
                let class = job.settings.class_label.or(job.settings.noise_level).unwrap_or(0);
                let null = self.model.network.classes.and_then(|classes| classes.null).unwrap_or(class);
                let rows = if job.layout.guided { vec![null, class] } else { vec![class] };
                rows.into_iter().map(|class| class as f32).collect()
            }
        }
    }

    /// The picture of a run that has ended.
    pub(crate) async fn finish(&self, lane: Lane, mut timings: Timings) -> Result<Generated, PipelineError> {
        let (run, steps, evaluations, shape) = (lane.id, lane.steps, lane.evaluations(), lane.shape());
        let (predictions, reused) = (lane.predictions, lane.reused());
        let (job, sample) = lane.finish()?;
        let decoding = Instant::now();
        let image = self.picture(&job, &sample).await?;
        timings.decode = decoding.elapsed();
        let (image, repainted) = match image.map(|image| job.prepared.finish(image)) {
            Some(Finished { image, repainted }) => (Some(image), repainted),
            None => (None, None),
        };
        Ok(Generated { run, sample, shape, image, steps, evaluations, predictions, reused, timings, repainted })
    }

    /// The picture of a sample, if it is one or can be decoded to one.
    async fn picture(&self, job: &Job, sample: &[f32]) -> Result<Option<RgbImage>, PipelineError> {
        let shape = job.shape;
        if !self.model.makes_pictures() || job.inverts() {
            return Ok(None);
        }
        let Some(autoencoder) = &self.model.autoencoder else { return Ok(RgbImage::from_sample(sample, shape)) };
        let (decoded, shape) = autoencoder.decode(&self.host, sample, shape).await?;
        if !decoded.iter().all(|v| v.is_finite()) {
            return Err(PipelineError::NotDecoded);
        }
        if job.bin.is_some() {
            let (fitted, shape) = binning::cover(&decoded, shape, job.settings.height, job.settings.width);
            return Ok(RgbImage::from_sample(&fitted, shape));
        }
        Ok(RgbImage::from_sample(&decoded, shape))
    }

    /// Whether the network can predict twice for one sample.
    pub(crate) fn guides(&self) -> bool {
        self.model.network.guidance == Guidance::ClassifierFree
    }
}

/// What the text encoders gave, row by row.
#[derive(Default)]
struct Encoded {
    hidden_states: Vec<f32>,
    attention_mask: Vec<f32>,
    text_embeds: Vec<f32>,
}
