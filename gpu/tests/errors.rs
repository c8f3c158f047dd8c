//! Errors are one sentence that names what is wrong.

mod common;

use common::{lavapipe, numbers, software, weights_for};
use gpu::{Backends, Choice, GpuOptions, choose};
use graph::ops::Conv2d;
use graph::random::{RandomGraph, random_graph};
use graph::{
    Device, DeviceError, Graph, MemoryWeights, PlanOptions, Rate, Scope, Storage, StorageType, WeightSource,
    WeightView, passes,
};
use std::borrow::Cow;

/// `y = x Wᵀ + b` with `W [3, 4]`.
fn linear() -> Graph {
    let s = Scope::root();
    let x = s.input("x", &[2, 4], Rate::Step);
    let y = s.at("proj").linear(&x, 3);
    passes::optimize(&s.finish(&[("y", &y)]).expect("a well-formed graph"))
}

fn linear_weights(weight: &[f32]) -> MemoryWeights {
    let mut weights = MemoryWeights::default();
    weights.insert("proj.weight", [3, 4], weight);
    weights.insert("proj.bias", [3], &[0.0; 3]);
    weights
}

#[test]
fn faulty_weights_are_named() {
    let device = lavapipe(GpuOptions::default());
    let good = [0.5; 12];
    let mut missing = MemoryWeights::default();
    missing.insert("proj.weight", [3, 4], &good);
    let mut misshapen = linear_weights(&good);
    misshapen.insert("proj.weight", [4, 3], &good);
    let (mut nan, mut infinite) = (good, good);
    nan[11] = f32::NAN;
    infinite[3] = f32::NEG_INFINITY;
    let mut large = good;
    large[0] = 1e6;
    let cases = [
        (missing, Storage::Auto, "proj.bias", "missing"),
        (misshapen, Storage::Auto, "proj.weight", "expects shape [3, 4] and the checkpoint has [4, 3]"),
        (linear_weights(&nan), Storage::Auto, "proj.weight", "not a finite number"),
        (linear_weights(&nan), Storage::F16, "proj.weight", "not a finite number"),
        (linear_weights(&infinite), Storage::Auto, "proj.weight", "not a finite number"),
        (linear_weights(&large), Storage::F16, "proj.weight", "beyond half precision"),
    ];
    for (weights, storage, name, fragment) in cases {
        let error = device
            .plan(&linear(), &weights, PlanOptions { storage, ..Default::default() })
            .err()
            .expect("a faulty weight");
        assert!(matches!(&error, DeviceError::Weight { name: n, .. } if n == name), "{error}");
        assert!(error.to_string().contains(fragment), "{error}");
    }
    assert!(device.plan(&linear(), &linear_weights(&large), PlanOptions::default()).is_ok());
}

/// A source whose bytes end before the shape does.
struct Truncated;

impl WeightSource for Truncated {
    fn weight(&self, name: &str) -> Option<WeightView<'_>> {
        let shape = if name == "proj.bias" { vec![3] } else { vec![3, 4] };
        Some(WeightView { storage: StorageType::Bf16, shape, bytes: Cow::Borrowed(&[0; 7]) })
    }
}

#[test]
fn truncated_weights_are_named() {
    let device = lavapipe(GpuOptions::default());
    let error = device.plan(&linear(), &Truncated, PlanOptions::default()).err().unwrap().to_string();
    assert!(error.contains("7 bytes are stored where its shape needs"), "{error}");
}

#[test]
fn wrong_bindings_are_named() {
    let device = lavapipe(GpuOptions::default());
    let mut plan = device.plan(&linear(), &linear_weights(&[0.5; 12]), PlanOptions::default()).unwrap();
    let faults = [
        (plan.write("z", &[0.0; 8]), "no input z"),
        (plan.write("x", &[0.0; 7]), "8 elements and was given 7"),
        (plan.run(), "input x was never written"),
        (plan.read("y").map(|_| ()), "before anything ran"),
        (plan.read("z").map(|_| ()), "no output z"),
    ];
    for (result, fragment) in faults {
        let error = result.expect_err(fragment);
        assert!(matches!(error, DeviceError::Binding(_)) && error.to_string().contains(fragment), "{error}");
    }
    // The plan still works after these errors.
    plan.write("x", &[1.0; 8]).unwrap();
    plan.run().unwrap();
    assert_eq!(plan.read("y").unwrap(), [2.0; 6]);
}

