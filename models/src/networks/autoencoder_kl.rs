//! The autoencoder of latent diffusion models (Rombach et al. 2022), diffusers' `AutoencoderKL`.

use crate::config::{Inert, Rest, any, check_levels, check_rest, check_sizes, only, parse_class};
use crate::error::ModelError;
use crate::networks::blocks::{Norm, downsample_2d, pixel_attention, resnet_block_2d, upsample_2d};
use graph::expr::{Binary, Expr};
use graph::ops::Conv2d;
use graph::{Real, Scope, Tensor};
use serde::Deserialize;

/// diffusers' configuration, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    /// Channels of a picture to encode.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    /// Channels of every level, the finest first.
    pub block_out_channels: Vec<usize>,
    layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    norm_num_groups: usize,
    /// Factor on the encoder's output that gives the latents.
    pub scaling_factor: f64,
    /// Subtracted from the encoder's output before that factor is applied.
    pub shift_factor: Option<f64>,
    /// Mean of each channel of the encoder's output, where latents are also scaled by its deviation.
    pub latents_mean: Option<Vec<f64>>,
    /// Deviation of each channel, which that factor is divided by.
    pub latents_std: Option<Vec<f64>>,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
    mid_block_add_attention: bool,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            rest: Rest::new(),
        }
    }
}

const INERT: &[Inert] = &[
    only("act_fn", &["\"silu\"", "\"swish\""]),
    any("sample_size"),
    any("force_upcast"), // sums are single precision everywhere
];

/// Added to the variance by every norm of the encoder and the decoder.
const EPS: f64 = 1e-6;

impl AutoencoderKlConfig {
    /// Reads diffusers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let config: Self = parse_class(path, text, "_class_name", &["AutoencoderKL"])?;
        check_rest(path, &config.rest, INERT)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &str) -> Result<(), ModelError> {
        let fault = |message: String| Err(ModelError::new(path, message));
        let levels = self.block_out_channels.len();
        if !(1..=16).contains(&levels) || self.up_block_types.len() != levels || self.down_block_types.len() != levels {
            return fault(format!("the blocks do not fit {levels} block_out_channels"));
        }
        check_levels(path, levels)?;
        if let Some(kind) = self.up_block_types.iter().find(|kind| *kind != "UpDecoderBlock2D") {
            return fault(format!("the block {kind} is not supported (supported: UpDecoderBlock2D)"));
        }
        if let Some(kind) = self.down_block_types.iter().find(|kind| *kind != "DownEncoderBlock2D") {
            return fault(format!("the block {kind} is not supported (supported: DownEncoderBlock2D)"));
        }
        let mut sizes = vec![
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
        ];
        sizes.extend(self.block_out_channels.iter().map(|channels| ("block_out_channels", *channels)));
        check_sizes(path, &sizes)?;
        if let Some(channels) = self.block_out_channels.iter().find(|c| !c.is_multiple_of(self.norm_num_groups)) {
            return fault(format!("{channels} channels do not split into {} groups", self.norm_num_groups));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor != 0.0) {
            return fault(format!("scaling_factor = {} scales nothing", self.scaling_factor));
        }
        let scaled = |std: &f64| std.is_finite() && *std != 0.0;
        match (&self.latents_mean, &self.latents_std) {
            (Some(mean), Some(std))
                if mean.len() != self.latent_channels
                    || std.len() != self.latent_channels
                    || !std.iter().all(scaled) =>
            {
                let channels = self.latent_channels;
                fault(format!("latents_mean and latents_std are not numbers for each of {channels} latent_channels"))
            }
            _ => Ok(()),
        }
    }

    /// What is subtracted from each channel of the encoder's output, and what it is multiplied by after that. As in diffusers'
    /// pipelines, a mean counts only with a deviation and takes the place of the shift.
    #[must_use]
    pub fn normalization(&self) -> Vec<(f64, f64)> {
        match (&self.latents_mean, &self.latents_std) {
            (Some(mean), Some(std)) => {
                mean.iter().zip(std).map(|(mean, std)| (*mean, self.scaling_factor / std)).collect()
            }
            _ => vec![(self.shift_factor.unwrap_or(0.0), self.scaling_factor); self.latent_channels],
        }
    }

    /// Pixels along a side of one latent.
    #[must_use]
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// Decodes latents, scaled as the diffusion model uses them: `[B, h, w, latent_channels]` → `[B, H, W, out_channels]`,
/// about −1..1.
#[must_use]
pub fn autoencoder_kl_decode(s: &Scope, config: &AutoencoderKlConfig, latents: &Tensor) -> Tensor {
    let norm = Norm { groups: config.norm_num_groups, eps: EPS };
    let mut h = latents.clone();
    if config.latents_mean.is_some() && config.latents_std.is_some() {
        let normalization = config.normalization();
        let each = |of: fn(&(f64, f64)) -> f64| {
            let values = normalization.iter().map(|channel| <f32 as Real>::from_f64(of(channel))).collect();
            s.constant(&[1, 1, 1, config.latent_channels], values)
        };
        h = &(&h * &each(|(_, factor)| factor.recip())) + &each(|(mean, _)| *mean);
    } else {
        h = h.scale(config.scaling_factor.recip());
        if let Some(shift) = config.shift_factor {
            h = h.offset(shift);
        }
    }
    if config.use_post_quant_conv {
        h = s.at("post_quant_conv").conv2d(&h, config.latent_channels, 1, Conv2d::same(1));
    }
    let s = s.at("decoder");
    let levels = config.block_out_channels.len();
    let coarsest = config.block_out_channels[levels - 1];
    let h = s.at("conv_in").conv2d(&h, coarsest, 3, Conv2d::same(3));
    let mut h = mid_block(&s.at("mid_block"), config, &h);

    for block in 0..levels {
        let (s, level) = (s.at("up_blocks").at(block), levels - 1 - block);
        for layer in 0..=config.layers_per_block {
            h = resnet_block_2d(&s.at("resnets").at(layer), &h, None, config.block_out_channels[level], norm);
        }
        if level > 0 {
            h = upsample_2d(&s.at("upsamplers").at(0), &h);
        }
    }

    let h = s.at("conv_norm_out").group_norm(&h, norm.groups, norm.eps).silu();
    s.at("conv_out").conv2d(&h, config.out_channels, 3, Conv2d::same(3))
}

