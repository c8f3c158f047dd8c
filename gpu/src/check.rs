//! Compares a kernel's result with the reference. The tolerance is measured, not chosen.

use graph::ops::Elementwise;
use graph::{Array, Expr, Op, Operation, Real, q8_0};
use half::f16;

/// The tolerance is this many times the measured rounding errors.
const SLACK: f64 = 4.0;

/// A result compared with the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    /// Largest absolute difference from the reference in `f64`; infinite when a number is missing or NaN.
    pub max_error: f64,
    /// Largest difference that can come from rounding.
    pub tolerance: f64,
    /// Position of the largest difference.
    pub worst: usize,
}

impl Check {
    /// Whether the difference can come from rounding.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.max_error <= self.tolerance
    }
}

/// A node's operation on given operands.
pub(crate) struct Evaluation<'a> {
    pub(crate) op: &'a Op,
    pub(crate) operands: &'a [Array<f32>],
    pub(crate) epilogue: Option<(&'a Expr, &'a [Array<f32>])>,
    pub(crate) out: &'a [usize],
    /// The result is stored in half precision.
    pub(crate) half: bool,
    /// The kernel rounds the first operand to blocks of eight bits, so what it should give is what the rounded one gives.
    pub(crate) eight_bits: bool,
}

/// What a result should be.
#[derive(Debug)]
pub(crate) struct Expected {
    exact: Vec<f64>,
    tolerance: f64,
}

impl Expected {
    /// Compares a result with the reference.
    pub(crate) fn check(&self, result: &[f32]) -> Check {
        let (max_error, worst) = distance(result, &self.exact);
        Check { max_error, tolerance: self.tolerance, worst }
    }
}

impl Evaluation<'_> {
    /// Compares one result with the reference.
    pub(crate) fn check(&self, result: &[f32]) -> Check {
        self.expected().check(result)
    }

    /// What any kernel should give.
    ///
    /// The tolerance is a small multiple of two errors that no kernel can avoid: what the reference itself loses in
    /// `f32`, and how much the exact result moves when every operand moves by one unit in the last place. Operations
    /// that only move numbers have none.
    pub(crate) fn expected(&self) -> Expected {
        let rounded;
        let evaluation = match self.eight_bits {
            true => {
                let left = &self.operands[0];
                let left = Array::new(left.shape.clone(), block_values(&left.data));
                rounded = [&[left], &self.operands[1..]].concat();
                &Evaluation { operands: &rounded, ..*self }
            }
            false => self,
        };
        let mut expected = evaluation.of_operands();
        if self.eight_bits {
            // One element at the middle between two whole numbers may go the other way.
            let largest = |array: &Array<f32>| array.data.iter().fold(0.0, |most: f64, v| most.max(f64::from(v.abs())));
            expected.tolerance += largest(&self.operands[0]) / 127.0 * largest(&self.operands[1]);
        }
        if self.half {
            let most = f64::from(f16::MAX);
            let largest = expected.exact.iter().fold(0.0f64, |most, v| most.max(v.abs())).min(most);
            expected.exact.iter_mut().for_each(|v| *v = v.clamp(-most, most));
            // Half of a unit in the last of 11 bits, and what is lost of numbers below the least normal one.
            expected.tolerance += largest / 2048.0 + 2f64.powi(-25);
        }
        expected
    }

    fn of_operands(&self) -> Expected {
        let exact: Array<f64> = self.evaluate(|_, array| array.cast());
        let moves = matches!(self.op, Op::Gather(_) | Op::Concat(_) | Op::Slice(_) | Op::Transpose(_));
        let tolerance = if moves && self.epilogue.is_none() {
            0.0
        } else {
            let single: Array<f32> = self.evaluate(|_, array| array.clone());
            let shaken: Array<f64> = self.evaluate(shake);
            SLACK * (distance(&single.data, &exact.data).0 + distance(&shaken.data, &exact.data).0)
        };
        Expected { exact: exact.data, tolerance }
    }

    fn evaluate<T: Real>(&self, load: impl Fn(u64, &Array<f32>) -> Array<T>) -> Array<T> {
        let load_all = |first: u64, arrays: &[Array<f32>]| -> Vec<Array<T>> {
            (first..).zip(arrays).map(|(seed, array)| load(seed, array)).collect()
        };
        let mut operands = load_all(0, self.operands);
        if let (Op::Gather(_), Some(ids)) = (self.op, self.operands.get(1)) {
            // Row numbers are not shaken, because they must stay whole.
            operands[1] = ids.cast();
        }
        let value = self.op.reference(&operands.iter().collect::<Vec<_>>(), self.out);
        match self.epilogue {
            None => value,
            Some((expr, extras)) => {
                let extras = load_all(self.operands.len() as u64, extras);
                let all: Vec<&Array<T>> = std::iter::once(&value).chain(&extras).collect();
                Elementwise { expr: expr.clone() }.reference(&all, self.out)
            }
        }
    }
}

