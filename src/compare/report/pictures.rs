//! Samples as pictures: of pixels as they are, of latents by their autoencoder where that is small, and otherwise by a map that is fitted to one
//! decoded picture.

use super::ReportError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage as Buffer, imageops};
use pipelines::{Job, Pipeline, RgbImage, SampleShape};
use std::io::Cursor;
use std::sync::Arc;

/// How many times a difference is made larger for the eye.
pub(super) const GAIN: f32 = 5.0;

/// How the samples of a model become pictures.
#[derive(Debug, Clone)]
pub(crate) enum Preview {
    /// They are pictures.
    Pixels,
    /// Each is decoded.
    Decoded(Arc<(Pipeline, Job)>),
    /// Each pixel of the preview is a linear function of its latent: red, green and blue have a weight for every channel and a constant.
    Linear([Vec<f32>; 3]),
}

impl Preview {
    /// The very pictures of a job's samples, where they can be had at every step.
    pub(crate) fn exact(pipe: &Pipeline, job: &Job) -> Option<Self> {
        if pipe.samples_are_pictures() {
            return Some(Self::Pixels);
        }
        pipe.decodes_quickly(job).then(|| Self::Decoded(Arc::new((pipe.clone(), job.clone()))))
    }

    /// The linear map that takes latents nearest, in least squares, to the picture that an autoencoder made of them, made as small as they are.
    pub(crate) fn fit(sample: &[f32], shape: SampleShape, image: &RgbImage) -> Option<Self> {
        let small =
            imageops::thumbnail(&buffer(image)?, u32::try_from(shape.width).ok()?, u32::try_from(shape.height).ok()?);
        let n = shape.channels + 1;
        // Normal equations, with a little of the unit matrix for channels that do not vary.
        let mut matrix = vec![vec![0.0_f64; n]; n];
        let mut right = [(); 3].map(|()| vec![0.0_f64; n]);
        for (latent, pixel) in sample.chunks_exact(shape.channels).zip(small.pixels()) {
            let row: Vec<f64> = latent.iter().map(|v| f64::from(*v)).chain([1.0]).collect();
            for (i, a) in row.iter().enumerate() {
                row.iter().enumerate().for_each(|(j, b)| matrix[i][j] += a * b);
                (0..3).for_each(|c| right[c][i] += a * (f64::from(pixel[c]) / 127.5 - 1.0));
            }
        }
        let pixels = (shape.width * shape.height) as f64;
        (0..n).for_each(|i| matrix[i][i] += 1e-3 * pixels);
        #[allow(clippy::cast_possible_truncation, reason = "weights of a preview")]
        let solved = right.map(|right| solve(matrix.clone(), right).into_iter().map(|v| v as f32).collect());
        Some(Self::Linear(solved))
    }

    /// A picture of a sample; without the map's constants, of a difference of two.
    fn picture(&self, sample: &[f32], shape: SampleShape, scale: f32, is_difference: bool) -> Option<RgbImage> {
        let scaled = || sample.iter().map(|v| v * scale).collect();
        let values: Vec<f32> = match self {
            Self::Pixels => scaled(),
            Self::Decoded(of) => {
                let (pipe, job) = &**of;
                let values: Vec<f32> = scaled();
                return pipe.decode(job, &values).ok().flatten();
            }
            Self::Linear(weights) => {
                let constant = if is_difference { 0.0 } else { 1.0 };
                let mut values = Vec::with_capacity(3 * shape.width * shape.height);
                for latent in sample.chunks_exact(shape.channels) {
                    for own in weights {
                        let sum: f32 = own.iter().zip(latent).map(|(w, v)| w * v * scale).sum();
                        values.push(sum + constant * own[shape.channels]);
                    }
                }
                values
            }
        };
        let channels = if matches!(self, Self::Linear(_)) { 3 } else { shape.channels };
        RgbImage::from_sample(&values, SampleShape { channels, ..shape })
    }

    /// A denoised image.
    pub(crate) fn denoised(&self, sample: &[f32], shape: SampleShape) -> Option<RgbImage> {
        self.picture(sample, shape, 1.0, false)
    }

    /// A noisy sample, made as small as its noise is large: x / (1 + σ), so that both noise and image are seen.
    pub(crate) fn noisy(&self, x: &[f32], sigma: f64, is_flow: bool, shape: SampleShape) -> Option<RgbImage> {
        #[allow(clippy::cast_possible_truncation, reason = "a picture")]
        let scale = if is_flow { 1.0 } else { (1.0 / (1.0 + sigma)) as f32 };
        self.picture(x, shape, scale, false)
    }

