//! A table of problems that together reach every kernel and every branch of the preludes.

use graph::expr::{Binary, Unary};
use graph::ops::{
    Attention, Concat, Conv2d, Elementwise, Gather, GroupNorm, LayerNorm, MatMul, Slice, TimestepEmbedding, Transpose,
};
use graph::{Expr, Op, Operation};
use shaders::{Format, Operand, Problem};

/// A problem that owns its parts.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) op: Op,
    pub(crate) operands: Vec<Vec<usize>>,
    /// Which operands may be weights, and so take any format.
    pub(crate) weights: Vec<bool>,
    pub(crate) epilogue: Option<Expr>,
    pub(crate) extras: Vec<Vec<usize>>,
    pub(crate) out: Vec<usize>,
}

impl Case {
    fn new(op: impl Into<Op>, operands: &[&[usize]]) -> Self {
        let op = op.into();
        let out = op.infer(operands).expect("the table holds well-formed problems");
        let weights = (0..operands.len())
            .map(|i| match op {
                Op::MatMul(_) | Op::Conv2d(_) | Op::LayerNorm(_) | Op::GroupNorm(_) => i > 0,
                Op::Gather(_) => i == 0,
                Op::Attention(_) | Op::TimestepEmbedding(_) => false,
                _ => true,
            })
            .collect();
        let operands = operands.iter().map(|shape| shape.to_vec()).collect();
        Self { op, operands, weights, epilogue: None, extras: Vec::new(), out }
    }

    fn then(mut self, epilogue: Expr, extras: &[&[usize]]) -> Self {
        self.epilogue = Some(epilogue);
        self.extras = extras.iter().map(|shape| shape.to_vec()).collect();
        self
    }

    /// The problem with all possible weights in one format.
    pub(crate) fn problem(&self, format: Format) -> Problem<'_> {
        Problem {
            op: &self.op,
            operands: self
                .operands
                .iter()
                .zip(&self.weights)
                .map(|(shape, weight)| Operand { shape, format: if *weight { format } else { Format::F32 } })
                .collect(),
            epilogue: self.epilogue.as_ref(),
            extras: self.extras.iter().map(|shape| Operand { shape, format }).collect(),
            out: &self.out,
        }
    }
}

fn x(i: usize) -> Expr {
    Expr::Input(i)
}

fn add(a: Expr, b: Expr) -> Expr {
    Expr::binary(Binary::Add, a, b)
}

fn mul(a: Expr, b: Expr) -> Expr {
    Expr::binary(Binary::Mul, a, b)
}

/// Residual and modulation, as a transformer block ends: `x1 + x2 · gelu(x0)`.
fn residual() -> Expr {
    add(x(1), mul(x(2), Expr::unary(Unary::Gelu, x(0))))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    matmuls(&mut cases);
    convolutions(&mut cases);
    layer_norms(&mut cases);
    group_norms(&mut cases);
    attentions(&mut cases);
    elementwise(&mut cases);
    moves(&mut cases);
    cases
}

fn matmuls(cases: &mut Vec<Case>) {
    for transpose_b in [false, true] {
        for bias in [false, true] {
            // Batch, rows, columns, summed extent: odd, aligned, tall, a single row, larger than any tile.
            for (m, n, k) in [(5, 7, 3), (64, 64, 64), (77, 768, 96), (1, 512, 256), (130, 66, 34), (1024, 1024, 64)] {
                let op = MatMul { transpose_b, bias };
                for (shared, batch) in [(true, 1), (true, 2), (false, 3)] {
                    let matrix = if transpose_b { vec![n, k] } else { vec![k, n] };
                    let b = if shared { matrix } else { [vec![batch], matrix].concat() };
                    let a = [batch, m, k];
                    let operands: Vec<&[usize]> =
                        if bias { vec![&a, &b, std::slice::from_ref(&n)] } else { vec![&a, &b] };
                    let case = Case::new(op, &operands);
                    cases.push(case.clone().then(residual(), &[&[batch, m, n], &[batch, 1, n]]));
                    cases.push(case);
                }
            }
        }
    }
    cases.push(
        Case::new(MatMul { transpose_b: true, bias: false }, &[&[9, 8], &[12, 8]])
            .then(add(mul(x(0), x(1)), add(x(2), Expr::Const(f64::NEG_INFINITY))), &[&[], &[9, 1]]),
    );
}

fn convolutions(cases: &mut Vec<Case>) {
    for upsample in [1, 2] {
        for bias in [false, true] {
            for (channels, out, kernel) in [(3, 64, 3), (4, 4, 1), (320, 320, 3), (7, 5, 3), (128, 3, 3)] {
                let op = Conv2d { upsample, bias, ..Conv2d::same(kernel) };
                let weight = [out, kernel, kernel, channels];
                let x = [2, 9, 12, channels];
                let operands: Vec<&[usize]> =
                    if bias { vec![&x, &weight, std::slice::from_ref(&out)] } else { vec![&x, &weight] };
                let case = Case::new(op, &operands);
                let residual_shape = case.out.clone();
                cases.push(case.clone().then(residual(), &[&residual_shape, &[2, 1, 1, out]]));
                cases.push(case);
                let down = Conv2d { stride: 2, padding: [0, 1, 0, 1], ..op };
                cases.push(Case::new(down, &operands));
            }
        }
    }
}

