//! Pictures from files.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};
use pipelines::RgbImage;
use std::path::Path;
use thiserror::Error;

/// Why a file gives no picture, in one sentence.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct PictureError(String);

/// The largest side of a picture that is read, in pixels.
const LARGEST_SIDE: u32 = 1 << 15;

/// The most bytes that decoding may ask for: a small file can claim any size.
const LARGEST_ALLOCATION: u64 = 1 << 30;

/// Reads a PNG, JPEG or WebP file, whichever it is by its content. The picture is turned as its EXIF orientation says; grey and palettes
/// become RGB, 16 bits become 8, and alpha is dropped, the colours under it kept, as in diffusers' `load_image`.
///
/// # Errors
/// When the file cannot be read, is no such picture, is damaged, or larger than 32768 pixels a side or 1 GiB in memory.
pub fn read_picture(path: &Path) -> Result<RgbImage, PictureError> {
    let shown = path.display();
    let unread = |error: &dyn std::fmt::Display| PictureError(format!("cannot read {shown}: {error}"));
    let mut reader =
        ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|error| unread(&error))?;
    if reader.format().is_none() {
        return Err(PictureError(format!("{shown} is not a PNG, JPEG or WebP picture")));
    }
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LARGEST_SIDE), Some(LARGEST_SIDE));
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    reader.limits(limits);
    let too_large = || {
        let message = format!(
            "{shown} is too large a picture: at most {LARGEST_SIDE} pixels a side and 1 GiB in memory are read"
        );
        PictureError(message)
    };
    let broken = |error: ImageError| match error {
        ImageError::Limits(_) => too_large(),
        ImageError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => unread(&error),
        // Messages of decoders may have several lines.
        error => {
            let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            PictureError(format!("{shown} is not a picture that can be read (PNG, JPEG or WebP): {error}"))
        }
    };
    let mut decoder = reader.into_decoder().map_err(broken)?;
    if decoder.total_bytes() > LARGEST_ALLOCATION {
        return Err(too_large());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    let pixels = picture.into_rgb8();
    let [width, height] = [pixels.width(), pixels.height()].map(|extent| extent as usize);
    Ok(RgbImage { width, height, pixels: pixels.into_raw() })
}
