//! Problems for tests of kernels' text, which need no device and so no small shapes.

use super::attention::{self, every_way};
use super::{Case, Source, add, elementwise_case, mul, signed, x};
use crate::expr::{Binary, Expr, Unary};
use crate::ops::{Attention, Concat, Conv2d, Gather, GroupNorm, LayerNorm, MatMul, RmsNorm, Slice};
use crate::ops::{TimestepEmbedding, Transpose};

/// Problems beyond [`cases`](super::cases) that are composed and validated but not run: shapes of published models,
/// and constants with which no result could be compared. Together they reach every kernel and every branch of the preludes.
#[must_use]
pub fn text_cases() -> Vec<Case> {
    [matmuls(), convolutions(), norms(), attentions(), elementwise(), moves()].concat()
}

/// Residual and modulation, as a transformer block ends: `x1 + x2 · gelu(x0)`.
fn residual() -> Expr {
    add(x(1), mul(x(2), Expr::unary(Unary::Gelu, x(0))))
}

fn matmuls() -> Vec<Case> {
    let mut all = Vec::new();
    for (transpose_b, bias) in [(false, false), (false, true), (true, false), (true, true)] {
        // Rows, columns, summed extent: odd, aligned, tall, a single row, larger than any tile.
        for (m, n, k) in [(5, 7, 3), (64, 64, 64), (77, 768, 96), (1, 512, 256), (130, 66, 34), (1024, 1024, 64)] {
            let op = MatMul { transpose_b, bias };
            for (shared, batch) in [(true, 1), (true, 2), (false, 3)] {
                let matrix = if transpose_b { [n, k] } else { [k, n] };
                let b = if shared { matrix.to_vec() } else { [&[batch], &matrix[..]].concat() };
                let mut operands = vec![signed(&[batch, m, k]), Source::weight(&b)];
                operands.extend(bias.then(|| signed(&[n])));
                let case = Case::new(format!("{batch}×{m}×{n}×{k}"), op, operands);
                all.push(case.then("residual", residual(), vec![signed(&[batch, m, n]), signed(&[batch, 1, n])]));
                all.push(case);
            }
        }
    }
    let op = MatMul { transpose_b: true, bias: false };
    let infinite = add(mul(x(0), x(1)), add(x(2), Expr::Const(f64::NEG_INFINITY)));
    let case = Case::new("9×12×8", op, vec![signed(&[9, 8]), Source::weight(&[12, 8])]);
    all.push(case.then("an infinite constant", infinite, vec![signed(&[]), signed(&[9, 1])]));
    all
}

fn convolutions() -> Vec<Case> {
    let mut all = Vec::new();
    for (upsample, bias) in [(1, false), (1, true), (2, false), (2, true)] {
        for (channels, out, kernel) in [(3, 64, 3), (4, 4, 1), (320, 320, 3), (7, 5, 3), (128, 3, 3)] {
            let same = Conv2d { upsample, bias, ..Conv2d::same(kernel) };
            let mut operands = vec![signed(&[2, 9, 12, channels]), Source::weight(&[out, kernel, kernel, channels])];
            operands.extend(bias.then(|| signed(&[out])));
            let label = format!("{channels} to {out} by {kernel}×{kernel}, enlarged {upsample}");
            let case = Case::new(&*label, same, operands.clone());
            all.push(case.then("residual", residual(), vec![signed(&case.out), signed(&[2, 1, 1, out])]));
            all.push(case);
            let down = Conv2d { stride: 2, padding: [0, 1, 0, 1], ..same };
            all.push(Case::new(format!("{label}, stride 2"), down, operands));
        }
    }
    all
}

fn norms() -> Vec<Case> {
    let mut all = Vec::new();
    for (groups, channels) in [(1, 7), (32, 32), (32, 320), (32, 128), (4, 20)] {
        let operands = vec![signed(&[2, 5, 6, channels]), signed(&[channels]), signed(&[channels])];
        let case = Case::new(format!("{groups} of {channels}"), GroupNorm { groups, eps: 1e-5 }, operands);
        all.push(case.then("silu", Expr::unary(Unary::Silu, x(0)), Vec::new()));
        all.push(case);
    }
    for channels in [1, 7, 64, 384, 1031] {
        let rows = signed(&[2, 5, channels]);
        let parameters = || vec![signed(&[2, 1, channels]), signed(&[2, 1, channels])];
        let modulate = || add(mul(x(0), add(Expr::Const(1.0), x(1))), x(2));
        let affine = vec![rows.clone(), signed(&[channels]), signed(&[channels])];
        let label = format!("{channels} channels");
        all.push(Case::new(format!("{label} affine"), LayerNorm { eps: 1e-6, affine: true }, affine));
        let plain = Case::new(&*label, LayerNorm { eps: 1e-6, affine: false }, vec![rows.clone()]);
        let rms = Case::new(label, RmsNorm { eps: 1e-6 }, vec![rows]);
        for case in [plain, rms] {
            all.push(case.then("modulated", modulate(), parameters()));
            all.push(case);
        }
    }
    all
}

