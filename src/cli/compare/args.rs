//! What `headwater compare` may be told, and what that means.

use crate::cli::devices::device_settings;
use crate::cli::error::CliError;
use crate::cli::image_args::{DType, Seed, gib, number, pixels, whole};
use crate::cli::model::{self, EmbeddingArg, LoraArg, Wanted};
use crate::compare::{Axis, Model, Value};
use pipelines::{
    DeviceChoice, GuidanceInterval, Pipeline, PipelineError, PromptSyntax, Request, Rng, SharedDevice, StepCache,
};
use scheduler::{NamedSampler, NamedSchedule, SAMPLERS};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Compare samplers, or any other setting, step by step from the same noise.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// What the image shows, in words with or without quotes
    #[arg(value_name = "PROMPT")]
    pub(super) words: Vec<String>,

    /// Samplers to compare, or all [default: euler,heun,dpm_2,dpmpp_2m,deis,unipc,euler_ancestral,dpmpp_2m_sde]
    #[arg(long, visible_alias = "sampler", help_heading = "Axes", value_name = "A,B,…", value_delimiter = ',')]
    pub(super) samplers: Vec<String>,

    /// Numbers of steps [default: 4,8,16; of a consistency model 1,2,4]
    #[arg(long, help_heading = "Axes", value_name = "N,N,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = whole::<1, 10_000>)]
    pub(super) steps: Vec<u32>,

    /// Budgets instead of steps: each sampler takes as many steps as that many evaluations of the model allow
    #[arg(long, help_heading = "Axes", value_name = "N,N,…", value_delimiter = ',', conflicts_with = "steps", allow_negative_numbers = true, value_parser = whole::<1, 10_000>)]
    pub(super) nfe: Vec<u32>,

    /// Schedules of noise levels [default: the checkpoint's]
    #[arg(long, visible_alias = "schedule", help_heading = "Axes", value_name = "A,B,…", value_delimiter = ',')]
    pub(super) schedules: Vec<String>,

    /// Weights of the prompt (classifier-free guidance) [default: the model's]
    #[arg(long, visible_alias = "cfg-scale", help_heading = "Axes", value_name = "X,X,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = number)]
    pub(super) guidance: Vec<f64>,

    /// Noise levels at which guidance acts, 0,inf being all; repeatable [default: all]
    #[arg(long, help_heading = "Axes", value_name = "LO,HI", allow_hyphen_values = true)]
    pub(super) guidance_interval: Vec<GuidanceInterval>,

    /// What is kept from one evaluation for others, off being nothing: first-block:THRESHOLD, t-gate:N or deep:N [default: off]
    #[arg(long, visible_alias = "step-cache", help_heading = "Axes", value_name = "A,B,…", value_delimiter = ',', value_parser = step_cache)]
    pub(super) step_caches: Vec<Kept>,

    /// Shares of fresh noise, of samplers that have one [default: the sampler's]
    #[arg(long, help_heading = "Axes", value_name = "X,X,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = number)]
    pub(super) eta: Vec<f64>,

    /// Models: bundled names, folders, single files or hub ids [default: icons-64]
    #[arg(
        short = 'm',
        long,
        visible_alias = "model",
        help_heading = "Axes",
        value_name = "A,B,…",
        value_delimiter = ','
    )]
    pub(super) models: Vec<PathBuf>,

    /// Seeds that the noise is drawn from [default: one, random]
    #[arg(
        short,
        long,
        visible_alias = "seed",
        help_heading = "Axes",
        value_name = "N,N,…",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    pub(super) seeds: Vec<Seed>,

    /// File with one prompt a line
    #[arg(long, help_heading = "Axes", value_name = "FILE", conflicts_with = "words")]
    pub(super) prompts: Option<PathBuf>,

    /// Model whose ODE is the truth for all [default: each model's own; of a consistency model, that of the first diffusion model beside it]
    #[arg(long, help_heading = "Truth", value_name = "MODEL", conflicts_with = "no_reference")]
    pub(super) reference: Option<PathBuf>,

    /// Solve no reference: no errors are told
    #[arg(long, help_heading = "Truth")]
    pub(super) no_reference: bool,

    /// Of the methods whose error is at most this, tell the cheapest
    #[arg(long, help_heading = "Truth", value_name = "ERROR", default_value_t = 0.05, allow_negative_numbers = true, value_parser = positive)]
    pub(super) within: f64,

    /// Measures in the printed table: psnr and ssim of the final picture against the reference's
    #[arg(long, help_heading = "Truth", value_name = "A,B", value_delimiter = ',', default_value = "psnr,ssim")]
    pub(super) metrics: Vec<Metric>,

    /// Draws of noise from which the spread of a sampler that draws some is told; 1 tells none
    #[arg(long, help_heading = "Truth", value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = whole::<1, 1000>)]
    pub(super) draws: u32,

    /// Folder to write [default: ./compare-{prompt}-{seed}]; one that holds the same comparison is gone on with
    #[arg(short, long, visible_alias = "output-dir", value_name = "DIR")]
    pub(super) output: Option<PathBuf>,

    /// Write x and denoised of every step as safetensors as well
    #[arg(long)]
    pub(super) save_steps: bool,

    #[command(flatten)]
    pub(super) fixed: Fixed,

    /// Make an error of every warning
    #[arg(long)]
    pub(super) strict: bool,

    /// The summary as one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// No progress, no table
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// A step cache, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept(Option<StepCache>);

