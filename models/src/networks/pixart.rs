//! PixArt's diffusion transformer (Chen et al. 2023), diffusers' `PixArtTransformer2DModel`.

use crate::config::{Inert, Rest, any, check_class, check_rest, check_sizes, only, parse};
use crate::error::ModelError;
use crate::networks::seams;
use crate::networks::transformer::{Activation, Attention, PatchEmbed, blocks, feed_forward, timestep_embedding};
use graph::{Expr, Scope, Tensor, expr::Binary};
use serde::Deserialize;

/// diffusers' configuration of a `PixArtTransformer2DModel`, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct PixArtConfig {
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Channels of each head.
    pub attention_head_dim: usize,
    /// Channels of the sample: 3 for pixels, 4 or more for latents.
    pub in_channels: usize,
    /// Channels of the prediction; `None` means as many as the sample has. Twice as many include a learned variance.
    pub out_channels: Option<usize>,
    /// Number of transformer blocks.
    pub num_layers: usize,
    /// Channels of the text that blocks attend to, after the caption projection.
    pub cross_attention_dim: Option<usize>,
    /// Whether the projections to queries, keys and values have biases.
    pub attention_bias: bool,
    /// Side of the samples it was trained on; the scale of position embeddings follows from it.
    pub sample_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Activation of the feed-forward networks.
    activation_fn: Activation,
    /// Whether the blocks' layer norms have parameters.
    pub norm_elementwise_affine: bool,
    /// Added to the variance by the blocks' layer norms.
    pub norm_eps: f64,
    /// Divides the positions; `None` follows from the sample size.
    pub interpolation_scale: Option<f64>,
    /// Whether resolution and aspect ratio are inputs; `None` means that they are if the sample size is 128.
    use_additional_conditions: Option<bool>,
    /// Channels of the text encoder's output; `None` when text needs no projection.
    pub caption_channels: Option<usize>,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for PixArtConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: Some(8),
            num_layers: 28,
            cross_attention_dim: Some(1152),
            attention_bias: true,
            sample_size: 128,
            patch_size: 2,
            activation_fn: Activation::GeluApproximate,
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            interpolation_scale: None,
            use_additional_conditions: None,
            caption_channels: None,
            rest: Rest::new(),
        }
    }
}

const INERT: &[Inert] = &[
    only("norm_type", &["\"ada_norm_single\""]),
    only("attention_type", &["\"default\"", "null"]),
    // Fields of configurations from when the class was still Transformer2DModel.
    only("double_self_attention", &["false"]),
    only("only_cross_attention", &["false"]),
    only("num_vector_embeds", &["null"]),
    only("use_linear_projection", &["false"]),
    any("dropout"),
    any("norm_num_groups"),
    any("num_embeds_ada_norm"),
    // Asks for attention in f32, which is always used here.
    any("upcast_attention"),
];

