//! Animated pictures: GIF, and WebP without loss.

use super::error::CliError;
use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::webp::WebPEncoder;
use image::{Delay, ExtendedColorType, Frame, ImageError, RgbaImage};
use pipelines::RgbImage;
use std::time::Duration;

/// A file's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gif,
    WebP,
}

impl Format {
    /// By a file's ending.
    pub(super) fn of(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_lowercase().as_str() {
            "gif" => Some(Self::Gif),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }
}

/// The bytes of a file that shows these frames, all of one size, again and again.
pub(super) fn encode(format: Format, frames: &[RgbImage], each: Duration) -> Result<Vec<u8>, CliError> {
    let encoded = match format {
        Format::Gif => gif(frames, each),
        Format::WebP => webp(frames, each),
    };
    encoded.map_err(|error| CliError::Failed(format!("cannot encode the animation: {error}")))
}

fn gif(frames: &[RgbImage], each: Duration) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    encoder.set_repeat(Repeat::Infinite)?;
    for frame in frames {
        let [width, height] = sides(frame);
        let pixels = frame.pixels.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        let picture = RgbaImage::from_raw(width, height, pixels).unwrap_or_default();
        encoder.encode_frame(Frame::from_parts(picture, 0, 0, Delay::from_saturating_duration(each)))?;
    }
    drop(encoder);
    Ok(bytes)
}

/// The container of RFC 9649, section 2.7: a header that announces an animation, how often it is shown, and every frame as a picture of its own.
fn webp(frames: &[RgbImage], each: Duration) -> Result<Vec<u8>, ImageError> {
    let [width, height] = frames.first().map_or([1, 1], sides);
    let size = [three(width - 1), three(height - 1)].concat();
    let mut body = b"WEBP".to_vec();
    const ANIMATION: u8 = 0x02;
    body.extend(chunk(b"VP8X", &[&[ANIMATION, 0, 0, 0][..], &size].concat()));
    // A white background, shown without end.
    body.extend(chunk(b"ANIM", &[0xff, 0xff, 0xff, 0xff, 0, 0]));
    let milliseconds = u32::try_from(each.as_millis()).unwrap_or(u32::MAX).min(0xff_ffff);
    for frame in frames {
        let mut picture = Vec::new();
        let [width, height] = sides(frame);
        WebPEncoder::new_lossless(&mut picture).encode(&frame.pixels, width, height, ExtendedColorType::Rgb8)?;
        // Behind the file's own header its one chunk follows. The frame begins at the upper left corner and covers what was there.
        const COVERS: u8 = 0x02;
        let head = [&[0; 6][..], &size, &three(milliseconds), &[COVERS]].concat();
        body.extend(chunk(b"ANMF", &[&head[..], picture.get(12..).unwrap_or_default()].concat()));
    }
    Ok(chunk(b"RIFF", &body))
}

fn sides(frame: &RgbImage) -> [u32; 2] {
    [frame.width, frame.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX))
}

/// The lower three bytes of a number.
fn three(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}

/// A name, a length, and as many bytes, padded to an even number.
fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let padding = if content.len().is_multiple_of(2) { &[][..] } else { &[0] };
    [&name[..], &length.to_le_bytes(), content, padding].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::AnimationDecoder;
    use image::codecs::{gif::GifDecoder, webp::WebPDecoder};
    use std::io::Cursor;

    fn frames() -> Vec<RgbImage> {
        let frame = |grey: u8| RgbImage { width: 5, height: 3, pixels: vec![grey; 45] };
        vec![frame(0), frame(100), frame(255)]
    }

    #[test]
    fn frames_and_their_times_can_be_read_again() {
        let each = Duration::from_millis(80);
        let [gif, webp] = [Format::Gif, Format::WebP].map(|format| encode(format, &frames(), each).expect("encodes"));
        let gif = GifDecoder::new(Cursor::new(gif)).expect("a GIF").into_frames().collect_frames().expect("frames");
        let webp = WebPDecoder::new(Cursor::new(webp)).expect("a WebP");
        assert!(webp.has_animation());
        let webp = webp.into_frames().collect_frames().expect("frames");
        for decoded in [gif, webp] {
            assert_eq!(decoded.len(), 3);
            for (frame, own) in decoded.iter().zip(frames()) {
                assert_eq!(Duration::from(frame.delay()), each);
                assert_eq!((frame.buffer().width(), frame.buffer().height()), (5, 3));
                assert!(frame.buffer().pixels().all(|p| p.0[0].abs_diff(own.pixels[0]) <= 1 && p.0[3] == 255));
            }
        }
    }
}
