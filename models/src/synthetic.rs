//! Weights drawn from their names: a full-size model without a checkpoint, for goldens, self-tests and benchmarks.
//!
//! `tests/goldens/synthetic.py` follows the same rules and gives the same bits:
//!
//! 1. The seed is the FNV-1a hash (64 bits) of the name in UTF-8.
//! 2. Element `i` comes from output `i` of SplitMix64 (Steele et al. 2014) with that seed: `u = (bits >> 40) / 2²³ − 1`, in
//!    −1..1, exact in `f32`.
//! 3. Matrices and tensors of more axes: `u · √(3 / fan_in)`, where `fan_in` is the product of all extents but the first,
//!    so that a layer keeps its input's variance. Vectors called `weight` (of norms): `1 + u / 8`; other vectors: `u / 8`.
//!    Each product is taken in `f64` and rounded once to `f32`.

use graph::random::SplitMix;
use graph::{Real, Shape, StorageType, WeightSource, WeightSpec, WeightView, shape::numel};
use std::borrow::Cow;
use std::collections::HashMap;

/// Weights drawn from their names, made when they are asked for.
#[derive(Debug, Clone, Default)]
pub struct SyntheticWeights {
    shapes: HashMap<String, Shape>,
}

impl SyntheticWeights {
    /// A source of these weights, usually all that a graph needs.
    #[must_use]
    pub fn new(weights: &[WeightSpec]) -> Self {
        Self { shapes: weights.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect() }
    }
}

impl WeightSource for SyntheticWeights {
    fn weight(&self, name: &str) -> Option<WeightView<'_>> {
        let shape = self.shapes.get(name)?;
        let values = draw(name, shape);
        let mut bytes = vec![0; 4 * values.len()];
        for (place, value) in bytes.chunks_exact_mut(4).zip(&values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        Some(WeightView { storage: StorageType::F32, shape: shape.clone(), bytes: Cow::Owned(bytes) })
    }

    fn stored_as(&self, name: &str) -> Option<StorageType> {
        self.shapes.contains_key(name).then_some(StorageType::F32)
    }
}

/// The elements of a weight.
#[must_use]
pub fn draw(name: &str, shape: &[usize]) -> Vec<f32> {
    let (offset, scale) = match shape {
        [_] | [] if name.ends_with("weight") => (1.0, 0.125),
        [_] | [] => (0.0, 0.125),
        _ => (0.0, (3.0 / numel(&shape[1..]).max(1) as f64).sqrt()),
    };
    signed(name, numel(shape)).map(|u| f32::from_f64(offset + u * scale)).collect()
}

/// Numbers in −1..1 drawn from a name, exact in `f32`: inputs for the same tests.
pub fn signed(name: &str, count: usize) -> impl Iterator<Item = f64> + use<> {
    let mut bits = SplitMix(fnv1a(name));
    (0..count).map(move |_| f64::from(bits.signed()))
}

/// Fowler, Noll and Vo's hash, variant 1a, 64 bits.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_and_generator_are_the_published_ones() {
        // Test vectors of the FNV reference implementation and of SplitMix64's (seed 0).
        assert_eq!(fnv1a(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_F739_67E8);
        assert_eq!(SplitMix(0).bits(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn a_matrix_keeps_the_variance_of_its_input() {
        let weight = draw("some.linear.weight", &[64, 256]);
        let power: f64 = weight.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>() / 64.0;
        assert!((power - 1.0).abs() < 0.05, "a row has the squared norm {power}");
    }
}
