//! The table of problems that every kernel is run on: small and odd, so that every tile has an edge.

use crate::check::hash;
use graph::expr::{Binary, Expr, Unary};
use graph::ops::{
    Attention, Concat, Conv2d, Elementwise, Gather, GroupNorm, LayerNorm, MatMul, Slice, TimestepEmbedding, Transpose,
};
use graph::shape::{Shape, numel};
use graph::{Array, Op, Operation};
use half::f16;

/// What an operand's elements look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Values {
    /// Between −2 and 2.
    Signed,
    /// Between ½ and 4, for logarithms, roots and divisors.
    Positive,
    /// Row numbers of a table, some of them past its end.
    Rows(usize),
    /// Timesteps between 0 and 1000.
    Timesteps,
    /// 0 for keys that are kept, −10000 for every third, which is not.
    Mask,
}

/// One operand of a case.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) shape: Shape,
    pub(super) values: Values,
    /// Plans may keep it in half precision.
    pub(super) may_be_half: bool,
}

/// One problem.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) label: String,
    pub(super) op: Op,
    pub(super) operands: Vec<Source>,
    pub(super) epilogue: Option<(Expr, Vec<Source>)>,
    pub(super) out: Shape,
}

impl Source {
    fn new(shape: &[usize], values: Values) -> Self {
        Self { shape: shape.to_vec(), values, may_be_half: false }
    }

    fn half(self) -> Self {
        Self { may_be_half: true, ..self }
    }

    /// The elements, the same on every machine; `rounded` to half precision so that storing them so loses nothing.
    pub(super) fn array(&self, seed: u64, rounded: bool) -> Array<f32> {
        let element = |i: u64| {
            let bits = hash(seed << 32 | i);
            let unit = (bits >> 40) as f32 / (1_u64 << 24) as f32;
            match self.values {
                Values::Signed => unit * 4.0 - 2.0,
                Values::Positive => unit * 3.5 + 0.5,
                Values::Rows(rows) => (bits % (rows as u64 + 2)) as f32,
                Values::Timesteps => unit * 1000.0,
                Values::Mask if i % 3 == 1 => -10_000.0,
                Values::Mask => 0.0,
            }
        };
        let round = |value: f32| if rounded { f16::from_f32(value).to_f32() } else { value };
        Array::new(self.shape.clone(), (0..numel(&self.shape) as u64).map(element).map(round).collect())
    }
}

fn signed(shape: &[usize]) -> Source {
    Source::new(shape, Values::Signed)
}

fn case(label: impl Into<String>, op: impl Into<Op>, operands: Vec<Source>) -> Case {
    let op = op.into();
    let shapes: Vec<&[usize]> = operands.iter().map(|source| &*source.shape).collect();
    let label = label.into();
    let out = op.infer(&shapes).unwrap_or_else(|error| panic!("case {label} is malformed: {error}"));
    Case { label, op, operands, epilogue: None, out }
}

impl Case {
    fn then(self, label: &str, expr: Expr, extras: Vec<Source>) -> Case {
        Case { label: format!("{} {label}", self.label), epilogue: Some((expr, extras)), ..self }
    }
}

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    [matmuls(), convolutions(), norms(), group_norms(), attentions(), elementwise(), moves(), embeddings()].concat()
}

/// What fusing leaves behind products: an activation, and a gated residual whose gate is stretched over the rows.
fn epilogues(case: &Case) -> [Case; 2] {
    let out = case.out.clone();
    let gate = [1, out[out.len() - 1]];
    let residual = Expr::binary(Binary::Add, Expr::Input(2), Expr::binary(Binary::Mul, Expr::Input(0), Expr::Input(1)));
    [
        case.clone().then("gelu_tanh", Expr::unary(Unary::GeluTanh, Expr::Input(0)), Vec::new()),
        case.clone().then("gated residual", residual, vec![signed(&gate), signed(&out)]),
    ]
}

