//! Pixels that are kept: inpainting.

use super::Operator;
use crate::conditioning::SampleShape;
use crate::picture::RgbImage;

/// Some pixels are known: A picks them, and A⁺A is the diagonal matrix with 1 where a pixel is kept and 0 where it is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Of every pixel, row by row, whether it is made anew.
    pub anew: Vec<bool>,
}

impl Operator for Mask {
    fn replace(&self, x: &mut [f32], known: &[f32], shape: SampleShape) {
        let pixels = x.chunks_exact_mut(shape.channels).zip(known.chunks_exact(shape.channels)).zip(&self.anew);
        for ((x, known), _) in pixels.filter(|(_, anew)| !**anew) {
            x.copy_from_slice(known);
        }
    }

    /// Kept pixels are the known ones to the bit.
    fn finish(&self, made: &mut RgbImage, known: &RgbImage) {
        let pixels = made.pixels.chunks_exact_mut(3).zip(known.pixels.chunks_exact(3)).zip(&self.anew);
        for ((made, known), _) in pixels.filter(|(_, anew)| !**anew) {
            made.copy_from_slice(known);
        }
    }
}
