//! Pictures from files.

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use pipelines::RgbImage;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use thiserror::Error;

/// Why a file gives no picture, in one sentence.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct PictureError(pub(crate) String);

/// The largest side of a picture that is read, in pixels.
const LARGEST_SIDE: u32 = 1 << 15;

/// The most bytes that decoding may ask for: a small file can claim any size.
const LARGEST_ALLOCATION: u64 = 1 << 30;

/// The formats that are read.
const FORMATS: &str = "PNG, JPEG, WebP, BMP, GIF or TIFF";

/// Reads a PNG, JPEG, WebP, BMP, GIF (its first frame) or TIFF file, whichever it is by its content. The picture is turned as its EXIF
/// orientation says; grey and palettes become RGB, 16 bits become 8, and alpha is dropped, the colours under it kept, as in diffusers'
/// `load_image`.
///
/// # Errors
/// When the file cannot be read, is no such picture, is damaged, or larger than 32768 pixels a side or 1 GiB in memory.
pub fn read_picture(path: &Path) -> Result<RgbImage, PictureError> {
    decode(path).map(rgb)
}

/// A mask read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskPicture {
    /// White where the image is made anew.
    pub image: RgbImage,
    /// What was done with the file's transparency, if it has any.
    pub transparency: Transparency,
}

/// What a mask's transparency means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transparency {
    /// There is none.
    None,
    /// It is the mask: all colours are alike, as where a painting program saved strokes on an empty layer. What is opaque is made anew.
    IsMask,
    /// The colours are the mask, and it was ignored.
    Ignored,
}

/// Reads a mask as [`read_picture`] does, but for transparency: where all colours are white or all are black, the opaque part is the mask.
///
/// # Errors
/// As [`read_picture`].
pub fn read_mask(path: &Path) -> Result<MaskPicture, PictureError> {
    let picture = decode(path)?;
    if !picture.color().has_alpha() {
        let image = rgb(picture);
        return Ok(MaskPicture { image, transparency: Transparency::None });
    }
    let pixels = picture.into_rgba8();
    let is_white = |pixel: &image::Rgba<u8>| luma(pixel.0) >= 128;
    let opaque = |pixel: &image::Rgba<u8>| pixel.0[3] >= 128;
    let differ = |of: &dyn Fn(&image::Rgba<u8>) -> bool| {
        let mut values = pixels.pixels().map(of);
        values.next().is_some_and(|first| values.any(|value| value != first))
    };
    // Of what can be seen: the colour under full transparency is whatever the program left there.
    let mut seen = pixels.pixels().filter(|pixel| opaque(pixel)).map(is_white);
    let colours_differ = seen.next().is_some_and(|first| seen.any(|white| white != first));
    let transparency = match (differ(&opaque), colours_differ) {
        (false, _) => Transparency::None,
        (true, false) => Transparency::IsMask,
        (true, true) => Transparency::Ignored,
    };
    let image = if transparency == Transparency::IsMask {
        let (width, height) = (pixels.width() as usize, pixels.height() as usize);
        let pixels = pixels.pixels().flat_map(|pixel| [if opaque(pixel) { 255 } else { 0 }; 3]).collect();
        RgbImage { width, height, pixels }
    } else {
        rgb(DynamicImage::ImageRgba8(pixels))
    };
    Ok(MaskPicture { image, transparency })
}

/// Where a picture is transparent, as a mask that is white there; none if it has no transparency.
///
/// # Errors
/// As [`read_picture`].
pub fn read_transparent(path: &Path) -> Result<Option<RgbImage>, PictureError> {
    let picture = decode(path)?;
    if !picture.color().has_alpha() {
        return Ok(None);
    }
    let pixels = picture.into_rgba8();
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let mask: Vec<u8> = pixels.pixels().flat_map(|pixel| [if pixel.0[3] < 128 { 255 } else { 0 }; 3]).collect();
    Ok(mask.contains(&255).then_some(RgbImage { width, height, pixels: mask }))
}

/// Whether a GIF, WebP or PNG file has several frames, of which [`read_picture`] reads the first. Files that are no such pictures have none.
#[must_use]
pub fn is_animated(path: &Path) -> bool {
    let several = || {
        let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).ok()?;
        let format = reader.format()?;
        let file = reader.into_inner();
        match format {
            ImageFormat::Gif => {
                let mut decoder = GifDecoder::new(file).ok()?;
                decoder.set_limits(limits()).ok()?;
                Some(decoder.into_frames().take(2).filter(Result::is_ok).count() > 1)
            }
            ImageFormat::WebP => Some(chunks_fit(path).ok()? && WebPDecoder::new(file).ok()?.has_animation()),
            ImageFormat::Png => PngDecoder::with_limits(file, limits()).ok()?.is_apng().ok(),
            _ => None,
        }
    };
    models::contain(several).flatten().unwrap_or(false)
}

