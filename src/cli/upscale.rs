//! `headwater upscale`: a larger image of a picture.

use super::edit_args::EditArgs;
use super::error::CliError;
use super::image_args::ImageArgs;
use super::pictures::{Files, Pictures};
use super::run::{self, Work};
use pipelines::Upscale;
use serde_json::json;
use std::path::PathBuf;

/// Enlarge a picture: by a model that was trained for it, as Stable Diffusion's x4 upscaler, or by any other, whose picture's patches have the
/// small one's pixels as their means.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Picture to enlarge: PNG, JPEG, WebP, BMP, GIF or TIFF; its transparency is ignored
    input: PathBuf,

    /// What the picture shows
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// Of a model that was trained for it, how much noise is put over the picture, on its scale: the more, the freer the details [default: 20]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    noise_level: Option<usize>,

    /// How many times the picture's size the image has. A model that was trained for it sees the picture resized for another number than its own,
    /// others take 2 to 16 [default: the model's own number, 2 of others]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = run::above_zero, conflicts_with_all = ["width", "height"])]
    scale: Option<f64>,

    #[command(flatten)]
    edit: EditArgs,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    run::run(&work(args, &Files)?)
}

/// What is to be done, with the pictures that it is given.
pub(super) fn work(args: &Args, pictures: &dyn Pictures) -> Result<Work, CliError> {
    let image = pictures.picture(&args.input)?;
    let prompt = args.words.join(" ");
    let task = Upscale {
        noise_level: args.noise_level,
        scale: args.scale,
        method: args.edit.method,
        replace_every: args.edit.replace_every as usize,
        ..Upscale::new(image)
    };
    Ok(Work {
        command: "upscale",
        name: if prompt.is_empty() { run::stem(&args.input) } else { prompt.clone() },
        prompt: Some(prompt),
        flags: args.image.clone(),
        task: task.into(),
        picture: None,
        told: json!({ "scale": args.scale, "replace_every": args.edit.told() }),
        inputs: vec![("image", args.input.clone())],
    })
}
