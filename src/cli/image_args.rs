//! The flags that every image command shares.

use super::error::CliError;
use super::kernel;
use super::model::{self, EmbeddingArg, LoraArg, Wanted};
use clap::{Args, ValueEnum};
use graph::{Activations, DeviceInfo, PlanOptions, Storage};
use pipelines::{DeviceChoice, GuidanceInterval, PromptSyntax, Request, Rng, StepCache, Task};
use scheduler::{NamedSampler, NamedSchedule, Steps};
use std::path::PathBuf;
use std::str::FromStr;

/// Flags of every image command.
#[derive(Debug, Clone, Args)]
pub(super) struct ImageArgs {
    /// A bundled model's name, a folder in diffusers' layout, a single .safetensors file of Stable Diffusion 1, 2 or XL, or a hub's id:
    /// OWNER/REPO[@REVISION] for a whole model, OWNER/REPO/FILE[@REVISION] for a single file of one; what is here goes before the hub
    #[arg(short, long, value_name = "NAME|DIR|FILE|OWNER/REPO[/FILE]", default_value = crate::bundled::DEFAULT)]
    pub(super) model: PathBuf,

    /// File to write; {prompt}, {seed} and {index} are filled in, - is standard output; its ending says whether it is PNG,
    /// JPEG or WebP (without loss), and .safetensors keeps the raw sample; missing folders are made, and a file that is there stays
    /// without --force [default: ./{prompt}-{seed}.png, numbered where there is one]
    #[arg(short, long, value_name = "PATH")]
    pub(super) output: Option<PathBuf>,

    /// Overwrite what --output names
    #[arg(long, requires = "output")]
    pub(super) force: bool,

    /// In how many steps noise becomes the image: more take longer and are mostly finer [default: the model's]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<1, 10_000>)]
    pub(super) steps: Option<u32>,

    /// How closely the image follows the prompt (classifier-free guidance); 1 turns it off, except in CFG++ samplers, where 0 does
    /// [default: the model's]
    #[arg(long, visible_alias = "cfg-scale", value_name = "X", allow_negative_numbers = true, value_parser = number)]
    pub(super) guidance: Option<f64>,

    /// Guide only where the noise level lies above LO and up to HI, and evaluate the model once and not twice elsewhere: faster, and often finer
    /// (Kynkäänniemi et al. 2024, who take 0.28,5.42 for latents of Stable Diffusion XL); --dry-run tells the levels, and inf is no
    /// bound [default: everywhere]
    #[arg(long, help_heading = "Sampling", value_name = "LO,HI", allow_hyphen_values = true)]
    pub(super) guidance_interval: Option<GuidanceInterval>,

    /// Use values of one evaluation of the network again in others, which is faster and moves the image: first-block:0.1 computes a transformer's first
    /// block alone where that has changed by less (first block cache), t-gate:10 keeps what attention to the text gives from the tenth evaluation
    /// on and drops guidance (T-GATE), deep:3 computes a UNet's coarser levels in every third evaluation (DeepCache) [default: none]
    #[arg(long, help_heading = "Sampling", value_name = "KIND:N", allow_hyphen_values = true)]
    pub(super) step_cache: Option<StepCache>,

    /// The number that the noise is drawn from: the same seed makes the same image again; -1 or random draws one
    /// [default: random; printed and stored in the image]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub(super) seed: Option<Seed>,

    /// Number of images; each takes the next seed
    #[arg(short = 'n', long, help_heading = "Images", default_value_t = 1, allow_negative_numbers = true, value_parser = whole::<1, { u32::MAX }>)]
    pub(super) count: u32,

    /// Most images that are made together, in one graph; fewer where memory is short
    #[arg(long, help_heading = "Images", value_name = "N", default_value_t = 8, allow_negative_numbers = true, value_parser = whole::<1, 1024>)]
    pub(super) batch: u32,

    /// Width in pixels [default: the model's, or the picture's]
    #[arg(short = 'W', long, help_heading = "Images", value_name = "PIXELS", allow_negative_numbers = true, value_parser = pixels)]
    pub(super) width: Option<usize>,

    /// Height in pixels [default: the model's, or the picture's]
    #[arg(short = 'H', long, help_heading = "Images", value_name = "PIXELS", allow_negative_numbers = true, value_parser = pixels)]
    pub(super) height: Option<usize>,

    /// What the image should not show; matters with guidance above 1
    #[arg(long, help_heading = "Prompt", value_name = "TEXT")]
    pub(super) negative_prompt: Option<String>,

    /// How prompts are read: a1111 takes (weights:1.2), \(, BREAK, <lora:NAME:WEIGHT> and prompts of any length; plain is text cut where the
    /// text encoder ends, as in diffusers [default: a1111 for Stable Diffusion and latent consistency models, plain for all others]
    #[arg(long, help_heading = "Prompt", value_name = "NAME")]
    pub(super) prompt_syntax: Option<PromptSyntax>,

    /// Leave out the last N layers of CLIP, as diffusers counts: other tools' 2 is 1 here
    #[arg(long, help_heading = "Prompt", value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 100>)]
    pub(super) clip_skip: u32,

