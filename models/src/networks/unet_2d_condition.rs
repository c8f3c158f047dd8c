//! The UNet of Stable Diffusion (Rombach et al. 2022) and its kin, diffusers' `UNet2DConditionModel`.

use crate::config::{
    Inert, Rest, SameOrEach, Sides, any, check_levels, check_padding, check_rest, check_sizes, only, parse_class,
};
use crate::error::ModelError;
use crate::networks::blocks::{
    Norm, Transformer2d, downsample_2d, resnet_block_2d, timestep_embedding, upsample_2d_to,
};
use crate::networks::seams;
use crate::networks::unet_2d::ClassEmbedding;
use graph::ops::Conv2d;
use graph::{Scope, Tensor};
use serde::Deserialize;

/// diffusers' configuration, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    sample_size: Option<Sides>,
    /// Channels of the sample and of what is joined to it, such as a mask.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    down_block_types: Vec<DownBlockType>,
    mid_block_type: Option<MidBlockType>,
    up_block_types: Vec<UpBlockType>,
    /// Channels of every level, the finest first.
    pub block_out_channels: Vec<usize>,
    layers_per_block: SameOrEach<usize>,
    downsample_padding: usize,
    norm_num_groups: usize,
    norm_eps: f64,
    cross_attention_dim: SameOrEach<usize>,
    transformer_layers_per_block: SameOrEach<Depth>,
    /// That of the way up, the coarsest level first, where it is no mirror image of the way down.
    reverse_transformer_layers_per_block: Option<Vec<Depth>>,
    /// Whether both attentions of a level's transformers are to the text.
    only_cross_attention: SameOrEach<bool>,
    /// The number of heads, in spite of its name, where `num_attention_heads` is null.
    attention_head_dim: SameOrEach<usize>,
    num_attention_heads: Option<SameOrEach<usize>>,
    use_linear_projection: bool,
    addition_embed_type: Option<AdditionEmbedType>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
    /// Channels of the guidance embedding that a latent consistency model takes.
    pub time_cond_proj_dim: Option<usize>,
    time_embedding_dim: Option<usize>,
    class_embed_type: Option<ClassEmbedding>,
    /// Number of classes, if the model takes one. In Stable Diffusion's upscaler a class is a noise level.
    pub num_class_embeds: Option<usize>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum DownBlockType {
    CrossAttnDownBlock2D,
    DownBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum MidBlockType {
    UNetMidBlock2DCrossAttn,
    /// A resnet block alone, as distilled models have it.
    UNetMidBlock2D,
}

/// Layers of a level's transformers, or of each of its transformers.
type Depth = SameOrEach<usize>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum UpBlockType {
    CrossAttnUpBlock2D,
    UpBlock2D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AdditionEmbedType {
    /// SDXL: a pooled text embedding and numbers about the picture: six of its size and place, and a refiner's five.
    TextTime,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use DownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlockType::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            mid_block_type: Some(MidBlockType::UNetMidBlock2DCrossAttn),
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: SameOrEach::Same(2),
            downsample_padding: 1,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: SameOrEach::Same(1280),
            transformer_layers_per_block: SameOrEach::Same(SameOrEach::Same(1)),
            reverse_transformer_layers_per_block: None,
            only_cross_attention: SameOrEach::Same(false),
            attention_head_dim: SameOrEach::Same(8),
            num_attention_heads: None,
            use_linear_projection: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            time_cond_proj_dim: None,
            time_embedding_dim: None,
            class_embed_type: None,
            num_class_embeds: None,
            rest: Rest::new(),
        }
    }
}

