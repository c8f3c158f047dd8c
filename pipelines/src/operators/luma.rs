//! Brightness that is kept: colorization.

use super::{Levels, Operator, falling};
use crate::conditioning::SampleShape;
use crate::picture::RgbImage;

/// Every pixel's brightness y = w·x is known (ITU-R BT.601's weights). w has one row, so A⁺A x = w (w·x) / |w|²: a pixel moves along w until its
/// brightness is right, and its colour is free. This is the change of basis of Song et al. 2023, appendix D, whose first axis is w / |w|.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Luma;

/// How bright red, green and blue are.
const WEIGHTS: [f32; 3] = [0.299, 0.587, 0.114];

fn luma(pixel: &[f32]) -> f32 {
    pixel.iter().zip(WEIGHTS).map(|(value, weight)| value * weight).sum()
}

impl Operator for Luma {
    fn replace(&self, x: &mut [f32], known: &[f32], shape: SampleShape) {
        let square: f32 = WEIGHTS.iter().map(|weight| weight * weight).sum();
        for (x, known) in x.chunks_exact_mut(shape.channels).zip(known.chunks_exact(shape.channels)) {
            if shape.channels != 3 {
                // A grey picture is all brightness.
                x.copy_from_slice(known);
                continue;
            }
            let missing = (luma(known) - luma(x)) / square;
            x.iter_mut().zip(WEIGHTS).for_each(|(value, weight)| *value += missing * weight);
        }
    }

    /// Colours reach over whole things, so that there is much noise at first.
    fn levels(&self, steps: Option<usize>, _shape: SampleShape) -> Levels {
        let steps = steps.unwrap_or(8);
        let highest = if steps < 8 { 20.0 } else { 30.0 };
        // With few steps each must change more.
        Levels { steps, highest, lowest: falling(highest, 4.0, steps).max(0.5) }
    }

    /// The brightness of every pixel is the known one to a level of 255. Where a colour of that brightness has no bytes, it is mixed with the
    /// grey of that brightness, until it has.
    fn finish(&self, made: &mut RgbImage, known: &RgbImage) {
        for (made, known) in made.pixels.chunks_exact_mut(3).zip(known.pixels.chunks_exact(3)) {
            let [wanted, own] = [known, &*made].map(|pixel| luma(&[0, 1, 2].map(|c| f32::from(pixel[c]))));
            // Adding the same to all three adds as much to the brightness: the weights' sum is 1.
            let moved = [0, 1, 2].map(|c| f32::from(made[c]) + wanted - own);
            let most = moved.iter().map(|value| share_inside(*value, wanted)).fold(1.0, f32::min);
            for (made, moved) in made.iter_mut().zip(moved) {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded to a byte")]
                let byte = (wanted + most * (moved - wanted)).round().clamp(0.0, 255.0) as u8;
                *made = byte;
            }
        }
    }
}

/// How far on the way from a grey to a value one gets before the values of bytes end.
fn share_inside(value: f32, grey: f32) -> f32 {
    let room = if value > grey { 255.0 - grey } else { grey };
    let way = (value - grey).abs();
    if way <= room { 1.0 } else { room / way }
}