fn step_cache(text: &str) -> Result<Kept, String> {
    if text == "off" {
        return Ok(Kept(None));
    }
    text.parse().map(|cache| Kept(Some(cache))).map_err(|error: PipelineError| error.to_string())
}

/// What all cells share.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Fixed {
    /// What the image should not show
    #[arg(long, help_heading = "Shared by all", value_name = "TEXT")]
    negative_prompt: Option<String>,

    /// How prompts are read: a1111 or plain [default: as generate does]
    #[arg(long, help_heading = "Shared by all", value_name = "NAME")]
    prompt_syntax: Option<PromptSyntax>,

    /// Which class a class-conditional model draws
    #[arg(long, help_heading = "Shared by all", value_name = "N", allow_negative_numbers = true)]
    class_label: Option<usize>,

    /// Leave out the last N layers of CLIP
    #[arg(long, help_heading = "Shared by all", value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 100>)]
    clip_skip: u32,

    /// Width in pixels [default: the model's]
    #[arg(short = 'W', long, help_heading = "Shared by all", value_name = "PIXELS", allow_negative_numbers = true, value_parser = pixels)]
    width: Option<usize>,

    /// Height in pixels [default: the model's]
    #[arg(short = 'H', long, help_heading = "Shared by all", value_name = "PIXELS", allow_negative_numbers = true, value_parser = pixels)]
    height: Option<usize>,

    /// Whose noise a seed means; philox alone gives stochastic samplers one Brownian path at every number of steps
    #[arg(long, help_heading = "Shared by all", value_name = "NAME", default_value_t = Rng::Philox)]
    rng: Rng,

    /// Adapter to add to every model's weights; repeatable
    #[arg(long, help_heading = "Shared by all", value_name = "FILE[:WEIGHT]")]
    lora: Vec<LoraArg>,

    /// Autoencoder to use in place of the models' own
    #[arg(long, help_heading = "Shared by all", value_name = "DIR|FILE")]
    vae: Option<PathBuf>,

    /// Textual inversion to learn; repeatable
    #[arg(long, help_heading = "Shared by all", value_name = "FILE[:TOKEN]")]
    embedding: Vec<EmbeddingArg>,

    /// Variant of the weights to read from a folder: fp16, say
    #[arg(long, help_heading = "Shared by all", value_name = "NAME")]
    variant: Option<String>,

    /// How weights are stored on the device
    #[arg(long, help_heading = "Device", value_enum, default_value_t = DType::Auto)]
    dtype: DType,

    /// auto (the best GPU, else cpu), cpu, gpu, gpu:N, or part of an adapter's name
    #[arg(long, help_heading = "Device", value_name = "DEVICE", default_value = "auto")]
    pub(super) device: DeviceChoice,

    /// Threads of the cpu device [default: all cores]
    #[arg(short, long, help_heading = "Device", value_name = "N", allow_negative_numbers = true, value_parser = whole::<1, 1024>)]
    pub(super) threads: Option<u32>,

    /// Memory the device's plans may hold together
    #[arg(long, help_heading = "Device", value_name = "GIB", allow_negative_numbers = true, value_parser = gib)]
    pub(super) max_memory: Option<f64>,
}

