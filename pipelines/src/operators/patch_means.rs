//! Means of patches that are kept: super-resolution.

use super::{Levels, Operator};
use crate::conditioning::SampleShape;
use crate::picture::RgbImage;

/// The mean of every patch of `factor`² pixels is known, which is a pixel of the small picture. A takes the means; A⁺A x is x with every pixel
/// replaced by its patch's mean (Song et al. 2023, appendix D, where the first of a patch's orthonormal axes is the constant one).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchMeans {
    /// Pixels along a side of a patch, at least 1; both of the picture's sides are multiples.
    pub factor: usize,
}

impl PatchMeans {
    /// Where a patch's values of one channel lie, given its pixels' extents and number.
    fn places(self, patch: usize, channel: usize, width: usize, channels: usize) -> impl Iterator<Item = usize> {
        let (factor, across) = (self.factor, width / self.factor);
        let start = (patch / across * width + patch % across) * factor;
        (0..factor * factor).map(move |i| (start + i / factor * width + i % factor) * channels + channel)
    }
}

impl Operator for PatchMeans {
    fn replace(&self, x: &mut [f32], known: &[f32], shape: SampleShape) {
        let count = (self.factor * self.factor) as f32;
        for patch in 0..shape.height * shape.width / (self.factor * self.factor) {
            for channel in 0..shape.channels {
                let places = || self.places(patch, channel, shape.width, shape.channels);
                let missing: f32 = places().map(|at| known[at] - x[at]).sum::<f32>() / count;
                places().for_each(|at| x[at] += missing);
            }
        }
    }

    /// The picture is known but for details, which take little noise, and many steps where they are large.
    fn levels(&self, steps: Option<usize>, _shape: SampleShape) -> Levels {
        let large = self.factor > 2;
        let steps = steps.unwrap_or(if large { 16 } else { 8 });
        let least = if large { 3.0 } else { 1.5 };
        Levels { steps, highest: (0.75 * steps as f64).max(least), lowest: 0.25 }
    }

    /// The mean of every patch is the known one to a level of 255: what values that end at 0 or 255 cannot take, their neighbours take.
    fn finish(&self, made: &mut RgbImage, known: &RgbImage) {
        let count = self.factor * self.factor;
        let mut values = vec![0.0_f32; count];
        for patch in 0..made.width * made.height / count {
            for channel in 0..3 {
                let places = || self.places(patch, channel, made.width, 3);
                let mean = places().map(|at| f32::from(known.pixels[at])).sum::<f32>() / count as f32;
                values.iter_mut().zip(places()).for_each(|(value, at)| *value = f32::from(made.pixels[at]));
                shift_to(&mut values, mean);
                for (value, at) in values.iter().zip(places()) {
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
                    let byte = value.round() as u8;
                    made.pixels[at] = byte;
                }
            }
        }
    }
}

/// Adds the same to all values, which end at 0 and 255, until their mean is this.
fn shift_to(values: &mut [f32], mean: f32) {
    // Each round brings the values that have not ended all the way, so that there are as many rounds as values at most; a few do.
    for _ in 0..32 {
        let missing = mean - values.iter().sum::<f32>() / values.len() as f32;
        if missing.abs() < 1e-3 {
            break;
        }
        let free = values.iter().filter(|value| if missing > 0.0 { **value < 255.0 } else { **value > 0.0 }).count();
        let each = missing * values.len() as f32 / free.max(1) as f32;
        values.iter_mut().for_each(|value| *value = (*value + each).clamp(0.0, 255.0));
    }
}
