//! Every operation against its f64 reference, on shapes that fill no vector register, tile or block evenly.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, check, check_with};
use cpu::CpuDevice;
use graph::expr::{Binary, Expr, Unary};
use graph::ops::{Attention, Conv2d, LayerNorm, MatMul};
use graph::{Rate, Scope, Tensor};

const SIZES: [usize; 7] = [1, 2, 3, 7, 16, 33, 65];

#[test]
fn matmul_by_a_weight() {
    let mut seed = 0;
    for transpose_b in [false, true] {
        for bias in [false, true] {
            for epilogue in [false, true] {
                for (i, m) in SIZES.into_iter().enumerate() {
                    for (k, n) in [(1, 1), (5, 3), (17, 31), (64, 48), (129, 70), (300, 17)] {
                        seed += 1;
                        if seed % 2 == i % 2 {
                            continue;
                        }
                        let s = Scope::root();
                        let a = s.input("a", &[m, k], Rate::Step);
                        let b = s.weight("b", &if transpose_b { [n, k] } else { [k, n] });
                        let c = s.weight("c", &[n]);
                        let operands = [&a, &b, &c];
                        let mut y = s.push(MatMul { transpose_b, bias }, &operands[..2 + usize::from(bias)]);
                        if epilogue {
                            let gate = s.input("gate", &[1, n], Rate::Step);
                            let residual = s.input("residual", &[m, n], Rate::Step);
                            y = &(&y.gelu() * &gate) + &residual;
                        }
                        check(&s.finish(&[("y", &y)]).unwrap(), &[], seed as u64);
                    }
                }
            }
        }
    }
}

#[test]
fn matmul_of_activations_in_batches() {
    for (seed, (batch, m, k, n)) in [(1, 3, 5, 7), (3, 1, 9, 2), (4, 17, 8, 33), (6, 20, 65, 1)].into_iter().enumerate()
    {
        for transpose_b in [false, true] {
            for shared in [false, true] {
                let s = Scope::root();
                let a = s.input("a", &[batch, m, k], Rate::Step);
                let inner = if transpose_b { [n, k] } else { [k, n] };
                let whole: Vec<usize> = [batch].into_iter().chain(inner).collect();
                let b = s.input("b", if shared { &inner } else { &whole }, Rate::Step);
                let bias = s.input("bias", &[n], Rate::Once);
                let y = s.push(MatMul { transpose_b, bias: true }, &[&a, &b, &bias]);
                let z = s.push(MatMul { transpose_b, bias: false }, &[&a, &b]).silu();
                check(&s.finish(&[("y", &y), ("z", &z)]).unwrap(), &[], seed as u64);
            }
        }
    }
}

#[test]
fn a_weight_read_as_factor_table_and_values_is_one_weight() {
    let s = Scope::root();
    let table = s.weight("table", &[11, 6]);
    let ids = s.input("ids", &[4], Rate::Step);
    let x = s.push(graph::ops::Gather, &[&table, &ids]);
    let logits = x.matmul_transposed(&table);
    let other = s.input("other", &[3, 11], Rate::Step).matmul(&table);
    let reshaped = s.input("more", &[2, 22], Rate::Step).matmul(&table.reshape(&[22, 3]));
    let outputs = [("logits", &logits), ("other", &other), ("reshaped", &reshaped), ("table", &table.scale(2.0))];
    check(&s.finish(&outputs).unwrap(), &[("ids", vec![0.0, 10.0, 3.0, 3.0])], 3);
}

#[test]
fn layer_norm_with_and_without_parameters_and_modulation() {
    for (seed, channels) in [1, 2, 15, 16, 17, 64, 257, 1000].into_iter().enumerate() {
        for rows in [1, 5, 70] {
            let s = Scope::root();
            // Far from zero, where a one-pass variance would cancel.
            let x = s.input("x", &[2, rows, channels], Rate::Step).offset(30.0);
            let plain = x.layer_norm(1e-6);
            let (w, b) = (s.weight("w", &[channels]), s.weight("b", &[channels]));
            let affine = s.push(LayerNorm { eps: 1e-5, affine: true }, &[&x, &w, &b]);
            let shift = s.input("shift", &[2, 1, channels], Rate::Step);
            let scale = s.input("scale", &[2, 1, channels], Rate::Step);
            let modulated = x.layer_norm(1e-6).modulate(&shift, &scale);
            let graph = s.finish(&[("plain", &plain), ("affine", &affine), ("modulated", &modulated)]).unwrap();
            check(&graph, &[], seed as u64);
        }
    }
}

