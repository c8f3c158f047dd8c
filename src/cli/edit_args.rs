//! Flags of the commands that edit pictures by models that were trained for none of it.

use super::error::CliError;
use super::image_args::whole;
use super::pictures::Pictures;
use super::warnings::warn;
use crate::{MaskPicture, Transparency};
use pipelines::{Method, RgbImage};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// How a picture is held to what is known of it.
#[derive(Debug, clap::Args)]
pub(super) struct EditArgs {
    /// How what is known is kept: replace (in every step's image; consistency models, and all but masks), repaint (pixel diffusion models:
    /// steps taken back and repeated), predictor-corrector (score_sde's models), blend (latent models' masks) [default: what suits the
    /// model and the task]
    #[arg(long, help_heading = "Editing", value_name = "NAME")]
    pub(super) method: Option<Method>,

    /// Of latent models, put back what is known in every Nth step alone: it takes a decoding and an encoding
    #[arg(long, help_heading = "Editing", value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = whole::<1, 1000>)]
    pub(super) replace_every: u32,
}

impl EditArgs {
    /// For an image's settings.
    pub(super) fn told(&self) -> Option<u32> {
        (self.replace_every > 1).then_some(self.replace_every)
    }
}

/// For an image's settings: nothing where a number is none.
pub(super) fn above_none(pixels: u32) -> Option<u32> {
    (pixels > 0).then_some(pixels)
}

/// What is done with a mask.
#[derive(Debug, clap::Args)]
pub(super) struct MaskArgs {
    /// Make anew what the mask keeps, and keep the rest
    #[arg(long, help_heading = "Editing")]
    pub(super) invert: bool,

    /// Make as many pixels around the mask anew, too
    #[arg(long, help_heading = "Editing", value_name = "PIXELS", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 1024>)]
    pub(super) mask_grow: u32,

    /// Let the new part set in over as many pixels, from the mask's edge inwards
    #[arg(long, help_heading = "Editing", value_name = "PIXELS", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<0, 1024>)]
    pub(super) mask_blur: u32,

    /// Give the model only the part around the mask, as many pixels wider, at its own size [default: 32 where the picture is much larger
    /// than the model's]
    #[arg(long, help_heading = "Editing", value_name = "PIXELS", allow_negative_numbers = true, value_parser = whole::<0, 65_536>)]
    pub(super) padding: Option<u32>,
}

/// `--mask`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MaskArg {
    File(PathBuf),
    Box {
        left: usize,
        top: usize,
        width: usize,
        height: usize,
    },
    /// Where the picture itself is transparent.
    Alpha,
}

impl fmt::Display for MaskArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Box { left, top, width, height } => write!(f, "{left},{top},{width},{height}"),
            Self::Alpha => f.write_str("alpha"),
        }
    }
}

impl MaskArg {
    /// Reads it; a file may have any name that the system allows.
    pub(super) fn parse(text: OsString) -> Result<Self, String> {
        let Some(text) = text.to_str() else { return Ok(Self::File(text.into())) };
        if text == "alpha" {
            return Ok(Self::Alpha);
        }
        let numbers: Vec<&str> = text.split(',').map(str::trim).collect();
        // A file may have commas in its name, but not four numbers and nothing else.
        let is_box =
            numbers.len() > 1 && numbers.iter().all(|n| n.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()));
        if !is_box {
            return Ok(Self::File(text.into()));
        }
        match numbers.iter().map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>().as_deref() {
            Some(&[left, top, width, height]) if width > 0 && height > 0 => Ok(Self::Box { left, top, width, height }),
            _ => Err("a box is X,Y,WIDTH,HEIGHT in whole pixels, counted from the upper left corner".into()),
        }
    }
}

impl MaskArg {
    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        if let Self::File(path) = self { Some(path) } else { None }
    }

    /// The mask for a picture that was read from `input`.
    pub(super) fn read(
        &self,
        pictures: &dyn Pictures,
        input: &Path,
        image: &RgbImage,
        invert: bool,
        quiet: bool,
    ) -> Result<RgbImage, CliError> {
        let mut mask = match self {
            Self::File(path) => from_file(pictures, path, image, quiet)?,
            Self::Box { left, top, width, height } => {
                let inside = |at: usize, start: usize, extent: usize| at >= start && at - start < extent;
                let pixel =
                    |at: usize| inside(at % image.width, *left, *width) && inside(at / image.width, *top, *height);
                if *left >= image.width || *top >= image.height {
                    return Err(CliError::Usage(format!(
                        "--mask {left},{top},{width},{height} lies outside the picture, which has {}x{} pixels",
                        image.width, image.height
                    )));
                }
                let pixels =
                    (0..image.width * image.height).flat_map(|at| [if pixel(at) { 255 } else { 0 }; 3]).collect();
                RgbImage { pixels, ..*image }
            }
            Self::Alpha => pictures
                .transparent(input)?
                .ok_or_else(|| CliError::Usage(format!("--mask alpha: {} has no transparency", input.display())))?,
        };
        if invert {
            mask.pixels.iter_mut().for_each(|value| *value = 255 - *value);
        }
        let luma = mask.luma();
        let greys = luma.iter().filter(|luma| (32..224).contains(*luma)).count();
        if greys * 10 > luma.len() && !quiet {
            note!("note: the mask has many greys: what is brighter than half is made anew, the rest is kept");
        }
        Ok(mask)
    }
}

fn from_file(pictures: &dyn Pictures, path: &Path, picture: &RgbImage, quiet: bool) -> Result<RgbImage, CliError> {
    let MaskPicture { image, transparency } = pictures.mask(path)?;
    let shown = path.display();
    // One of another size is resized, which must not stretch it. Rounding to whole pixels may.
    let [wide, high] = [image.width as f64 / picture.width as f64, image.height as f64 / picture.height as f64];
    let rounding = 1.0 / picture.width as f64 + 1.0 / picture.height as f64;
    if (wide - high).abs() > rounding * wide.max(high).max(1.0) {
        return Err(CliError::Usage(format!(
            "the mask {shown} has {}x{} pixels and the picture {}x{}: it must be as large, or of the same shape",
            image.width, image.height, picture.width, picture.height
        )));
    }
    match transparency {
        Transparency::None => {}
        Transparency::IsMask if quiet => {}
        Transparency::IsMask => note!("note: {shown} is transparent and of one colour: its opaque part is made anew"),
        Transparency::Ignored => {
            warn(quiet, &format!("the transparency of {shown} is ignored: its colours are the mask"))?;
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_files_boxes_or_alpha() {
        let wanted = MaskArg::Box { left: 1, top: 2, width: 30, height: 40 };
        let parse = |text: &str| MaskArg::parse(text.into());
        assert_eq!(parse("1,2,30,40"), Ok(wanted.clone()));
        assert_eq!(parse("1, 2, 30, 40"), Ok(wanted));
        assert_eq!(parse("alpha"), Ok(MaskArg::Alpha));
        for file in ["mask.png", "a,b", "1", "alpha.png", "1,2.png"] {
            assert_eq!(parse(file), Ok(MaskArg::File(file.into())));
        }
        for bad in ["1,2,3", "1,2,0,4", "1,2,-3,4", "1,2,3,4,5"] {
            assert!(parse(bad).is_err_and(|error| error.contains("X,Y,WIDTH,HEIGHT")), "{bad}");
        }
    }
}
