//! Random small graphs: the same property tests for passes, memory plans and every executor.

use crate::array::Array;
use crate::expr::{Binary, Expr, Unary};
use crate::graph::{Graph, Rate};
use crate::ops::{Attention, Conv2d, Gather};
use crate::scope::Scope;
use crate::shape::numel;
use crate::tensor::Tensor;
use crate::weights::MemoryWeights;
use std::collections::HashMap;

/// A graph with values for everything it reads.
#[derive(Debug, Clone)]
pub struct RandomGraph {
    /// The graph, as a builder leaves it (no pass has run).
    pub graph: Graph,
    /// A value for each input.
    pub inputs: HashMap<&'static str, Array<f64>>,
    /// A value for each weight.
    pub weights: MemoryWeights,
}

/// SplitMix64 (Steele et al. 2014): enough for tests, and the same everywhere.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A whole number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() % bound as u64).expect("the remainder is below a usize")
    }

    /// A number in −1..1 that `f32` holds exactly, so that every executor is given the same input.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "24 bits fit")]
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Rows of every table that is gathered from.
const TABLE_ROWS: usize = 5;

/// A random graph of up to `ops` operations over every kind of operation, in shapes of a few hundred elements.
///
/// # Panics
/// Never, unless a builder method is wrong: that is what it is for.
#[must_use]
pub fn random_graph(seed: u64, ops: usize) -> RandomGraph {
    let mut rng = SplitMix(seed);
    let scope = Scope::root();
    let (batch, tokens, channels) = (1 + rng.below(2), 1 + rng.below(6), 4 * (1 + rng.below(3)));
    let shape = [batch, tokens, channels];
    let step = scope.input("x", &shape, Rate::Step);
    let once = scope.input("context", &shape, Rate::Once);
    let time = scope.input("time", &[batch], Rate::Step);
    let ids = scope.input("ids", &[batch, tokens], Rate::Once);
    let mut pool = vec![step, once];
    for i in 0..ops {
        let at = scope.at(format!("op{i}"));
        let next = random_op(&mut rng, &at, &pool, &time, &ids);
        pool.push(next);
    }
    let last = &pool[pool.len() - 1];
    let other = &pool[rng.below(pool.len())];
    let graph = scope.finish(&[("last", last), ("other", other)]).expect("random graphs are well-shaped");

    let mut weights = MemoryWeights::default();
    for spec in graph.weights() {
        let data: Vec<f32> = (0..numel(&spec.shape)).map(|_| rng.signed()).collect();
        weights.insert(spec.name, spec.shape, &data);
    }
    let mut value = |shape: &[usize]| Array::new(shape, (0..numel(shape)).map(|_| f64::from(rng.signed())).collect());
    let mut inputs = HashMap::from([("x", value(&shape)), ("context", value(&shape)), ("time", value(&[batch]))]);
    // Some lie past the end of their table.
    let ids = (0..batch * tokens).map(|_| rng.below(TABLE_ROWS + 2) as f64).collect();
    inputs.insert("ids", Array::new([batch, tokens], ids));
    RandomGraph { graph, inputs, weights }
}

/// One operation on tensors of the pool; every result is `[batch, tokens, channels]` with extents of its own.
fn random_op(rng: &mut SplitMix, s: &Scope, pool: &[Tensor], time: &Tensor, ids: &Tensor) -> Tensor {
    let x = &pool[rng.below(pool.len())];
    let [batch, tokens, channels] = x.shape()[..] else { unreachable!("the pool holds three axes") };
    let alike: Vec<&Tensor> = pool.iter().filter(|t| t.shape() == x.shape()).collect();
    let y = alike[rng.below(alike.len())];
    match rng.below(18) {
        0 => s.linear(x, 4 * (1 + rng.below(3))),
        1 => s.linear_no_bias(x, 1 + rng.below(7)),
        2 => s.layer_norm(x, 1e-3),
        3 => x.layer_norm(1e-3),
        // Logarithms and roots of negative numbers are not a matter of graphs, so they stay out.
        4 => {
            let tame =
                [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::QuickGelu, Unary::Tanh, Unary::Sin, Unary::Neg];
            x.apply(tame[rng.below(tame.len())])
        }
        5 => {
            let op = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max][rng.below(4)];
            x.elementwise(Expr::binary(op, Expr::Input(0), Expr::Input(1)), &[y])
        }
        6 => {
            let scale = s.weight("scale", &[channels]);
            let gate = s.weight("gate", &[batch, 1, 1]);
            &(x * &scale) + &gate
        }
        7 => {
            let heads = if channels % 2 == 0 { 2 } else { 1 };
            let scale = ((channels / heads) as f64).sqrt().recip();
            let [causal, key_bias, score_bias] = [(); 3].map(|()| rng.below(2) == 0);
            let key = key_bias.then(|| s.weight("key_bias", &[batch, tokens]));
            let score = score_bias.then(|| s.weight("score_bias", &[heads, tokens, tokens]));
            let operands: Vec<&Tensor> = [x, y, x].into_iter().chain(&key).chain(&score).collect();
            s.push(Attention { heads, scale, causal, key_bias, score_bias }, &operands)
        }
        8 if channels < 16 => Tensor::concat(&[x, y], 2),
        9 if tokens > 1 => x.slice(1, 1..tokens),
        10 => x.transpose(&[0, 2, 1]),
        11 => {
            let emb = time.scale(100.0).timestep_embedding(8, rng.below(2) == 0, 0.0);
            let shift = s.linear(&emb.silu(), channels).reshape(&[batch, 1, channels]);
            x.modulate(&shift, &shift.scale(0.5))
        }
        12 => {
            let flat = x.reshape(&[batch, 1, tokens * channels]);
            flat.scale(1.0).offset(0.25).reshape(&[batch, tokens, channels])
        }
        13 => {
            let groups = [1, 2, 4][rng.below(3)];
            s.group_norm(x, if channels % groups == 0 { groups } else { 1 }, 1e-3)
        }
        14 => {
            let (kernel, upsample) = (1 + 2 * rng.below(2), 1 + rng.below(2) * usize::from(tokens < 10));
            let conv = Conv2d { upsample, ..Conv2d::same(kernel) };
            let image = x.reshape(&[batch, 1, tokens, channels]);
            let out = 4 * (1 + rng.below(2));
            s.conv2d(&image, out, kernel, conv).slice(1, 0..1).reshape(&[batch, tokens * upsample, out])
        }
        15 => s.rms_norm(x, 1e-3),
        16 => {
            let channels = 4 * (1 + rng.below(2));
            let table = s.weight("table", &[TABLE_ROWS, channels]);
            let rows = s.push(Gather, &[&table, &ids.offset(rng.below(2) as f64)]);
            // A table that is known now, and read by the same ids.
            let known = (0..TABLE_ROWS * channels).map(|_| rng.signed()).collect();
            &rows * &s.push(Gather, &[&s.constant(&[TABLE_ROWS, channels], known), ids])
        }
        // Also what the guards above leave.
        _ => x.matmul_transposed(y),
    }
}