#[test]
fn what_does_not_fit_a_binding_is_named_with_its_size() {
    let device = lavapipe(GpuOptions { max_binding_bytes: Some(4096), ..GpuOptions::default() });
    let s = Scope::root();
    let x = s.input("x", &[2, 4], Rate::Step);
    // The rows of this weight are not channels of the result, so it cannot be cut.
    let wide = x.matmul(&s.at("wide").weight("weight", &[4, 300]));
    let tall = s.input("tall", &[600, 2], Rate::Step);
    let activation = s.at("proj").linear(&tall, 2).reshape(&[1200]).silu();
    for (output, fragment) in
        [(&wide, "weight wide.weight [4, 300] takes 0.0 MiB"), (&activation, "of proj takes 0.0 MiB")]
    {
        let graph = passes::optimize(&s.finish(&[("y", output)]).unwrap());
        let error = device.plan(&graph, &weights_for(&graph, 1), PlanOptions::default()).err().expect("too large");
        assert!(matches!(error, DeviceError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(fragment) && error.to_string().contains("largest binding is"), "{error}");
    }
}

#[test]
fn weights_beyond_a_binding_are_cut_into_rows() {
    let s = Scope::root();
    let ids = s.input("ids", &[1, 5], Rate::Step);
    let x = s.at("embed").embedding(&ids, 70, 40);
    let h = s.at("proj").linear(&x, 50).silu();
    let y = s.at("conv").conv2d(&h.reshape(&[1, 5, 1, 50]), 3, 3, Conv2d::same(3));
    let graph = passes::optimize(&s.finish(&[("y", &y)]).unwrap());
    let weights = weights_for(&graph, 7);
    let mut results = Vec::new();
    for max_binding_bytes in [None, Some(4096)] {
        let device = lavapipe(GpuOptions { max_binding_bytes, ..GpuOptions::default() });
        let mut plan = device.plan(&graph, &weights, PlanOptions::default()).unwrap();
        plan.write("ids", &[0.0, 24.0, 25.0, 69.0, 51.0]).unwrap();
        plan.run().unwrap();
        results.push(plan.read("y").unwrap());
    }
    let largest = results[0].iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let worst = results[0].iter().zip(&results[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest > 0.0 && worst <= 1e-6 * largest, "{worst} of {largest}");
}

#[test]
fn images_beyond_a_binding_are_computed_in_bands() {
    let s = Scope::root();
    let x = s.input("x", &[1, 20, 11, 4], Rate::Step);
    let h = s.at("in").conv2d(&x, 8, 3, Conv2d::same(3));
    let h = s.at("up").conv2d(&h, 8, 3, Conv2d { upsample: 2, ..Conv2d::same(3) });
    let g = s.at("norm").group_norm(&h, 4, 1e-6).silu();
    let h = &h + &s.at("conv").conv2d(&g, 8, 3, Conv2d::same(3));
    let y = s.at("out").conv2d(&h, 1, 3, Conv2d::same(3));
    let graph = passes::optimize(&s.finish(&[("y", &y)]).unwrap());
    let weights = weights_for(&graph, 3);
    let x: Vec<f32> = (0..880).map(|i| ((i * 37 % 101) as f32 - 50.0) / 32.0).collect();
    let mut results = Vec::new();
    // The largest image has 28160 bytes.
    for max_binding_bytes in [None, Some(12_000), Some(6_000)] {
        let device = lavapipe(GpuOptions { max_binding_bytes, ..GpuOptions::default() });
        let mut plan = device.plan(&graph, &weights, PlanOptions::default()).unwrap();
        plan.write("x", &x).unwrap();
        plan.run().unwrap();
        results.push(plan.read("y").unwrap());
    }
    let largest = results[0].iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    for bands in &results[1..] {
        let worst = results[0].iter().zip(bands).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest > 0.0 && worst <= 1e-5 * largest, "{worst} of {largest}");
    }
}

#[test]
fn unknown_adapters_are_answered_with_the_known() {
    for text in ["no such adapter", "gpu:99"] {
        let choice: Choice = text.parse().unwrap();
        let error = choose("vulkan".parse::<Backends>().unwrap(), &choice).unwrap_err();
        assert!(matches!(error, DeviceError::NoAdapter(_)), "{error}");
        assert!(error.to_string().contains("llvmpipe"), "{error}");
    }
    let found = choose("vulkan".parse::<Backends>().unwrap(), &Choice::Name("LLVMpipe".into())).unwrap();
    assert!(found.info().name.contains("llvmpipe"));
}

#[test]
fn a_failed_plan_leaves_the_device_usable() {
    let device = lavapipe(GpuOptions::default());
    let RandomGraph { graph, weights, .. } = random_graph(5, 12);
    let graph = passes::optimize(&graph);
    assert!(device.plan(&graph, &MemoryWeights::default(), PlanOptions::default()).is_err());
    assert!(device.plan(&graph, &weights, PlanOptions::default()).is_ok());
}

#[test]
fn kernels_kept_on_disk_change_nothing_but_time() {
    let folder = std::env::temp_dir().join(format!("headwater-kernels-{}", std::process::id()));
    let run = || {
        let s = Scope::root();
        let y = s.input("x", &[3, 5], Rate::Step).layer_norm(1e-5);
        let graph = s.finish(&[("y", &y)]).expect("the shapes fit");
        let device =
            software("vulkan").open_with_cache(GpuOptions::default(), &folder, 1 << 20).expect("the driver opens");
        let mut plan = device.plan(&graph, &MemoryWeights::default(), PlanOptions::default()).expect("a small graph");
        plan.write("x", &numbers(15, 1)).expect("an input");
        plan.run().expect("it runs");
        plan.read("y").expect("an output")
    };
    let files = || -> Vec<_> { std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let first = run();
    let [file] = &files()[..] else { panic!("one file is written: {:?}", files()) };
    assert_eq!(run(), first);
    let whole = std::fs::read(file).unwrap();
    println!("the driver hands out {} bytes", whole.len());
    for damaged in [&[][..], &whole[..whole.len() / 2], b"something else altogether, of some length"] {
        std::fs::write(file, damaged).unwrap();
        assert_eq!(run(), first);
        assert_eq!(std::fs::read(file).unwrap().len(), whole.len(), "it is written again");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    // A folder that cannot be made is no obstacle either.
    std::fs::write(&folder, "a file").unwrap();
    assert_eq!(run(), first);
    std::fs::remove_file(&folder).unwrap();
}
