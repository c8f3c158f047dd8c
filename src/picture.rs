//! Pictures from files.

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use pipelines::RgbImage;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use thiserror::Error;

/// Why a file gives no picture, in one sentence.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct PictureError {
    message: String,
    is_too_large: bool,
}

impl PictureError {
    pub(crate) fn new(message: String) -> Self {
        Self { message, is_too_large: false }
    }

    /// Whether it may be a picture, but has more pixels than are read.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }
}

/// The largest side of a picture that is read, in pixels.
const LARGEST_SIDE: u32 = 1 << 15;

/// The most bytes that decoding may ask for: a small file can claim any size.
const LARGEST_ALLOCATION: u64 = 1 << 30;

/// The most pixels that fit into that.
const MOST_PIXELS: u64 = LARGEST_ALLOCATION;

/// The formats that are read.
const FORMATS: &str = "PNG, JPEG, WebP, BMP, GIF or TIFF";

/// Reads a PNG, JPEG, WebP, BMP, GIF (its first frame) or TIFF file, whichever it is by its content. The picture is turned as its EXIF
/// orientation says; grey and palettes become RGB, 16 bits become 8, and alpha is dropped, the colours under it kept, as in diffusers'
/// `load_image`.
///
/// # Errors
/// When the file cannot be read, is no such picture, is damaged, or larger than 32768 pixels a side or 1 GiB in memory.
pub fn read_picture(path: &Path) -> Result<RgbImage, PictureError> {
    decode_file(path).map(rgb)
}

/// A picture file in memory, which someone sent.
#[derive(Debug, Clone, Copy)]
pub struct PictureBytes<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Of the file.
    pub bytes: &'a [u8],
    /// The most pixels that are read.
    pub most_pixels: u64,
}

impl PictureBytes<'_> {
    /// As [`read_picture`].
    ///
    /// # Errors
    /// As [`read_picture`], with this limit of pixels.
    pub fn picture(&self) -> Result<RgbImage, PictureError> {
        self.decode().map(rgb)
    }

    /// As [`read_mask`].
    ///
    /// # Errors
    /// As [`picture`](Self::picture).
    pub fn mask(&self) -> Result<MaskPicture, PictureError> {
        self.decode().map(mask)
    }

    /// As [`read_transparent`].
    ///
    /// # Errors
    /// As [`picture`](Self::picture).
    pub fn transparent(&self) -> Result<Option<RgbImage>, PictureError> {
        self.decode().map(transparent)
    }

    fn decode(&self) -> Result<DynamicImage, PictureError> {
        decode(Cursor::new(self.bytes), self.name, self.most_pixels)
    }
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
    decode_file(path).map(mask)
}

