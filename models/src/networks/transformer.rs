//! The blocks of diffusion transformers, over tokens `[B, S, C]`.

use crate::networks::seams;
use graph::ops::MatMul;
use graph::{Real, Scope, Tensor};
use serde::Deserialize;

/// Activations of feed-forward networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Activation {
    Gelu,
    GeluApproximate,
}

/// diffusers' `Attention` among tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    /// Whether the projections to queries, keys and values have biases.
    pub(crate) bias: bool,
}

impl Attention {
    pub(crate) fn build(self, s: &Scope, x: &Tensor, context: &Tensor, key_bias: Option<&Tensor>) -> Tensor {
        let inner = x.extent(-1);
        let project = |name: &str, x: &Tensor| match self.bias {
            true => s.at(name).linear(x, inner),
            false => s.at(name).linear_no_bias(x, inner),
        };
        let (q, k, v) = (project("to_q", x), project("to_k", context), project("to_v", context));
        let h = q.attention(&k, &v, self.heads, false, key_bias);
        s.at("to_out").at(0).linear(&h, inner)
    }
}

/// A transformer's blocks, one after the other, each by its scope and what it is given. The graph may be cut behind the first and behind the
/// last, where there are more than one.
pub(crate) fn blocks(s: &Scope, count: usize, x: Tensor, block: impl Fn(&Scope, &Tensor) -> Tensor) -> Tensor {
    let seam = |role, x| if count > 1 { s.seam(role, x) } else { x };
    (0..count).fold(seam(seams::BEFORE_BLOCKS, x), |x, i| match (i, block(&s.at(i), &x)) {
        (0, x) => seam(seams::FIRST_BLOCK, x),
        (i, x) if i + 1 == count => seam(seams::LAST_BLOCK, x),
        (_, x) => x,
    })
}

pub(crate) fn feed_forward(s: &Scope, activation: Activation, x: &Tensor) -> Tensor {
    let inner = x.extent(-1);
    let h = s.at(0).at("proj").linear(x, 4 * inner);
    let h = match activation {
        Activation::Gelu => h.gelu(),
        Activation::GeluApproximate => h.gelu_tanh(),
    };
    s.at(2).linear(&h, inner)
}

/// diffusers' `Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift)` and its `TimestepEmbedding`.
pub(crate) fn timestep_embedding(s: &Scope, t: &Tensor, channels: usize, downscale_freq_shift: f64) -> Tensor {
    let sines = t.timestep_embedding(256, true, downscale_freq_shift);
    let h = s.at("linear_1").linear(&sines, channels).silu();
    s.at("linear_2").linear(&h, channels)
}

/// diffusers' `PatchEmbed`: makes a token of each patch and adds an embedding of its position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PatchEmbed {
    /// Channels of a token.
    pub(crate) inner: usize,
    pub(crate) patch: usize,
    /// Side of the samples that the model was trained on.
    pub(crate) sample_size: usize,
    /// Divides the positions.
    pub(crate) interpolation_scale: f64,
}

impl PatchEmbed {
    /// A convolution over whole patches is a matrix product over patches; its weight lies in memory as [`Tensor::patchify`]
    /// lays out a token.
    pub(crate) fn build(&self, s: &Scope, sample: &Tensor, rows: usize, columns: usize) -> Tensor {
        let (inner, channels, patch) = (self.inner, sample.extent(-1), self.patch);
        let proj = s.at("proj");
        let weight =
            proj.weight("weight", &[inner, channels, patch, patch]).reshape(&[inner, channels * patch * patch]);
        let bias = proj.weight("bias", &[inner]);
        let tokens = proj.push(MatMul { transpose_b: true, bias: true }, &[&sample.patchify(patch), &weight, &bias]);
        let positions = self.positions(rows, columns);
        &tokens + &s.constant(&[rows * columns, inner], positions)
    }

    /// diffusers' `get_2d_sincos_pos_embed`: the first half of the channels encodes the column, the second the row, each as
    /// sines, then cosines. Positions are scaled so that a sample of any size spans what the training size spanned.
    fn positions(&self, rows: usize, columns: usize) -> Vec<f32> {
        let (base, scale, quarter) = (self.sample_size / self.patch, self.interpolation_scale, self.inner / 4);
        let mut data = Vec::with_capacity(rows * columns * 4 * quarter);
        for row in 0..rows {
            for column in 0..columns {
                for position in [grid(column, columns, base, scale), grid(row, rows, base, scale)] {
                    let angles = (0..quarter).map(|i| position * 10_000f64.powf(-(i as f64) / quarter as f64));
                    let rounded = |value: f64| <f32 as Real>::from_f64(value);
                    data.extend(angles.clone().map(|angle| rounded(angle.sin())));
                    data.extend(angles.map(|angle| rounded(angle.cos())));
                }
            }
        }
        data
    }
}

/// A position on the training grid. As in diffusers, each division is rounded to `f32`, because models were trained
/// with those numbers.
#[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
fn grid(index: usize, extent: usize, base: usize, scale: f64) -> f64 {
    let stretched = index as f32 / (extent as f64 / base as f64) as f32;
    f64::from(stretched / scale as f32)
}