const INERT: &[Inert] = &[
    only("center_input_sample", &["false"]),
    only("mid_block_scale_factor", &["1", "1.0"]),
    only("act_fn", &["\"silu\"", "\"swish\""]),
    only("encoder_hid_dim", &["null"]),
    only("encoder_hid_dim_type", &["null"]),
    only("dual_cross_attention", &["false"]),
    only("resnet_time_scale_shift", &["\"default\""]),
    only("time_embedding_type", &["\"positional\""]),
    only("time_embedding_act_fn", &["null"]),
    only("timestep_post_act", &["null"]),
    only("conv_in_kernel", &["3"]),
    only("conv_out_kernel", &["3"]),
    only("attention_type", &["\"default\""]),
    only("class_embeddings_concat", &["false"]),
    any("dropout"),
    any("upcast_attention"), // sums are single precision everywhere
    // Read only with another addition_embed_type.
    any("addition_embed_type_num_heads"),
    // Read only by types of blocks that are refused.
    any("mid_block_only_cross_attention"),
    any("cross_attention_norm"),
    any("resnet_out_scale_factor"),
    any("resnet_skip_time_act"),
];

impl UNet2DConditionConfig {
    /// Reads diffusers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let config: Self = parse_class(path, text, "_class_name", &["UNet2DConditionModel"])?;
        check_rest(path, &config.rest, INERT)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &str) -> Result<(), ModelError> {
        let fault = |message: String| Err(ModelError::new(path, message));
        let levels = self.block_out_channels.len();
        if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            let (down, up) = (self.down_block_types.len(), self.up_block_types.len());
            return fault(format!("{down} down blocks and {up} up blocks do not fit {levels} block_out_channels"));
        }
        check_levels(path, levels)?;
        for (name, fits) in [
            ("layers_per_block", self.layers_per_block.fits(levels)),
            ("transformer_layers_per_block", self.transformer_layers_per_block.fits(levels)),
            ("attention_head_dim", self.heads().fits(levels)),
            ("only_cross_attention", self.only_cross_attention.fits(levels)),
            ("cross_attention_dim", self.cross_attention_dim.fits(levels)),
        ] {
            if !fits {
                return fault(format!("{name} is not one value for each of {levels} levels"));
            }
        }
        let [height, width] = self.sample_size().unwrap_or([1, 1]);
        let mut sizes = vec![
            ("sample_size", height),
            ("sample_size", width),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("norm_num_groups", self.norm_num_groups),
            ("time_cond_proj_dim", self.time_cond_proj_dim.unwrap_or(1)),
            ("time_embedding_dim", self.time_embedding_dim.unwrap_or(1)),
            ("num_class_embeds", self.num_class_embeds.unwrap_or(1)),
        ];
        for level in 0..levels {
            sizes.push(("block_out_channels", self.block_out_channels[level]));
            sizes.push(("layers_per_block", *self.layers_per_block.of(level)));
            sizes.push(("attention_heads", *self.heads().of(level)));
            sizes.push(("cross_attention_dim", *self.cross_attention_dim.of(level)));
        }
        check_sizes(path, &sizes)?;
        check_padding(path, self.downsample_padding)?;
        if let Some(other) = self
            .text_levels()
            .map(|level| self.cross_attention_dim.of(level))
            .find(|own| **own != self.cross_attention_dim())
        {
            let own = self.cross_attention_dim();
            return fault(format!(
                "cross_attention_dim is {own} in one block and {other} in another, and all read the same text"
            ));
        }
        self.check_depths(path)?;
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            let heads = *self.heads().of(level);
            if !channels.is_multiple_of(self.norm_num_groups) || !channels.is_multiple_of(heads) {
                let groups = self.norm_num_groups;
                return fault(format!("{channels} channels do not split into {groups} groups or {heads} heads"));
            }
        }
        if self.addition_embed_type.is_some() {
            match (self.addition_time_embed_dim, self.projection_class_embeddings_input_dim) {
                (Some(each), Some(all)) if each > 0 && all > each => {}
                _ => {
                    return fault(
                        "addition_embed_type text_time needs addition_time_embed_dim and a larger \
                                  projection_class_embeddings_input_dim"
                            .into(),
                    );
                }
            }
        }
        Ok(())
    }

    /// Levels with blocks that read the text.
    fn text_levels(&self) -> impl Iterator<Item = usize> + '_ {
        let levels = self.block_out_channels.len();
        (0..levels).filter(move |level| {
            let middle = level + 1 == levels && self.mid_block_type == Some(MidBlockType::UNetMidBlock2DCrossAttn);
            middle
                || self.down_block_types[*level] == DownBlockType::CrossAttnDownBlock2D
                || self.up_block_types[levels - 1 - level] == UpBlockType::CrossAttnUpBlock2D
        })
    }

    /// Channels of the text embeddings.
    #[must_use]
    pub fn cross_attention_dim(&self) -> usize {
        *self.cross_attention_dim.of(self.text_levels().next().unwrap_or(0))
    }

    /// Height and width of the latents that the model was trained on.
    #[must_use]
    pub fn sample_size(&self) -> Option<[usize; 2]> {
        self.sample_size.map(Sides::extents)
    }

    /// Whether there is a depth for every transformer; diffusers takes no mirror image of a list for each of them.
    fn check_depths(&self, path: &str) -> Result<(), ModelError> {
        let fault = |message: &str| Err(ModelError::new(path, message));
        let (levels, reverse) = (self.block_out_channels.len(), self.reverse_transformer_layers_per_block.as_ref());
        if reverse.is_some_and(|up| up.len() != levels) {
            return fault("reverse_transformer_layers_per_block is not one value for each level");
        }
        for level in 0..levels {
            let (down, layers) = (self.transformer_layers_per_block.of(level), *self.layers_per_block.of(level));
            if reverse.is_none() && matches!(down, SameOrEach::Each(_)) {
                return fault(
                    "transformer_layers_per_block has a list for a level and no reverse_transformer_layers_per_block",
                );
            }
            if !down.fits(layers) || !reverse.is_none_or(|up| up[levels - 1 - level].fits(layers + 1)) {
                return fault("transformer_layers_per_block or its reverse does not fit layers_per_block");
            }
            let depths = (0..layers).map(|layer| self.depth_down(level, layer));
            let depths: Vec<_> = depths.chain((0..=layers).map(|layer| self.depth_up(level, layer))).collect();
            // A transformer without layers is two projections.
            let sizes: Vec<_> = depths.iter().map(|depth| ("transformer_layers_per_block", (*depth).max(1))).collect();
            check_sizes(path, &sizes)?;
        }
        Ok(())
    }

    /// Layers of a transformer on the way down.
    fn depth_down(&self, level: usize, layer: usize) -> usize {
        *self.transformer_layers_per_block.of(level).of(layer)
    }

    /// Layers of a transformer on the way up.
    fn depth_up(&self, level: usize, layer: usize) -> usize {
        match &self.reverse_transformer_layers_per_block {
            Some(up) => *up[up.len() - 1 - level].of(layer),
            None => *self.transformer_layers_per_block.of(level).of(layer),
        }
    }

    fn heads(&self) -> &SameOrEach<usize> {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim)
    }

    /// The sample's sides must be multiples of this. Every level but the coarsest halves them, rounding up. Without
    /// padding an odd side would lose a row, so there the sides must halve evenly.
    #[must_use]
    pub fn side_multiple(&self) -> usize {
        if self.downsample_padding > 0 { 1 } else { self.narrowing() }
    }

    /// Elements of the sample along a side for each element at the coarsest level.
    #[must_use]
    pub fn narrowing(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Channels of the pooled text embedding beside so many numbers about the picture, if the model takes one. The
    /// configuration does not say how many numbers there are.
    #[must_use]
    pub fn pooled_channels(&self, time_ids: usize) -> Option<usize> {
        self.addition_embed_type?;
        let (all, each) = (self.projection_class_embeddings_input_dim?, self.addition_time_embed_dim?);
        all.checked_sub(time_ids * each)
    }

    /// Whether the model takes a pooled text embedding and numbers about the picture.
    #[must_use]
    pub fn takes_pooled_text(&self) -> bool {
        self.addition_embed_type.is_some()
    }

    /// Whether the model takes a class.
    #[must_use]
    pub fn takes_class_labels(&self) -> bool {
        self.num_class_embeds.is_some() || self.class_embed_type.is_some()
    }

    fn time_embed_dim(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    fn norm(&self) -> Norm {
        Norm { groups: self.norm_num_groups, eps: self.norm_eps }
    }

    /// The transformer of a level, of so many layers.
    fn transformer(&self, level: usize, layers: usize) -> Transformer2d {
        Transformer2d {
            heads: *self.heads().of(level),
            layers,
            only_cross_attention: *self.only_cross_attention.of(level),
            groups: self.norm_num_groups,
            use_linear_projection: self.use_linear_projection,
        }
    }
}

/// What SDXL is told about the picture besides its prompt.
#[derive(Debug)]
pub struct AddedConditions<'a> {
    /// The second text encoder's projected output, `[B, pooled_channels]`.
    pub text_embeds: &'a Tensor,
    /// Original size, crop and target size, `[B, 6]`; of a refiner original size, crop and aesthetic score, `[B, 5]`.
    pub time_ids: &'a Tensor,
}

