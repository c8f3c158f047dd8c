//! The blocks of UNets and autoencoders: one function for each of diffusers' blocks, over images `[B, H, W, C]`. Each
//! marks its result.

use crate::networks::resample::Resample;
use crate::networks::seams;
use graph::ops::Conv2d;
use graph::{Scope, Tensor};

/// Settings of a model's group norms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
}

/// diffusers' `ResnetBlock2D`: two convolutions, each after a group norm, and the timestep's embedding between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetBlock2d {
    pub(crate) out: usize,
    pub(crate) norm: Norm,
    /// Groups of the second norm.
    pub(crate) groups_out: usize,
    /// Whether the embedding scales and shifts what the second norm gives; otherwise it is added before that norm.
    pub(crate) scale_shift: bool,
    /// Change of the image's size, applied after the first activation and in the shortcut.
    pub(crate) resample: Option<Resample>,
    /// Whether the shortcut has a convolution even where the number of channels stays the same.
    pub(crate) conv_shortcut: bool,
    /// The sum of block and shortcut is divided by this.
    pub(crate) output_scale_factor: f64,
}

impl ResnetBlock2d {
    pub(crate) fn new(out: usize, norm: Norm) -> Self {
        Self {
            out,
            norm,
            groups_out: norm.groups,
            scale_shift: false,
            resample: None,
            conv_shortcut: false,
            output_scale_factor: 1.0,
        }
    }

    /// The block over an image. `temb [B, T]` is the embedding of a timestep, if the model has one.
    pub(crate) fn build(&self, s: &Scope, x: &Tensor, temb: Option<&Tensor>) -> Tensor {
        let out = self.out;
        let h = s.at("norm1").group_norm(x, self.norm.groups, self.norm.eps).silu();
        let resampled = |x: &Tensor| self.resample.map_or_else(|| x.clone(), |resample| resample.of(s, x));
        let (mut around, h) = (resampled(x), resampled(&h));
        let mut h = s.at("conv1").conv2d(&h, out, 3, Conv2d::same(3));
        let width = if self.scale_shift { 2 * out } else { out };
        let projected = temb.map(|temb| {
            let projected = s.at("time_emb_proj").linear(&temb.silu(), width);
            projected.reshape(&[temb.extent(0), 1, 1, width])
        });
        let norm2 = |h: &Tensor| s.at("norm2").group_norm(h, self.groups_out, self.norm.eps);
        h = match &projected {
            Some(projected) if self.scale_shift => {
                let halves = projected.chunk(3, 2);
                norm2(&h).modulate(&halves[1], &halves[0])
            }
            Some(projected) => norm2(&(&h + projected)),
            None => norm2(&h),
        };
        let h = s.at("conv2").conv2d(&h.silu(), out, 3, Conv2d::same(3));
        if self.conv_shortcut || around.extent(-1) != out {
            around = s.at("conv_shortcut").conv2d(&around, out, 1, Conv2d::same(1));
        }
        s.mark(divided(&(&around + &h), self.output_scale_factor))
    }
}

fn divided(x: &Tensor, factor: f64) -> Tensor {
    if (factor - 1.0).abs() < f64::EPSILON { x.clone() } else { x.scale(factor.recip()) }
}

/// A resnet block with default settings. It keeps the image's size.
pub(crate) fn resnet_block_2d(s: &Scope, x: &Tensor, temb: Option<&Tensor>, out: usize, norm: Norm) -> Tensor {
    ResnetBlock2d::new(out, norm).build(s, x, temb)
}

/// diffusers' `Downsample2D` with a convolution. With a padding of 0, zeros are added only below and to the right of
/// the image.
pub(crate) fn downsample_2d(s: &Scope, x: &Tensor, padding: usize) -> Tensor {
    let padding = if padding == 0 { [0, 1, 0, 1] } else { [padding; 4] };
    let conv = Conv2d { stride: 2, padding, ..Conv2d::same(3) };
    s.mark(s.at("conv").conv2d(x, x.extent(-1), 3, conv))
}

/// diffusers' `Upsample2D` with a convolution, which reads every pixel twice along each axis.
pub(crate) fn upsample_2d(s: &Scope, x: &Tensor) -> Tensor {
    s.mark(s.at("conv").conv2d(x, x.extent(-1), 3, Conv2d { upsample: 2, ..Conv2d::same(3) }))
}

/// Like [`upsample_2d`], but to the size of another image. Where a side of that is odd, the last row or column is not
/// doubled.
pub(crate) fn upsample_2d_to(s: &Scope, x: &Tensor, like: &Tensor) -> Tensor {
    let doubled = [1, 2].map(|axis| 2 * x.extent(axis));
    let wanted = [1, 2].map(|axis| like.extent(axis));
    if doubled == wanted {
        return upsample_2d(s, x);
    }
    let cut = doubled.iter().zip(&wanted).all(|(doubled, wanted)| doubled.wrapping_sub(*wanted) <= 1);
    if !cut {
        return s.poison(format!(
            "an image of {wanted:?} does not come of one of {doubled:?} by leaving out a row or a column"
        ));
    }
    let image = Resample::Nearest.of(s, x).slice(1, 0..wanted[0]).slice(2, 0..wanted[1]);
    s.mark(s.at("conv").conv2d(&image, x.extent(-1), 3, Conv2d::same(3)))
}

