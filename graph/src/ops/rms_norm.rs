use crate::array::{Array, Real};
use crate::op::{Operation, arity};
use crate::shape::{Shape, numel};

/// Root mean square normalisation over the last axis (Zhang & Sennrich 2019): `x / √(mean(x²) + eps)`.
///
/// Operand: `x […, C]`. A learned weight is multiplied afterwards, as any other epilogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f64,
}

impl Operation for RmsNorm {
    const NAME: &str = "rms_norm";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        match x.last() {
            None => Err("cannot normalise a scalar".into()),
            Some(0) => Err("cannot normalise over an empty axis".into()),
            Some(_) => Ok(x.to_vec()),
        }
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let x = inputs[0];
        let channels = x.shape[x.shape.len() - 1];
        let count = T::from_f64(channels as f64);
        let mut result = Vec::with_capacity(x.data.len());
        for row in x.data.chunks_exact(channels) {
            let mean_square = row.iter().fold(T::zero(), |sum, v| sum + *v * *v) / count;
            let inv = (mean_square + T::from_f64(self.eps)).map(|v| 1.0 / v.sqrt());
            result.extend(row.iter().map(|v| *v * inv));
        }
        Array::new(out, result)
    }

    fn flops(&self, _: &[&[usize]], out: &[usize]) -> u64 {
        3 * numel(out) as u64
    }
}