/// What final pictures are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Metric {
    /// Peak signal-to-noise ratio
    Psnr,
    /// Structural similarity
    Ssim,
}

fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "give a number above 0".into())
}

/// What is compared where nothing is said: six that follow the ODE, of orders 1 to 3, and two that draw noise.
const SAMPLERS_SHOWN: [&str; 8] =
    ["euler", "heun", "dpm_2", "dpmpp_2m", "deis", "unipc", "euler_ancestral", "dpmpp_2m_sde"];

impl Args {
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet || self.json
    }

    /// The samplers, if any were named.
    pub(super) fn samplers(&self) -> Result<Vec<Value>, CliError> {
        Ok(samplers(&self.samplers)?.into_iter().map(Value::Sampler).collect())
    }

    /// The axes, for a model that maps noise to pictures at once or another; `seed` is the one that is drawn where none was given.
    pub(super) fn axes(&self, names: &[String], is_direct: bool, seed: u64) -> Result<Vec<Axis>, CliError> {
        let mut samplers = self.samplers()?;
        if samplers.is_empty() && !is_direct {
            samplers = SAMPLERS_SHOWN.iter().map(|name| sampler(name).map(Value::Sampler)).collect::<Result<_, _>>()?;
        }
        let count = |n: &u32| *n as usize;
        let mut budgets: Vec<Value> = self.steps.iter().map(count).map(Value::Steps).collect();
        budgets.extend(self.nfe.iter().map(count).map(Value::Evaluations));
        if budgets.is_empty() {
            let own: [usize; 3] = if is_direct { [1, 2, 4] } else { [4, 8, 16] };
            budgets = own.map(Value::Steps).into();
        }
        let schedules: Result<Vec<Value>, CliError> =
            self.schedules.iter().map(|name| Ok(Value::Schedule(schedule(name)?))).collect();
        let seeds = self.seeds.iter().map(|own| Value::Seed(if let Seed::Given(own) = own { *own } else { seed }));
        let prompts = match &self.prompts {
            Some(file) => read_prompts(file)?.into_iter().map(Value::Prompt).collect(),
            None => Vec::new(),
        };
        let models = if names.len() > 1 { names.iter().cloned().map(Value::Model).collect() } else { Vec::new() };
        let lists = [
            samplers,
            budgets,
            schedules?,
            self.guidance.iter().copied().map(Value::Guidance).collect(),
            self.guidance_interval.iter().copied().map(Value::GuidanceInterval).collect(),
            self.step_caches.iter().map(|kept| Value::StepCache(kept.0)).collect(),
            self.eta.iter().copied().map(Value::Eta).collect(),
            models,
            prompts,
            seeds.collect(),
        ];
        let lists = lists.into_iter().filter(|values| !values.is_empty());
        lists.map(|values| Axis::new(values).map_err(|error| CliError::Usage(error.to_string()))).collect()
    }

    /// What is asked of every cell.
    pub(super) fn request(&self, prompt: &str, seed: u64) -> Request {
        self.fixed.request(prompt, seed)
    }

    /// What a folder must have in common with this comparison to be gone on with.
    pub(super) fn shared(&self, prompt: &str, seed: u64) -> serde_json::Value {
        let own = &self.fixed;
        json!({
            "prompt": if self.prompts.is_some() { serde_json::Value::Null } else { json!(prompt) },
            "seed": if self.seeds.len() > 1 { serde_json::Value::Null } else { json!(seed) },
            "model": if self.models.len() > 1 { serde_json::Value::Null } else { json!(self.models.first()) },
            "reference": self.reference,
            "no_reference": self.no_reference,
            "negative_prompt": own.negative_prompt,
            "prompt_syntax": own.prompt_syntax.map(PromptSyntax::name),
            "class_label": own.class_label,
            "clip_skip": own.clip_skip,
            "width": own.width,
            "height": own.height,
            "rng": own.rng.name(),
            "lora": model::loras_json(&own.lora),
            "vae": own.vae,
            "embedding": model::embeddings_json(&own.embedding),
            "variant": own.variant,
            "dtype": own.dtype.name(),
            "draws": self.draws,
            "save_steps": self.save_steps,
        })
    }
}