fn mask(picture: DynamicImage) -> MaskPicture {
    if !picture.color().has_alpha() {
        let image = rgb(picture);
        return MaskPicture { image, transparency: Transparency::None };
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
    MaskPicture { image, transparency }
}

/// Where a picture is transparent, as a mask that is white there; none if it has no transparency.
///
/// # Errors
/// As [`read_picture`].
pub fn read_transparent(path: &Path) -> Result<Option<RgbImage>, PictureError> {
    decode_file(path).map(transparent)
}

fn transparent(picture: DynamicImage) -> Option<RgbImage> {
    if !picture.color().has_alpha() {
        return None;
    }
    let pixels = picture.into_rgba8();
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let mask: Vec<u8> = pixels.pixels().flat_map(|pixel| [if pixel.0[3] < 128 { 255 } else { 0 }; 3]).collect();
    mask.contains(&255).then_some(RgbImage { width, height, pixels: mask })
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
            ImageFormat::WebP => {
                let mut file = file;
                let fits = chunks_fit(&mut file).ok()?;
                file.rewind().ok()?;
                Some(fits && WebPDecoder::new(file).ok()?.has_animation())
            }
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

fn decode_file(path: &Path) -> Result<DynamicImage, PictureError> {
    let shown = path.display();
    let unread = |error: std::io::Error| PictureError::new(format!("cannot read {shown}: {error}"));
    let kind = std::fs::metadata(path).map_err(unread)?;
    if !kind.is_file() {
        let what = if kind.is_dir() { "a folder" } else { "no file but a pipe or a device" };
        return Err(PictureError::new(format!("{shown} is {what}, not a picture")));
    }
    let file = File::open(path).map_err(unread)?;
    decode(BufReader::new(file), &shown.to_string(), MOST_PIXELS)
}

fn decode<R: BufRead + Seek>(mut source: R, shown: &str, most_pixels: u64) -> Result<DynamicImage, PictureError> {
    let unread = |error: &dyn std::fmt::Display| PictureError::new(format!("cannot read {shown}: {error}"));
    let format = ImageReader::new(&mut source).with_guessed_format().map_err(|error| unread(&error))?.format();
    if format == Some(ImageFormat::WebP) && !chunks_fit(&mut source).map_err(|error| unread(&error))? {
        let message = format!("{shown} is not a picture that can be read ({FORMATS}): it is cut off or damaged");
        return Err(PictureError::new(message));
    }
    if format == Some(ImageFormat::Jpeg) && !is_ended(&mut source).map_err(|error| unread(&error))? {
        let message = format!("{shown} is not a picture that can be read ({FORMATS}): it is cut off");
        return Err(PictureError::new(message));
    }
    let Some(format) = format else {
        return Err(PictureError::new(format!("{shown} is not a picture that can be read ({FORMATS})")));
    };
    source.rewind().map_err(|error| unread(&error))?;
    let mut reader = ImageReader::with_format(source, format);
    reader.limits(limits());
    let too_large = || {
        let most = if most_pixels < MOST_PIXELS {
            format!("at most {most_pixels} pixels are read")
        } else {
            format!("at most {LARGEST_SIDE} pixels a side and 1 GiB in memory are read")
        };
        PictureError { message: format!("{shown} is too large a picture: {most}"), is_too_large: true }
    };
    let broken = |error: ImageError| match error {
        ImageError::Limits(_) => too_large(),
        ImageError::IoError(error) if error.kind() != ErrorKind::UnexpectedEof => unread(&error),
        // Messages of decoders may have several lines.
        error => {
            let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            PictureError::new(format!("{shown} is not a picture that can be read ({FORMATS}): {error}"))
        }
    };
    let panicked = || {
        PictureError::new(format!(
            "{shown} is not a picture that can be read ({FORMATS}): its decoder does not know what to do"
        ))
    };
    models::contain(|| decoded(reader, most_pixels, &too_large, &broken)).unwrap_or_else(|| Err(panicked()))
}

/// What decoders may ask for.
fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LARGEST_SIDE), Some(LARGEST_SIDE));
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    limits
}

/// What libraries make of a file, in which they may come upon something that they do not expect.
fn decoded<R: BufRead + Seek>(
    reader: ImageReader<R>,
    most_pixels: u64,
    too_large: &dyn Fn() -> PictureError,
    broken: &dyn Fn(ImageError) -> PictureError,
) -> Result<DynamicImage, PictureError> {
    let mut decoder = reader.into_decoder().map_err(broken)?;
    // What it will take, as it is and as RGB.
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > LARGEST_ALLOCATION || u64::from(width) * u64::from(height) > most_pixels {
        return Err(too_large());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Whether the chunks of a WebP file end where the file does or before. Its decoder takes as much memory for a chunk of metadata as the
/// chunk claims to be long, up to 4 GiB, before it reads any of it.
fn chunks_fit(reader: &mut (impl Read + Seek)) -> std::io::Result<bool> {
    let end = reader.seek(SeekFrom::End(0))?;
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
fn is_ended(reader: &mut (impl Read + Seek)) -> std::io::Result<bool> {
    let mut bytes = Vec::new();
    reader.rewind()?;
    reader.read_to_end(&mut bytes)?;
    let last = |mark: [u8; 2]| bytes.windows(2).rposition(|pair| pair == mark);
    Ok(last([0xff, 0xd9]) > last([0xff, 0xda]))
}