fn matmuls() -> Vec<Case> {
    // transpose_b, bias, m, n, k: one row and one column, edges of every tile, whole tiles, vectors that fit and do not.
    let shapes = [
        (true, true, 33, 17, 19),
        (true, true, 65, 66, 40),
        (true, true, 64, 64, 64),
        (true, true, 1, 40, 129),
        (true, true, 1, 1, 1),
        (true, false, 5, 8, 12),
        (false, false, 2, 130, 67),
        (false, false, 64, 64, 64),
        (false, true, 33, 18, 20),
    ];
    let mut all = Vec::new();
    for (transpose_b, bias, m, n, k) in shapes {
        let b = if transpose_b { [n, k] } else { [k, n] };
        let mut operands = vec![signed(&[m, k]), signed(&b).half()];
        operands.extend(bias.then(|| signed(&[n])));
        let flags = [(transpose_b, "ᵀ"), (bias, " + bias")].map(|(on, text)| if on { text } else { "" }).concat();
        all.push(case(format!("{m}×{k} · {k}×{n}{flags}"), MatMul { transpose_b, bias }, operands));
    }
    let op = MatMul { transpose_b: true, bias: true };
    all.push(case("shared by a batch", op, vec![signed(&[2, 7, 12]), signed(&[20, 12]).half(), signed(&[20])]));
    // A kernel's epilogue does not depend on how its operands are stored: single precision is enough.
    let single = |transpose_b, a: &[usize], b: &[usize]| {
        let label = format!("{a:?} · {b:?}{}", if transpose_b { "ᵀ" } else { "" });
        case(label, MatMul { transpose_b, bias: false }, vec![signed(a), signed(b)])
    };
    all.extend(epilogues(&single(true, &[33, 19], &[17, 19])));
    all.extend(epilogues(&single(false, &[64, 64], &[64, 64])));
    all.push(single(true, &[3, 2, 5, 6], &[3, 2, 9, 6]));
    all.extend(epilogues(&single(false, &[3, 2, 5, 6], &[3, 2, 6, 9])));
    all
}

fn convolutions() -> Vec<Case> {
    // channels, results, rows, columns, kernel: channels that fill vectors and not, images smaller than a tile and larger.
    let shapes =
        [(5, 7, 6, 9, 3), (8, 16, 5, 4, 3), (12, 33, 9, 8, 3), (3, 4, 1, 1, 3), (4, 8, 17, 3, 1), (36, 70, 7, 11, 3)];
    let mut all = Vec::new();
    for (channels, out, rows, columns, kernel) in shapes {
        let half = kernel / 2;
        let convs = [
            ("", Conv2d::same(kernel)),
            (" enlarged", Conv2d { upsample: 2, ..Conv2d::same(kernel) }),
            (" stride 2", Conv2d { stride: 2, padding: [0, half, 0, half], upsample: 1, bias: false }),
        ];
        for (note, conv) in convs {
            if rows + half < kernel && conv.stride == 2 {
                continue;
            }
            let x = [2, rows, columns, channels];
            let mut operands = vec![signed(&x), signed(&[out, kernel, kernel, channels]).half()];
            operands.extend(conv.bias.then(|| signed(&[out])));
            all.push(case(format!("{x:?} by {kernel}×{kernel} to {out}{note}"), conv, operands));
        }
    }
    let op = Conv2d { bias: false, ..Conv2d::same(3) };
    let plain = case("[2, 5, 7, 8] by 3×3 to 9", op, vec![signed(&[2, 5, 7, 8]), signed(&[9, 3, 3, 8])]);
    all.extend(epilogues(&plain));
    all
}

