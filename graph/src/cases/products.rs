//! Matrix products and convolutions.

use super::{Case, Source, add, flags, mul, signed, x};
use crate::expr::{Expr, Unary};
use crate::ops::{Conv2d, MatMul};

pub(super) fn matmuls() -> Vec<Case> {
    let mut all = Vec::new();
    // transpose_b, bias, m, n, k: one row and one column, edges of every tile, whole tiles, vectors that fit and do not.
    let shapes = [
        (true, true, 33, 17, 19),
        (true, true, 65, 66, 40),
        (true, true, 64, 64, 64),
        (true, true, 33, 18, 96),
        (true, true, 1, 40, 129),
        (true, true, 1, 1, 1),
        (true, false, 5, 8, 12),
        (false, false, 2, 130, 67),
        (false, false, 64, 64, 64),
        (false, true, 33, 18, 20),
    ];
    all.extend(shapes.map(|(transpose_b, bias, m, n, k)| by_weight(transpose_b, bias, m, n, k)));
    // Every way to call it, on heights around the registers' and blocks' sizes.
    let widths = [(1, 1), (5, 3), (17, 31), (64, 48), (129, 70), (300, 17)];
    for (i, m) in [1, 2, 3, 7, 16, 33, 65].into_iter().enumerate() {
        // Every other width, by turns.
        for (k, n) in widths.into_iter().skip(i % 2).step_by(2) {
            for (transpose_b, bias) in [(false, false), (false, true), (true, false), (true, true)] {
                let case = by_weight(transpose_b, bias, m, n, k);
                let gated = add(x(2), mul(Expr::unary(Unary::Gelu, x(0)), x(1)));
                all.push(case.then("gelu, gated residual", gated, vec![signed(&[1, n]), signed(&[m, n])]));
                // The smallest is in the list above, too.
                all.extend((m * n * k > 1 || !(transpose_b && bias)).then_some(case));
            }
        }
    }
    let op = MatMul { transpose_b: true, bias: true };
    all.push(Case::new("shared by a batch", op, vec![signed(&[2, 7, 12]), Source::weight(&[20, 12]), signed(&[20])]));
    // Neither factor is a weight.
    let single = |transpose_b, a: &[usize], b: &[usize]| {
        let label = format!("{a:?} · {b:?}{}", flags([(transpose_b, "ᵀ")]));
        Case::new(label, MatMul { transpose_b, bias: false }, vec![signed(a), signed(b)])
    };
    all.extend(single(true, &[33, 19], &[17, 19]).with_epilogues());
    all.extend(single(false, &[64, 64], &[64, 64]).with_epilogues());
    all.push(single(true, &[3, 2, 5, 6], &[3, 2, 9, 6]));
    all.extend(single(false, &[3, 2, 5, 6], &[3, 2, 6, 9]).with_epilogues());
    for (batch, m, k, n) in [(1, 3, 5, 7), (3, 1, 9, 2), (4, 17, 8, 33), (6, 20, 65, 1)] {
        for transpose_b in [false, true] {
            let matrix = if transpose_b { [n, k] } else { [k, n] };
            for b in [matrix.to_vec(), [&[batch], &matrix[..]].concat()] {
                let a = [batch, m, k];
                let plain = single(transpose_b, &a, &b);
                all.push(plain.then("silu", Expr::unary(Unary::Silu, x(0)), Vec::new()));
                let operands = vec![signed(&a), signed(&b), signed(&[n])];
                all.push(Case::new(format!("{} + bias", plain.label), MatMul { transpose_b, bias: true }, operands));
            }
        }
    }
    all
}

/// A matrix of activations times a weight.
fn by_weight(transpose_b: bool, bias: bool, m: usize, n: usize, k: usize) -> Case {
    let b = if transpose_b { [n, k] } else { [k, n] };
    let mut operands = vec![signed(&[m, k]), Source::weight(&b)];
    operands.extend(bias.then(|| signed(&[n])));
    let label = format!("{m}×{k} · {k}×{n}{}", flags([(transpose_b, "ᵀ"), (bias, " + bias")]));
    Case::new(label, MatMul { transpose_b, bias }, operands)
}

pub(super) fn convolutions() -> Vec<Case> {
    let mut all = Vec::new();
    // channels, results, rows, columns, kernel: channels that fill vectors and not, images of one pixel, smaller than a
    // tile and larger.
    let shapes = [
        (5, 7, 6, 9, 3),
        (8, 16, 5, 4, 3),
        (12, 33, 9, 8, 3),
        (3, 4, 1, 1, 3),
        (4, 8, 17, 3, 1),
        (36, 70, 7, 11, 3),
        (3, 5, 6, 7, 3),
        (4, 8, 1, 1, 3),
        (1, 1, 2, 3, 1),
        (17, 33, 9, 5, 3),
        (8, 3, 40, 41, 5),
        (160, 7, 5, 4, 3),
    ];
    for (channels, out, rows, columns, kernel) in shapes {
        let half = kernel / 2;
        let convs = [
            ("", Conv2d::same(kernel)),
            (" enlarged", Conv2d { upsample: 2, ..Conv2d::same(kernel) }),
            (" stride 2", Conv2d { stride: 2, ..Conv2d::same(kernel) }),
            // diffusers' downsampling, which pads behind and not in front.
            (" stride 2, padded behind", Conv2d { stride: 2, padding: [0, half, 0, half], upsample: 1, bias: false }),
            (
                " stride 2, padded more behind",
                Conv2d { stride: 2, padding: [half, half + 1, half, half + 1], upsample: 1, bias: false },
            ),
        ];
        for (note, conv) in convs {
            let [top, bottom, left, right] = conv.padding;
            if rows + top + bottom < kernel || columns + left + right < kernel {
                continue;
            }
            let image = [2, rows, columns, channels];
            let mut operands = vec![signed(&image), Source::weight(&[out, kernel, kernel, channels])];
            operands.extend(conv.bias.then(|| signed(&[out])));
            let case = Case::new(format!("{image:?} by {kernel}×{kernel} to {out}{note}"), conv, operands);
            // As ResNet blocks add the time.
            let timed = add(Expr::unary(Unary::Silu, x(0)), x(1));
            all.push(case.then("silu + time", timed, vec![signed(&[2, 1, 1, out])]));
            all.push(case);
        }
    }
    let op = Conv2d { bias: false, ..Conv2d::same(3) };
    let plain = Case::new("[2, 5, 7, 8] by 3×3 to 9", op, vec![signed(&[2, 5, 7, 8]), signed(&[9, 3, 3, 8])]);
    all.extend(plain.with_epilogues());
    all
}