/// As Pillow's conversion to `L` has it (ITU-R 601).
fn luma(pixel: [u8; 4]) -> u32 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16
}

fn rgb(picture: DynamicImage) -> RgbImage {
    let pixels = picture.into_rgb8();
    let [width, height] = [pixels.width(), pixels.height()].map(|extent| extent as usize);
    RgbImage { width, height, pixels: pixels.into_raw() }
}

fn decode(path: &Path) -> Result<DynamicImage, PictureError> {
    let shown = path.display();
    let unread = |error: &dyn std::fmt::Display| PictureError(format!("cannot read {shown}: {error}"));
    let kind = std::fs::metadata(path).map_err(|error| unread(&error))?;
    if !kind.is_file() {
        let what = if kind.is_dir() { "a folder" } else { "no file but a pipe or a device" };
        return Err(PictureError(format!("{shown} is {what}, not a picture")));
    }
    let mut reader =
        ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|error| unread(&error))?;
    if reader.format() == Some(ImageFormat::WebP) && !chunks_fit(path).map_err(|error| unread(&error))? {
        let message = format!("{shown} is not a picture that can be read ({FORMATS}): it is cut off or damaged");
        return Err(PictureError(message));
    }
    if reader.format() == Some(ImageFormat::Jpeg) && !is_ended(path).map_err(|error| unread(&error))? {
        let message = format!("{shown} is not a picture that can be read ({FORMATS}): it is cut off");
        return Err(PictureError(message));
    }
    if reader.format().is_none() {
        return Err(PictureError(format!("{shown} is not a picture that is read ({FORMATS})")));
    }
    reader.limits(limits());
    let too_large = || {
        let message = format!(
            "{shown} is too large a picture: at most {LARGEST_SIDE} pixels a side and 1 GiB in memory are read"
        );
        PictureError(message)
    };
    let broken = |error: ImageError| match error {
        ImageError::Limits(_) => too_large(),
        ImageError::IoError(error) if error.kind() != ErrorKind::UnexpectedEof => unread(&error),
        // Messages of decoders may have several lines.
        error => {
            let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            PictureError(format!("{shown} is not a picture that can be read ({FORMATS}): {error}"))
        }
    };
    let panicked = || {
        PictureError(format!(
            "{shown} is not a picture that can be read ({FORMATS}): its decoder does not know what to do"
        ))
    };
    models::contain(|| decoded(reader, &too_large, &broken)).unwrap_or_else(|| Err(panicked()))
}

/// What decoders may ask for.
fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LARGEST_SIDE), Some(LARGEST_SIDE));
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    limits
}

/// What libraries make of a file, in which they may come upon something that they do not expect.
fn decoded(
    reader: ImageReader<BufReader<File>>,
    too_large: &dyn Fn() -> PictureError,
    broken: &dyn Fn(ImageError) -> PictureError,
) -> Result<DynamicImage, PictureError> {
    let mut decoder = reader.into_decoder().map_err(broken)?;
    // What it will take, as it is and as RGB.
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > LARGEST_ALLOCATION || u64::from(width) * u64::from(height) * 3 > 3 * LARGEST_ALLOCATION {
        return Err(too_large());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Whether the chunks of a WebP file end where the file does or before. Its decoder takes as much memory for a chunk of metadata as the
/// chunk claims to be long, up to 4 GiB, before it reads any of it.
fn chunks_fit(path: &Path) -> std::io::Result<bool> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    // A name and a length stand before the bytes of a chunk, and before the whole file.
    let mut length_at = |at: u64| -> std::io::Result<u64> {
        let mut head = [0; 8];
        reader.seek(SeekFrom::Start(at))?;
        reader.read_exact(&mut head)?;
        Ok(u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]])))
    };
    // What follows the whole is no part of it. The first chunk comes after the word WEBP.
    let whole = end.min(8 + length_at(0)?);
    let mut at = 12;
    while at + 8 <= whole {
        let length = length_at(at)?;
        at += 8 + length;
        // Some writers leave out the padding of the last chunk.
        if at > end {
            return Ok(false);
        }
        at += length % 2;
    }
    Ok(true)
}

/// Whether a JPEG file has the mark of its end after that of its last scan: decoders take what is missing for grey. A picture in its metadata has marks
/// of its own, before that scan.
fn is_ended(path: &Path) -> std::io::Result<bool> {
    let bytes = std::fs::read(path)?;
    let last = |mark: [u8; 2]| bytes.windows(2).rposition(|pair| pair == mark);
    Ok(last([0xff, 0xd9]) > last([0xff, 0xda]))
}