fn group_norms() -> Vec<Case> {
    let mut all = Vec::new();
    for (groups, shape) in
        [(1, &[2, 3, 5, 7][..]), (4, &[2, 6, 20]), (8, &[1, 9, 5, 32]), (3, &[2, 1, 1, 3]), (2, &[1, 67, 24])]
    {
        let channels = shape[shape.len() - 1];
        let operands = || vec![signed(shape), signed(&[channels]), signed(&[channels])];
        let plain = case(format!("{shape:?} in {groups} groups"), GroupNorm { groups, eps: 1e-5 }, operands());
        all.push(plain.clone().then("silu", Expr::unary(Unary::Silu, Expr::Input(0)), Vec::new()));
        all.push(plain);
    }
    all
}

fn norms() -> Vec<Case> {
    let mut all = Vec::new();
    for shape in [&[2, 7, 33][..], &[3, 5], &[5, 256], &[2, 1031], &[1, 1]] {
        let channels = shape[shape.len() - 1];
        let affine = vec![signed(shape), signed(&[channels]), signed(&[channels])];
        all.push(case(format!("{shape:?} affine"), LayerNorm { eps: 1e-5, affine: true }, affine));
        let plain = case(format!("{shape:?}"), LayerNorm { eps: 1e-6, affine: false }, vec![signed(shape)]);
        if shape.len() == 3 {
            // Adaptive normalisation: x · (1 + scale) + shift, one scale and shift for each image.
            let parameter = [shape[0], 1, channels];
            let one = Expr::binary(Binary::Add, Expr::Input(1), Expr::Const(1.0));
            let modulate = Expr::binary(Binary::Add, Expr::binary(Binary::Mul, Expr::Input(0), one), Expr::Input(2));
            all.push(plain.clone().then("modulated", modulate, vec![signed(&parameter), signed(&parameter)]));
        }
        all.push(plain);
    }
    all
}

fn attentions() -> Vec<Case> {
    let mut all = Vec::new();
    // batch, queries, keys, heads, depth of a head
    let shapes = [(1, 33, 70, 2, 16), (2, 5, 7, 3, 4), (2, 17, 17, 1, 40), (1, 9, 130, 2, 64), (1, 1, 1, 1, 1)];
    for (batch, queries, keys, heads, depth) in shapes {
        let width = heads * depth;
        for (causal, key_bias) in [(false, false), (true, false), (false, true), (true, true)] {
            if causal && queries != keys {
                continue;
            }
            let keys_shape = [batch, keys, width];
            let mut operands = vec![signed(&[batch, queries, width]), signed(&keys_shape), signed(&keys_shape)];
            operands.extend(key_bias.then(|| Source::new(&[batch, keys], Values::Mask)));
            let flags =
                [(causal, " causal"), (key_bias, " masked")].map(|(on, text)| if on { text } else { "" }).concat();
            let label = format!("{batch}×{heads}×{queries}×{keys}×{depth}{flags}");
            let op = Attention { heads, scale: (depth as f64).sqrt().recip(), causal, key_bias };
            all.push(case(label, op, operands));
        }
    }
    all
}

