//! `headwater inpaint`: a part of a picture made anew.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::run::{self, Extents, Work};
use crate::Transparency;
use pipelines::Inpaint;
use std::path::PathBuf;

/// Make a part of a picture anew and keep the rest, bit for bit.
#[derive(Debug, clap::Args)]
#[command(mut_arg("model", |model| model.default_value(crate::bundled::DIFFUSION)))]
pub(super) struct Args {
    /// Picture to change: PNG, JPEG, WebP, BMP, GIF or TIFF; its transparency is ignored
    input: PathBuf,

    /// What the new part shows, in words with or without quotes; a class-conditional or unconditional model takes none
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// Picture that is white where the image is made anew and black where it is kept, from half brightness on; resized to the image. Of one
    /// whose colours are all alike, the opaque part is made anew
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,

    /// How much of the schedule is run: the less, the more is kept of what was there [default: the model's, 1 or 0.9999 of SDXL]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true, value_parser = run::strength)]
    strength: Option<f64>,

    /// Make a picture that is much larger than the model's own as large as that first
    #[arg(long, conflicts_with_all = ["width", "height"])]
    resize: bool,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let prompt = run::prompt(&args.words);
    let image = run::picture(&args.input)?;
    let mask = crate::read_mask(&args.mask).map_err(|error| CliError::Failed(error.to_string()))?;
    let shown = args.mask.display();
    match mask.transparency {
        Transparency::None => {}
        _ if args.image.quiet => {}
        Transparency::IsMask => note!("note: {shown} is transparent and of one colour: its opaque part is made anew"),
        Transparency::Ignored => note!("warning: the transparency of {shown} is ignored: its colours are the mask"),
    }
    let mask = mask.image;
    let picture = Extents { width: image.width, height: image.height, resize: args.resize };
    run::run(&Work {
        command: "inpaint",
        prompt: prompt.as_deref(),
        name: prompt.as_deref().unwrap_or(&run::stem(&args.input)),
        flags: &args.image,
        task: Inpaint { image, mask, strength: args.strength }.into(),
        picture: Some(picture),
        inputs: &[("image", &args.input), ("mask", &args.mask)],
    })
}
