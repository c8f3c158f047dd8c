//! Pixels that are kept: inpainting.

use super::{Levels, Operator, falling};
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

    /// Means of what is known nearby, the nearer the finer: sums over ever larger squares, and from the largest down wherever a square holds nothing
    /// that is known (Gortler et al. 1996, *The Lumigraph*, section 3.4, push and pull).
    fn guess(&self, known: &[f32], shape: SampleShape) -> Vec<f32> {
        let weights = self.anew.iter().map(|anew| f32::from(!anew)).collect();
        let mut finest = Level { height: shape.height, width: shape.width, sums: known.to_vec(), weights };
        for (values, weight) in finest.sums.chunks_exact_mut(shape.channels).zip(&finest.weights) {
            values.iter_mut().for_each(|value| *value *= weight);
        }
        finest.filled(shape.channels)
    }

    /// The farther a hole reaches, the less of what it holds can be told from around it.
    fn levels(&self, steps: Option<usize>, shape: SampleShape) -> Levels {
        let steps = steps.unwrap_or(8);
        let reach = self.reach(shape);
        let highest = (reach * reach / 6.0).max(0.35 * steps as f64).min(40.0);
        // With few steps each must change more.
        let lowest = if reach > 4.0 { falling(highest, 13.0, steps).max(0.5) } else { 0.2 };
        Levels { steps, highest, lowest }
    }

    /// Kept pixels are the known ones to the bit.
    fn finish(&self, made: &mut RgbImage, known: &RgbImage) {
        let pixels = made.pixels.chunks_exact_mut(3).zip(known.pixels.chunks_exact(3)).zip(&self.anew);
        for ((made, known), _) in pixels.filter(|(_, anew)| !**anew) {
            made.copy_from_slice(known);
        }
    }
}

impl Mask {
    /// Pixels from the middle of the widest hole to the nearest that is known; the picture's longer side where nothing is.
    fn reach(&self, shape: SampleShape) -> f64 {
        let known: Vec<bool> = self.anew.iter().map(|anew| !anew).collect();
        let farthest = distances(&known, shape.width).into_iter().max().unwrap_or(0);
        f64::from(farthest).min(shape.height.max(shape.width) as f64)
    }
}

/// How many pixels each is from the nearest that is `true`, a diagonal step counting as one; `u32::MAX` where none is. Two passes over the picture, as
/// of a chamfer (Borgefors 1986), which for this distance are exact.
pub(crate) fn distances(of: &[bool], width: usize) -> Vec<u32> {
    let height = of.len() / width.max(1);
    let mut distances: Vec<u32> = of.iter().map(|is| if *is { 0 } else { u32::MAX }).collect();
    let mut nearer = |x: usize, y: usize, row: Option<usize>, beside: Option<usize>| {
        let columns = x.saturating_sub(1)..(x + 2).min(width);
        let above = row.into_iter().flat_map(|row| columns.clone().map(move |column| row * width + column));
        let around = above.chain(beside.map(|column| y * width + column));
        let least = around.map(|at| distances[at]).min().unwrap_or(u32::MAX).saturating_add(1);
        let own = &mut distances[y * width + x];
        *own = (*own).min(least);
    };
    for y in 0..height {
        (0..width).for_each(|x| nearer(x, y, y.checked_sub(1), x.checked_sub(1)));
    }
    for y in (0..height).rev() {
        (0..width)
            .rev()
            .for_each(|x| nearer(x, y, Some(y + 1).filter(|y| *y < height), Some(x + 1).filter(|x| *x < width)));
    }
    distances
}

/// Sums of what is known, over squares of one size, and how much of each is known.
struct Level {
    height: usize,
    width: usize,
    /// `[H, W, C]`.
    sums: Vec<f32>,
    weights: Vec<f32>,
}

impl Level {
    /// Squares of twice the side. A weight of one is a whole pixel known: more make the mean no more certain.
    fn coarser(&self, channels: usize) -> Self {
        let (height, width) = (self.height.div_ceil(2), self.width.div_ceil(2));
        let mut level =
            Self { height, width, sums: vec![0.0; height * width * channels], weights: vec![0.0; height * width] };
        for at in 0..self.weights.len() {
            let to = at / self.width / 2 * width + at % self.width / 2;
            level.weights[to] += self.weights[at];
            for channel in 0..channels {
                level.sums[to * channels + channel] += self.sums[at * channels + channel];
            }
        }
        for (values, weight) in level.sums.chunks_exact_mut(channels).zip(&mut level.weights) {
            let most = weight.max(1.0);
            values.iter_mut().for_each(|value| *value /= most);
            *weight /= most;
        }
        level
    }

    /// The mean of every square, and where nothing is known, that of the larger square around it.
    fn filled(&self, channels: usize) -> Vec<f32> {
        let is_known = self.weights.iter().all(|weight| *weight >= 1.0) || self.weights.len() == 1;
        let around = if is_known { Vec::new() } else { self.coarser(channels).filled(channels) };
        let mut filled = self.sums.clone();
        for (at, weight) in self.weights.iter().enumerate() {
            let (x, y) = (at % self.width, at / self.width);
            for channel in 0..channels {
                let value = &mut filled[at * channels + channel];
                if !around.is_empty() {
                    *value += (1.0 - weight) * self.between(&around, channels, channel, x, y);
                }
            }
        }
        filled
    }

    /// A value of the next coarser level at a square of this one: between the four nearest, a quarter of a square from the nearest on each axis.
    fn between(&self, around: &[f32], channels: usize, channel: usize, x: usize, y: usize) -> f32 {
        let (height, width) = (self.height.div_ceil(2), self.width.div_ceil(2));
        let other = |at: usize, end: usize| {
            let near = at / 2;
            let far = if at.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(end - 1) };
            [near, far]
        };
        let ([x, beside], [y, below]) = (other(x, width), other(y, height));
        let value = |x: usize, y: usize| around[(y * width + x) * channels + channel];
        0.75 * (0.75 * value(x, y) + 0.25 * value(beside, y))
            + 0.25 * (0.75 * value(x, below) + 0.25 * value(beside, below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_from_around_and_measured() {
        let shape = SampleShape { height: 9, width: 12, channels: 2 };
        let known: Vec<f32> =
            (0..shape.numel()).map(|i| if i % 2 == 0 { 0.5 } else { (i / 2 % 12) as f32 / 12.0 }).collect();
        let inside = |at: usize| (3..8).contains(&(at % 12)) && (2..7).contains(&(at / 12));
        let mask = Mask { anew: (0..9 * 12).map(inside).collect() };
        let guess = mask.guess(&known, shape);
        for (at, (guess, known)) in guess.chunks(2).zip(known.chunks(2)).enumerate() {
            if inside(at) {
                // A surface of one value stays one, and a slope stays near.
                assert!(
                    (guess[0] - 0.5).abs() < 1e-5 && (guess[1] - known[1]).abs() < 0.3,
                    "{at}: {guess:?} {known:?}"
                );
            } else {
                assert_eq!(guess, known);
            }
        }
        assert!((mask.reach(shape) - 3.0).abs() < f64::EPSILON);
        let nothing = Mask { anew: vec![true; 9 * 12] };
        assert!(nothing.guess(&known, shape).iter().all(|value| *value == 0.0));
        assert!((nothing.reach(shape) - 12.0).abs() < f64::EPSILON);
    }
}