impl PixArtConfig {
    /// Reads diffusers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let fields: Rest = parse(path, text)?;
        let class = fields.get("_class_name");
        check_class(path, "_class_name", class, &["PixArtTransformer2DModel", "Transformer2DModel"])?;
        if class.is_some_and(|class| class == "Transformer2DModel") && !fields.contains_key("norm_type") {
            let message = "a Transformer2DModel is supported only with norm_type ada_norm_single, and it names none";
            return Err(ModelError::new(path, message));
        }
        let config: Self = parse(path, text)?;
        check_rest(path, &config.rest, INERT)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &str) -> Result<(), ModelError> {
        let fault = |message: String| Err(ModelError::new(path, message));
        let Some(cross) = self.cross_attention_dim else {
            return fault("cross_attention_dim = null is not supported: a model without text has no prompt".into());
        };
        let sizes = [
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels()),
            ("num_layers", self.num_layers),
            ("cross_attention_dim", cross),
            ("sample_size", self.sample_size),
            ("patch_size", self.patch_size),
            ("caption_channels", self.caption_channels.unwrap_or(1)),
        ];
        check_sizes(path, &sizes)?;
        let inner = self.inner_dim();
        if !inner.is_multiple_of(4) {
            return fault(format!("{inner} channels do not split into sines and cosines of two positions"));
        }
        if self.use_additional_conditions() && !inner.is_multiple_of(3) {
            return fault(format!("{inner} channels do not split into embeddings of height, width and aspect ratio"));
        }
        if self.sample_size < self.patch_size {
            return fault(format!("sample_size = {} is less than a patch of {}", self.sample_size, self.patch_size));
        }
        if self.caption_channels.is_some() && cross != inner {
            return fault(format!("captions are projected to {inner} channels and cross_attention_dim is {cross}"));
        }
        if self.interpolation_scale.is_some_and(|scale| scale <= 0.0) {
            return fault("interpolation_scale must be above zero".into());
        }
        Ok(())
    }

    /// Channels of a token.
    #[must_use]
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    fn patch_embed(&self) -> PatchEmbed {
        PatchEmbed {
            inner: self.inner_dim(),
            patch: self.patch_size,
            sample_size: self.sample_size,
            interpolation_scale: self.interpolation_scale.unwrap_or_else(|| (self.sample_size / 64).max(1) as f64),
        }
    }

    /// Channels of the prediction.
    #[must_use]
    pub fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Channels of the text embeddings that the model takes.
    #[must_use]
    pub fn encoder_channels(&self) -> usize {
        self.caption_channels.or(self.cross_attention_dim).unwrap_or_else(|| self.inner_dim())
    }

    /// Whether the model takes [`SizeConditions`].
    #[must_use]
    pub fn use_additional_conditions(&self) -> bool {
        self.use_additional_conditions.unwrap_or(self.sample_size == 128)
    }

    /// The prediction without the learned variance, if the model has one: the first half of the channels of `[B, H, W,
    /// out]`. diffusers uses the same rule, and drops the variance after guidance.
    #[must_use]
    pub fn without_variance(&self, output: &Tensor) -> Tensor {
        if self.out_channels() / 2 == self.in_channels { output.slice(3, 0..self.in_channels) } else { output.clone() }
    }
}

/// What the model is told about the picture's size.
#[derive(Debug)]
pub struct SizeConditions<'a> {
    /// Height and width of the picture in pixels, `[B, 2]`.
    pub resolution: &'a Tensor,
    /// Height over width, `[B, 1]`.
    pub aspect_ratio: &'a Tensor,
}

/// What the model reads.
#[derive(Debug)]
pub struct PixArtInputs<'a> {
    /// The noisy sample, `[B, H, W, in_channels]`; sides are multiples of the patch.
    pub sample: &'a Tensor,
    /// The timestep of each sample, `[B]`; may be fractional.
    pub timestep: &'a Tensor,
    /// The text encoder's output, `[B, S, encoder_channels]`.
    pub encoder_hidden_states: &'a Tensor,
    /// 1 for tokens and 0 for padding, `[B, S]`.
    pub encoder_attention_mask: Option<&'a Tensor>,
    /// Needed exactly when the configuration has `use_additional_conditions`.
    pub size: Option<SizeConditions<'a>>,
}

/// The model's prediction, `[B, H, W, out_channels]`.
#[must_use]
pub fn pixart_transformer_2d_model(s: &Scope, config: &PixArtConfig, inputs: &PixArtInputs<'_>) -> Tensor {
    let (height, width) = (inputs.sample.extent(1), inputs.sample.extent(2));
    let (rows, columns) = (height / config.patch_size, width / config.patch_size);

    let hidden = config.patch_embed().build(&s.at("pos_embed"), inputs.sample, rows, columns);
    let embedded_timestep = conditioning(&s.at("adaln_single").at("emb"), config, inputs);
    let timestep = modulations(&s.at("adaln_single"), config, &embedded_timestep);
    let text = caption_projection(&s.at("caption_projection"), config, inputs.encoder_hidden_states);
    let text_bias = inputs.encoder_attention_mask.map(key_bias);

    let hidden = blocks(&s.at("transformer_blocks"), config.num_layers, hidden, |s, hidden| {
        basic_transformer_block(s, config, hidden, &timestep, &text, text_bias.as_ref())
    });

    let table = s.weight("scale_shift_table", &[2, config.inner_dim()]).chunk(0, 2);
    let embedded_timestep = embedded_timestep.reshape(&[inputs.sample.extent(0), 1, config.inner_dim()]);
    let [shift, scale] = [&table[0] + &embedded_timestep, &table[1] + &embedded_timestep];
    // The last norm's epsilon is fixed in diffusers, unlike the blocks'.
    let hidden = hidden.layer_norm(1e-6).modulate(&shift, &scale);
    let patch = config.patch_size;
    let hidden = s.at("proj_out").linear(&hidden, patch * patch * config.out_channels());
    hidden.unpatchify(patch, rows, columns)
}

