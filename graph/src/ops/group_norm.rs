use crate::array::{Array, Real};
use crate::op::{Operation, arity};
use crate::shape::{Shape, numel};

/// Group normalisation (Wu & He 2018): channels in equal groups, each normalised over all positions of one image, then
/// `· weight + bias`. The variance is the biased one, as in PyTorch.
///
/// Operands: `x [B, …, C]`, `weight [C]` and `bias [C]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNorm {
    /// Number of groups; divides the channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// The extents of a group normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNormDims {
    /// Images.
    pub batch: usize,
    /// Positions of an image.
    pub positions: usize,
    /// Channels of a position.
    pub channels: usize,
}

impl GroupNorm {
    /// The extents for an operand that `infer` accepted.
    #[must_use]
    pub fn dims(x: &[usize]) -> GroupNormDims {
        let inner = &x[1..x.len() - 1];
        GroupNormDims { batch: x[0], positions: numel(inner), channels: x[x.len() - 1] }
    }
}

impl Operation for GroupNorm {
    const NAME: &str = "group_norm";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let [x, weight, bias] = arity::<3>(inputs)?;
        if x.len() < 2 {
            return Err(format!("cannot normalise {x:?}: it needs images and channels"));
        }
        let channels = x[x.len() - 1];
        if self.groups == 0 || channels == 0 || !channels.is_multiple_of(self.groups) {
            return Err(format!("{channels} channels do not split into {} groups", self.groups));
        }
        for affine in [weight, bias] {
            if *affine != [channels] {
                return Err(format!("a parameter of shape {affine:?} does not fit {channels} channels"));
            }
        }
        Ok(x.to_vec())
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let [x, weight, bias] = inputs else { unreachable!("infer accepted three operands") };
        let GroupNormDims { positions, channels, .. } = Self::dims(&x.shape);
        let width = channels / self.groups;
        let count = T::from_f64((positions * width) as f64);
        let mut result = x.data.clone();
        for image in result.chunks_exact_mut((positions * channels).max(1)) {
            for group in 0..self.groups {
                let members = |image: &[T]| -> Vec<T> {
                    let rows = image.chunks_exact(channels);
                    rows.flat_map(|row| row[group * width..(group + 1) * width].to_vec()).collect()
                };
                let values = members(image);
                let mean = values.iter().fold(T::zero(), |sum, v| sum + *v) / count;
                let var = values.iter().fold(T::zero(), |sum, v| sum + (*v - mean) * (*v - mean)) / count;
                let inv = (var + T::from_f64(self.eps)).map(|v| 1.0 / v.sqrt());
                let own = group * width..(group + 1) * width;
                for row in image.chunks_exact_mut(channels) {
                    let parameters = weight.data[own.clone()].iter().zip(&bias.data[own.clone()]);
                    for (v, (weight, bias)) in row[own.clone()].iter_mut().zip(parameters) {
                        *v = (*v - mean) * inv * *weight + *bias;
                    }
                }
            }
        }
        Array::new(out, result)
    }

    fn flops(&self, _: &[&[usize]], out: &[usize]) -> u64 {
        9 * numel(out) as u64
    }
}