    /// What two samples differ in, [`GAIN`] times, around grey. An autoencoder is no linear map: of what it decodes, the pictures of the two differ.
    pub(super) fn difference(&self, a: &[f32], b: &[f32], shape: SampleShape, noise: (f64, bool)) -> Option<RgbImage> {
        if matches!(self, Self::Decoded(_)) {
            let [mut one, other] = [a, b].map(|x| self.noisy(x, noise.0, noise.1, shape));
            let pixels = &mut one.as_mut()?.pixels;
            for (value, other) in pixels.iter_mut().zip(&other?.pixels) {
                let apart = GAIN * (f32::from(*value) - f32::from(*other));
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
                let byte = (128.0 + apart).clamp(0.0, 255.0) as u8;
                *value = byte;
            }
            return one;
        }
        let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        self.picture(&difference, shape, GAIN, true)
    }
}

/// Gauss's elimination with pivots; the matrix is symmetric and positive, so it has a solution.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()));
        let pivot = pivot.unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in column + 1..n {
            let factor = matrix[row][column] / matrix[column][column];
            let above = matrix[column].clone();
            matrix[row].iter_mut().zip(&above).skip(column).for_each(|(v, a)| *v -= factor * a);
            right[row] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|i| matrix[row][i] * right[i]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right
}

/// A picture as the image crate holds it.
pub(super) fn buffer(image: &RgbImage) -> Option<Buffer> {
    Buffer::from_raw(u32::try_from(image.width).ok()?, u32::try_from(image.height).ok()?, image.pixels.clone())
}

/// A picture with neither side longer than this; a smaller one stays as it is.
pub(crate) fn thumbnail(image: &RgbImage, longest: usize) -> RgbImage {
    let side = image.width.max(image.height);
    let Some(whole) = buffer(image).filter(|_| side > longest) else { return image.clone() };
    #[allow(clippy::cast_possible_truncation, reason = "shorter than the picture's own sides")]
    let scaled = |extent: usize| ((extent * longest / side).max(1)) as u32;
    let small = imageops::thumbnail(&whole, scaled(image.width), scaled(image.height));
    RgbImage { width: small.width() as usize, height: small.height() as usize, pixels: small.into_raw() }
}

/// A JPEG file in base64: what the page shows of a step.
pub(super) fn jpeg(image: &RgbImage) -> Option<String> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 88);
    buffer(image)?.write_with_encoder(encoder).ok()?;
    Some(STANDARD.encode(bytes))
}

/// A PNG file.
pub(super) fn png(image: &RgbImage, compression: png::Compression) -> Result<Vec<u8>, ReportError> {
    let failed = |error: &dyn std::fmt::Display| ReportError::Picture(error.to_string());
    let side = |extent: usize| u32::try_from(extent).map_err(|error| failed(&error));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(image.width)?, side(image.height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(compression);
    let mut writer = encoder.write_header().map_err(|error| failed(&error))?;
    writer.write_image_data(&image.pixels).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))?;
    Ok(bytes)
}

/// A PNG file of ours; none where there is no such file, or it is damaged.
pub(super) fn read(path: &std::path::Path) -> Option<RgbImage> {
    let bytes = std::fs::read(path).ok()?;
    let decoded = image::ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png).decode().ok()?.into_rgb8();
    Some(RgbImage { width: decoded.width() as usize, height: decoded.height() as usize, pixels: decoded.into_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latents whose picture is a linear function of them: the fit finds it.
    #[test]
    fn previews_of_latents_are_fitted() {
        let shape = SampleShape { height: 4, width: 4, channels: 2 };
        let sample: Vec<f32> = (0..32).map(|i| ((i * 37 % 19) as f32 / 19.0 - 0.5) * 2.0).collect();
        let rgb = |latent: &[f32]| [0.5 * latent[0], -0.4 * latent[1] + 0.1, 0.2 * latent[0] + 0.3 * latent[1] - 0.2];
        let values: Vec<f32> = sample.chunks_exact(2).flat_map(rgb).collect();
        let image = RgbImage::from_sample(&values, SampleShape { channels: 3, ..shape }).expect("three channels");
        let preview = Preview::fit(&sample, shape, &image).expect("it fits");
        let shown = preview.denoised(&sample, shape).expect("a picture");
        assert!(shown.pixels.iter().zip(&image.pixels).all(|(a, b)| a.abs_diff(*b) <= 2));
        // A difference of nothing is grey.
        let grey = preview.difference(&sample, &sample, shape, (0.0, false)).expect("a picture");
        assert!(grey.pixels.iter().all(|v| *v == 128));
    }

    #[test]
    fn thumbnails_keep_their_shape() {
        let image = RgbImage { width: 200, height: 100, pixels: vec![7; 60_000] };
        let small = thumbnail(&image, 50);
        assert_eq!((small.width, small.height), (50, 25));
        assert_eq!(thumbnail(&small, 50), small);
        assert!(jpeg(&small).is_some_and(|text| text.starts_with("/9j/")));
    }
}
