//! CLIP's text encoder (Radford et al. 2021), transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use crate::config::{Inert, Rest, check_rest, check_sizes, only, parse, parse_class};
use crate::error::ModelError;
use graph::{Expr, Scope, Tensor, expr::Binary};
use serde::Deserialize;
use serde_json::Value;

/// transformers' `CLIPTextConfig`, with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Channels of every token.
    pub hidden_size: usize,
    /// Channels inside each feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: HiddenActivation,
    /// Added to the variance by every layer norm.
    pub layer_norm_eps: f64,
    /// Channels of the projected embedding of a whole prompt, where the model has one.
    pub projection_dim: usize,
    /// The token that ends a prompt. The embedding of the whole prompt is read at its position.
    pub eos_token_id: u32,
    #[serde(flatten)]
    rest: Rest,
}

/// Activations of a feed-forward network, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenActivation {
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// Exact GELU.
    Gelu,
    /// GELU's tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
}

/// What a text encoder hands to the diffusion model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClipHiddenState {
    /// The last layer's output after the final layer norm, transformers' `last_hidden_state`.
    #[default]
    Last,
    /// The output of the layer this many before the last, after the final layer norm: diffusers' `clip_skip` in Stable
    /// Diffusion 1 and 2. Zero is the same as `Last`.
    Skip(usize),
    /// The output of the layer this many before the last, without the final layer norm: transformers' `hidden_states[−1
    /// − n]`. SDXL uses it with `n = 1`.
    Raw(usize),
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: HiddenActivation::QuickGelu,
            layer_norm_eps: 1e-5,
            projection_dim: 512,
            eos_token_id: 49407,
            rest: Rest::new(),
        }
    }
}

/// Fields of any of transformers' configurations that would change what a text encoder computes.
const INERT: &[Inert] = &[
    only("is_decoder", &["false"]),
    only("is_encoder_decoder", &["false"]),
    only("add_cross_attention", &["false"]),
    only("cross_attention_hidden_size", &["null"]),
    only("use_bfloat16", &["false"]),
    only("pruned_heads", &["{}"]),
];

impl ClipTextConfig {
    /// Reads transformers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let own = Self::of_both_halves(path, text)?;
        let config: Self = parse_class(path, own.as_deref().unwrap_or(text), "model_type", &["clip_text_model"])?;
        check_rest(path, &config.rest, INERT)?;
        check_sizes(
            path,
            &[
                ("vocab_size", config.vocab_size),
                ("hidden_size", config.hidden_size),
                ("intermediate_size", config.intermediate_size),
                ("num_hidden_layers", config.num_hidden_layers),
                ("num_attention_heads", config.num_attention_heads),
                ("max_position_embeddings", config.max_position_embeddings),
            ],
        )?;
        if config.projection_dim == 0 {
            return Err(ModelError::new(path, "projection_dim = 0 leaves nothing of a prompt"));
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let (size, heads) = (config.hidden_size, config.num_attention_heads);
            let message = format!("hidden_size = {size} is not a multiple of num_attention_heads = {heads}");
            return Err(ModelError::new(path, message));
        }
        Ok(config)
    }

    /// The text encoder's part of a configuration of the whole of CLIP, which transformers reads in its place.
    fn of_both_halves(path: &str, text: &[u8]) -> Result<Option<Vec<u8>>, ModelError> {
        let mut fields: Rest = parse(path, text)?;
        if fields.get("model_type") != Some(&Value::from("clip")) {
            return Ok(None);
        }
        let Some(Value::Object(mut own)) = fields.remove("text_config") else {
            return Err(ModelError::new(path, "model_type is clip, and there is no text_config for its text encoder"));
        };
        own.entry("model_type").or_insert("clip_text_model".into());
        Ok(Some(Value::Object(own).to_string().into_bytes()))
    }

    /// The position in a prompt's ids at which its embedding is read: the first end mark. Old configurations give a
    /// wrong end mark, 2. With those it is the position of the largest id, as in transformers.
    #[must_use]
    pub fn pooled_token(&self, ids: &[u32]) -> usize {
        let end = if self.eos_token_id == 2 { ids.iter().max().copied() } else { Some(self.eos_token_id) };
        ids.iter().position(|id| Some(*id) == end).unwrap_or(0)
    }
}

/// Token ids to embeddings: `input_ids [B, S]` → `[B, S, hidden_size]`.
///
/// `input_ids` are whole numbers below `vocab_size`. `attention_mask [B, S]` holds 1 for tokens and 0 for padding, to
/// which no token attends. Attention is also causal.
#[must_use]
pub fn clip_text_model(
    s: &Scope,
    config: &ClipTextConfig,
    input_ids: &Tensor,
    attention_mask: Option<&Tensor>,
    output: ClipHiddenState,
) -> Tensor {
    let (skip, normalised) = match output {
        ClipHiddenState::Last => (0, true),
        ClipHiddenState::Skip(skip) => (skip, true),
        ClipHiddenState::Raw(skip) => (skip, false),
    };
    let Some(layers) = config.num_hidden_layers.checked_sub(skip) else {
        return s.poison(format!("cannot skip {skip} of {} layers", config.num_hidden_layers));
    };
    let states = hidden_states(s, config, input_ids, attention_mask, layers);
    if normalised { final_layer_norm(s, config, &states[layers]) } else { states[layers].clone() }
}

