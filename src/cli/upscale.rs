//! `headwater upscale`: a larger image of a picture.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::run::{self, Job};
use pipelines::{Source, Task};
use std::path::PathBuf;

/// Enlarge a picture by a model that was trained for it, as Stable Diffusion's x4 upscaler.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Picture to enlarge: PNG, JPEG or WebP; its transparency is ignored
    input: PathBuf,

    /// What the picture shows
    #[arg(default_value = "", hide_default_value = true)]
    prompt: String,

    /// How much noise is put over the picture, on the model's scale: the more, the freer the details [default: 20]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    noise_level: Option<usize>,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let image = run::picture(&args.input)?;
    let stem = run::stem(&args.input);
    run::run(&Job {
        command: "upscale",
        prompt: Some(&args.prompt),
        name: if args.prompt.is_empty() { &stem } else { &args.prompt },
        flags: &args.image,
        source: Some(Source { image, task: Task::Upscale { noise_level: args.noise_level } }),
        inputs: &[("image", &args.input)],
    })
}