/// The distribution of a picture's latents: `[B, H, W, in_channels]` of −1..1, sides multiples of
/// [`factor`](AutoencoderKlConfig::factor) → mean and logarithm of the variance, each `[B, h, w, latent_channels]`. The latents
/// that [`autoencoder_kl_decode`] takes are `mean + exp(logvar/2)·noise` after [`AutoencoderKlConfig::normalization`].
#[must_use]
pub fn autoencoder_kl_encode(s: &Scope, config: &AutoencoderKlConfig, image: &Tensor) -> (Tensor, Tensor) {
    let norm = Norm { groups: config.norm_num_groups, eps: EPS };
    let encoder = s.at("encoder");
    let levels = config.block_out_channels.len();
    let mut h = encoder.at("conv_in").conv2d(image, config.block_out_channels[0], 3, Conv2d::same(3));
    for (level, &channels) in config.block_out_channels.iter().enumerate() {
        let s = encoder.at("down_blocks").at(level);
        for layer in 0..config.layers_per_block {
            h = resnet_block_2d(&s.at("resnets").at(layer), &h, None, channels, norm);
        }
        if level + 1 < levels {
            h = downsample_2d(&s.at("downsamplers").at(0), &h, 0);
        }
    }
    let h = mid_block(&encoder.at("mid_block"), config, &h);
    let h = encoder.at("conv_norm_out").group_norm(&h, norm.groups, norm.eps).silu();
    let mut moments = encoder.at("conv_out").conv2d(&h, 2 * config.latent_channels, 3, Conv2d::same(3));
    if config.use_quant_conv {
        moments = s.at("quant_conv").conv2d(&moments, 2 * config.latent_channels, 1, Conv2d::same(1));
    }
    let mean = moments.slice(3, 0..config.latent_channels);
    let logvar = moments.slice(3, config.latent_channels..2 * config.latent_channels);
    (mean, clamp(&logvar, LOGVAR))
}

/// The bounds that diffusers' `DiagonalGaussianDistribution` sets to the logarithm of the variance.
const LOGVAR: [f64; 2] = [-30.0, 20.0];

fn clamp(x: &Tensor, [low, high]: [f64; 2]) -> Tensor {
    let above = Expr::binary(Binary::Max, Expr::Input(0), Expr::Const(low));
    x.elementwise(Expr::binary(Binary::Min, above, Expr::Const(high)), &[])
}

/// diffusers' `UNetMidBlock2D` without a timestep.
fn mid_block(s: &Scope, config: &AutoencoderKlConfig, x: &Tensor) -> Tensor {
    let norm = Norm { groups: config.norm_num_groups, eps: EPS };
    let channels = x.extent(-1);
    let mut h = resnet_block_2d(&s.at("resnets").at(0), x, None, channels, norm);
    if config.mid_block_add_attention {
        h = pixel_attention(&s.at("attentions").at(0), &h, norm);
    }
    resnet_block_2d(&s.at("resnets").at(1), &h, None, channels, norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::SyntheticWeights;
    use graph::{Array, Rate, evaluate};
    use std::collections::HashMap;

    #[test]
    fn variances_are_held_in_range() {
        let s = Scope::root();
        let held = clamp(&s.input("x", &[5], Rate::Step), LOGVAR);
        let graph = s.finish(&[("held", &held)]).expect("a well-shaped graph");
        let inputs = HashMap::from([("x", Array::new(vec![5], vec![-31.0, -30.0, 0.5, 19.0, 1e9]))]);
        let output = evaluate(&graph, &inputs, &SyntheticWeights::new(&graph.weights())).expect("every input is bound");
        assert_eq!(output[0].data, [-30.0, -30.0, 0.5, 19.0, 20.0]);
    }
}