/// Like [`clip_text_model`], and also returns an embedding of the whole prompt, `[B, projection_dim]`. `pooled_at [B,
/// S]` holds 1 at the position where the embedding is read ([`ClipTextConfig::pooled_token`]) and 0 elsewhere.
#[must_use]
pub fn clip_text_model_with_projection(
    s: &Scope,
    config: &ClipTextConfig,
    input_ids: &Tensor,
    attention_mask: Option<&Tensor>,
    pooled_at: &Tensor,
) -> (Tensor, Tensor) {
    let layers = config.num_hidden_layers;
    let states = hidden_states(s, config, input_ids, attention_mask, layers);
    let last = final_layer_norm(s, config, &states[layers]);
    let (batch, tokens) = (last.extent(0), last.extent(1));
    // A product with zeros and one 1 picks a row exactly.
    let pooled = pooled_at.reshape(&[batch, 1, tokens]).matmul(&last).reshape(&[batch, config.hidden_size]);
    (states[layers - 1].clone(), s.at("text_projection").linear_no_bias(&pooled, config.projection_dim))
}

/// The embeddings and the output of each layer.
fn hidden_states(
    s: &Scope,
    config: &ClipTextConfig,
    input_ids: &Tensor,
    attention_mask: Option<&Tensor>,
    layers: usize,
) -> Vec<Tensor> {
    let key_bias = attention_mask.map(key_bias);
    let mut states = vec![embeddings(&s.at("embeddings"), config, input_ids)];
    for i in 0..layers {
        let s = s.at("encoder").at("layers").at(i);
        states.push(s.mark(encoder_layer(&s, config, &states[i], key_bias.as_ref())));
    }
    states
}

fn final_layer_norm(s: &Scope, config: &ClipTextConfig, x: &Tensor) -> Tensor {
    s.at("final_layer_norm").layer_norm(x, config.layer_norm_eps)
}

/// The bias that hides masked keys. transformers uses −∞; −10⁹ has the same effect and is finite, because its softmax
/// is zero in any precision.
fn key_bias(mask: &Tensor) -> Tensor {
    let hidden = Expr::binary(Binary::Sub, Expr::Input(0), Expr::Const(1.0));
    mask.elementwise(Expr::binary(Binary::Mul, hidden, Expr::Const(1e9)), &[])
}

fn embeddings(s: &Scope, config: &ClipTextConfig, input_ids: &Tensor) -> Tensor {
    let tokens = input_ids.extent(-1);
    let longest = config.max_position_embeddings;
    if tokens > longest {
        return s
            .poison(format!("{tokens} tokens are more than the {longest} that the text encoder has positions for"));
    }
    let words = s.at("token_embedding").embedding(input_ids, config.vocab_size, config.hidden_size);
    let positions = s.at("position_embedding").weight("weight", &[longest, config.hidden_size]);
    &words + &positions.slice(0, 0..tokens)
}

fn encoder_layer(s: &Scope, config: &ClipTextConfig, x: &Tensor, key_bias: Option<&Tensor>) -> Tensor {
    let h = s.at("layer_norm1").layer_norm(x, config.layer_norm_eps);
    let x = &self_attention(&s.at("self_attn"), config, &h, key_bias) + x;
    let h = s.at("layer_norm2").layer_norm(&x, config.layer_norm_eps);
    &mlp(&s.at("mlp"), config, &h) + &x
}

fn self_attention(s: &Scope, config: &ClipTextConfig, x: &Tensor, key_bias: Option<&Tensor>) -> Tensor {
    let q = s.at("q_proj").linear(x, config.hidden_size);
    let k = s.at("k_proj").linear(x, config.hidden_size);
    let v = s.at("v_proj").linear(x, config.hidden_size);
    let h = q.attention(&k, &v, config.num_attention_heads, true, key_bias);
    s.at("out_proj").linear(&h, config.hidden_size)
}

fn mlp(s: &Scope, config: &ClipTextConfig, x: &Tensor) -> Tensor {
    let h = s.at("fc1").linear(x, config.intermediate_size);
    let h = match config.hidden_act {
        HiddenActivation::QuickGelu => h.quick_gelu(),
        HiddenActivation::Gelu => h.gelu(),
        HiddenActivation::GeluNew => h.gelu_tanh(),
    };
    s.at("fc2").linear(&h, config.hidden_size)
}
