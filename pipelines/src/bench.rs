//! What a denoising step costs, and what reads prompts and makes pictures around it.

use crate::conditioning::SampleShape;
use crate::denoiser::{Denoiser, Evaluation};
use crate::error::PipelineError;
use crate::job::Job;
use crate::networks::Concatenated;
use crate::picture::RgbImage;
use crate::pipeline::Pipeline;
use crate::run::Batch;
use crate::tasks::{Inpaint, Task, Upscale};
use graph::{MemoryWeights, NodeTime, PlanOptions, Rate, Scope, block_on};
use std::time::{Duration, Instant};

/// How often something is measured, and by which clocks.
#[derive(Clone, Copy)]
pub struct Repeats<'a> {
    /// Timed runs, after one that warms up.
    pub count: usize,
    /// Seconds that all processors together have spent on this program so far, where the system tells: this crate asks no system.
    pub processor: &'a dyn Fn() -> Option<f64>,
}

/// What a part of a model costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Bench {
    /// Samples that are computed together.
    pub samples: usize,
    /// Every timed run of all samples, writing the inputs and reading the result included.
    pub seconds: Vec<f64>,
    /// Seconds that all processors together worked in all these runs, where it is known.
    pub processor: Option<f64>,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// Every operation of a run, timed alone: several such runs. Empty where the part ran in tiles, which no one plan is.
    pub profiles: Vec<Vec<NodeTime>>,
}

/// Runs are profiled no more often than this: it is enough for a middle and a spread.
const PROFILES: usize = 10;

impl Repeats<'_> {
    /// Times a part and its operations in turn, so that the spread of either holds what else the machine did meanwhile.
    fn bench<S>(
        &self,
        samples: usize,
        part: &mut S,
        mut run: impl FnMut(&mut S) -> Result<(), PipelineError>,
        mut profile: impl FnMut(&mut S) -> Result<Vec<NodeTime>, PipelineError>,
    ) -> Result<Bench, PipelineError> {
        run(part)?;
        let (mut seconds, mut profiles) = (Vec::with_capacity(self.count), Vec::new());
        let mut processor = Some(0.0);
        for i in 0..self.count {
            let (started, before) = (Instant::now(), (self.processor)());
            run(part)?;
            seconds.push(started.elapsed().as_secs_f64());
            processor = processor.zip(before).and_then(|(sum, before)| Some(sum + (self.processor)()? - before));
            if i < PROFILES {
                profiles.push(profile(part)?);
            }
        }
        profiles.retain(|nodes| !nodes.is_empty());
        let flops = profiles.first().map_or(0, |nodes| nodes.iter().map(|node| node.flops).sum());
        Ok(Bench { samples, seconds, processor, flops, profiles })
    }
}

impl std::fmt::Debug for Repeats<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repeats").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Times denoising steps of `samples` samples, then every operation alone.
    ///
    /// # Errors
    /// As [`start_all`](Self::start_all) and [`Batch::next`].
    pub fn bench(&self, job: &Job, samples: usize, repeats: Repeats<'_>) -> Result<Bench, PipelineError> {
        let mut batch = self.start_all(&vec![job.clone(); samples.max(1)])?;
        batch.bench(repeats)
    }

    /// The same of reading the job's prompt; none where the model reads none.
    ///
    /// # Errors
    /// When the device fails.
    pub fn bench_prompt(&self, job: &Job, repeats: Repeats<'_>) -> Result<Option<Bench>, PipelineError> {
        let prompt = job.text.as_ref().and_then(|text| text.prompts.last());
        let (Some(encoders), Some(prompt)) = (self.text_encoders(), prompt) else { return Ok(None) };
        let host = self.host();
        let run = |(): &mut ()| block_on(encoders.encode_text(host, prompt)).map(drop);
        repeats.bench(1, &mut (), run, |()| encoders.profile(prompt)).map(Some)
    }

    /// The same of making a picture of the job's latents; none where samples are pictures, or the decoder is missing.
    ///
    /// # Errors
    /// When the device fails.
    pub fn bench_decode(&self, job: &Job, repeats: Repeats<'_>) -> Result<Option<Bench>, PipelineError> {
        let Some(autoencoder) = self.autoencoder() else { return Ok(None) };
        let (host, shape) = (self.host(), job.shape);
        let latents = waves(shape);
        let run = |(): &mut ()| block_on(autoencoder.decode(host, &latents, shape)).map(drop);
        repeats.bench(1, &mut (), run, |()| autoencoder.profile_decoding(shape)).map(Some)
    }

    /// The same of making latents of a picture of the job's size; none where samples are pictures, or no picture can be encoded.
    ///
    /// # Errors
    /// When the device fails.
    pub fn bench_encode(&self, job: &Job, repeats: Repeats<'_>) -> Result<Option<Bench>, PipelineError> {
        let Some(autoencoder) = self.autoencoder() else { return Ok(None) };
        let Some(channels) = autoencoder.picture_channels() else { return Ok(None) };
        let (host, factor) = (self.host(), autoencoder.factor());
        let shape = SampleShape { height: job.shape.height * factor, width: job.shape.width * factor, channels };
        let picture = waves(shape);
        let run = |(): &mut ()| block_on(autoencoder.encode_mean(host, &picture, shape)).map(drop);
        let bench = repeats.bench(1, &mut (), run, |()| autoencoder.profile_encoding(shape));
        // As a run does, which needs the memory for its steps.
        block_on(autoencoder.finish_encoding());
        bench.map(Some)
    }
}

/// Values of −1..1 that are neither all alike nor zeros, which some machines are quicker with.
#[allow(clippy::cast_precision_loss, reason = "which values they are means nothing")]
fn waves(shape: SampleShape) -> Vec<f32> {
    (0..shape.numel()).map(|i| (i as f32 * 0.37).sin()).collect()
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
        // A prediction costs the same whether it is one of two or not.
        let evaluations = match job.predictions() {
            Some(predictions) => predictions as f64 / job.layout.rows() as f64,
            None => 100.0,
        };
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
    fn bench(&mut self, repeats: Repeats<'_>) -> Result<Bench, PipelineError> {
        self.reach_model()?;
        let samples = self.samples_at_once();
        let mode = self.mode().unwrap_or_default();
        let work = async |denoiser: &mut Denoiser, evaluations: &[Option<Evaluation<'_>>]| {
            let run = |denoiser: &mut Denoiser| block_on(denoiser.denoise(evaluations)).map(drop);
            repeats.bench(samples, denoiser, run, |denoiser| {
                let mut nodes = denoiser.profile()?;
                nodes.retain(|node| node.rate == Rate::Step);
                Ok(nodes)
            })
        };
        block_on(self.with_denoiser(mode, work))
    }
}
