//! `headwater inpaint`: a part of a picture made anew.

use super::edit_args::{EditArgs, MaskArg, MaskArgs, above_none};
use super::error::CliError;
use super::image_args::ImageArgs;
use super::pictures::{Files, Pictures};
use super::run::{self, Extents, Work};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use pipelines::Inpaint;
use serde_json::json;
use std::path::PathBuf;

/// Make a part of a picture anew and keep the rest, bit for bit.
#[derive(Debug, clap::Args)]
#[command(mut_arg("model", |model| model.default_value(crate::bundled::DIFFUSION)))]
pub(super) struct Args {
    /// Picture to change: PNG, JPEG, WebP, BMP, GIF or TIFF, of any size; its transparency counts with --mask alpha alone
    input: PathBuf,

    /// What the new part shows, in words with or without quotes; a class-conditional or unconditional model takes none
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// What is made anew: a picture that is white there and black where it is kept, from half brightness on (of one whose colours are all alike,
    /// the opaque part); a box in pixels; or alpha, where the picture itself is transparent
    #[arg(long, value_name = "FILE|X,Y,W,H|alpha", value_parser = OsStringValueParser::new().try_map(MaskArg::parse))]
    mask: MaskArg,

    #[command(flatten)]
    masks: MaskArgs,

    /// How much of the schedule is run: the less, the more is kept of what was there [default: the model's, 1 or 0.9999 of SDXL]
    #[arg(long, value_name = "0..1", allow_negative_numbers = true, value_parser = run::strength)]
    strength: Option<f64>,

    /// Make a picture that is much larger than the model's own as large as that first
    #[arg(long, conflicts_with_all = ["width", "height"])]
    resize: bool,

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
    let prompt = run::prompt(&args.words);
    let image = pictures.picture(&args.input)?;
    let mask = args.mask.read(pictures, &args.input, &image, args.masks.invert, args.image.quiet)?;
    if mask.luma().iter().all(|luma| *luma >= 128) {
        let message = "the mask is white everywhere, so nothing of the picture would be kept: paint black what is to be kept, or use headwater \
                       generate";
        return Err(CliError::Usage(message.into()));
    }
    let picture = Extents { width: image.width, height: image.height, resize: args.resize, can_resize: true };
    let mut inputs = vec![("image", args.input.clone())];
    inputs.extend(args.mask.file().map(|file| ("mask", file.to_owned())));
    let task = Inpaint {
        strength: args.strength,
        method: args.edit.method,
        replace_every: args.edit.replace_every as usize,
        padding: args.masks.padding.map(|pixels| pixels as usize),
        grow: args.masks.mask_grow as usize,
        blur: args.masks.mask_blur as usize,
        ..Inpaint::new(image, mask)
    };
    Ok(Work {
        command: "inpaint",
        name: prompt.clone().unwrap_or_else(|| run::stem(&args.input)),
        prompt,
        flags: args.image.clone(),
        task: task.into(),
        picture: Some(picture),
        told: json!({
            "mask": args.mask.to_string(), "invert": args.masks.invert.then_some(true), "mask_grow": above_none(args.masks.mask_grow),
            "mask_blur": above_none(args.masks.mask_blur), "padding": args.masks.padding, "replace_every": args.edit.told(),
        }),
        inputs,
    })
}