/// What the model reads.
#[derive(Debug)]
pub struct UNet2DConditionInputs<'a> {
    /// The noisy sample, `[B, H, W, in_channels]`; sides are multiples of [`UNet2DConditionConfig::side_multiple`].
    pub sample: &'a Tensor,
    /// The timestep of each sample, `[B]`; may be fractional.
    pub timestep: &'a Tensor,
    /// The text encoder's output, `[B, S, cross_attention_dim]` with [`UNet2DConditionConfig::cross_attention_dim`].
    pub encoder_hidden_states: &'a Tensor,
    /// Needed exactly when the configuration has `time_cond_proj_dim`: `[B, time_cond_proj_dim]`.
    pub timestep_cond: Option<&'a Tensor>,
    /// Needed exactly when the configuration has an `addition_embed_type`.
    pub added: Option<AddedConditions<'a>>,
    /// Needed exactly when the configuration has classes: `[B]`.
    pub class_labels: Option<&'a Tensor>,
}

/// The model's prediction, `[B, H, W, out_channels]`.
#[must_use]
pub fn unet_2d_condition_model(
    s: &Scope,
    config: &UNet2DConditionConfig,
    inputs: &UNet2DConditionInputs<'_>,
) -> Tensor {
    let temb = time_embedding(s, config, inputs);
    let text = inputs.encoder_hidden_states;
    let levels = config.block_out_channels.len();
    let norm = config.norm();
    let resnet = |s: &Scope, x: &Tensor, out: usize| resnet_block_2d(s, x, Some(&temb), out, norm);

    let attend = |s: &Scope, x: &Tensor, transformer: Transformer2d| transformer.build(s, x, text);

    let mut h = s.at("conv_in").conv2d(inputs.sample, config.block_out_channels[0], 3, Conv2d::same(3));
    // The images that the way up reads again.
    let mut skips = vec![h.clone()];
    for (level, kind) in config.down_block_types.iter().enumerate() {
        let s = s.at("down_blocks").at(level);
        for layer in 0..*config.layers_per_block.of(level) {
            h = resnet(&s.at("resnets").at(layer), &h, config.block_out_channels[level]);
            if *kind == DownBlockType::CrossAttnDownBlock2D {
                let transformer = config.transformer(level, config.depth_down(level, layer));
                h = attend(&s.at("attentions").at(layer), &h, transformer);
            }
            skips.push(h.clone());
        }
        if level + 1 < levels {
            h = downsample_2d(&s.at("downsamplers").at(0), &h, config.downsample_padding);
            skips.push(h.clone());
        }
    }

    if let Some(kind) = config.mid_block_type {
        let (s, channels) = (s.at("mid_block"), config.block_out_channels[levels - 1]);
        h = resnet(&s.at("resnets").at(0), &h, channels);
        if kind == MidBlockType::UNetMidBlock2DCrossAttn {
            // Its first attention is among pixels at every setting of only_cross_attention.
            let transformer = config.transformer(levels - 1, config.depth_down(levels - 1, 0));
            h = attend(&s.at("attentions").at(0), &h, Transformer2d { only_cross_attention: false, ..transformer });
            h = resnet(&s.at("resnets").at(1), &h, channels);
        }
    }

    for (block, kind) in config.up_block_types.iter().enumerate() {
        let (s, level) = (s.at("up_blocks").at(block), levels - 1 - block);
        for layer in 0..=*config.layers_per_block.of(level) {
            let Some(skip) = skips.pop() else { return s.poison("more layers on the way up than on the way down") };
            let finest = level == 0 && layer == *config.layers_per_block.of(level);
            h = if finest { s.seam(seams::DEEP, h) } else { h };
            let joined = Tensor::concat(&[&h, &skip], 3);
            h = resnet(&s.at("resnets").at(layer), &joined, config.block_out_channels[level]);
            if *kind == UpBlockType::CrossAttnUpBlock2D {
                let transformer = config.transformer(level, config.depth_up(level, layer));
                h = attend(&s.at("attentions").at(layer), &h, transformer);
            }
        }
        if level > 0 {
            let Some(skip) = skips.last() else { return s.poison("more levels on the way up than on the way down") };
            h = upsample_2d_to(&s.at("upsamplers").at(0), &h, skip);
        }
    }

    let h = s.at("conv_norm_out").group_norm(&h, norm.groups, norm.eps).silu();
    s.at("conv_out").conv2d(&h, config.out_channels, 3, Conv2d::same(3))
}