fn group_norms(cases: &mut Vec<Case>) {
    for (groups, channels) in [(1, 7), (32, 32), (32, 320), (32, 128), (4, 20)] {
        let case = Case::new(GroupNorm { groups, eps: 1e-5 }, &[&[2, 5, 6, channels], &[channels], &[channels]]);
        cases.push(case.clone().then(Expr::unary(Unary::Silu, x(0)), &[]));
        cases.push(case);
    }
}

fn layer_norms(cases: &mut Vec<Case>) {
    for channels in [1, 7, 64, 384, 1031] {
        let modulate = add(mul(x(0), add(Expr::Const(1.0), x(1))), x(2));
        let op = |affine| LayerNorm { eps: 1e-6, affine };
        cases.push(Case::new(op(true), &[&[2, 5, channels], &[channels], &[channels]]));
        let plain = Case::new(op(false), &[&[2, 5, channels]]);
        cases.push(plain.clone().then(modulate, &[&[2, 1, channels], &[2, 1, channels]]));
        cases.push(plain);
    }
}

fn attentions(cases: &mut Vec<Case>) {
    for depth in [3, 32, 40, 64, 72, 128, 160, 512] {
        for (causal, key_bias) in [(false, false), (true, false), (false, true), (true, true)] {
            let op = Attention { heads: 2, scale: 0.125, causal, key_bias };
            let q = [2, 77, 2 * depth];
            let k = [2, if causal { 77 } else { 33 }, 2 * depth];
            let bias = [2, k[1]];
            let operands: Vec<&[usize]> = if key_bias { vec![&q, &k, &k, &bias] } else { vec![&q, &k, &k] };
            cases.push(Case::new(op, &operands));
        }
    }
}

fn elementwise(cases: &mut Vec<Case>) {
    let shapes: [&[&[usize]]; 6] = [
        &[&[3, 5], &[3, 5]],
        &[&[2, 64, 32], &[2, 1, 32]],
        &[&[2, 64, 32], &[]],
        &[&[2, 3, 1, 5, 1, 4], &[1, 3, 2, 1, 6, 4]],
        &[&[2, 3, 4, 1], &[8]],
        &[&[], &[1]],
    ];
    for operands in shapes {
        for op in Unary::ALL {
            cases.push(Case::new(Elementwise { expr: add(Expr::unary(op, x(0)), x(1)) }, operands));
        }
        for op in Binary::ALL {
            let expr = Expr::binary(op, Expr::binary(op, x(0), x(1)), Expr::Const(-1.5e-7));
            cases.push(Case::new(Elementwise { expr }, operands));
        }
        cases.push(Case::new(Elementwise { expr: add(mul(x(0), Expr::Const(f64::NAN)), x(1)) }, operands));
    }
    let seven: Vec<&[usize]> = vec![&[2, 8]; 7];
    cases.push(Case::new(Elementwise { expr: (1..7).fold(x(0), |sum, i| add(sum, x(i))) }, &seven));
}

fn moves(cases: &mut Vec<Case>) {
    cases.push(Case::new(Gather, &[&[11, 7], &[2, 3]]));
    cases.push(Case::new(Gather, &[&[49408, 64], &[2, 77]]));
    cases.push(Case::new(Concat { axis: 1 }, &[&[2, 3, 5], &[2, 1, 5], &[2, 4, 5]]));
    cases.push(Case::new(Concat { axis: 0 }, &[&[4, 8], &[2, 8]]));
    let seven: [&[usize]; 7] = [&[2, 4]; 7];
    cases.push(Case::new(Concat { axis: 1 }, &seven));
    cases.push(Case::new(Concat { axis: 0 }, &[&[6]]));
    cases.push(Case::new(Slice { axis: 1, start: 1, len: 2 }, &[&[3, 5, 7]]));
    cases.push(Case::new(Slice { axis: 2, start: 8, len: 4 }, &[&[3, 5, 16]]));
    cases.push(Case::new(Slice { axis: 0, start: 0, len: 3 }, &[&[5, 4]]));
    cases.push(Case::new(Transpose { axes: vec![1, 0] }, &[&[3, 5]]));
    cases.push(Case::new(Transpose { axes: vec![0, 2, 1, 3] }, &[&[2, 6, 3, 8]]));
    cases.push(Case::new(Transpose { axes: vec![5, 3, 1, 4, 2, 0] }, &[&[2, 3, 1, 5, 2, 3]]));
    cases.push(Case::new(Transpose { axes: vec![0, 5, 1, 3, 2, 4] }, &[&[2, 3, 4, 8, 8, 3]]));
    for dim in [2, 6, 256, 320] {
        for flip_sin_to_cos in [false, true] {
            let op = TimestepEmbedding { dim, flip_sin_to_cos, downscale_freq_shift: 0.0, max_period: 1e4 };
            cases.push(Case::new(op, &[&[3]]));
        }
    }
}
