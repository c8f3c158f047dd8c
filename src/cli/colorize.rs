//! `headwater colorize`: colours for a picture, its brightness kept.

use super::edit_args::{EditArgs, MaskArg};
use super::error::CliError;
use super::image_args::ImageArgs;
use super::pictures::{Files, Pictures};
use super::run::{self, Extents, Work};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use pipelines::Colorize;
use serde_json::json;
use std::path::PathBuf;

/// Give a picture colours, and keep the brightness of every pixel.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Picture to colour, of any size: PNG, JPEG, WebP, BMP, GIF or TIFF; colours that it has are not looked at
    input: PathBuf,

    /// What the picture shows, in words with or without quotes
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// What gets new colours, if not all of it: a picture that is white there, a box in pixels, or where the picture is transparent
    #[arg(long, value_name = "FILE|X,Y,W,H|alpha", value_parser = OsStringValueParser::new().try_map(MaskArg::parse))]
    mask: Option<MaskArg>,

    /// Colour what the mask keeps, and keep the rest
    #[arg(long, help_heading = "Editing", requires = "mask")]
    invert: bool,

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
    let mask = args
        .mask
        .as_ref()
        .map(|mask| mask.read(pictures, &args.input, &image, args.invert, args.image.quiet))
        .transpose()?;
    let picture = Extents { width: image.width, height: image.height, resize: false, can_resize: false };
    let prompt = args.words.join(" ");
    let mut inputs = vec![("image", args.input.clone())];
    inputs.extend(args.mask.as_ref().and_then(MaskArg::file).map(|file| ("mask", file.to_owned())));
    let task = Colorize {
        mask,
        method: args.edit.method,
        replace_every: args.edit.replace_every as usize,
        ..Colorize::new(image)
    };
    Ok(Work {
        command: "colorize",
        name: if prompt.is_empty() { run::stem(&args.input) } else { prompt.clone() },
        prompt: Some(prompt),
        flags: args.image.clone(),
        task: task.into(),
        picture: Some(picture),
        told: json!({
            "mask": args.mask.as_ref().map(ToString::to_string), "invert": args.invert.then_some(true),
            "replace_every": args.edit.told(),
        }),
        inputs,
    })
}
