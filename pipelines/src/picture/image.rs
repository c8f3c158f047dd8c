//! Between a model's numbers and pictures.

use crate::conditioning::SampleShape;

/// An 8-bit RGB picture, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Three bytes a pixel.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// A picture of values in −1..1, `[H, W, C]` with one channel (grey) or three; nothing for other channels, which
    /// are latents. Rounds as diffusers' image processor does: `round(clamp(x/2 + 1/2, 0, 1) · 255)`, halves to even.
    #[must_use]
    pub fn from_sample(sample: &[f32], shape: SampleShape) -> Option<Self> {
        let byte = |value: f32| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
            let byte = ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
            byte
        };
        let pixels = match shape.channels {
            3 => sample.iter().map(|v| byte(*v)).collect(),
            1 => sample.iter().flat_map(|v| [byte(*v); 3]).collect(),
            _ => return None,
        };
        Some(Self { width: shape.width, height: shape.height, pixels })
    }

    /// Why it is no picture, if it is none: its fields are anybody's to set.
    pub(crate) fn fault(&self) -> Option<String> {
        let wanted = self.width.checked_mul(self.height).and_then(|pixels| pixels.checked_mul(3));
        match wanted {
            Some(0) => Some("has no pixels".into()),
            Some(bytes) if bytes == self.pixels.len() => None,
            _ => Some(format!("has {} bytes, which are not {}x{} pixels", self.pixels.len(), self.width, self.height)),
        }
    }

    /// Values in −1..1, `[H, W, C]`, of a picture with three channels or one (grey), as diffusers' image processor makes them.
    pub(crate) fn to_sample(&self, channels: usize) -> Vec<f32> {
        let value = |byte: u8| 2.0 * (f32::from(byte) / 255.0) - 1.0;
        let bytes = if channels == 1 { &self.luma() } else { &self.pixels };
        bytes.iter().map(|byte| value(*byte)).collect()
    }
}

/// `[C, H, W]`, the order in which PyTorch draws noise, to `[H, W, C]`.
#[must_use]
pub fn nhwc_from_nchw(nchw: &[f32], shape: SampleShape) -> Vec<f32> {
    let plane = shape.height * shape.width;
    let mut nhwc = vec![0.0; nchw.len()];
    for (channel, values) in nchw.chunks_exact(plane).enumerate() {
        for (pixel, value) in values.iter().enumerate() {
            nhwc[pixel * shape.channels + channel] = *value;
        }
    }
    nhwc
}

/// `[H, W, C]` to `[C, H, W]`, the order of tensors in diffusers.
#[must_use]
pub fn nchw_from_nhwc(nhwc: &[f32], shape: SampleShape) -> Vec<f32> {
    let plane = shape.height * shape.width;
    let mut nchw = vec![0.0; nhwc.len()];
    for (pixel, values) in nhwc.chunks_exact(shape.channels).enumerate() {
        for (channel, value) in values.iter().enumerate() {
            nchw[channel * plane + pixel] = *value;
        }
    }
    nchw
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: SampleShape = SampleShape { height: 2, width: 3, channels: 3 };

    #[test]
    fn layouts_are_inverse() {
        let nchw: Vec<f32> = (0..18_u8).map(f32::from).collect();
        let nhwc = nhwc_from_nchw(&nchw, SHAPE);
        assert_eq!(nhwc[..6], [0.0, 6.0, 12.0, 1.0, 7.0, 13.0]);
        assert_eq!(nchw_from_nhwc(&nhwc, SHAPE), nchw);
    }

    #[test]
    fn values_round_to_bytes() {
        let shape = SampleShape { height: 1, width: 2, channels: 3 };
        let image = RgbImage::from_sample(&[-1.5, -1.0, 0.0, 1.0, 1.5, 0.5], shape).expect("three channels");
        assert_eq!(image.pixels, [0, 0, 128, 255, 255, 191]);
        assert!(RgbImage::from_sample(&[0.0; 4], SampleShape { height: 1, width: 1, channels: 4 }).is_none());
    }
}
