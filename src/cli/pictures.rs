//! Where the pictures come from that a command is given: files that were named, or what was sent to a server, which opens no file by a name from
//! elsewhere.

use super::error::CliError;
use crate::{MaskPicture, PictureError};
use pipelines::RgbImage;
use std::path::Path;

/// Of a picture that is worked on: there is nothing to see on a smaller one.
const SMALLEST_SIDE: usize = 8;

/// The most pixels of a picture that is made larger than the one that is given.
const MOST_PIXELS: usize = 64_000_000;

/// Reads the pictures of a command.
pub(super) trait Pictures {
    /// A picture to work on.
    fn read(&self, path: &Path) -> Result<RgbImage, PictureError>;

    /// A mask.
    fn mask(&self, path: &Path) -> Result<MaskPicture, PictureError>;

    /// Where a picture is transparent.
    fn transparent(&self, path: &Path) -> Result<Option<RgbImage>, PictureError>;

    /// The most pixels that are made.
    fn most_pixels(&self) -> usize {
        MOST_PIXELS
    }

    /// A picture to work on, which is not too small for it.
    fn picture(&self, path: &Path) -> Result<RgbImage, CliError> {
        let picture = self.read(path)?;
        let RgbImage { width, height, .. } = picture;
        if width.min(height) < SMALLEST_SIDE {
            let shown = path.display();
            let message = format!(
                "{shown} has {width}x{height} pixels, which is too little to work on: {SMALLEST_SIDE} a side at least"
            );
            return Err(CliError::Failed(message));
        }
        Ok(picture)
    }
}

/// Files by their paths.
pub(super) struct Files;

impl Pictures for Files {
    fn read(&self, path: &Path) -> Result<RgbImage, PictureError> {
        crate::read_picture(path)
    }

    fn mask(&self, path: &Path) -> Result<MaskPicture, PictureError> {
        crate::read_mask(path)
    }

    fn transparent(&self, path: &Path) -> Result<Option<RgbImage>, PictureError> {
        crate::read_transparent(path)
    }
}