    /// Which class a class-conditional model draws [default: chosen by the seed]
    #[arg(long, help_heading = "Prompt", value_name = "N", allow_negative_numbers = true)]
    pub(super) class_label: Option<usize>,

    /// How noise is taken away in each step: `headwater samplers` lists the ways [default: the checkpoint's]
    #[arg(long, help_heading = "Sampling", value_name = "NAME")]
    pub(super) sampler: Option<String>,

    /// Which noise levels the steps stop at: karras, exponential, … or automatic [default: the checkpoint's]
    #[arg(long, help_heading = "Sampling", value_name = "NAME")]
    pub(super) schedule: Option<String>,

    /// Explicit noise levels, descending, the last being where the run ends
    #[arg(long, help_heading = "Sampling", value_name = "A,B,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = number, conflicts_with_all = ["steps", "schedule"])]
    pub(super) sigmas: Vec<f64>,

    /// Explicit training timesteps, descending
    #[arg(long, help_heading = "Sampling", value_name = "A,B,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = number, conflicts_with_all = ["steps", "sigmas", "schedule"])]
    pub(super) timesteps: Vec<f64>,

    /// Share of fresh noise, of the samplers that have one: ddim, tcd, most ancestral and SDE samplers [default: the sampler's]
    #[arg(long, help_heading = "Sampling", value_name = "X", allow_negative_numbers = true, value_parser = number)]
    pub(super) eta: Option<f64>,

    /// Whose noise a seed means: torch-cpu and torch-cuda are PyTorch's randn (the latter up to the size at which it
    /// depends on the card), philox is the same on every device
    #[arg(long, help_heading = "Sampling", value_name = "NAME", default_value_t = Rng::Philox)]
    pub(super) rng: Rng,

    /// Adapter to add to the model's weights, with how much of it [default: 1]; repeatable
    #[arg(long, help_heading = "Model", value_name = "FILE[:WEIGHT]")]
    pub(super) lora: Vec<LoraArg>,

    /// Folder in which the adapters lie that a prompt names: <lora:NAME:WEIGHT> is NAME.safetensors there
    #[arg(long, help_heading = "Model", value_name = "DIR")]
    pub(super) lora_dir: Option<PathBuf>,

    /// Autoencoder to use in place of the model's own: a folder, or a .safetensors file
    #[arg(long, help_heading = "Model", value_name = "DIR|FILE")]
    pub(super) vae: Option<PathBuf>,

    /// Textual inversion to learn, with the word that stands for it [default: the file's own, or its name]; repeatable
    #[arg(long, help_heading = "Model", value_name = "FILE[:TOKEN]")]
    pub(super) embedding: Vec<EmbeddingArg>,

    /// Variant of the weights to read from a folder: fp16, say [default: the plain one]
    #[arg(long, help_heading = "Model", value_name = "NAME")]
    pub(super) variant: Option<String>,

    /// Folder in diffusers' layout whose configurations and tokenizers go before those told from a single file, and which a
    /// network alone is given its text encoders and autoencoder from
    #[arg(long, help_heading = "Model", value_name = "DIR")]
    pub(super) config: Option<PathBuf>,

    /// How weights are stored on the device
    #[arg(long, help_heading = "Device", value_enum, default_value_t = DType::Auto)]
    pub(super) dtype: DType,

    /// auto (the best GPU, else cpu), cpu, gpu, gpu:N, or part of an adapter's name
    #[arg(long, help_heading = "Device", value_name = "DEVICE", default_value = "auto")]
    pub(super) device: DeviceChoice,

    /// Threads of the cpu device [default: all cores]
    #[arg(short, long, help_heading = "Device", value_name = "N", allow_negative_numbers = true, value_parser = whole::<1, 1024>)]
    pub(super) threads: Option<u32>,

    /// Memory the device's plans may hold together; parts of the model are dropped in turn, and pictures decoded in tiles, to stay
    /// below it [default: what the driver has, or what is free]
    #[arg(long, help_heading = "Device", value_name = "GIB", allow_negative_numbers = true, value_parser = gib)]
    pub(super) max_memory: Option<f64>,

    /// Compile kernels with bounds checks: slower, for finding faults
    #[arg(long, help_heading = "Device")]
    pub(super) checked: bool,

    /// Only say what would be done: steps, noise levels, evaluations, memory
    #[arg(long, help_heading = "Reports")]
    pub(super) dry_run: bool,

    /// Write x and denoised of every step into this folder, as PNG and safetensors
    #[arg(long, help_heading = "Reports", value_name = "DIR")]
    pub(super) save_steps: Option<PathBuf>,

    /// One JSON object per image on standard output
    #[arg(long, help_heading = "Reports")]
    pub(super) json: bool,

    /// Make an error of every warning
    #[arg(long, help_heading = "Reports")]
    pub(super) strict: bool,

    /// No progress
    #[arg(short, long, help_heading = "Reports", conflicts_with = "verbose")]
    pub(super) quiet: bool,

