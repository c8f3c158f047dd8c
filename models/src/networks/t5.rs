//! T5's encoder (Raffel et al. 2019; version 1.1 with gated activations, Shazeer 2020), transformers' `T5EncoderModel`.

use crate::config::{Inert, Rest, check_rest, check_sizes, only, parse_class};
use crate::error::ModelError;
use graph::ops::Attention;
use graph::{Expr, Scope, Tensor, expr::Binary, expr::Unary};
use serde::Deserialize;

/// transformers' `T5Config`, with its defaults; what only the decoder reads is left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Channels of every token.
    pub d_model: usize,
    /// Channels of each head; all heads together need not be `d_model`.
    pub d_kv: usize,
    /// Channels inside each feed-forward network.
    pub d_ff: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Heads of each attention.
    pub num_heads: usize,
    /// Distances between tokens that attention tells apart.
    pub relative_attention_num_buckets: usize,
    /// From this distance on all are one.
    pub relative_attention_max_distance: usize,
    /// Added to the mean square by every norm.
    pub layer_norm_epsilon: f64,
    /// The feed-forward networks.
    feed_forward_proj: FeedForward,
    #[serde(flatten)]
    rest: Rest,
}

/// Feed-forward networks, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FeedForward {
    /// `wo(relu(wi(x)))`, as the first T5.
    Relu,
    /// `wo(gelu(wi_0(x)) · wi_1(x))`, as version 1.1; transformers reads the name as GELU's tanh approximation.
    GatedGelu,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: FeedForward::Relu,
            rest: Rest::new(),
        }
    }
}

/// Fields of any of transformers' configurations that would change what an encoder computes. `dense_act_fn` and `is_gated_act`
/// are not among them: both are derived from `feed_forward_proj`, whatever a file says.
const INERT: &[Inert] = &[
    only("is_decoder", &["false"]),
    only("add_cross_attention", &["false"]),
    only("use_bfloat16", &["false"]),
    only("pruned_heads", &["{}"]),
];

impl T5Config {
    /// Reads transformers' `config.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such a configuration, or a field asks for a computation that is not implemented.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let config: Self = parse_class(path, text, "model_type", &["t5"])?;
        check_rest(path, &config.rest, INERT)?;
        let buckets = config.relative_attention_num_buckets;
        check_sizes(
            path,
            &[
                ("vocab_size", config.vocab_size),
                ("d_model", config.d_model),
                ("d_kv", config.d_kv),
                ("d_ff", config.d_ff),
                ("num_layers", config.num_layers),
                ("num_heads", config.num_heads),
                ("relative_attention_num_buckets", buckets),
            ],
        )?;
        // Half of the buckets of each direction hold one distance each, the rest grow up to the largest.
        if !buckets.is_multiple_of(2) || buckets < 4 || config.relative_attention_max_distance <= buckets / 4 {
            let distance = config.relative_attention_max_distance;
            let message = format!(
                "relative_attention_num_buckets = {buckets} and relative_attention_max_distance = {distance} do not fit"
            );
            return Err(ModelError::new(path, message));
        }
        Ok(config)
    }

    /// transformers' `_relative_position_bucket` of a key that lies so many tokens after the query, in its `f32`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a floor of a small positive number")]
    fn bucket(&self, key: usize, query: usize) -> usize {
        let each_way = self.relative_attention_num_buckets / 2;
        let exact = each_way / 2;
        let distance = key.abs_diff(query);
        let bucket = if distance < exact {
            distance
        } else {
            let span = (self.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
            let grown = (distance as f32 / exact as f32).ln() / span * (each_way - exact) as f32;
            (exact + grown as usize).min(each_way - 1)
        };
        if key > query { each_way + bucket } else { bucket }
    }
}

/// Token ids to embeddings: `input_ids [B, S]` → `[B, S, d_model]`.
///
/// `input_ids` are whole numbers below `vocab_size`. `attention_mask [B, S]` holds 1 for tokens and 0 for padding, which no token then sees.
#[must_use]
pub fn t5_encoder_model(s: &Scope, config: &T5Config, input_ids: &Tensor, attention_mask: Option<&Tensor>) -> Tensor {
    let hidden = s.at("shared").embedding(input_ids, config.vocab_size, config.d_model);
    let key_bias = attention_mask.map(key_bias);
    let encoder = s.at("encoder");
    let position_bias = position_bias(&encoder, config, input_ids.extent(-1));
    let hidden = (0..config.num_layers).fold(hidden, |x, i| {
        let layer = encoder.at("block").at(i).at("layer");
        let h = norm(&layer.at(0).at("layer_norm"), config, &x);
        let attention = layer.at(0).at("SelfAttention");
        let x = &self_attention(&attention, config, &h, &position_bias, key_bias.as_ref()) + &x;
        let h = norm(&layer.at(1).at("layer_norm"), config, &x);
        &feed_forward(&layer.at(1).at("DenseReluDense"), config, &h) + &x
    });
    norm(&encoder.at("final_layer_norm"), config, &hidden)
}

fn norm(s: &Scope, config: &T5Config, x: &Tensor) -> Tensor {
    s.rms_norm(x, config.layer_norm_epsilon)
}

/// What attention learns of distances: `[heads, queries, keys]`, added to the scores of every layer and batch entry.
fn position_bias(encoder: &Scope, config: &T5Config, tokens: usize) -> Tensor {
    // All layers use the table of the first.
    let s = encoder.at("block").at(0).at("layer").at(0).at("SelfAttention").at("relative_attention_bias");
    let buckets = (0..tokens).flat_map(|query| (0..tokens).map(move |key| (key, query)));
    let buckets = buckets.map(|(key, query)| config.bucket(key, query) as f32).collect();
    let buckets = s.constant(&[tokens, tokens], buckets);
    s.embedding(&buckets, config.relative_attention_num_buckets, config.num_heads).transpose(&[2, 0, 1])
}

fn self_attention(
    s: &Scope,
    config: &T5Config,
    x: &Tensor,
    position_bias: &Tensor,
    key_bias: Option<&Tensor>,
) -> Tensor {
    let project = |name: &str| s.at(name).linear_no_bias(x, config.num_heads * config.d_kv);
    let (q, k, v) = (project("q"), project("k"), project("v"));
    // T5 does not scale its scores.
    let op = Attention {
        heads: config.num_heads,
        scale: 1.0,
        causal: false,
        key_bias: key_bias.is_some(),
        score_bias: true,
    };
    let operands: Vec<&Tensor> = [&q, &k, &v].into_iter().chain(key_bias).chain([position_bias]).collect();
    s.at("o").linear_no_bias(&s.push(op, &operands), config.d_model)
}

fn feed_forward(s: &Scope, config: &T5Config, x: &Tensor) -> Tensor {
    let wide = |name: &str| s.at(name).linear_no_bias(x, config.d_ff);
    let h = match config.feed_forward_proj {
        FeedForward::Relu => wide("wi").apply(Unary::Relu),
        FeedForward::GatedGelu => &wide("wi_0").gelu_tanh() * &wide("wi_1"),
    };
    s.at("wo").linear_no_bias(&h, config.d_model)
}

/// Masks hide keys completely, as transformers' least number does, and stay finite: softmax of −10⁹ is zero in any precision.
fn key_bias(mask: &Tensor) -> Tensor {
    let hidden = Expr::binary(Binary::Sub, Expr::Input(0), Expr::Const(1.0));
    mask.elementwise(Expr::binary(Binary::Mul, hidden, Expr::Const(1e9)), &[])
}
