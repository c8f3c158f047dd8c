//! `headwater upscale`: a larger image of a picture.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::run::{self, Work};
use pipelines::Upscale;
use std::path::PathBuf;

/// Enlarge a picture by a model that was trained for it, as Stable Diffusion's x4 upscaler.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Picture to enlarge: PNG, JPEG, WebP, BMP, GIF or TIFF; its transparency is ignored
    input: PathBuf,

    /// What the picture shows
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// How much noise is put over the picture, on the model's scale: the more, the freer the details [default: 20]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    noise_level: Option<usize>,

    /// How many times the picture's size the image has: for another number than the model's the picture is resized first [default: the
    /// model's]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = scale, conflicts_with_all = ["width", "height"])]
    scale: Option<f64>,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let image = run::picture(&args.input)?;
    let stem = run::stem(&args.input);
    let prompt = args.words.join(" ");
    run::run(&Work {
        command: "upscale",
        prompt: Some(&prompt),
        name: if prompt.is_empty() { &stem } else { &prompt },
        flags: &args.image,
        task: Upscale { image, noise_level: args.noise_level, scale: args.scale }.into(),
        picture: None,
        inputs: &[("image", &args.input)],
    })
}

fn scale(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "it must be a number above 0".into())
}
