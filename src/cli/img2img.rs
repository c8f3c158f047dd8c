//! `headwater img2img`: an image from a picture.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::run::{self, Work};
use pipelines::ImageToImage;
use std::path::PathBuf;

/// Make an image from a picture: what it shows is kept more or less.
#[derive(Debug, clap::Args)]
#[command(mut_arg("model", |model| model.default_value(crate::bundled::DIFFUSION)))]
pub(super) struct Args {
    /// Picture to start from: PNG, JPEG or WebP; its transparency is ignored
    input: PathBuf,

    /// What the image shows; a class-conditional or unconditional model takes no prompt
    prompt: Option<String>,

    /// How much of the schedule is run: the less, the more is kept of the picture [default: the model's, 0.8 or 0.3 of SDXL]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true, value_parser = run::strength)]
    strength: Option<f64>,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let image = run::picture(&args.input)?;
    run::run(&Work {
        command: "img2img",
        prompt: args.prompt.as_deref(),
        name: args.prompt.as_deref().unwrap_or(&run::stem(&args.input)),
        flags: &args.image,
        task: ImageToImage { image, strength: args.strength }.into(),
        inputs: &[("image", &args.input)],
    })
}