    /// More about what happens
    #[arg(short, long, help_heading = "Reports")]
    pub(super) verbose: bool,
}

/// A seed on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seed {
    /// Drawn anew each time: what other tools write as -1.
    Random,
    Given(u64),
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" | "-1" => Ok(Self::Random),
            _ => text.parse().map(Self::Given).map_err(|_| "give a whole number from 0 on, or random".into()),
        }
    }
}

/// A whole number between two others.
pub(super) fn whole<const LOW: u32, const HIGH: u32>(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (LOW..=HIGH).contains(number));
    number.ok_or_else(|| match HIGH {
        u32::MAX => format!("give a whole number from {LOW} on"),
        _ => format!("give a whole number from {LOW} to {HIGH}"),
    })
}

/// A number, which may yet make no sense for the model.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "give a number".into())
}

/// A side of an image.
pub(super) fn pixels(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "give a whole number of pixels".into())
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DType {
    /// As the checkpoint has them, where the device can read that
    Auto,
    /// Single precision
    F32,
    /// Half precision
    F16,
    /// Eight bits, in blocks of 32 with a scale each; half precision where that does not fit
    #[value(name = "q8_0")]
    Q8_0,
}

impl DType {
    pub(super) fn name(self) -> &'static str {
        match self {
            DType::Auto => "auto",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Q8_0 => "q8_0",
        }
    }
}

pub(super) fn gib(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|gib: &f64| gib.is_finite() && *gib > 0.0);
    number.ok_or_else(|| "give a number of GiB: 3, say, or 0.5".into())
}

impl DType {
    /// How plans on a device keep weights, and what else the environment and measurements say of them.
    pub(super) fn plan_options(self, info: &DeviceInfo) -> Result<PlanOptions, CliError> {
        let storage = match self {
            DType::Auto => Storage::Auto,
            DType::F32 => Storage::F32,
            DType::F16 => Storage::F16,
            DType::Q8_0 => Storage::Q8_0,
        };
        let options = kernel::plan_options(info)?;
        // Who asks for singles gets them everywhere.
        let activations = if self == DType::F32 { Activations::F32 } else { options.activations };
        Ok(PlanOptions { storage, activations, ..options })
    }
}

impl ImageArgs {
    /// The model's files, with the adapters that the flags and the prompt name.
    pub(super) fn open_model(&self, loras: &[LoraArg]) -> Result<models::ModelFiles, CliError> {
        let wanted = Wanted {
            config: self.config.as_deref(),
            variant: self.variant.as_deref(),
            quiet: self.is_quiet(),
            offline: false,
        };
        let files = model::with_parts(model::open(&self.model, wanted)?, loras, self.vae.as_deref())?;
        model::with_embeddings(files, &self.embedding)
    }

    /// Where to step, if the command line says so.
    pub(super) fn steps(&self) -> Option<Steps> {
        if !self.timesteps.is_empty() {
            Some(Steps::Timesteps(self.timesteps.clone()))
        } else if !self.sigmas.is_empty() {
            Some(Steps::Sigmas(self.sigmas.clone()))
        } else {
            self.steps.map(|count| Steps::Count(count as usize))
        }
    }

    /// Whether anything but results may go to standard error.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet || (self.json && !self.verbose)
    }

    /// What the flags ask for.
    pub(super) fn request(&self, prompt: &str, seed: u64, names: Names, task: Task) -> Request {
        Request {
            prompt: prompt.to_owned(),
            negative_prompt: self.negative_prompt.clone(),
            width: self.width,
            height: self.height,
            steps: self.steps(),
            sampler: names.sampler,
            schedule: names.schedule,
            eta: self.eta,
            guidance_scale: self.guidance,
            guidance_interval: self.guidance_interval,
            step_cache: self.step_cache,
            seed,
            rng: self.rng,
            clip_skip: self.clip_skip as usize,
            prompt_syntax: self.prompt_syntax,
            class_label: self.class_label,
            task,
            ..Request::default()
        }
    }

    /// What the names mean that no model is needed to judge: read before anything is loaded.
    pub(super) fn names(&self) -> Result<Names, CliError> {
        let sampler = self.sampler.as_ref().map(|name| {
            name.parse::<NamedSampler>()
                .map_err(|error| CliError::Usage(format!("{error} (`headwater samplers` lists them)")))
        });
        // A1111's word for the checkpoint's own.
        let schedule = self.schedule.as_ref().filter(|name| !name.eq_ignore_ascii_case("automatic")).map(|name| {
            name.parse::<NamedSchedule>().map_err(|error| {
                let names: Vec<&str> =
                    scheduler::SCHEDULES.iter().filter_map(|(_, names)| names.first().copied()).collect();
                CliError::Usage(format!("{error} (there are {})", names.join(", ")))
            })
        });
        Ok(Names { sampler: sampler.transpose()?, schedule: schedule.transpose()? })
    }
}

/// The sampler and the schedule that the flags name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    sampler: Option<NamedSampler>,
    schedule: Option<NamedSchedule>,
}
