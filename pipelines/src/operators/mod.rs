//! What is known of a picture, as operators that put it back.
//!
//! A measurement y = A x keeps a part of a picture: some of its pixels, its brightness, the means of its patches. Of all pictures that agree
//! with y, the one nearest to x is x − A⁺A x + A⁺ y, where A⁺ is A's pseudo-inverse; that is what [`Operator::replace`] makes (Song et al. 2023,
//! *Consistency Models*, Algorithm 4; Wang et al. 2022, *DDNM*, equation 9). Measurements are given as a picture k with y = A k, so that
//! A⁺ y = A⁺A k, and an operator is nothing but the projection A⁺A.

mod all;
mod luma;
mod mask;
mod patch_means;

pub use all::All;
pub use luma::Luma;
pub use mask::Mask;
pub use patch_means::PatchMeans;

use crate::conditioning::SampleShape;
use crate::picture::RgbImage;
use std::fmt;

/// A linear measurement of a picture, by the projection A⁺A onto what it sees.
pub trait Operator: fmt::Debug + Send + Sync {
    /// x ← x − A⁺A x + A⁺A k, in place; both are `[H, W, C]`. What the measurement does not see stays as it is.
    fn replace(&self, x: &mut [f32], known: &[f32], shape: SampleShape);

    /// A picture to start from, of −1..1, where a run starts at little noise: what is known, and of the rest what its surroundings let expect. By
    /// itself that is A⁺A k, the known in the middle of the range of all pictures.
    fn guess(&self, known: &[f32], shape: SampleShape) -> Vec<f32> {
        let mut seen = vec![0.0; known.len()];
        self.replace(&mut seen, known, shape);
        seen
    }

    /// Over about how many pixels what is not known reaches. Noise must be as strong as that to hide it: what is added to each pixel is less by so
    /// many times in the mean of a square of that side.
    fn reach(&self, shape: SampleShape) -> f64;

    /// The same for the finished picture, whose values are bytes: they end at 0 and 255, and what is known must yet be exact, to the bit or to
    /// one level of 255 as the operator says. Both have one size.
    fn finish(&self, made: &mut RgbImage, known: &RgbImage);
}
