//! Images of half and of twice the size, without learned weights.

use graph::ops::Conv2d;
use graph::{Scope, Tensor};

/// A change of an image's sides by a factor of two: `[B, H, W, C]` → `[B, H/2, W/2, C]` or `[B, 2H, 2W, C]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resample {
    /// The mean of four pixels.
    Average,
    /// Every pixel four times.
    Nearest,
    /// Down, through the filter (1, 3, 3, 1) / 8 along each axis (Karras et al. 2020, StyleGAN2; Song et al. 2021).
    FirDown,
    /// Up, through the same filter times two: each pixel is 3/4 of the nearest and 1/4 of the next, zero outside.
    FirUp,
}

impl Resample {
    pub(crate) fn of(self, s: &Scope, x: &Tensor) -> Tensor {
        match self {
            Self::Average => average(x),
            Self::Nearest => nearest(x),
            Self::FirDown => filtered(s, x, &[0.125, 0.375, 0.375, 0.125], 2, 1),
            // After every pixel is repeated, the filter (1, 2, 1) / 4 gives these weights.
            Self::FirUp => filtered(s, x, &[0.25, 0.5, 0.25], 1, 2),
        }
    }
}

/// Adds pairs of rows first, each pair read as one row of twice the length, and then pairs of pixels.
fn average(x: &Tensor) -> Tensor {
    let [batch, height, width, channels] = x.shape()[..] else { return x.clone() };
    let sum = |x: &Tensor| {
        let halves = x.chunk(2, 2);
        &halves[0] + &halves[1]
    };
    let rows = sum(&x.reshape(&[batch, height / 2, 2 * width * channels]));
    let pixels = sum(&rows.reshape(&[batch, height / 2 * (width / 2), 2 * channels]));
    pixels.scale(0.25).reshape(&[batch, height / 2, width / 2, channels])
}

fn nearest(x: &Tensor) -> Tensor {
    let [batch, height, width, channels] = x.shape()[..] else { return x.clone() };
    let pixels = Tensor::concat(&[x, x], 3).reshape(&[batch, height, 2 * width * channels]);
    Tensor::concat(&[&pixels, &pixels], 2).reshape(&[batch, 2 * height, 2 * width, channels])
}

/// Filters every channel along both axes, as an image of one channel.
#[allow(clippy::cast_possible_truncation, reason = "sums of powers of two")]
fn filtered(s: &Scope, x: &Tensor, filter: &[f64], stride: usize, upsample: usize) -> Tensor {
    let [batch, height, width, channels] = x.shape()[..] else { return x.clone() };
    let taps = filter.len();
    let plane: Vec<f32> = filter.iter().flat_map(|a| filter.iter().map(move |b| (a * b) as f32)).collect();
    let images = x.transpose(&[0, 3, 1, 2]).reshape(&[batch * channels, height, width, 1]);
    let weight = s.constant(&[1, taps, taps, 1], plane);
    let conv = Conv2d { stride, padding: [1; 4], upsample, bias: false };
    let images = s.push(conv, &[&images, &weight]);
    let (height, width) = (height * upsample / stride, width * upsample / stride);
    images.reshape(&[batch, channels, height, width]).transpose(&[0, 2, 3, 1])
}
