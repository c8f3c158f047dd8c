//! Every operation against its f64 reference: the table of cases that all executors share, and what only this one does,
//! in blocks, packed weights and threads of its own.
#![allow(clippy::unwrap_used)]

mod common;

use common::{check, compare};
use cpu::CpuDevice;
use graph::cases::{Case, cases};
use graph::expr::Unary;
use graph::ops::Conv2d;
use graph::{Convolution, Device, MemoryWeights, Op, PlanOptions, Rate, Scope, Tensor, Tile};

/// Runs a case, with its weights known to the plan or as values like any other.
fn run(device: &CpuDevice, case: &Case, as_weights: bool) {
    run_by(device, case, as_weights, Convolution::Auto, 4.0);
}

fn run_by(device: &CpuDevice, case: &Case, as_weights: bool, convolution: Convolution, factor: f64) {
    let (mut inputs, mut weights) = (Vec::new(), MemoryWeights::default());
    for (i, (source, seed)) in case.sources().enumerate() {
        let (name, data) = (format!("x{i}"), source.array(seed, false).data);
        if as_weights && source.is_weight {
            weights.insert(name, source.shape.clone(), &data);
        } else {
            inputs.push((name, source.shape.clone(), data));
        }
    }
    let what = format!("{} {}, as weights: {as_weights}, {convolution:?}", case.op.name(), case.label);
    let options = PlanOptions { convolution, ..Default::default() };
    compare(device, &case.graph(as_weights), &inputs, &weights, options, factor, &what);
}

#[test]
fn every_case_gives_its_reference() {
    let device = CpuDevice::new(None).unwrap();
    let few_and_many = [1, 3].map(|threads| CpuDevice::new(Some(threads)).unwrap());
    for case in cases() {
        run(&device, &case, false);
        if case.operands.iter().any(|source| source.is_weight) {
            run(&device, &case, true);
        }
        // How many queries are a piece depends on the number of threads.
        if let Op::Attention(_) = case.op {
            few_and_many.iter().for_each(|device| run(device, &case, false));
        }
    }
}

/// Every way to compute a convolution, with the multiple of plain arithmetic's error that each may have.
const CONVOLUTIONS: [(Convolution, f64); 3] = [
    (Convolution::Direct, 4.0),
    (Convolution::Winograd(Tile::Two), 4.0),
    // Sums of its transforms have larger terms.
    (Convolution::Winograd(Tile::Four), 8.0),
];

#[test]
fn every_convolution_in_every_way() {
    let device = CpuDevice::new(Some(3)).unwrap();
    for case in cases().iter().filter(|case| matches!(case.op, Op::Conv2d(_))) {
        for (convolution, factor) in CONVOLUTIONS {
            run_by(&device, case, true, convolution, factor);
        }
    }
    // Sizes around tiles and bands of them, channels around a vector's lanes; some have several bands of several parts.
    let images = [[1, 1, 1], [2, 2, 3], [1, 4, 5], [3, 9, 6], [1, 13, 31], [1, 70, 66]];
    for (i, [batch, rows, columns]) in images.into_iter().enumerate() {
        for (channels, out) in [(1, 1), (16, 17), (35, 33)] {
            for (padding, upsample) in [([1; 4], 1), ([1; 4], 2), ([0, 2, 2, 0], 1)] {
                let s = Scope::root();
                let x = s.input("x", &[batch, rows, columns, channels], Rate::Step);
                let op = Conv2d { padding, upsample, ..Conv2d::same(3) };
                let y = s.push(op, &[&x, &s.weight("weight", &[out, 3, 3, channels]), &s.weight("bias", &[out])]);
                // An epilogue with an operand of the result's shape.
                let y = &y.silu() + &s.input("more", y.shape(), Rate::Step);
                let graph = s.finish(&[("y", &y)]).unwrap();
                let seed = i as u64;
                for (convolution, factor) in CONVOLUTIONS {
                    let what = format!("{batch}x{rows}x{columns}, {channels} to {out}, {op:?}, {convolution:?}");
                    let options = PlanOptions { convolution, ..Default::default() };
                    let (inputs, weights) = (common::inputs(&graph, &[], seed), common::weights(&graph, seed));
                    compare(&device, &graph, &inputs, &weights, options, factor, &what);
                }
            }
        }
    }
}

#[test]
fn an_image_comes_out_of_a_batch_as_it_does_alone() {
    let device = CpuDevice::new(Some(3)).unwrap();
    let graph = |batch: usize| {
        let s = Scope::root();
        let x = s.input("x", &[batch, 21, 18, 17], Rate::Step);
        let y = s.push(Conv2d { bias: false, ..Conv2d::same(3) }, &[&x, &s.weight("weight", &[19, 3, 3, 17])]);
        s.finish(&[("y", &y)]).unwrap()
    };
    let images = common::Random(9).values(5 * 21 * 18 * 17);
    let weights = common::weights(&graph(1), 9);
    for convolution in CONVOLUTIONS.map(|(convolution, _)| convolution).into_iter().chain([Convolution::Auto]) {
        let options = PlanOptions { convolution, ..Default::default() };
        let run = |images: &[f32], batch: usize| {
            let mut plan = device.plan(&graph(batch), &weights, options).unwrap();
            plan.write("x", images).unwrap();
            plan.run().unwrap();
            plan.read("y").unwrap()
        };
        let alone: Vec<f32> = images.chunks(21 * 18 * 17).flat_map(|image| run(image, 1)).collect();
        assert!(run(&images, 5) == alone, "{convolution:?}");
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
fn gather_saturates_like_its_reference() {
    let s = Scope::root();
    let table = s.weight("table", &[5, 7]);
    let ids = s.input("ids", &[2, 4], Rate::Step);
    let y = s.push(graph::ops::Gather, &[&table, &ids]);
    let ids = vec![0.0, 4.0, 2.0, 5.0, -3.0, 1e9, 3.0, f32::NAN];
    check(&s.finish(&[("y", &y)]).unwrap(), &[("ids", ids)], 2);
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