#[test]
fn convolutions_by_a_weight_and_by_activations() {
    // Channels in and out, height and width, kernel: one pixel, fewer pixels than padding, more than a piece.
    let shapes =
        [(3, 5, 6, 7, 3), (4, 8, 1, 1, 3), (1, 1, 2, 3, 1), (17, 33, 9, 5, 3), (8, 3, 40, 41, 5), (160, 7, 5, 4, 3)];
    let mut seed = 0;
    for (channels, out, height, width, kernel) in shapes {
        let half = kernel / 2;
        for conv in [
            Conv2d::same(kernel),
            Conv2d { stride: 2, ..Conv2d::same(kernel) },
            Conv2d { upsample: 2, ..Conv2d::same(kernel) },
            // diffusers' downsampling without padding in front.
            Conv2d { stride: 2, padding: [half, half + 1, half, half + 1], upsample: 1, bias: false },
        ] {
            seed += 1;
            let s = Scope::root();
            let x = s.input("x", &[2, height, width, channels], Rate::Step);
            let shape = [out, channels, kernel, kernel];
            let weight = match seed % 3 {
                0 => s.input("w", &[out, kernel, kernel, channels], Rate::Step),
                _ => s.weight_in_order("w", &shape, &[0, 2, 3, 1]),
            };
            let bias = s.weight("b", &[out]);
            let operands = [&x, &weight, &bias];
            let y = s.push(conv, &operands[..2 + usize::from(conv.bias)]);
            let time = s.input("time", &[2, 1, 1, out], Rate::Step);
            let fused = &y.silu() + &time;
            check(&s.finish(&[("y", &y), ("fused", &fused)]).unwrap(), &[], seed);
        }
    }
}

#[test]
fn group_norm_and_what_follows_it() {
    let shapes = [(1, 1, 1, 1), (2, 6, 3, 3), (32, 64, 5, 7), (32, 320, 9, 4), (4, 20, 33, 31), (1, 7, 70, 3)];
    for (seed, (groups, channels, height, width)) in shapes.into_iter().enumerate() {
        let s = Scope::root();
        // Far from zero, where a one-pass variance would cancel.
        let x = s.input("x", &[2, height, width, channels], Rate::Step).offset(30.0);
        let y = s.at("norm").group_norm(&x, groups, 1e-5);
        let z = s.at("tokens").group_norm(&x.reshape(&[2, height * width, channels]), groups, 1e-6).silu();
        check(&s.finish(&[("y", &y), ("z", &z)]).unwrap(), &[], seed as u64);
    }
}

#[test]
fn attention_with_and_without_mask_and_bias() {
    let shapes = [
        (1, 1, 1, 1, 1),
        (2, 3, 5, 2, 4),
        (1, 17, 17, 3, 8),
        (2, 40, 33, 1, 16),
        (1, 70, 130, 2, 5),
        (3, 64, 64, 4, 9),
    ];
    for threads in [1, 3] {
        let device = CpuDevice::new(Some(threads)).unwrap();
        for (seed, (batch, queries, keys, heads, depth)) in shapes.into_iter().enumerate() {
            for key_bias in [false, true] {
                for causal in [false, true] {
                    if causal && queries != keys {
                        continue;
                    }
                    let s = Scope::root();
                    let width = heads * depth;
                    let q = s.input("q", &[batch, queries, width], Rate::Step).scale(3.0);
                    let k = s.input("k", &[batch, keys, width], Rate::Step);
                    let v = s.input("v", &[batch, keys, width], Rate::Step);
                    let bias = s.input("bias", &[batch, keys], Rate::Once);
                    let op = Attention { heads, scale: 0.7, causal, key_bias };
                    let operands = [&q, &k, &v, &bias];
                    let y = s.push(op, &operands[..3 + usize::from(key_bias)]);
                    // Hide all keys but the first in some rows.
                    let mut random = Random(seed as u64);
                    let hide = |i: usize, r: &mut Random| {
                        if !i.is_multiple_of(keys) && r.below(3) == 0 { -1e9 } else { r.value() }
                    };
                    let bias = (0..batch * keys).map(|i| hide(i, &mut random)).collect();
                    check_with(&device, &s.finish(&[("y", &y)]).unwrap(), &[("bias", bias)], seed as u64, 4.0);
                }
            }
        }
    }
}

#[test]
fn attention_over_more_scores_than_a_thread_keeps() {
    let s = Scope::root();
    let q = s.input("q", &[1, 100, 6], Rate::Step);
    let kv = s.input("kv", &[1, 3000, 6], Rate::Step);
    let y = q.attention(&kv, &kv, 2, false, None);
    check(&s.finish(&[("y", &y)]).unwrap(), &[], 5);
}

#[test]
fn every_function_of_one_value() {
    for (seed, op) in Unary::ALL.into_iter().enumerate() {
        for len in [1, 15, 1023, 1025, 40_000] {
            let s = Scope::root();
            let x = s.input("x", &[len], Rate::Step);
            let x = if matches!(op, Unary::Ln | Unary::Sqrt) { x.apply(Unary::Abs).offset(0.01) } else { x.scale(5.0) };
            check(&s.finish(&[("y", &x.apply(op))]).unwrap(), &[], seed as u64);
        }
    }
}

