//! The autoencoder of latent diffusion models (Rombach et al. 2022), diffusers' `AutoencoderKL`.

use crate::blocks::{Norm, pixel_attention, resnet_block_2d, upsample_2d};
use crate::config::{Inert, Rest, any, check_rest, check_sizes, only, parse_class};
use crate::error::ModelError;
use graph::ops::Conv2d;
use graph::{Scope, Tensor};
use serde::Deserialize;

/// diffusers' configuration, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    /// Channels of a picture.
    pub out_channels: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    /// Channels of every level, the finest first.
    pub block_out_channels: Vec<usize>,
    layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    norm_num_groups: usize,
    /// Latents are the encoder's output times this.
    pub scaling_factor: f64,
    /// And less this, before.
    pub shift_factor: Option<f64>,
    use_post_quant_conv: bool,
    mid_block_add_attention: bool,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            rest: Rest::new(),
        }
    }
}

const INERT: &[Inert] = &[
    only("act_fn", &["\"silu\"", "\"swish\""]),
    // Applied by the pipelines that have them; nobody's checkpoint of these families does.
    only("latents_mean", &["null"]),
    only("latents_std", &["null"]),
    only("quantization_config", &["null"]),
    any("in_channels"),    // the encoder's
    any("use_quant_conv"), // the encoder's
    any("sample_size"),
    any("force_upcast"), // sums are single precision everywhere
];

/// Every norm of the decoder.
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
        if let Some(kind) = self.up_block_types.iter().find(|kind| *kind != "UpDecoderBlock2D") {
            return fault(format!("the block {kind} is not supported (supported: UpDecoderBlock2D)"));
        }
        let mut sizes = vec![
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
        Ok(())
    }

    /// Pixels along a side of one latent.
    #[must_use]
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// The picture of latents as the diffusion model has them: `[B, h, w, latent_channels]` → `[B, H, W, out_channels]`, about −1..1.
#[must_use]
pub fn autoencoder_kl_decode(s: &Scope, config: &AutoencoderKlConfig, latents: &Tensor) -> Tensor {
    let norm = Norm { groups: config.norm_num_groups, eps: EPS };
    let mut h = latents.scale(config.scaling_factor.recip());
    if let Some(shift) = config.shift_factor {
        h = h.offset(shift);
    }
    if config.use_post_quant_conv {
        h = s.at("post_quant_conv").conv2d(&h, config.latent_channels, 1, Conv2d::same(1));
    }
    let s = s.at("decoder");
    let levels = config.block_out_channels.len();
    let coarsest = config.block_out_channels[levels - 1];
    let conv_in = s.at("conv_in");
    let mut h = conv_in.mark(conv_in.conv2d(&h, coarsest, 3, Conv2d::same(3)));
    let resnet = |s: &Scope, x: &Tensor, out: usize| s.mark(resnet_block_2d(s, x, None, out, norm));

    let mid = s.at("mid_block");
    h = resnet(&mid.at("resnets").at(0), &h, coarsest);
    if config.mid_block_add_attention {
        let s = mid.at("attentions").at(0);
        h = s.mark(pixel_attention(&s, &h, norm));
    }
    h = resnet(&mid.at("resnets").at(1), &h, coarsest);

    for block in 0..levels {
        let (s, level) = (s.at("up_blocks").at(block), levels - 1 - block);
        for layer in 0..=config.layers_per_block {
            h = resnet(&s.at("resnets").at(layer), &h, config.block_out_channels[level]);
        }
        if level > 0 {
            let s = s.at("upsamplers").at(0);
            h = s.mark(upsample_2d(&s, &h));
        }
    }

    let h = s.at("conv_norm_out").group_norm(&h, norm.groups, norm.eps).silu();
    s.at("conv_out").conv2d(&h, config.out_channels, 3, Conv2d::same(3))
}
