//! `headwater stroke`: a painting of a few strokes becomes a picture.

use super::error::CliError;
use super::image_args::ImageArgs;
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
    let image = run::picture(&args.input)?;
    let picture = Extents { width: image.width, height: image.height, resize: false, can_resize: false };
    let prompt = args.words.join(" ");
    let stem = run::stem(&args.input);
    run::run(&Work {
        command: "stroke",
        prompt: Some(&prompt),
        name: if prompt.is_empty() { &stem } else { &prompt },
        flags: &args.image,
        task: Stroke { image, sigma: args.sigma }.into(),
        picture: Some(picture),
        told: json!({}),
        inputs: &[("image", &args.input)],
    })
}
