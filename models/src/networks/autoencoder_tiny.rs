//! The small autoencoder that stands in for a larger one's (Ollin Boer Bohan's TAESD), diffusers' `AutoencoderTiny`.

use crate::config::{Inert, Rest, any, check_rest, check_sizes, only, parse_class};
use crate::error::ModelError;
use graph::expr::Unary;
use graph::ops::Conv2d;
use graph::{Scope, Tensor};
use serde::Deserialize;

/// diffusers' configuration, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    /// Channels of a picture to encode.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    encoder_block_out_channels: Vec<usize>,
    num_encoder_blocks: Vec<usize>,
    decoder_block_out_channels: Vec<usize>,
    num_decoder_blocks: Vec<usize>,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Factor on the encoder's output that gives the latents.
    pub scaling_factor: f64,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            num_encoder_blocks: vec![1, 3, 3, 3],
            decoder_block_out_channels: vec![64; 4],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_channels: 4,
            scaling_factor: 1.0,
            rest: Rest::new(),
        }
    }
}

const INERT: &[Inert] = &[
    only("act_fn", &["\"relu\""]),
    only("upsample_fn", &["\"nearest\""]),
    only("upsampling_scaling_factor", &["2"]),
    only("shift_factor", &["0.0", "0", "null"]),
    // Only for storing latents in 8 bits.
    any("latent_magnitude"),
    any("latent_shift"),
    // Repeats the decoder's channels.
    any("block_out_channels"),
    any("force_upcast"), // sums are single precision everywhere
];

/// The decoder squeezes latents into the range from minus this to this.
const RANGE: f64 = 3.0;

impl AutoencoderTinyConfig {
    /// Reads diffusers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let config: Self = parse_class(path, text, "_class_name", &["AutoencoderTiny"])?;
        check_rest(path, &config.rest, INERT)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &str) -> Result<(), ModelError> {
        let fault = |message: String| Err(ModelError::new(path, message));
        let levels = self.num_decoder_blocks.len();
        if !(1..=16).contains(&levels) || self.decoder_block_out_channels.len() != levels {
            return fault(format!("the decoder's channels do not fit {levels} num_decoder_blocks"));
        }
        if self.decoder_block_out_channels.windows(2).any(|pair| pair[0] != pair[1]) {
            return fault("decoder_block_out_channels are not all the same, as its blocks need them".into());
        }
        let levels = self.num_encoder_blocks.len();
        if !(1..=16).contains(&levels) || self.encoder_block_out_channels.len() != levels {
            return fault(format!("the encoder's channels do not fit {levels} num_encoder_blocks"));
        }
        if self.encoder_block_out_channels.windows(2).any(|pair| pair[0] != pair[1]) {
            return fault("encoder_block_out_channels are not all the same, as its blocks need them".into());
        }
        let mut sizes = vec![("out_channels", self.out_channels), ("latent_channels", self.latent_channels)];
        sizes.push(("in_channels", self.in_channels));
        sizes.push(("encoder_block_out_channels", self.encoder_block_out_channels[0]));
        sizes.push(("decoder_block_out_channels", self.decoder_block_out_channels[0]));
        check_sizes(path, &sizes)?;
        if !(self.scaling_factor.is_finite() && self.scaling_factor != 0.0) {
            return fault(format!("scaling_factor = {} scales nothing", self.scaling_factor));
        }
        Ok(())
    }

    /// Pixels along a side of one latent.
    #[must_use]
    pub fn factor(&self) -> usize {
        1 << (self.num_decoder_blocks.len() - 1)
    }

    /// The same for latents from the encoder. It equals [`factor`](Self::factor) in every autoencoder that can decode
    /// what it encodes.
    #[must_use]
    pub fn encoder_factor(&self) -> usize {
        1 << (self.num_encoder_blocks.len() - 1)
    }
}

/// Decodes latents, scaled as the diffusion model uses them: `[B, h, w, latent_channels]` → `[B, H, W, out_channels]`,
/// about −1..1.
#[must_use]
pub fn autoencoder_tiny_decode(s: &Scope, config: &AutoencoderTinyConfig, latents: &Tensor) -> Tensor {
    let layers = s.at("decoder").at("layers");
    let channels = config.decoder_block_out_channels[0];
    let squeezed = latents.scale((config.scaling_factor * RANGE).recip()).apply(Unary::Tanh).scale(RANGE);
    let mut h = layers.at(0).conv2d(&squeezed, channels, 3, Conv2d::same(3)).apply(Unary::Relu);
    // Layer 1 of the checkpoint is this activation.
    let mut next = 2;
    for (level, &blocks) in config.num_decoder_blocks.iter().enumerate() {
        for _ in 0..blocks {
            h = block(&layers.at(next).at("conv"), &h);
            next += 1;
        }
        if level + 1 == config.num_decoder_blocks.len() {
            break;
        }
        // Doubling the size counts as a layer, although it has no weights.
        let doubled = Conv2d { upsample: 2, bias: false, ..Conv2d::same(3) };
        h = layers.at(next + 1).conv2d(&h, channels, 3, doubled);
        next += 2;
    }
    // The network itself works on pictures in 0..1.
    layers.at(next).conv2d(&h, config.out_channels, 3, Conv2d::same(3)).scale(2.0).offset(-1.0)
}

/// Encodes a picture to latents, scaled as the diffusion model and [`autoencoder_tiny_decode`] use them: `[B, H, W,
/// in_channels]` of −1..1 → `[B, h, w, latent_channels]`.
#[must_use]
pub fn autoencoder_tiny_encode(s: &Scope, config: &AutoencoderTinyConfig, image: &Tensor) -> Tensor {
    let layers = s.at("encoder").at("layers");
    let channels = config.encoder_block_out_channels[0];
    // The network itself works on pictures in 0..1.
    let mut h = image.offset(1.0).scale(0.5);
    let mut next = 0;
    for (level, &blocks) in config.num_encoder_blocks.iter().enumerate() {
        let halved = Conv2d { stride: 2, bias: false, ..Conv2d::same(3) };
        let conv = if level == 0 { Conv2d::same(3) } else { halved };
        h = layers.at(next).conv2d(&h, channels, 3, conv);
        next += 1;
        for _ in 0..blocks {
            h = block(&layers.at(next).at("conv"), &h);
            next += 1;
        }
    }
    layers.at(next).conv2d(&h, config.latent_channels, 3, Conv2d::same(3)).scale(config.scaling_factor)
}

/// diffusers' `AutoencoderTinyBlock`.
fn block(s: &Scope, x: &Tensor) -> Tensor {
    let conv = |i: usize, x: &Tensor| s.at(i).conv2d(x, x.extent(-1), 3, Conv2d::same(3));
    let h = conv(0, x).apply(Unary::Relu);
    let h = conv(2, &h).apply(Unary::Relu);
    (&conv(4, &h) + x).apply(Unary::Relu)
}