impl Fixed {
    /// What is asked of every cell.
    pub(in crate::cli) fn request(&self, prompt: &str, seed: u64) -> Request {
        Request {
            prompt: prompt.to_owned(),
            negative_prompt: self.negative_prompt.clone(),
            width: self.width,
            height: self.height,
            seed,
            rng: self.rng,
            clip_skip: self.clip_skip as usize,
            prompt_syntax: self.prompt_syntax,
            class_label: self.class_label,
            ..Request::default()
        }
    }

    pub(in crate::cli) fn open_device(&self) -> Result<SharedDevice, CliError> {
        let mut settings = device_settings(false, self.threads.map(|n| n as usize))?;
        settings.max_memory = self.max_memory.map(|gib| (gib * f64::from(1 << 30)) as u64);
        Ok(pipelines::open_device(&self.device, &settings)?)
    }

    /// A model with the adapters and parts that all of them get.
    pub(in crate::cli) fn open(&self, name: &Path, device: &SharedDevice, quiet: bool) -> Result<Model, CliError> {
        let wanted = Wanted { variant: self.variant.as_deref(), quiet, ..Wanted::default() };
        let files = model::with_parts(model::open(name, wanted)?, &self.lora, self.vae.as_deref())?;
        let files = model::with_embeddings(files, &self.embedding)?;
        let pipe = Pipeline::from_pretrained(device, &files, self.dtype.plan_options(device.info())?)?;
        Ok(Model { name: name.display().to_string(), pipe })
    }
}

/// Samplers by their names, or all that lead to an image.
pub(in crate::cli) fn samplers(names: &[String]) -> Result<Vec<NamedSampler>, CliError> {
    if names.iter().any(|name| name == "all") {
        return Ok(SAMPLERS.iter().filter(|s| !s.inverts).map(|s| (*s).into()).collect());
    }
    names.iter().map(|name| sampler(name)).collect()
}

/// A model that reads text needs a prompt, and another has no use for one.
pub(in crate::cli) fn check_prompt(command: &str, models: &[Model], given: bool) -> Result<(), CliError> {
    match models.iter().find(|model| model.pipe.takes_prompt() != given) {
        None => Ok(()),
        Some(model) if given => {
            Err(CliError::Usage(format!("the model {} reads no text: leave the prompt out", model.name)))
        }
        Some(model) => Err(CliError::Usage(format!(
            "the model {} needs a PROMPT that says what to draw, as in headwater {command} \"a red heart\"",
            model.name
        ))),
    }
}

fn sampler(name: &str) -> Result<NamedSampler, CliError> {
    let unknown = |error| CliError::Usage(format!("{error} (`headwater samplers` lists them)"));
    name.parse().map_err(|error: scheduler::Error| unknown(error))
}

fn schedule(name: &str) -> Result<NamedSchedule, CliError> {
    let unknown = |error| CliError::Usage(format!("{error} (`headwater samplers` lists them)"));
    name.parse().map_err(|error: scheduler::Error| unknown(error))
}

/// One prompt a line; empty lines are none.
fn read_prompts(file: &Path) -> Result<Vec<String>, CliError> {
    /// More than anybody types.
    const LONGEST: u64 = 1 << 20;
    let shown = file.display();
    let length = std::fs::metadata(file).map(|about| about.len());
    let length = length.map_err(|error| CliError::Failed(format!("cannot read {shown}: {error}")))?;
    if length > LONGEST {
        return Err(CliError::Usage(format!("{shown} is no list of prompts: it has more than a megabyte")));
    }
    let text =
        std::fs::read_to_string(file).map_err(|error| CliError::Failed(format!("cannot read {shown}: {error}")))?;
    let prompts: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if prompts.is_empty() {
        return Err(CliError::Usage(format!("{shown} has no prompts: write one a line")));
    }
    Ok(prompts)
}