/// Attention to text and to the picture, modulated by the timestep (section 2.3 of the paper, "adaLN-single").
fn basic_transformer_block(
    s: &Scope,
    config: &PixArtConfig,
    x: &Tensor,
    timestep: &[Tensor],
    text: &Tensor,
    text_bias: Option<&Tensor>,
) -> Tensor {
    let table = s.weight("scale_shift_table", &[6, config.inner_dim()]).chunk(0, 6);
    let modulation: Vec<Tensor> = table.iter().zip(timestep).map(|(table, timestep)| table + timestep).collect();
    let [shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp] = &modulation[..] else {
        return s.poison("adaLN-single has six modulations");
    };

    let h = norm(&s.at("norm1"), config, x).modulate(shift_msa, scale_msa);
    let attention = Attention { heads: config.num_attention_heads, bias: config.attention_bias };
    let h = attention.build(&s.at("attn1"), &h, &h, None);
    let x = &(&h * gate_msa) + x;

    // Cross attention reads the residual stream as it is; norm2 belongs to the feed-forward network.
    let attn2 = s.at("attn2");
    let x = &attn2.seam(seams::CROSS_ATTENTION, attention.build(&attn2, &x, text, text_bias)) + &x;

    let h = norm(&s.at("norm2"), config, &x).modulate(shift_mlp, scale_mlp);
    let h = feed_forward(&s.at("ff").at("net"), config.activation_fn, &h);
    &(&h * gate_mlp) + &x
}

fn norm(s: &Scope, config: &PixArtConfig, x: &Tensor) -> Tensor {
    if config.norm_elementwise_affine { s.layer_norm(x, config.norm_eps) } else { x.layer_norm(config.norm_eps) }
}

/// Masked text keeps diffusers' bias of −10⁴, not −∞: a prompt that is all padding attends to it evenly.
fn key_bias(mask: &Tensor) -> Tensor {
    let hidden = Expr::binary(Binary::Sub, Expr::Const(1.0), Expr::Input(0));
    mask.elementwise(Expr::binary(Binary::Mul, hidden, Expr::Const(-10_000.0)), &[])
}

fn caption_projection(s: &Scope, config: &PixArtConfig, text: &Tensor) -> Tensor {
    if config.caption_channels.is_none() {
        return text.clone();
    }
    let h = s.at("linear_1").linear(text, config.inner_dim()).gelu_tanh();
    s.at("linear_2").linear(&h, config.inner_dim())
}

/// The embedded timestep `[B, inner]`, with the picture's size if the model takes it.
fn conditioning(s: &Scope, config: &PixArtConfig, inputs: &PixArtInputs<'_>) -> Tensor {
    let inner = config.inner_dim();
    let timestep = timestep_embedding(&s.at("timestep_embedder"), inputs.timestep, inner, 0.0);
    let size = match (&inputs.size, config.use_additional_conditions()) {
        (None, false) => return timestep,
        (Some(size), true) => size,
        (None, true) => return s.poison("this model needs the picture's resolution and aspect ratio"),
        (Some(_), false) => return s.poison("this model takes no resolution and aspect ratio"),
    };
    let batch = inputs.timestep.extent(0);
    let embed = |name: &str, values: &Tensor, each: usize| {
        let flat = values.reshape(&[batch * each]);
        timestep_embedding(&s.at(name), &flat, inner / 3, 0.0).reshape(&[batch, each * (inner / 3)])
    };
    let resolution = embed("resolution_embedder", size.resolution, 2);
    let aspect_ratio = embed("aspect_ratio_embedder", size.aspect_ratio, 1);
    &timestep + &Tensor::concat(&[&resolution, &aspect_ratio], 1)
}

/// The timestep's part of shift, scale and gate for both halves of every block, six of `[B, 1, inner]`. It is split here,
/// once for all blocks; each block adds its own table, which fuses into the kernel that is modulated.
fn modulations(s: &Scope, config: &PixArtConfig, embedded_timestep: &Tensor) -> Vec<Tensor> {
    let inner = config.inner_dim();
    let all = s.at("linear").linear(&embedded_timestep.silu(), 6 * inner);
    all.reshape(&[embedded_timestep.extent(0), 6, inner]).chunk(1, 6)
}