fn elementwise() -> Vec<Case> {
    let mut all = Vec::new();
    for op in Unary::ALL {
        let values = if matches!(op, Unary::Ln | Unary::Sqrt) { Values::Positive } else { Values::Signed };
        let expr = Expr::unary(op, Expr::Input(0));
        all.push(case(op.name(), Elementwise { expr }, vec![Source::new(&[3, 37], values)]));
    }
    for op in Binary::ALL {
        let expr = Expr::binary(op, Expr::Input(0), Expr::Input(1));
        let b = Source::new(&[5, 8], if op == Binary::Div { Values::Positive } else { Values::Signed });
        all.push(case(op.name(), Elementwise { expr }, vec![signed(&[5, 8]), b]));
    }
    let sum = |count: usize| {
        (1..count).fold(Expr::Input(0), |sum, i| {
            Expr::binary(Binary::Add, sum, Expr::binary(Binary::Mul, Expr::Input(i), Expr::Const(0.25)))
        })
    };
    let stretched: [(&str, &[&[usize]]); 6] = [
        ("row over matrix", &[&[6, 16], &[16]]),
        ("column over matrix", &[&[6, 15], &[6, 1]]),
        ("both ways", &[&[5, 1, 3], &[4, 1]]),
        ("scalar", &[&[2, 9], &[]]),
        ("seven operands", &[&[3, 4], &[4], &[3, 1], &[1, 1], &[3, 4], &[1, 4], &[]]),
        ("six axes", &[&[2, 1, 3, 1, 2, 5], &[2, 1, 3, 1, 5]]),
    ];
    for (label, shapes) in stretched {
        let operands: Vec<Source> = shapes.iter().map(|shape| signed(shape)).collect();
        all.push(case(label, Elementwise { expr: sum(operands.len()) }, operands));
    }
    // c_skip · x + c_out · F, with numbers that text must not round.
    let combine = Expr::binary(
        Binary::Add,
        Expr::binary(Binary::Mul, Expr::Input(0), Expr::Const(0.1)),
        Expr::binary(Binary::Mul, Expr::Input(1), Expr::Const(-1.000_000_1e-3)),
    );
    all.push(case("constants", Elementwise { expr: combine }, vec![signed(&[2, 6, 6, 3]), signed(&[2, 6, 6, 3])]));
    all
}

fn moves() -> Vec<Case> {
    let mut all = Vec::new();
    for (rows, channels, ids) in [(3, 5, &[4][..]), (11, 8, &[2, 3]), (7, 33, &[1, 77]), (4, 1, &[])] {
        let operands = vec![signed(&[rows, channels]).half(), Source::new(ids, Values::Rows(rows))];
        all.push(case(format!("{ids:?} of {rows}×{channels}"), Gather, operands));
    }
    let joined: [(usize, &[&[usize]]); 5] = [
        (0, &[&[1, 3], &[4, 3]]),
        (1, &[&[3, 2], &[3, 5], &[3, 1]]),
        (1, &[&[2, 3, 4], &[2, 1, 4]]),
        (2, &[&[2, 3, 8], &[2, 3, 4]]),
        (0, &[&[7]]),
    ];
    for (axis, shapes) in joined {
        let operands = shapes.iter().map(|shape| signed(shape)).collect();
        all.push(case(format!("{shapes:?} on axis {axis}"), Concat { axis }, operands));
    }
    let cut: [(&[usize], usize, usize, usize); 5] =
        [(&[9], 0, 2, 5), (&[4, 7], 1, 3, 4), (&[4, 7], 0, 1, 2), (&[2, 5, 8], 1, 4, 1), (&[3, 2, 16], 2, 4, 8)];
    for (shape, axis, start, len) in cut {
        let label = format!("{shape:?} axis {axis} {start}..{}", start + len);
        all.push(case(label, Slice { axis, start, len }, vec![signed(shape)]));
    }
    let orders: [(&[usize], &[usize]); 5] = [
        (&[5, 7], &[1, 0]),
        (&[2, 3, 4], &[0, 2, 1]),
        (&[2, 3, 5, 4], &[0, 2, 1, 3]),
        (&[2, 3, 2, 3, 2, 3], &[0, 1, 3, 5, 2, 4]),
        (&[33, 34], &[1, 0]),
    ];
    for (shape, axes) in orders {
        all.push(case(format!("{shape:?} to {axes:?}"), Transpose { axes: axes.to_vec() }, vec![signed(shape)]));
    }
    all
}

fn embeddings() -> Vec<Case> {
    let mut all = Vec::new();
    for (batch, dim, flip, shift) in [(1, 2, true, 0.0), (3, 34, false, 1.0), (2, 256, true, 0.0)] {
        let op = TimestepEmbedding { dim, flip_sin_to_cos: flip, downscale_freq_shift: shift, max_period: 10_000.0 };
        // One pair cannot be spread when the shift takes it away.
        all.push(case(format!("{batch}×{dim}"), op, vec![Source::new(&[batch], Values::Timesteps)]));
    }
    all
}