#[test]
fn every_function_of_two_values_broadcast() {
    let shapes: [(&[usize], &[usize]); 8] = [
        (&[7], &[7]),
        (&[5, 300], &[300]),
        (&[5, 300], &[5, 1]),
        (&[2, 1, 33], &[1, 9, 33]),
        (&[3, 1, 5, 1], &[2, 1, 700]),
        (&[1], &[4, 3]),
        (&[64, 64, 3], &[3]),
        (&[2, 64, 200], &[2, 1, 200]),
    ];
    for op in Binary::ALL {
        for (seed, (a, b)) in shapes.iter().enumerate() {
            for swapped in [false, true] {
                let s = Scope::root();
                let (a, b) = (s.input("a", a, Rate::Step), s.input("b", b, Rate::Step).apply(Unary::Exp));
                let (a, b) = if swapped { (b, a.offset(2.0)) } else { (a, b) };
                let y = a.elementwise(Expr::binary(op, Expr::Input(0), Expr::Input(1)), &[&b]);
                check(&s.finish(&[("y", &y)]).unwrap(), &[], seed as u64);
            }
        }
    }
}

#[test]
fn constants_repeats_and_deep_expressions() {
    let (x, y) = (|| Expr::Input(0), || Expr::Input(1));
    let one = |op, a, b| Expr::binary(op, a, b);
    let square = one(Binary::Mul, x(), x());
    let left = one(Binary::Sub, Expr::Const(1.0), square.clone());
    let right = one(Binary::Div, y(), one(Binary::Add, square, Expr::Const(0.5)));
    let deep = one(Binary::Max, one(Binary::Mul, left.clone(), right.clone()), one(Binary::Sub, right, left));
    for expr in [Expr::Const(0.3), x(), y(), deep] {
        let s = Scope::root();
        let a = s.input("a", &[3, 1, 50], Rate::Step);
        let b = s.input("b", &[7, 1], Rate::Step);
        let z = a.elementwise(expr, &[&b]);
        check(&s.finish(&[("z", &z)]).unwrap(), &[], 9);
    }
}

#[test]
fn gather_saturates_like_its_reference() {
    let s = Scope::root();
    let table = s.weight("table", &[5, 7]);
    let ids = s.input("ids", &[2, 4], Rate::Step);
    let y = s.push(graph::ops::Gather, &[&table, &ids]);
    let ids = vec![0.0, 4.0, 2.0, 5.0, -3.0, 1e9, 3.0, f32::NAN];
    check(&s.finish(&[("y", &y)]).unwrap(), &[("ids", ids)], 2);
}

#[test]
fn joining_cutting_and_turning() {
    let s = Scope::root();
    let a = s.input("a", &[3, 4, 5], Rate::Step);
    let b = s.input("b", &[3, 2, 5], Rate::Step);
    let joined = Tensor::concat(&[&a, &b, &a], 1);
    let last = Tensor::concat(&[&a, &a], 2);
    let first = Tensor::concat(&[&a, &a], 0);
    let cut: Vec<Tensor> = [(0, 1..2), (1, 0..3), (2, 2..5)].map(|(axis, range)| a.slice(axis, range)).into();
    let turned: Vec<Tensor> = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
        .map(|axes| a.transpose(&axes).scale(2.0))
        .into();
    let image = s.input("image", &[2, 8, 12, 3], Rate::Step);
    let patches = image.patchify(4);
    let pixels = patches.unpatchify(4, 2, 3);
    let named: Vec<(String, &Tensor)> = [&joined, &last, &first, &patches, &pixels]
        .into_iter()
        .chain(&cut)
        .chain(&turned)
        .enumerate()
        .map(|(i, tensor)| (format!("y{i}"), tensor))
        .collect();
    let outputs: Vec<(&str, &Tensor)> = named.iter().map(|(name, tensor)| (&**name, *tensor)).collect();
    check(&s.finish(&outputs).unwrap(), &[], 4);
}

#[test]
fn timesteps_and_reshapes() {
    let s = Scope::root();
    let t = s.input("t", &[3], Rate::Step).scale(999.0);
    for (flip, shift) in [(false, 1.0), (true, 0.0)] {
        let y = t.timestep_embedding(32, flip, shift);
        let folded = y.reshape(&[4, 24]).silu().reshape(&[96]);
        check(&s.finish(&[("y", &y), ("folded", &folded)]).unwrap(), &[], 1);
    }
}

#[test]
fn empty_operands() {
    let s = Scope::root();
    let none = s.input("none", &[0, 4], Rate::Step);
    let product = none.matmul(&s.weight("w", &[4, 3])).gelu();
    let joined = Tensor::concat(&[&none, &s.input("x", &[2, 4], Rate::Step)], 0).layer_norm(1e-5);
    let normed = none.layer_norm(1e-5);
    let attended =
        none.reshape(&[0, 1, 4]).attention(&none.reshape(&[0, 1, 4]), &none.reshape(&[0, 1, 4]), 2, false, None);
    let cut = s.input("z", &[3, 5], Rate::Step).slice(1, 2..2);
    let turned = cut.transpose(&[1, 0]);
    let outputs = [
        ("product", &product),
        ("joined", &joined),
        ("normed", &normed),
        ("attended", &attended),
        ("cut", &cut),
        ("turned", &turned),
    ];
    check(&s.finish(&outputs).unwrap(), &[], 1);
}
