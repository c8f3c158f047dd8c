//! `headwater inpaint`: a part of a picture made anew.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::run::{self, Work};
use pipelines::Inpaint;
use std::path::PathBuf;

/// Make a part of a picture anew and keep the rest, bit for bit.
#[derive(Debug, clap::Args)]
#[command(mut_arg("model", |model| model.default_value(crate::bundled::DIFFUSION)))]
pub(super) struct Args {
    /// Picture to change: PNG, JPEG or WebP; its transparency is ignored
    input: PathBuf,

    /// What the new part shows; a class-conditional or unconditional model takes no prompt
    prompt: Option<String>,

    /// Picture that is white where the image is made anew and black where it is kept, from half brightness on; resized to the image
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,

    /// How much of the schedule is run: the less, the more is kept of what was there [default: the model's, 1 or 0.9999 of SDXL]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true, value_parser = run::strength)]
    strength: Option<f64>,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let (image, mask) = (run::picture(&args.input)?, run::picture(&args.mask)?);
    run::run(&Work {
        command: "inpaint",
        prompt: args.prompt.as_deref(),
        name: args.prompt.as_deref().unwrap_or(&run::stem(&args.input)),
        flags: &args.image,
        task: Inpaint { image, mask, strength: args.strength }.into(),
        inputs: &[("image", &args.input), ("mask", &args.mask)],
    })
}
