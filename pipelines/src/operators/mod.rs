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
pub(crate) use mask::distances;
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

    /// The noise levels at which a consistency model fills in what is not known: as much noise at first as hides the guess, and at last so little
    /// that a step changes details alone. docs/benchmarks has what led to them.
    fn levels(&self, steps: Option<usize>, shape: SampleShape) -> Levels;

    /// The same for the finished picture, whose values are bytes: they end at 0 and 255, and what is known must yet be exact, to the bit or to
    /// one level of 255 as the operator says. Both have one size.
    fn finish(&self, made: &mut RgbImage, known: &RgbImage);
}

/// What is left of a level that falls by a factor in every step but the first.
fn falling(level: f64, factor: f64, steps: usize) -> f64 {
    (1..steps.min(64)).fold(level, |level, _| level / factor)
}

/// Noise levels that fall from one to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    /// How many there are.
    pub steps: usize,
    /// The first.
    pub highest: f64,
    /// The last.
    pub lowest: f64,
}
