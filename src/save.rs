//! Pictures to files.

use crate::picture::PictureError;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use pipelines::RgbImage;
use std::path::Path;

/// A format that pictures are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureFormat {
    /// Without loss.
    Png,
    /// With some.
    Jpeg,
    /// Without loss.
    WebP,
}

/// Of JPEG: that of AUTOMATIC1111's web UI is 80, at which the colours of small drawings suffer.
pub(crate) const QUALITY: u8 = 95;

impl PictureFormat {
    /// Endings of files that are written, for messages.
    pub(crate) const ENDINGS: &str = ".png, .jpg or .webp";

    /// By a file's ending: `.png`, `.jpg`, `.jpeg` or `.webp`, in large or small letters.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// The ending of a file, without its dot.
    #[cfg(feature = "serve")]
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
        }
    }

    /// The file's bytes, with EXIF where there is any. The quality is of JPEG, between 1 and 100.
    pub(crate) fn encode(self, image: &RgbImage, quality: u8, exif: Vec<u8>) -> Result<Vec<u8>, PictureError> {
        let failed = |why: &dyn std::fmt::Display| PictureError::new(format!("cannot encode the image: {why}"));
        let (width, height) = (image.width, image.height);
        if width == 0
            || height == 0
            || width.checked_mul(height).and_then(|n| n.checked_mul(3)) != Some(image.pixels.len())
        {
            return Err(failed(&format!("{} bytes are no {width}x{height} pixels of RGB", image.pixels.len())));
        }
        let side = |extent: usize| u32::try_from(extent).map_err(|error| failed(&error));
        let (width, height) = (side(width)?, side(height)?);
        let mut bytes = Vec::new();
        let written = match self {
            Self::Png => with_exif(PngEncoder::new(&mut bytes), exif, image, [width, height]),
            Self::Jpeg => with_exif(JpegEncoder::new_with_quality(&mut bytes, quality), exif, image, [width, height]),
            Self::WebP => with_exif(WebPEncoder::new_lossless(&mut bytes), exif, image, [width, height]),
        };
        written.map_err(|error| failed(&error))?;
        Ok(bytes)
    }
}

fn with_exif(
    mut encoder: impl ImageEncoder,
    exif: Vec<u8>,
    image: &RgbImage,
    [width, height]: [u32; 2],
) -> image::ImageResult<()> {
    if !exif.is_empty() {
        drop(encoder.set_exif_metadata(exif));
    }
    encoder.write_image(&image.pixels, width, height, ExtendedColorType::Rgb8)
}

/// A picture that saves itself.
pub trait SavePicture {
    /// Writes a PNG, a JPEG or a WebP (without loss), by the path's ending, over what is there. The file is whole or not there at all.
    ///
    /// ```
    /// use headwater::{RgbImage, SavePicture};
    ///
    /// # let folder = std::env::temp_dir().join(format!("headwater-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// # let path = folder.join("red.png");
    /// RgbImage { width: 1, height: 1, pixels: vec![255, 0, 0] }.save(&path)?;
    /// assert_eq!(headwater::read_picture(&path)?.pixels, [255, 0, 0]);
    /// # std::fs::remove_dir_all(folder).unwrap();
    /// # Ok::<(), headwater::PictureError>(())
    /// ```
    ///
    /// # Errors
    /// When the ending is another, the file cannot be written, or the pixels are not as many as the size says.
    fn save(&self, path: impl AsRef<Path>) -> Result<(), PictureError>;
}

impl SavePicture for RgbImage {
    fn save(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        let path = path.as_ref();
        let shown = path.display();
        let Some(format) = PictureFormat::of(path) else {
            return Err(PictureError::new(format!("{shown} must end in {}", PictureFormat::ENDINGS)));
        };
        let bytes = format.encode(self, QUALITY, Vec::new())?;
        // Beside its place first, so that nobody finds half of it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|error| {
            drop(std::fs::remove_file(&beside));
            PictureError::new(format!("cannot write {shown}: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_saved_by_their_ending_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("headwater-save-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("makes a folder");
        let image = RgbImage { width: 2, height: 1, pixels: vec![0, 128, 255, 255, 128, 0] };
        for name in ["a.png", "b.WEBP"] {
            image.save(folder.join(name)).expect("saves");
            assert_eq!(crate::read_picture(&folder.join(name)).expect("reads"), image, "{name}");
        }
        image.save(folder.join("c.jpg")).expect("saves");
        assert!(std::fs::read(folder.join("c.jpg")).expect("reads").starts_with(b"\xff\xd8\xff"));
        let wrong = RgbImage { width: 3, ..image.clone() };
        for (image, name, part) in [
            (&image, "d.gif", "must end in .png"),
            (&image, "no/such/d.png", "cannot write"),
            (&wrong, "d.png", "no 3x1 pixels"),
        ] {
            let error = image.save(folder.join(name)).expect_err(name).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(std::fs::read_dir(&folder).expect("reads").count(), 3, "nothing else is left");
        std::fs::remove_dir_all(folder).expect("removes");
    }
}