fn attentions() -> Vec<Case> {
    let mut all = Vec::new();
    for depth in [3, 32, 40, 64, 72, 128, 160, 512] {
        for (causal, key_bias, score_bias) in every_way() {
            let op = Attention { heads: 2, scale: 0.125, causal, key_bias, score_bias };
            all.push(attention::case(op, 2, 77, if causal { 77 } else { 33 }, depth));
        }
    }
    all
}

fn elementwise() -> Vec<Case> {
    let mut all = Vec::new();
    let shapes: [&[&[usize]]; 6] = [
        &[&[3, 5], &[3, 5]],
        &[&[2, 64, 32], &[2, 1, 32]],
        &[&[2, 64, 32], &[]],
        &[&[2, 3, 1, 5, 1, 4], &[1, 3, 2, 1, 6, 4]],
        &[&[2, 3, 4, 1], &[8]],
        &[&[], &[1]],
    ];
    for shapes in shapes {
        let operands = || shapes.iter().map(|shape| signed(shape)).collect::<Vec<_>>();
        for op in Unary::ALL {
            all.push(elementwise_case(op.name(), add(Expr::unary(op, x(0)), x(1)), operands()));
        }
        for op in Binary::ALL {
            let expr = Expr::binary(op, Expr::binary(op, x(0), x(1)), Expr::Const(-1.5e-7));
            all.push(elementwise_case(op.name(), expr, operands()));
        }
        all.push(elementwise_case("no number", add(mul(x(0), Expr::Const(f64::NAN)), x(1)), operands()));
    }
    all.push(elementwise_case("seven", (1..7).fold(x(0), |sum, i| add(sum, x(i))), vec![signed(&[2, 8]); 7]));
    all
}

fn moves() -> Vec<Case> {
    let mut all = Vec::new();
    for (table, ids) in [([11, 7], [2, 3]), ([49408, 64], [2, 77])] {
        all.push(Case::new(format!("{ids:?} of {table:?}"), Gather, vec![Source::weight(&table), signed(&ids)]));
    }
    let joined: [(usize, &[&[usize]]); 4] = [
        (1, &[&[2, 3, 5], &[2, 1, 5], &[2, 4, 5]]),
        (0, &[&[4, 8], &[2, 8]]),
        (1, &[&[2, 4], &[2, 4], &[2, 4], &[2, 4], &[2, 4], &[2, 4], &[2, 4]]),
        (0, &[&[6]]),
    ];
    for (axis, shapes) in joined {
        let operands = shapes.iter().map(|shape| signed(shape)).collect();
        all.push(Case::new(format!("{shapes:?}"), Concat { axis }, operands));
    }
    for (shape, axis, start, len) in [(&[3, 5, 7][..], 1, 1, 2), (&[3, 5, 16], 2, 8, 4), (&[5, 4], 0, 0, 3)] {
        all.push(Case::new(format!("{shape:?}"), Slice { axis, start, len }, vec![signed(shape)]));
    }
    let orders: [(&[usize], &[usize]); 4] = [
        (&[3, 5], &[1, 0]),
        (&[2, 6, 3, 8], &[0, 2, 1, 3]),
        (&[2, 3, 1, 5, 2, 3], &[5, 3, 1, 4, 2, 0]),
        (&[2, 3, 4, 8, 8, 3], &[0, 5, 1, 3, 2, 4]),
    ];
    for (shape, axes) in orders {
        all.push(Case::new(format!("{shape:?}"), Transpose { axes: axes.to_vec() }, vec![signed(shape)]));
    }
    for dim in [2, 6, 256, 320] {
        for flip_sin_to_cos in [false, true] {
            let op = TimestepEmbedding { dim, flip_sin_to_cos, downscale_freq_shift: 0.0, max_period: 1e4 };
            all.push(Case::new(format!("{dim} channels"), op, vec![signed(&[3])]));
        }
    }
    all
}