/// Values rounded to blocks of eight bits whose scales are singles, as kernels keep them.
fn block_values(values: &[f32]) -> Vec<f32> {
    let round = |block: &[f32]| {
        let scale = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        block.iter().map(move |value| (value * inverse).round() * scale).collect::<Vec<_>>()
    };
    values.chunks(q8_0::BLOCK).flat_map(round).collect()
}

/// Largest difference and where it is. A missing or undefined number counts as infinitely far.
fn distance<T: Real>(values: &[T], exact: &[f64]) -> (f64, usize) {
    if values.len() != exact.len() {
        return (f64::INFINITY, 0);
    }
    let mut worst = (0.0, 0);
    for (i, (value, exact)) in values.iter().zip(exact).enumerate() {
        let value = value.to_f64();
        // The difference of two equal infinities is NaN, although they agree. Any other NaN is an error.
        let error = if value == *exact { 0.0 } else { (value - exact).abs() };
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > worst.0 {
            worst = (error, i);
        }
    }
    worst
}

/// Moves every element by one unit in the last place of an `f32`, up or down by a fixed rule.
fn shake(seed: u64, array: &Array<f32>) -> Array<f64> {
    let data = (0..).zip(&array.data).map(|(i, value)| {
        let up = hash(seed << 32 | i) & 1 == 0;
        let factor = if up { 1.0 + f64::from(f32::EPSILON) } else { 1.0 - f64::from(f32::EPSILON) };
        f64::from(*value) * factor
    });
    Array::new(array.shape.clone(), data.collect())
}

/// SplitMix64 (Steele et al. 2014): a counter to 64 mixed bits.
pub(crate) fn hash(counter: u64) -> u64 {
    let mut x = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::ops::{MatMul, Slice};

    fn of<'a>(op: &'a Op, out: &'a [usize]) -> Evaluation<'a> {
        Evaluation { op, operands: &[], epilogue: None, out, half: false, eight_bits: false }
    }

    #[test]
    fn wrong_and_missing_numbers_fail_and_rounding_passes() {
        let a = Array::new([2, 3], vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        let b = Array::new([3, 1], vec![0.7, 0.8, 0.9]);
        let op = Op::from(MatMul { transpose_b: false, bias: false });
        let evaluation = Evaluation { op: &op, operands: &[a.clone(), b.clone()], ..of(&op, &[2, 1]) };
        let right = op.reference(&[&a, &b], &[2, 1]).data;
        assert!(evaluation.check(&right).passed());
        for wrong in [vec![right[0], right[1] + 1e-4], vec![f32::NAN, right[1]], vec![right[0]]] {
            assert!(!evaluation.check(&wrong).passed(), "{wrong:?}");
        }
    }

    #[test]
    fn halves_are_held_to_their_rounding() {
        let x = Array::new([3], vec![1.0, -0.333_333_34, 1e6]);
        let op =
            Op::from(Elementwise { expr: Expr::binary(graph::expr::Binary::Mul, Expr::Input(0), Expr::Const(1.0)) });
        let evaluation = Evaluation { operands: &[x], half: true, ..of(&op, &[3]) };
        let half = |v: f32| f16::from_f32(v).to_f32();
        // The largest counts, so smaller numbers are tried alone.
        assert!(evaluation.check(&[1.0, half(-0.333_333_34), 65504.0]).passed());
        assert!(!evaluation.check(&[1.0, -0.333, f32::INFINITY]).passed());
        let small = Array::new([2], vec![1.0, -0.333_333_34]);
        let evaluation = Evaluation { operands: &[small], half: true, ..of(&op, &[2]) };
        assert!(evaluation.check(&[1.0, half(-0.333_333_34)]).passed());
        assert!(!evaluation.check(&[1.0, -0.334]).passed());
    }

    #[test]
    fn moved_numbers_must_be_equal() {
        let x = Array::new([3], vec![0.1, 0.2, 0.3]);
        let op = Op::from(Slice { axis: 0, start: 1, len: 2 });
        let evaluation = Evaluation { op: &op, operands: &[x], ..of(&op, &[2]) };
        assert!(evaluation.check(&[0.2, 0.3]).passed());
        assert!(!evaluation.check(&[0.2, 0.300_000_04]).passed());
    }
}
