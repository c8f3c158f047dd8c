use crate::array::{Array, Real};
use crate::op::{Operation, arity};
use crate::shape::{Shape, numel};

/// Sinusoidal embedding of timesteps, `[B]` → `[B, dim]`: diffusers' `get_timestep_embedding`.
///
/// With `half = dim / 2`, the frequencies are `max_period^(−i / (half − downscale_freq_shift))` for `i` in `0..half`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimestepEmbedding {
    /// Number of channels; even.
    pub dim: usize,
    /// Cosines come first.
    pub flip_sin_to_cos: bool,
    /// Shifts the exponent's denominator: 0 or 1 in published models.
    pub downscale_freq_shift: f64,
    /// The longest period over 2π.
    pub max_period: f64,
}

impl TimestepEmbedding {
    /// The frequency of pair `i`, in radians per timestep.
    #[must_use]
    pub fn frequency(&self, i: usize) -> f64 {
        let half = (self.dim / 2) as f64;
        (-self.max_period.ln() * i as f64 / (half - self.downscale_freq_shift)).exp()
    }
}

impl Operation for TimestepEmbedding {
    const NAME: &str = "timestep_embedding";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let [t] = arity(inputs)?;
        let [batch] = *t else {
            return Err(format!("timesteps need one axis and have {t:?}"));
        };
        if self.dim == 0 || !self.dim.is_multiple_of(2) {
            return Err(format!("an embedding of {} channels has no pairs of sine and cosine", self.dim));
        }
        if (self.dim / 2) as f64 - self.downscale_freq_shift <= 0.0 {
            return Err(format!("{} channels leave no frequencies", self.dim));
        }
        Ok(vec![batch, self.dim])
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let half = self.dim / 2;
        let mut data = Vec::with_capacity(numel(out));
        for t in &inputs[0].data {
            for c in 0..self.dim {
                let angle = t.to_f64() * self.frequency(c % half);
                let cosine = (c < half) == self.flip_sin_to_cos;
                data.push(T::from_f64(if cosine { angle.cos() } else { angle.sin() }));
            }
        }
        Array::new(out, data)
    }

    fn flops(&self, _: &[&[usize]], out: &[usize]) -> u64 {
        3 * numel(out) as u64
    }
}
