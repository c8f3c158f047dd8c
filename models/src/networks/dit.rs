//! The class-conditional diffusion transformer (Peebles & Xie 2022), diffusers' `DiTTransformer2DModel`.

use crate::config::{Inert, Rest, any, check_rest, check_sizes, only, parse, parse_class};
use crate::error::ModelError;
use crate::networks::transformer::{self, Activation, Attention, PatchEmbed, feed_forward, timestep_embedding};
use graph::{Scope, Tensor};
use serde::Deserialize;

/// diffusers' configuration of a `DiTTransformer2DModel`, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct DiTConfig {
    num_attention_heads: usize,
    attention_head_dim: usize,
    /// Channels of the sample.
    pub in_channels: usize,
    out_channels: Option<usize>,
    num_layers: usize,
    attention_bias: bool,
    /// Side of the samples it was trained on.
    pub sample_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    activation_fn: Activation,
    /// Number of classes. One further class means no class.
    #[serde(rename = "num_embeds_ada_norm")]
    pub classes: usize,
    norm_elementwise_affine: bool,
    norm_eps: f64,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for DiTConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: None,
            num_layers: 28,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            activation_fn: Activation::GeluApproximate,
            classes: 1000,
            norm_elementwise_affine: false,
            norm_eps: 1e-5,
            rest: Rest::new(),
        }
    }
}

const INERT: &[Inert] = &[
    only("norm_type", &["\"ada_norm_zero\""]),
    // Fields of configurations from when the class was still Transformer2DModel.
    only("attention_type", &["\"default\"", "null"]),
    only("caption_channels", &["null"]),
    only("cross_attention_dim", &["null"]),
    only("double_self_attention", &["false"]),
    only("only_cross_attention", &["false"]),
    only("num_vector_embeds", &["null"]),
    only("use_linear_projection", &["false"]),
    only("use_additional_conditions", &["null", "false"]),
    only("interpolation_scale", &["null", "1", "1.0"]),
    any("dropout"),
    any("norm_num_groups"),
    any("upcast_attention"), // sums are single precision everywhere
];

/// Added to the variance by norms that no field sets.
const EPS: f64 = 1e-6;

impl DiTConfig {
    /// Reads diffusers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let config: Self = parse_class(path, text, "_class_name", &["DiTTransformer2DModel", "Transformer2DModel"])?;
        let fields: Rest = parse(path, text)?;
        if fields["_class_name"] == "Transformer2DModel" && !fields.contains_key("norm_type") {
            let message = "a Transformer2DModel is supported here only with norm_type ada_norm_zero, and it names none";
            return Err(ModelError::new(path, message));
        }
        check_rest(path, &config.rest, INERT)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &str) -> Result<(), ModelError> {
        let sizes = [
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels()),
            ("num_layers", self.num_layers),
            ("sample_size", self.sample_size),
            ("patch_size", self.patch_size),
            ("num_embeds_ada_norm", self.classes),
        ];
        check_sizes(path, &sizes)?;
        let inner = self.inner_dim();
        if !inner.is_multiple_of(4) {
            let message = format!("{inner} channels do not split into sines and cosines of two positions");
            return Err(ModelError::new(path, message));
        }
        if self.sample_size < self.patch_size {
            let message = format!("sample_size = {} is less than a patch of {}", self.sample_size, self.patch_size);
            return Err(ModelError::new(path, message));
        }
        Ok(())
    }

    fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Channels of the prediction.
    #[must_use]
    pub fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// The prediction without the learned variance, if the model has one: the first half of the channels of `[B, H, W,
    /// out]`. diffusers uses the same rule, and drops the variance after guidance.
    #[must_use]
    pub fn without_variance(&self, output: &Tensor) -> Tensor {
        if self.out_channels() / 2 == self.in_channels { output.slice(3, 0..self.in_channels) } else { output.clone() }
    }
}

/// What the model reads.
#[derive(Debug)]
pub struct DiTInputs<'a> {
    /// The noisy sample, `[B, H, W, in_channels]`; sides are multiples of the patch.
    pub sample: &'a Tensor,
    /// The timestep of each sample, `[B]`; may be fractional.
    pub timestep: &'a Tensor,
    /// The class of each sample, `[B]`; [`DiTConfig::classes`] itself means no class.
    pub class_labels: &'a Tensor,
}

/// The model's prediction, `[B, H, W, out_channels]`.
#[must_use]
pub fn dit_transformer_2d_model(s: &Scope, config: &DiTConfig, inputs: &DiTInputs<'_>) -> Tensor {
    let (patch, inner) = (config.patch_size, config.inner_dim());
    let [rows, columns] = [1, 2].map(|axis| inputs.sample.extent(axis) / patch);
    // DiT's positions are those of the training grid itself.
    let embed = PatchEmbed { inner, patch, sample_size: config.sample_size, interpolation_scale: 1.0 };
    let hidden = embed.build(&s.at("pos_embed"), inputs.sample, rows, columns);
    let blocks = s.at("transformer_blocks");
    let hidden = transformer::blocks(&blocks, config.num_layers, hidden, |s, hidden| block(s, config, inputs, hidden));

    // The output is modulated by the first block's embedding.
    let embedded = embedding(&blocks.at(0).at("norm1").at("emb"), config, inputs).silu();
    let [shift, scale] = &chunks(&s.at("proj_out_1").linear(&embedded, 2 * inner), 2)[..] else {
        return s.poison("the output has two modulations");
    };
    let hidden = hidden.layer_norm(EPS).modulate(shift, scale);
    let hidden = s.at("proj_out_2").linear(&hidden, patch * patch * config.out_channels());
    hidden.unpatchify(patch, rows, columns)
}

/// Attention and a network, modulated by timestep and class ("adaLN-Zero").
fn block(s: &Scope, config: &DiTConfig, inputs: &DiTInputs<'_>, x: &Tensor) -> Tensor {
    let norm1 = s.at("norm1");
    let embedded = embedding(&norm1.at("emb"), config, inputs).silu();
    let modulation = norm1.at("linear").linear(&embedded, 6 * config.inner_dim());
    let [shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp] = &chunks(&modulation, 6)[..] else {
        return s.poison("adaLN-Zero has six modulations");
    };
    let h = x.layer_norm(EPS).modulate(shift_msa, scale_msa);
    let attention = Attention { heads: config.num_attention_heads, bias: config.attention_bias };
    let x = &(&attention.build(&s.at("attn1"), &h, &h, None) * gate_msa) + x;
    let h = match config.norm_elementwise_affine {
        true => s.at("norm3").layer_norm(&x, config.norm_eps),
        false => x.layer_norm(config.norm_eps),
    };
    let h = h.modulate(shift_mlp, scale_mlp);
    &(&feed_forward(&s.at("ff").at("net"), config.activation_fn, &h) * gate_mlp) + &x
}

/// The timestep and the class as one vector `[B, inner]`. Every block has its own weights for it.
fn embedding(s: &Scope, config: &DiTConfig, inputs: &DiTInputs<'_>) -> Tensor {
    let inner = config.inner_dim();
    let timestep = timestep_embedding(&s.at("timestep_embedder"), inputs.timestep, inner, 1.0);
    let table = s.at("class_embedder").at("embedding_table");
    &timestep + &table.embedding(inputs.class_labels, config.classes + 1, inner)
}

/// `[B, n·C]` as n of `[B, 1, C]`.
fn chunks(x: &Tensor, n: usize) -> Vec<Tensor> {
    x.reshape(&[x.extent(0), n, x.extent(1) / n]).chunk(1, n)
}
