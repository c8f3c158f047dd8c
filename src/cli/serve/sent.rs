//! The pictures that a request brings. They are read from memory: no name in a request opens a file.

use super::super::pictures::Pictures;
use super::fields::{IMAGE, MASK};
use super::http::error::ApiError;
use crate::{MaskPicture, PictureBytes, PictureError, Transparency};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::imageops;
use pipelines::RgbImage;
use std::path::Path;

/// Pictures by what they are in the request: `image`, `mask`.
#[derive(Debug, Default)]
pub(super) struct Sent {
    files: Vec<(&'static str, Vec<u8>)>,
    pub(super) most_pixels: usize,
    /// Whether a mask's transparent part is made anew, and not its white one.
    pub(super) alpha_masks: bool,
    /// Whether what lies under the mask is filled from around it first, and whether the mask is inverted.
    pub(super) fill: Option<bool>,
}

impl Sent {
    pub(super) fn new(most_pixels: usize) -> Self {
        Self { files: Vec::new(), most_pixels, alpha_masks: false, fill: None }
    }

    pub(super) fn put(&mut self, name: &'static str, bytes: Vec<u8>) {
        self.files.retain(|(own, _)| *own != name);
        self.files.push((name, bytes));
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(own, _)| *own == name)
    }

    fn file(&self, path: &Path) -> PictureBytes<'_> {
        let found = self.files.iter().find(|(own, _)| Path::new(own) == path);
        let (name, bytes) = found.map_or(("the picture", &[][..]), |(own, bytes)| (*own, bytes.as_slice()));
        PictureBytes { name, bytes, most_pixels: self.most_pixels as u64 }
    }
}

impl Pictures for Sent {
    fn read(&self, path: &Path) -> Result<RgbImage, PictureError> {
        let picture = self.file(path).picture()?;
        match self.fill {
            Some(is_inverted) if path == Path::new(IMAGE) => {
                let mask = self.mask(Path::new(MASK))?;
                Ok(fill(&picture, &mask.image, is_inverted))
            }
            _ => Ok(picture),
        }
    }

    fn mask(&self, path: &Path) -> Result<MaskPicture, PictureError> {
        let file = self.file(path);
        if !self.alpha_masks {
            return file.mask();
        }
        let whole = file.picture()?;
        // One without transparency keeps everything.
        let nothing = || RgbImage { pixels: vec![0; whole.pixels.len()], ..whole };
        let image = file.transparent()?.unwrap_or_else(nothing);
        Ok(MaskPicture { image, transparency: Transparency::None })
    }

    fn transparent(&self, path: &Path) -> Result<Option<RgbImage>, PictureError> {
        self.file(path).transparent()
    }

    fn most_pixels(&self) -> usize {
        self.most_pixels
    }
}

/// Base64 with or without padding, as clients write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of a picture that is written in base64, alone or in a data URL.
pub(super) fn from_base64(field: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    let data = match text.strip_prefix("data:") {
        Some(url) => match url.split_once(";base64,") {
            Some((_, data)) => data,
            None => return Err(ApiError::field(field, "is a data URL without ;base64")),
        },
        None if text.starts_with("http://") || text.starts_with("https://") => {
            return Err(ApiError::field(
                field,
                "is an address, and this server fetches none: send the picture in base64",
            ));
        }
        None => text,
    };
    let data: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(data).map_err(|error| ApiError::field(field, &format!("is no valid base64: {error}")))?;
    if bytes.is_empty() {
        return Err(ApiError::field(field, "is empty"));
    }
    Ok(bytes)
}

/// How far colours reach from what is kept into what is made anew, in pixels, the far ones first.
const REACH: [f32; 5] = [256.0, 64.0, 16.0, 4.0, 2.0];

/// A picture whose masked part has the colours around it, as AUTOMATIC1111's web UI fills it: blurs of what is kept, the finer ones over the
/// coarser where they have colours.
fn fill(picture: &RgbImage, mask: &RgbImage, is_inverted: bool) -> RgbImage {
    let side = |extent: usize| u32::try_from(extent).unwrap_or(u32::MAX);
    let (width, height) = (side(picture.width), side(picture.height));
    let Some(mask) = image::RgbImage::from_raw(side(mask.width), side(mask.height), mask.pixels.clone()) else {
        return picture.clone();
    };
    let mask = imageops::resize(&mask, width, height, imageops::FilterType::Nearest);
    let is_anew = |at: usize| (mask.as_raw()[3 * at] >= 128) != is_inverted;
    // Blurs are of shares between 0 and 1.
    let colours = |at: usize| [0, 1, 2].map(|channel| f32::from(picture.pixels[3 * at + channel]) / 255.0);
    // Colours times how much they count, and that.
    let kept = (0..picture.width * picture.height).flat_map(|at| match is_anew(at) {
        true => [0.0; 4],
        false => {
            let [red, green, blue] = colours(at);
            [red, green, blue, 1.0]
        }
    });
    let Some(kept) = image::Rgba32FImage::from_raw(width, height, kept.collect()) else { return picture.clone() };
    let mut filled = vec![[0.0_f32; 3]; picture.width * picture.height];
    for (level, reach) in REACH.into_iter().enumerate() {
        let blurred = imageops::fast_blur(&kept, reach);
        for (filled, image::Rgba([red, green, blue, weight])) in filled.iter_mut().zip(blurred.pixels()) {
            if *weight < 1e-6 {
                continue;
            }
            let share = if level == 0 { 1.0 } else { weight.min(1.0) };
            for (filled, own) in filled.iter_mut().zip([red, green, blue]) {
                *filled += (own / weight - *filled) * share;
            }
        }
    }
    let mut pixels = picture.pixels.clone();
    for (at, filled) in filled.iter().enumerate().filter(|(at, _)| is_anew(*at)) {
        for (channel, value) in filled.iter().enumerate() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
            let byte = (value * 255.0).round().clamp(0.0, 255.0) as u8;
            pixels[3 * at + channel] = byte;
        }
    }
    RgbImage { pixels, ..*picture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_masked_gets_the_colours_around_it() {
        let (width, height) = (32, 16);
        let inside = |at: usize| (12..20).contains(&(at % width)) && (4..12).contains(&(at / width));
        let pixels =
            (0..width * height).flat_map(|at| if inside(at) { [255, 0, 255] } else { [10, 200, 30] }).collect();
        let picture = RgbImage { width, height, pixels };
        let pixels = (0..width * height).flat_map(|at| [if inside(at) { 255 } else { 0 }; 3]).collect();
        let mask = RgbImage { width, height, pixels };
        let filled = fill(&picture, &mask, false);
        // Everything around has one colour, and so has every mean of it.
        let other: Vec<_> = filled.pixels.chunks_exact(3).filter(|pixel| *pixel != [10, 200, 30]).collect();
        assert!(other.is_empty(), "{other:?}");
        let inverted = fill(&picture, &mask, true);
        let other: Vec<_> = inverted.pixels.chunks_exact(3).filter(|pixel| *pixel != [255, 0, 255]).collect();
        assert!(other.is_empty(), "{other:?}");
    }

    #[test]
    fn base64_is_read_as_clients_write_it() {
        for text in ["aGVsbG8=", "aGVsbG8", "data:image/png;base64,aGVsbG8=", "aGVs\nbG8="] {
            assert_eq!(from_base64("image", text).expect(text), b"hello");
        }
        for text in ["", "!!!", "data:image/png,abc", "https://example.com/a.png", "data:image/png;base64,"] {
            assert!(from_base64("image", text).is_err(), "{text}");
        }
    }
}
