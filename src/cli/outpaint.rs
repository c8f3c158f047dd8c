//! `headwater outpaint`: what lies around a picture.

use super::edit_args::EditArgs;
use super::error::CliError;
use super::image_args::{ImageArgs, whole};
use super::pictures::{Files, Pictures};
use super::run::{self, Extents, Work};
use pipelines::Inpaint;
use serde_json::json;
use std::path::PathBuf;

/// Make what lies around a picture, which itself is kept, bit for bit.
#[derive(Debug, clap::Args)]
#[command(mut_arg("model", |model| model.default_value(crate::bundled::DIFFUSION)))]
#[command(mut_arg("width", |width| width.hide(true)), mut_arg("height", |height| height.hide(true)))]
#[command(group(clap::ArgGroup::new("sides").args(["left", "right", "top", "bottom"]).required(true).multiple(true)))]
pub(super) struct Args {
    /// Picture to go on from: PNG, JPEG, WebP, BMP, GIF or TIFF, of any size; its transparency is ignored
    input: PathBuf,

    /// What the whole shows, in words with or without quotes; a class-conditional or unconditional model takes none
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// Pixels to the left
    #[arg(long, value_name = "PIXELS", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 16_384>)]
    left: u32,

    /// Pixels to the right
    #[arg(long, value_name = "PIXELS", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 16_384>)]
    right: u32,

    /// Pixels above
    #[arg(long, value_name = "PIXELS", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 16_384>)]
    top: u32,

    /// Pixels below
    #[arg(long, value_name = "PIXELS", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 16_384>)]
    bottom: u32,

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
    if args.image.width.is_some() || args.image.height.is_some() {
        let message = "outpaint takes no --width or --height: the size follows from the picture and its margins";
        return Err(CliError::Usage(message.into()));
    }
    let margins = [args.left, args.right, args.top, args.bottom].map(|pixels| pixels as usize);
    if margins == [0; 4] {
        let message = "nothing is to be made: say on which side, with --left, --right, --top or --bottom PIXELS";
        return Err(CliError::Usage(message.into()));
    }
    let prompt = run::prompt(&args.words);
    let inner = pictures.picture(&args.input)?;
    let [left, right, top, bottom] = margins;
    let (width, height) = (inner.width + left + right, inner.height + top + bottom);
    let most = pictures.most_pixels();
    if width * height > most {
        return Err(CliError::Usage(format!(
            "{width}x{height} is too large: at most {} million pixels are made",
            most / 1_000_000
        )));
    }
    let around = Inpaint::around(&inner, margins);
    let picture = Extents { width: around.image.width, height: around.image.height, resize: false, can_resize: false };
    let task = Inpaint { method: args.edit.method, replace_every: args.edit.replace_every as usize, ..around };
    Ok(Work {
        command: "outpaint",
        name: prompt.clone().unwrap_or_else(|| run::stem(&args.input)),
        prompt,
        flags: args.image.clone(),
        task: task.into(),
        picture: Some(picture),
        told: json!({
            "left": args.left, "right": args.right, "top": args.top, "bottom": args.bottom, "replace_every": args.edit.told(),
        }),
        inputs: vec![("image", args.input.clone())],
    })
}
