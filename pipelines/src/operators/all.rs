//! Several things that are known at once.

use super::{Levels, Operator};
use crate::conditioning::SampleShape;
use crate::picture::RgbImage;
use std::sync::Arc;

/// All of these are known of one picture.
#[derive(Debug, Clone)]
pub struct All {
    /// What is known; the last is exact after every round.
    pub operators: Vec<Arc<dyn Operator>>,
    /// How often each is put back in turn: projections onto several spaces lead to what they share (von Neumann 1949). Where they commute, as kept
    /// pixels and kept brightness do, one round is all it takes.
    pub rounds: usize,
}

impl Operator for All {
    fn replace(&self, x: &mut [f32], known: &[f32], shape: SampleShape) {
        for _ in 0..self.rounds {
            self.operators.iter().for_each(|operator| operator.replace(x, known, shape));
        }
    }

    fn guess(&self, known: &[f32], shape: SampleShape) -> Vec<f32> {
        let mut guess =
            self.operators.first().map_or_else(|| vec![0.0; known.len()], |first| first.guess(known, shape));
        self.replace(&mut guess, known, shape);
        guess
    }

    /// Those of the first: what it leaves open the others can but narrow.
    fn levels(&self, steps: Option<usize>, shape: SampleShape) -> Levels {
        let first = self.operators.first().map(|first| first.levels(steps, shape));
        first.unwrap_or(Levels { steps: steps.unwrap_or(1), highest: 1.0, lowest: 1.0 })
    }

    fn finish(&self, made: &mut RgbImage, known: &RgbImage) {
        for _ in 0..self.rounds {
            self.operators.iter().for_each(|operator| operator.finish(made, known));
        }
    }
}
