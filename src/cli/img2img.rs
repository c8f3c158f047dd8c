//! `headwater img2img`: an image from a picture.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::pictures::{Files, Pictures};
use super::run::{self, Extents, Work};
use pipelines::ImageToImage;
use serde_json::json;
use std::path::PathBuf;

/// Make an image from a picture: what it shows is kept more or less.
#[derive(Debug, clap::Args)]
#[command(mut_arg("model", |model| model.default_value(crate::bundled::DIFFUSION)))]
pub(super) struct Args {
    /// Picture to start from: PNG, JPEG, WebP, BMP, GIF or TIFF; its transparency is ignored
    input: PathBuf,

    /// What the image shows, in words with or without quotes; a class-conditional or unconditional model takes none
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// How much of the schedule is run: the less, the more is kept of the picture [default: the model's, 0.8 or 0.3 of SDXL]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true, value_parser = run::strength)]
    strength: Option<f64>,

    /// Make a picture that is much larger than the model's own as large as that first
    #[arg(long, conflicts_with_all = ["width", "height"])]
    resize: bool,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    run::run(&work(args, &Files)?)
}

/// What is to be done, with the pictures that it is given.
pub(super) fn work(args: &Args, pictures: &dyn Pictures) -> Result<Work, CliError> {
    let prompt = run::prompt(&args.words);
    let image = pictures.picture(&args.input)?;
    let picture = Extents { width: image.width, height: image.height, resize: args.resize, can_resize: true };
    Ok(Work {
        command: "img2img",
        name: prompt.clone().unwrap_or_else(|| run::stem(&args.input)),
        prompt,
        flags: args.image.clone(),
        task: ImageToImage { image, strength: args.strength }.into(),
        picture: Some(picture),
        told: json!({}),
        inputs: vec![("image", args.input.clone())],
    })
}