/// diffusers' `TimestepEmbedding` of sines `[B, S]`.
pub(crate) fn timestep_embedding(s: &Scope, sines: &Tensor, channels: usize) -> Tensor {
    let h = s.at("linear_1").linear(sines, channels).silu();
    s.at("linear_2").linear(&h, channels)
}

/// diffusers' `Transformer2DModel` over an image, with text `[B, S, D]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transformer2d {
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    pub(crate) groups: usize,
    /// Whether the checkpoint stores the projections as matrices, and not as 1×1 convolutions. The numbers are the
    /// same.
    pub(crate) use_linear_projection: bool,
    /// Whether both attentions of a block are to the text.
    pub(crate) only_cross_attention: bool,
}

impl Transformer2d {
    pub(crate) fn build(&self, s: &Scope, image: &Tensor, text: &Tensor) -> Tensor {
        let [batch, height, width, channels] = image.shape()[..] else { return image.clone() };
        let project = |name: &str, x: &Tensor| match self.use_linear_projection {
            true => s.at(name).linear(x, channels),
            false => s.at(name).conv2d(x, channels, 1, Conv2d::same(1)),
        };
        let h = s.at("norm").group_norm(image, self.groups, 1e-6);
        let h = project("proj_in", &h).reshape(&[batch, height * width, channels]);
        let blocks = s.at("transformer_blocks");
        let h = (0..self.layers).fold(h, |h, i| self.basic_transformer_block(&blocks.at(i), &h, text));
        s.mark(&project("proj_out", &h.reshape(&[batch, height, width, channels])) + image)
    }

    /// diffusers' `BasicTransformerBlock` as Stable Diffusion has it: self attention, attention to text, a gated network.
    fn basic_transformer_block(&self, s: &Scope, x: &Tensor, text: &Tensor) -> Tensor {
        let h = s.at("norm1").layer_norm(x, 1e-5);
        let cross = |s: &Scope, x: &Tensor| s.seam(seams::CROSS_ATTENTION, attention(s, x, text, self.heads));
        let attn1 = s.at("attn1");
        let own = if self.only_cross_attention { cross(&attn1, &h) } else { attention(&attn1, &h, &h, self.heads) };
        let x = &own + x;
        let h = s.at("norm2").layer_norm(&x, 1e-5);
        let x = &cross(&s.at("attn2"), &h) + &x;
        let h = s.at("norm3").layer_norm(&x, 1e-5);
        &feed_forward_geglu(&s.at("ff").at("net"), &h) + &x
    }
}

fn attention(s: &Scope, x: &Tensor, context: &Tensor, heads: usize) -> Tensor {
    let channels = x.extent(-1);
    let q = s.at("to_q").linear_no_bias(x, channels);
    let [k, v] = ["to_k", "to_v"].map(|name| s.at(name).linear_no_bias(context, channels));
    s.at("to_out").at(0).linear(&q.attention(&k, &v, heads, false, None), channels)
}

/// GEGLU (Shazeer 2020): one half of a projection gates the other.
fn feed_forward_geglu(s: &Scope, x: &Tensor) -> Tensor {
    let channels = x.extent(-1);
    let inner = 4 * channels;
    let both = s.at(0).at("proj").linear(x, 2 * inner);
    let [hidden, gate] = &both.chunk(2, 2)[..] else { return both };
    s.at(2).linear(&(hidden * &gate.gelu()), channels)
}

/// Self attention over all pixels, with biases, after its own group norm: diffusers' `Attention` with a residual
/// connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PixelAttention {
    pub(crate) heads: usize,
    pub(crate) norm: Option<Norm>,
    /// The sum of block and shortcut is divided by this.
    pub(crate) output_scale_factor: f64,
}

impl PixelAttention {
    pub(crate) fn build(&self, s: &Scope, image: &Tensor) -> Tensor {
        let [batch, height, width, channels] = image.shape()[..] else { return image.clone() };
        let normed = self.norm.map(|norm| s.at("group_norm").group_norm(image, norm.groups, norm.eps));
        let h = normed.as_ref().unwrap_or(image).reshape(&[batch, height * width, channels]);
        let [q, k, v] = ["to_q", "to_k", "to_v"].map(|name| s.at(name).linear(&h, channels));
        let h = s.at("to_out").at(0).linear(&q.attention(&k, &v, self.heads, false, None), channels);
        s.mark(divided(&(&h.reshape(&[batch, height, width, channels]) + image), self.output_scale_factor))
    }
}

/// The attention in the middle of an autoencoder. It has one head.
pub(crate) fn pixel_attention(s: &Scope, image: &Tensor, norm: Norm) -> Tensor {
    PixelAttention { heads: 1, norm: Some(norm), output_scale_factor: 1.0 }.build(s, image)
}
