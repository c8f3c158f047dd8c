//! Answers of the model that several runs share.
//!
//! Samplers that start from one noise ask the same first question, and some of them several: Euler's method and DPM-Solver++ take the same first
//! step. Whoever runs them one after the other need not ask twice.

use crate::conditioning::{Conditioning, Layout};
use crate::denoiser::Evaluation;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Denoised images that one run computed and others take over ([`Pipeline::start_sharing`](crate::Pipeline::start_sharing)), where they ask for exactly
/// the same: x, noise level and conditions equal to the bit.
///
/// Copies share everything. It holds the latest answers of one pipeline, within a number of bytes; pipelines of other models need their own.
#[derive(Clone)]
pub struct Memo(Arc<Mutex<Inner>>);

struct Inner {
    capacity: usize,
    bytes: usize,
    answers: HashMap<u64, Answer>,
    /// Keys from the oldest to the newest.
    order: VecDeque<u64>,
}

/// One evaluation of the model.
#[derive(Clone)]
pub(crate) struct Answer {
    x: Vec<f32>,
    pub(crate) denoised: Vec<f32>,
    pub(crate) unguided: Option<Vec<f32>>,
    /// How long it took to compute.
    pub(crate) took: Duration,
}

impl Memo {
    /// Keeps answers of at most this many bytes together.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner { capacity, bytes: 0, answers: HashMap::new(), order: VecDeque::new() })))
    }

    /// What was answered to this question.
    pub(crate) fn get(&self, key: u64, x: &[f32]) -> Option<Answer> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A hash may be another question's by chance.
        inner.answers.get(&key).filter(|answer| same_bits(&answer.x, x)).cloned()
    }

    pub(crate) fn put(&self, key: u64, x: &[f32], denoised: &[f32], unguided: Option<&[f32]>, took: Duration) {
        let answer =
            Answer { x: x.to_vec(), denoised: denoised.to_vec(), unguided: unguided.map(<[f32]>::to_vec), took };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = answer.bytes();
        if bytes > inner.capacity {
            return;
        }
        if let Some(old) = inner.answers.insert(key, answer) {
            inner.bytes -= old.bytes();
        } else {
            inner.order.push_back(key);
        }
        inner.bytes += bytes;
        while inner.bytes > inner.capacity {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(old) = inner.answers.remove(&oldest) {
                inner.bytes -= old.bytes();
            }
        }
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        4 * (self.x.len() + self.denoised.len() + self.unguided.as_ref().map_or(0, Vec::len))
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Memo").field("answers", &inner.answers.len()).field("bytes", &inner.bytes).finish()
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// What a question has in common with all others of its run.
pub(crate) fn run_key(layout: &Layout, conditioning: &Conditioning) -> u64 {
    let mut hasher = DefaultHasher::new();
    let row = Layout { samples: 1, ..layout.clone() };
    row.hash(&mut hasher);
    conditioning.guidance_scale.to_bits().hash(&mut hasher);
    for condition in &conditioning.conditions {
        condition.name.hash(&mut hasher);
        hash_values(&condition.data, &mut hasher);
    }
    hash_values(&conditioning.concatenated, &mut hasher);
    hasher.finish()
}

/// The same of one question.
pub(crate) fn key(run: u64, asked: &Evaluation<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (run, asked.mode).hash(&mut hasher);
    // These hold all that the prediction's kind and the noise level mean to the graph.
    let scalings = asked.prediction.scalings(asked.sigma, asked.timestep);
    for value in [scalings.c_skip, scalings.c_out, scalings.c_in, scalings.c_noise] {
        value.to_bits().hash(&mut hasher);
    }
    hash_values(asked.x, &mut hasher);
    hasher.finish()
}

fn hash_values(values: &[f32], hasher: &mut DefaultHasher) {
    for pair in values.chunks(2) {
        let high = pair.get(1).map_or(0, |value| value.to_bits());
        hasher.write_u64(u64::from(pair[0].to_bits()) | u64::from(high) << 32);
    }
    values.len().hash(hasher);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_answers_go_first_and_questions_are_compared_bit_by_bit() {
        let memo = Memo::new(64);
        // Eight bytes of x, eight of the answer.
        for key in 0..5 {
            memo.put(key, &[0.0, key as f32], &[1.0, 2.0], None, Duration::ZERO);
        }
        assert!(memo.get(0, &[0.0, 0.0]).is_none(), "only four fit");
        assert!(memo.get(1, &[0.0, 1.0]).is_some_and(|answer| same_bits(&answer.denoised, &[1.0, 2.0])));
        assert!(memo.get(1, &[-0.0, 1.0]).is_none(), "another x under the same key");
        memo.put(9, &[0.0; 100], &[0.0; 100], None, Duration::ZERO);
        assert!(memo.get(9, &[0.0; 100]).is_none(), "too large for any room");
        assert!(memo.get(4, &[0.0, 4.0]).is_some(), "and it has pushed nobody out");
    }
}
