//! `headwater stroke`: a painting of a few strokes becomes a picture.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::pictures::{Files, Pictures};
use super::run::{self, Extents, Work};
use pipelines::Stroke;
use serde_json::json;
use std::path::PathBuf;

/// Make a picture of a painting of a few strokes, in its colours.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Painting to start from, of any size: PNG, JPEG, WebP, BMP, GIF or TIFF; its transparency is ignored
    input: PathBuf,

    /// What the picture shows, in words with or without quotes
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// How much noise is put over the painting, where black is -1 and white 1: the more, the freer the picture [default: 5.38]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = run::above_zero)]
    sigma: Option<f64>,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    run::run(&work(args, &Files)?)
}

/// What is to be done, with the pictures that it is given.
pub(super) fn work(args: &Args, pictures: &dyn Pictures) -> Result<Work, CliError> {
    let image = pictures.picture(&args.input)?;
    let picture = Extents { width: image.width, height: image.height, resize: false, can_resize: false };
    let prompt = args.words.join(" ");
    Ok(Work {
        command: "stroke",
        name: if prompt.is_empty() { run::stem(&args.input) } else { prompt.clone() },
        prompt: Some(prompt),
        flags: args.image.clone(),
        task: Stroke { image, sigma: args.sigma }.into(),
        picture: Some(picture),
        told: json!({}),
        inputs: vec![("image", args.input.clone())],
    })
}