/// The embedding `[B, T]` of the timestep and of every other input that is one vector for each sample.
fn time_embedding(s: &Scope, config: &UNet2DConditionConfig, inputs: &UNet2DConditionInputs<'_>) -> Tensor {
    let (channels, wide) = (config.block_out_channels[0], config.time_embed_dim());
    let at = s.at("time_embedding");
    let waves = |t: &Tensor| t.timestep_embedding(channels, config.flip_sin_to_cos, config.freq_shift);
    let mut sines = waves(inputs.timestep);
    match (config.time_cond_proj_dim, inputs.timestep_cond) {
        (None, None) => {}
        (Some(_), Some(condition)) => sines = &sines + &at.at("cond_proj").linear_no_bias(condition, channels),
        (Some(_), None) => return s.poison("this model needs a guidance embedding"),
        (None, Some(_)) => return s.poison("this model takes no guidance embedding"),
    }
    let temb = timestep_embedding(&at, &sines, wide);
    let at = s.at("class_embedding");
    let temb = match (config.class_embed_type, config.num_class_embeds, inputs.class_labels) {
        (None, None, None) => temb,
        (Some(ClassEmbedding::Timestep), _, Some(labels)) => &temb + &timestep_embedding(&at, &waves(labels), wide),
        (None, Some(classes), Some(labels)) => &temb + &at.embedding(labels, classes, wide),
        (_, _, None) => return s.poison("this model needs a class"),
        (None, None, Some(_)) => return s.poison("this model takes no class"),
    };
    match (config.addition_time_embed_dim.filter(|_| config.addition_embed_type.is_some()), &inputs.added) {
        (None, None) => temb,
        (Some(each), Some(AddedConditions { text_embeds, time_ids })) => {
            let (batch, count) = (time_ids.extent(0), time_ids.extent(1));
            let ids = time_ids.reshape(&[batch * count]);
            let times = ids.timestep_embedding(each, config.flip_sin_to_cos, config.freq_shift);
            let all = Tensor::concat(&[text_embeds, &times.reshape(&[batch, count * each])], 1);
            &temb + &timestep_embedding(&s.at("add_embedding"), &all, wide)
        }
        (Some(_), None) => s.poison("this model needs a pooled text embedding and the picture's size"),
        (None, Some(_)) => s.poison("this model takes no pooled text embedding"),
    }
}
