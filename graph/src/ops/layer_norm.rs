use crate::array::{Array, Real};
use crate::op::Operation;
use crate::shape::{Shape, numel};

/// Layer normalisation over the last axis (Ba et al. 2016): `(x − mean) / √(var + eps)`, then `· weight + bias` when
/// `affine` is set. The variance is the biased one, as in PyTorch.
///
/// Operands: `x […, C]`, and with `affine` also `weight [C]` and `bias [C]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Two further operands scale and shift the result.
    pub affine: bool,
}

impl Operation for LayerNorm {
    const NAME: &str = "layer_norm";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let wanted = if self.affine { 3 } else { 1 };
        if inputs.len() != wanted {
            return Err(format!("needs {wanted} operands and has {}", inputs.len()));
        }
        let x = inputs[0];
        let channels = *x.last().ok_or("cannot normalise a scalar")?;
        if channels == 0 {
            return Err("cannot normalise over an empty axis".into());
        }
        for affine in &inputs[1..] {
            if **affine != [channels] {
                return Err(format!("a parameter of shape {affine:?} does not fit {channels} channels"));
            }
        }
        Ok(x.to_vec())
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let x = inputs[0];
        let channels = x.shape[x.shape.len() - 1];
        let count = T::from_f64(channels as f64);
        let mut result = Vec::with_capacity(x.data.len());
        for row in x.data.chunks_exact(channels) {
            let mean = row.iter().fold(T::zero(), |sum, v| sum + *v) / count;
            let var = row.iter().fold(T::zero(), |sum, v| sum + (*v - mean) * (*v - mean)) / count;
            let inv = (var + T::from_f64(self.eps)).map(|v| 1.0 / v.sqrt());
            result.extend(row.iter().enumerate().map(|(c, v)| {
                let y = (*v - mean) * inv;
                if self.affine { y * inputs[1].data[c] + inputs[2].data[c] } else { y }
            }));
        }
        Array::new(out, result)
    }

    fn flops(&self, _: &[&[usize]], out: &[usize]) -> u64 {
        (if self.affine { 9 } else { 7 }) * numel(out) as u64
    }
}
