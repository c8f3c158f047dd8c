//! UNets without text, diffusers' `UNet2DModel`: DDPM (Ho et al. 2020), ADM and the consistency models made of it
//! (Dhariwal & Nichol 2021, Song et al. 2023), NCSN++ (Song et al. 2021).

use crate::config::{Inert, Rest, Sides, any, check_levels, check_padding, check_rest, check_sizes, only, parse_class};
use crate::error::ModelError;
use crate::networks::blocks::{Norm, PixelAttention, ResnetBlock2d, downsample_2d, timestep_embedding, upsample_2d};
use crate::networks::resample::Resample;
use crate::networks::seams;
use graph::expr::{Binary, Unary};
use graph::ops::Conv2d;
use graph::{Expr, Scope, Tensor};
use serde::Deserialize;

/// diffusers' configuration, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct UNet2DConfig {
    sample_size: Option<Sides>,
    /// Channels of the sample.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether samples lie between 0 and 1 and must be mapped to −1..1 for the network.
    center_input_sample: bool,
    time_embedding_type: TimeEmbedding,
    time_embedding_dim: Option<usize>,
    freq_shift: f64,
    flip_sin_to_cos: bool,
    down_block_types: Vec<DownBlockType>,
    mid_block_type: Option<MidBlockType>,
    up_block_types: Vec<UpBlockType>,
    /// Channels of every level, the finest first.
    pub block_out_channels: Vec<usize>,
    layers_per_block: usize,
    mid_block_scale_factor: f64,
    downsample_padding: usize,
    downsample_type: Option<Resampling>,
    upsample_type: Option<Resampling>,
    /// Channels of each head; `None` is one head for all of them.
    attention_head_dim: Option<usize>,
    norm_num_groups: Option<usize>,
    attn_norm_num_groups: Option<usize>,
    norm_eps: f64,
    resnet_time_scale_shift: TimeScaleShift,
    add_attention: bool,
    class_embed_type: Option<ClassEmbedding>,
    /// Number of classes, if the model takes the class of a picture.
    pub num_class_embeds: Option<usize>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TimeEmbedding {
    /// Sines of the timestep.
    Positional,
    /// Sines of the noise level's logarithm at frequencies of the checkpoint; the prediction is divided by the level.
    Fourier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum DownBlockType {
    #[serde(alias = "UNetResDownBlock2D")]
    DownBlock2D,
    #[serde(alias = "UNetResAttnDownBlock2D")]
    AttnDownBlock2D,
    ResnetDownsampleBlock2D,
    SkipDownBlock2D,
    AttnSkipDownBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum MidBlockType {
    UNetMidBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum UpBlockType {
    #[serde(alias = "UNetResUpBlock2D")]
    UpBlock2D,
    #[serde(alias = "UNetResAttnUpBlock2D")]
    AttnUpBlock2D,
    ResnetUpsampleBlock2D,
    SkipUpBlock2D,
    AttnSkipUpBlock2D,
}

/// How blocks with attention change the image's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Resampling {
    Conv,
    Resnet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TimeScaleShift {
    Default,
    ScaleShift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClassEmbedding {
    /// A class is embedded as a timestep is.
    Timestep,
}

impl Default for UNet2DConfig {
    fn default() -> Self {
        use DownBlockType::{AttnDownBlock2D, DownBlock2D};
        use UpBlockType::{AttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![DownBlock2D, AttnDownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            mid_block_type: Some(MidBlockType::UNetMidBlock2D),
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: None,
            upsample_type: None,
            attention_head_dim: Some(8),
            norm_num_groups: Some(32),
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            rest: Rest::new(),
        }
    }
}

const INERT: &[Inert] = &[
    only("act_fn", &["\"silu\"", "\"swish\""]),
    any("dropout"),
    any("num_train_timesteps"), // read only with another time_embedding_type
];

/// Skip blocks carry a picture of this many channels beside the image, whatever the configuration says.
const SKIP_CHANNELS: usize = 3;

impl UNet2DConfig {
    /// Reads diffusers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let config: Self = parse_class(path, text, "_class_name", &["UNet2DModel"])?;
        check_rest(path, &config.rest, INERT)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &str) -> Result<(), ModelError> {
        let fault = |message: String| Err(ModelError::new(path, message));
        let levels = self.block_out_channels.len();
        let (down, up) = (self.down_block_types.len(), self.up_block_types.len());
        if !(1..=16).contains(&levels) || down != levels || up != levels {
            return fault(format!("{down} down blocks and {up} up blocks do not fit {levels} block_out_channels"));
        }
        check_levels(path, levels)?;
        let [height, width] = self.sample_size().unwrap_or([1, 1]);
        let mut sizes = vec![
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups.unwrap_or(1)),
            ("attn_norm_num_groups", self.attn_norm_num_groups.unwrap_or(1)),
            ("attention_head_dim", self.attention_head_dim.unwrap_or(1)),
            ("num_class_embeds", self.num_class_embeds.unwrap_or(1)),
            ("time_embedding_dim", self.time_embedding_dim.unwrap_or(1)),
            ("sample_size", height),
            ("sample_size", width),
        ];
        sizes.extend(self.block_out_channels.iter().map(|channels| ("block_out_channels", *channels)));
        check_sizes(path, &sizes)?;
        check_padding(path, self.downsample_padding)?;
        if !(self.mid_block_scale_factor.is_finite() && self.mid_block_scale_factor > 0.0) {
            return fault(format!("mid_block_scale_factor = {} divides nothing", self.mid_block_scale_factor));
        }
        let skips = self.down_block_types.iter().any(|kind| kind.skips());
        let skips_up = self.up_block_types.iter().any(|kind| kind.skips());
        if (skips && self.in_channels != SKIP_CHANNELS) || (skips_up && self.out_channels != SKIP_CHANNELS) {
            let (taken, made) = (self.in_channels, self.out_channels);
            return fault(format!("skip blocks have {SKIP_CHANNELS} channels, not {taken} in and {made} out"));
        }
        let plain = self.down_block_types.iter().any(|kind| !kind.skips())
            || self.up_block_types.iter().any(|kind| !kind.skips());
        match self.norm_num_groups {
            None if plain => return fault("norm_num_groups = null is supported only where all blocks skip".into()),
            Some(groups) => {
                if let Some(channels) = self.block_out_channels.iter().find(|c| plain && !c.is_multiple_of(groups)) {
                    return fault(format!("{channels} channels do not split into {groups} groups"));
                }
            }
            None => {}
        }
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            let middle = level + 1 == levels && self.mid_block_type.is_some() && self.add_attention;
            let attends =
                self.down_block_types[level].attends() || self.up_block_types[levels - 1 - level].attends() || middle;
            let head = self.attention_head_dim.unwrap_or(*channels);
            if attends && !channels.is_multiple_of(head) {
                return fault(format!("{channels} channels do not split into heads of {head}"));
            }
        }
        Ok(())
    }

    /// Height and width of the samples that the model was trained on.
    #[must_use]
    pub fn sample_size(&self) -> Option<[usize; 2]> {
        self.sample_size.map(Sides::extents)
    }

    /// The sample's sides must be multiples of this, because every level but the coarsest halves them.
    #[must_use]
    pub fn side_multiple(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Whether the model takes [`UNet2DInputs::class_labels`].
    #[must_use]
    pub fn takes_class_labels(&self) -> bool {
        self.num_class_embeds.is_some() || self.class_embed_type.is_some()
    }

    fn scale_shift(&self) -> bool {
        self.resnet_time_scale_shift == TimeScaleShift::ScaleShift
    }

    /// The norms of blocks without a picture beside the image, and of the middle.
    fn norm(&self, channels: usize) -> Norm {
        Norm { groups: self.norm_num_groups.unwrap_or((channels / 4).min(32)), eps: self.norm_eps }
    }

    fn resnet(&self, out: usize) -> ResnetBlock2d {
        ResnetBlock2d { scale_shift: self.scale_shift(), ..ResnetBlock2d::new(out, self.norm(out)) }
    }

    /// A resnet block that carries a picture beside the image. The configuration does not set the number of its groups.
    fn skip_resnet(&self, groups: usize, out: usize) -> ResnetBlock2d {
        let norm = Norm { groups: groups.min(32), eps: self.norm_eps };
        ResnetBlock2d {
            groups_out: (out / 4).min(32),
            output_scale_factor: std::f64::consts::SQRT_2,
            ..ResnetBlock2d { norm, ..self.resnet(out) }
        }
    }

    fn skip_resampler(&self, channels: usize, resample: Resample) -> ResnetBlock2d {
        ResnetBlock2d { resample: Some(resample), conv_shortcut: true, ..self.skip_resnet(channels / 4, channels) }
    }

    fn attention(&self, channels: usize, norm: Option<Norm>, output_scale_factor: f64) -> PixelAttention {
        // A graph that has failed already has no channels.
        let heads = channels / self.attention_head_dim.unwrap_or(channels).max(1);
        PixelAttention { heads, norm, output_scale_factor }
    }

    /// Attention of a block. Skip blocks use another number of groups.
    fn block_attention(&self, channels: usize, skips: bool) -> PixelAttention {
        if skips {
            let norm = Norm { groups: 32, eps: self.norm_eps };
            return self.attention(channels, Some(norm), std::f64::consts::SQRT_2);
        }
        self.attention(channels, Some(self.norm(channels)), 1.0)
    }
}

impl DownBlockType {
    fn attends(self) -> bool {
        matches!(self, Self::AttnDownBlock2D | Self::AttnSkipDownBlock2D)
    }

    fn skips(self) -> bool {
        matches!(self, Self::SkipDownBlock2D | Self::AttnSkipDownBlock2D)
    }
}

impl UpBlockType {
    fn attends(self) -> bool {
        matches!(self, Self::AttnUpBlock2D | Self::AttnSkipUpBlock2D)
    }

    fn skips(self) -> bool {
        matches!(self, Self::SkipUpBlock2D | Self::AttnSkipUpBlock2D)
    }
}

/// What the model reads.
#[derive(Debug)]
pub struct UNet2DInputs<'a> {
    /// The noisy sample, `[B, H, W, in_channels]`; sides are multiples of [`UNet2DConfig::side_multiple`].
    pub sample: &'a Tensor,
    /// The timestep of each sample, `[B]`, or its noise level, where the time embedding is of Fourier features.
    pub timestep: &'a Tensor,
    /// The class of each sample, `[B]`; needed exactly when [`UNet2DConfig::takes_class_labels`].
    pub class_labels: Option<&'a Tensor>,
}

/// The model's prediction, `[B, H, W, out_channels]`.
#[must_use]
pub fn unet_2d_model(s: &Scope, config: &UNet2DConfig, inputs: &UNet2DInputs<'_>) -> Tensor {
    let temb = time_embedding(s, config, inputs);
    let sample = if config.center_input_sample { inputs.sample.scale(2.0).offset(-1.0) } else { inputs.sample.clone() };
    let h = s.at("conv_in").conv2d(&sample, config.block_out_channels[0], 3, Conv2d::same(3));
    let (h, skips) = down(s, config, &temb, &sample, h);
    let h = if config.mid_block_type.is_some() { middle(&s.at("mid_block"), config, &temb, &h) } else { h };
    let (h, picture) = up(s, config, &temb, skips, h);

    let norm = config.norm(config.block_out_channels[0]);
    let h = s.at("conv_norm_out").group_norm(&h, norm.groups, norm.eps).silu();
    let mut out = s.at("conv_out").conv2d(&h, config.out_channels, 3, Conv2d::same(3));
    if let Some(picture) = picture {
        out = &out + &picture;
    }
    match config.time_embedding_type {
        TimeEmbedding::Positional => out,
        TimeEmbedding::Fourier => &out / &inputs.timestep.reshape(&[inputs.timestep.extent(0), 1, 1, 1]),
    }
}

/// The way down. Returns the coarsest image, and the images that the way up reads again.
fn down(s: &Scope, config: &UNet2DConfig, temb: &Tensor, sample: &Tensor, mut h: Tensor) -> (Tensor, Vec<Tensor>) {
    let (levels, mut picture) = (config.block_out_channels.len(), sample.clone());
    let mut skips = vec![h.clone()];
    for (level, kind) in config.down_block_types.iter().enumerate() {
        let (s, channels) = (s.at("down_blocks").at(level), config.block_out_channels[level]);
        for layer in 0..config.layers_per_block {
            let resnet = match kind.skips() {
                true => config.skip_resnet(h.extent(-1) / 4, channels),
                false => config.resnet(channels),
            };
            h = resnet.build(&s.at("resnets").at(layer), &h, Some(temb));
            if kind.attends() {
                h = config.block_attention(channels, kind.skips()).build(&s.at("attentions").at(layer), &h);
            }
            skips.push(h.clone());
        }
        if level + 1 == levels {
            break;
        }
        let at = s.at("downsamplers").at(0);
        let by_resnet = *kind == DownBlockType::ResnetDownsampleBlock2D
            || (*kind == DownBlockType::AttnDownBlock2D && config.downsample_type == Some(Resampling::Resnet));
        h = if kind.skips() {
            picture = Resample::FirDown.of(&s, &picture);
            let h = config.skip_resampler(channels, Resample::FirDown).build(&s.at("resnet_down"), &h, Some(temb));
            &s.at("skip_conv").conv2d(&picture, channels, 1, Conv2d::same(1)) + &h
        } else if by_resnet {
            let resnet = ResnetBlock2d { resample: Some(Resample::Average), ..config.resnet(channels) };
            resnet.build(&at, &h, Some(temb))
        } else {
            downsample_2d(&at, &h, config.downsample_padding)
        };
        skips.push(h.clone());
    }
    (h, skips)
}

fn middle(s: &Scope, config: &UNet2DConfig, temb: &Tensor, h: &Tensor) -> Tensor {
    let (channels, scale) = (h.extent(-1), config.mid_block_scale_factor);
    let norm = config.norm(channels);
    let resnet = ResnetBlock2d { output_scale_factor: scale, ..config.resnet(channels) };
    let mut h = resnet.build(&s.at("resnets").at(0), h, Some(temb));
    if config.add_attention {
        let own = config.attn_norm_num_groups.map(|groups| Norm { groups, ..norm });
        let norm = own.or((!config.scale_shift()).then_some(norm));
        h = config.attention(channels, norm, scale).build(&s.at("attentions").at(0), &h);
    }
    resnet.build(&s.at("resnets").at(1), &h, Some(temb))
}

/// The way up. Returns the finest image, and the picture that skip blocks have drawn, if there are any.
fn up(
    s: &Scope,
    config: &UNet2DConfig,
    temb: &Tensor,
    mut skips: Vec<Tensor>,
    mut h: Tensor,
) -> (Tensor, Option<Tensor>) {
    let (levels, mut picture) = (config.block_out_channels.len(), None::<Tensor>);
    for (block, kind) in config.up_block_types.iter().enumerate() {
        let (s, level) = (s.at("up_blocks").at(block), levels - 1 - block);
        let channels = config.block_out_channels[level];
        for layer in 0..=config.layers_per_block {
            let Some(skip) = skips.pop() else {
                return (s.poison("more layers on the way up than on the way down"), None);
            };
            // Pictures that skip blocks draw come from coarser levels as well: such a network is not cut.
            let finest = level == 0 && layer == config.layers_per_block && picture.is_none() && !kind.skips();
            h = if finest { s.seam(seams::DEEP, h) } else { h };
            let (below, beside) = (h.extent(-1), skip.extent(-1));
            let resnet = match kind {
                UpBlockType::SkipUpBlock2D => config.skip_resnet((below + beside) / 4, channels),
                // diffusers divides only the second number, and checkpoints are made for that.
                UpBlockType::AttnSkipUpBlock2D => config.skip_resnet(below + beside / 4, channels),
                _ => config.resnet(channels),
            };
            // The first norm spans both halves.
            h = resnet.build(&s.at("resnets").at(layer), &Tensor::concat(&[&h, &skip], 3), Some(temb));
            if *kind == UpBlockType::AttnUpBlock2D {
                h = config.block_attention(channels, false).build(&s.at("attentions").at(layer), &h);
            }
        }
        if *kind == UpBlockType::AttnSkipUpBlock2D {
            h = config.block_attention(channels, true).build(&s.at("attentions").at(0), &h);
        }
        if kind.skips() {
            picture = picture.map(|picture| Resample::FirUp.of(&s, &picture));
        }
        if level == 0 {
            break;
        }
        let at = s.at("upsamplers").at(0);
        let by_resnet = *kind == UpBlockType::ResnetUpsampleBlock2D
            || (*kind == UpBlockType::AttnUpBlock2D && config.upsample_type == Some(Resampling::Resnet));
        if kind.skips() {
            let norm = Norm { groups: (channels / 4).min(32), eps: config.norm_eps };
            let drawn = s.at("skip_norm").group_norm(&h, norm.groups, norm.eps).silu();
            let drawn = s.at("skip_conv").conv2d(&drawn, SKIP_CHANNELS, 3, Conv2d::same(3));
            picture = Some(picture.map_or_else(|| drawn.clone(), |picture| &picture + &drawn));
            h = config.skip_resampler(channels, Resample::FirUp).build(&s.at("resnet_up"), &h, Some(temb));
        } else if by_resnet {
            let resnet = ResnetBlock2d { resample: Some(Resample::Nearest), ..config.resnet(channels) };
            h = resnet.build(&at, &h, Some(temb));
        } else {
            h = upsample_2d(&at, &h);
        }
    }
    (h, picture)
}

/// The embedding `[B, T]` of the timestep and the class.
fn time_embedding(s: &Scope, config: &UNet2DConfig, inputs: &UNet2DInputs<'_>) -> Tensor {
    let channels = config.block_out_channels[0];
    let wide = config.time_embedding_dim.unwrap_or(4 * channels);
    let sines = |t: &Tensor| match config.time_embedding_type {
        TimeEmbedding::Positional => t.timestep_embedding(channels, config.flip_sin_to_cos, config.freq_shift),
        TimeEmbedding::Fourier => fourier_features(&s.at("time_proj"), t, channels),
    };
    let temb = timestep_embedding(&s.at("time_embedding"), &sines(inputs.timestep), wide);
    let at = s.at("class_embedding");
    match (config.class_embed_type, config.num_class_embeds, inputs.class_labels) {
        (None, None, None) => temb,
        (Some(ClassEmbedding::Timestep), _, Some(labels)) => &temb + &timestep_embedding(&at, &sines(labels), wide),
        (None, Some(classes), Some(labels)) => &temb + &at.embedding(labels, classes, wide),
        (_, _, None) => s.poison("this model needs a class"),
        (None, None, Some(_)) => s.poison("this model takes no class"),
    }
}

/// diffusers' `GaussianFourierProjection`: sines and cosines of ln t at frequencies that were drawn before training.
fn fourier_features(s: &Scope, t: &Tensor, channels: usize) -> Tensor {
    let frequencies = s.weight("weight", &[channels]).reshape(&[1, channels]);
    let product = |a, b| Expr::binary(Binary::Mul, a, b);
    let turns = product(Expr::unary(Unary::Ln, Expr::Input(0)), Expr::Input(1));
    let angle = product(turns, Expr::Const(std::f64::consts::TAU));
    let of = |wave| t.reshape(&[t.extent(0), 1]).elementwise(Expr::unary(wave, angle.clone()), &[&frequencies]);
    Tensor::concat(&[&of(Unary::Sin), &of(Unary::Cos)], 1)
}
