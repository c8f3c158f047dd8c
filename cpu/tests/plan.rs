//! Replaying a plan, its memory, its threads, and everything it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use common::plan;
use cpu::CpuDevice;
use graph::ops::Conv2d;
use graph::random::{RandomGraph, random_graph};
use graph::{
    Convolution, Device, DeviceError, DeviceKind, Graph, MemoryWeights, Plan as _, PlanOptions, Rate, Scope, Storage,
    StorageType, Tile, WeightSource, WeightView, estimate_memory, passes,
};
use std::borrow::Cow;

/// y = (prompt W) + x, where the product changes once a generation.
fn prompt_graph() -> (Graph, MemoryWeights) {
    let s = Scope::root();
    let prompt = s.input("prompt", &[2, 3], Rate::Once);
    let x = s.input("x", &[2, 2], Rate::Step);
    let projected = prompt.matmul(&s.weight("w", &[3, 2]));
    let y = (&projected + &x).scale(2.0);
    let graph = s.finish(&[("y", &y), ("projected", &projected)]).unwrap();
    let mut weights = MemoryWeights::default();
    weights.insert("w", [3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    (graph, weights)
}

#[test]
fn steps_replay_and_once_inputs_redo() {
    let (graph, weights) = prompt_graph();
    let mut plan = plan(&graph, &weights);
    plan.write("prompt", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    for x in [0.0, 1.0, -1.0] {
        plan.write("x", &[x; 4]).unwrap();
        plan.run().unwrap();
        let want: Vec<f32> = [4.0, 5.0, 10.0, 11.0].iter().map(|p| 2.0 * (p + x)).collect();
        assert_eq!(plan.read("y").unwrap(), want);
        assert_eq!(plan.read("projected").unwrap(), [4.0, 5.0, 10.0, 11.0]);
    }
    plan.write("prompt", &[0.0; 6]).unwrap();
    plan.run().unwrap();
    assert_eq!(plan.read("y").unwrap(), [-2.0; 4]);
    assert_eq!(plan.read("projected").unwrap(), [0.0; 4]);
}

#[test]
fn a_profile_tells_of_every_operation() {
    let (graph, weights) = prompt_graph();
    let device = CpuDevice::new(None).unwrap();
    let mut plan = device.plan_native(&passes::optimize(&graph), &weights, PlanOptions::default()).unwrap();
    graph::Plan::write(&mut plan, "prompt", &[1.0; 6]).unwrap();
    graph::Plan::write(&mut plan, "x", &[1.0; 4]).unwrap();
    let times = plan.profile().unwrap();
    let product = times.iter().find(|time| time.op == "matmul").unwrap();
    assert_eq!((product.rate, product.flops), (Rate::Once, 24));
    assert!(times.iter().all(|time| time.seconds >= 0.0));
    if cfg!(unix) {
        assert!(times.iter().all(|time| time.processor.is_some_and(|seconds| seconds >= 0.0)));
    }
    assert_eq!(graph::Plan::read(&mut plan, "y").unwrap(), [6.0; 4]);
}

#[test]
fn a_graph_that_was_not_optimised_runs_too() {
    let (graph, weights) = prompt_graph();
    let mut plan = CpuDevice::new(Some(2)).unwrap().plan(&graph, &weights, PlanOptions::default()).unwrap();
    plan.write("prompt", &[1.0; 6]).unwrap();
    for _ in 0..2 {
        plan.write("x", &[1.0; 4]).unwrap();
        plan.run().unwrap();
        assert_eq!(plan.read("y").unwrap(), [6.0; 4]);
    }
}

#[test]
fn leaves_can_be_outputs() {
    let s = Scope::root();
    let (x, w) = (s.input("x", &[2], Rate::Step), s.weight("w", &[2]));
    let c = s.constant(&[1, 2], vec![7.0, 8.0]);
    let graph = s.finish(&[("x", &x), ("w", &w), ("c", &c), ("r", &w.reshape(&[2, 1]))]).unwrap();
    let mut weights = MemoryWeights::default();
    weights.insert("w", [2], &[3.0, 4.0]);
    let mut plan = plan(&graph, &weights);
    plan.write("x", &[1.0, 2.0]).unwrap();
    plan.run().unwrap();
    let read = ["x", "w", "c", "r"].map(|name| plan.read(name).unwrap());
    assert_eq!(read, [[1.0, 2.0], [3.0, 4.0], [7.0, 8.0], [3.0, 4.0]]);
}

#[test]
fn packed_weights_are_kept_once() {
    let s = Scope::root();
    let x = s.input("x", &[4, 64], Rate::Step);
    let y = s.linear_no_bias(&x, 32);
    let graph = s.finish(&[("y", &y)]).unwrap();
    let mut weights = MemoryWeights::default();
    weights.insert("weight", [32, 64], &[0.5; 32 * 64]);
    let memory = plan(&graph, &weights).memory();
    assert_eq!(memory.weights, 32 * 64 * 4);
    assert_eq!(memory.activations, (4 * 64 + 4 * 32) * 4);
    assert_eq!(estimate_memory(&graph, &weights, PlanOptions::default(), DeviceKind::Cpu), memory);
}

#[test]
fn kernels_are_kept_alike_for_every_way_to_convolve() {
    let s = Scope::root();
    let x = s.input("x", &[1, 8, 8, 5], Rate::Step);
    let y = s.push(Conv2d { bias: false, ..Conv2d::same(3) }, &[&x, &s.weight("weight", &[7, 3, 3, 5])]);
    let graph = passes::optimize(&s.finish(&[("y", &y)]).unwrap());
    let mut weights = MemoryWeights::default();
    weights.insert("weight", [7, 3, 3, 5], &[0.5; 7 * 9 * 5]);
    for convolution in [Convolution::Direct, Convolution::Winograd(Tile::Two), Convolution::Winograd(Tile::Four)] {
        let options = PlanOptions { convolution, ..Default::default() };
        let memory = CpuDevice::new(None).unwrap().plan(&graph, &weights, options).unwrap().memory();
        assert_eq!(memory.weights, 7 * 5 * 9 * 4);
        assert_eq!(estimate_memory(&graph, &weights, options, DeviceKind::Cpu), memory);
    }
}

#[test]
fn plans_hold_what_was_estimated_and_little_more() {
    for seed in 0..40 {
        let RandomGraph { graph, weights, .. } = random_graph(seed, 14);
        let graph = passes::optimize(&graph);
        let held = plan(&graph, &weights).memory();
        let estimated = estimate_memory(&graph, &weights, PlanOptions::default(), DeviceKind::Cpu);
        assert!(estimated.weights <= held.weights && held.weights <= 2 * estimated.weights, "{seed}: {held:?}");
        // Attention needs room that is counted for the widest registers there are; those of a graph for adapters have none.
        let without = estimate_memory(&graph, &weights, PlanOptions::default(), DeviceKind::Other).activations;
        let room = without..=estimated.activations;
        assert!(room.contains(&held.activations), "{seed}: {held:?} beside {estimated:?}");
    }
}

#[test]
fn misuse_is_one_sentence() {
    let (graph, weights) = prompt_graph();
    let mut plan = plan(&graph, &weights);
    let message = |result: Result<(), DeviceError>| result.unwrap_err().to_string();
    assert_eq!(message(plan.write("y", &[0.0; 4])), "the graph has no input y");
    assert_eq!(message(plan.write("x", &[0.0; 3])), "input x of shape [2, 2] needs 4 elements and was given 3");
    plan.write("x", &[0.0; 4]).unwrap();
    assert_eq!(message(plan.run()), "input prompt was never written");
    assert_eq!(message(plan.read("y").map(drop)), "output y was read before the graph ran");
    assert_eq!(message(plan.read("x").map(drop)), "the graph has no output x");
    let error = CpuDevice::new(Some(0)).unwrap_err();
    assert!(error.to_string().contains("zero threads"), "{error}");
}

/// A source with one tensor.
struct One(StorageType, Vec<usize>, Vec<u8>);

impl WeightSource for One {
    fn weight(&self, name: &str) -> Option<WeightView<'_>> {
        (name == "w").then(|| WeightView { storage: self.0, shape: self.1.clone(), bytes: Cow::Borrowed(&self.2) })
    }
}

fn planned(source: &dyn WeightSource, storage: Storage) -> Result<Vec<f32>, DeviceError> {
    let s = Scope::root();
    let x = s.input("x", &[1, 3], Rate::Step);
    let y = x.matmul_transposed(&s.weight("w", &[2, 3]));
    let graph = passes::optimize(&s.finish(&[("y", &y)]).unwrap());
    let mut plan = CpuDevice::new(None)?.plan(&graph, source, PlanOptions { storage, ..Default::default() })?;
    plan.write("x", &[1.0, 10.0, 100.0])?;
    plan.run()?;
    plan.read("y")
}

fn singles(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn weights_of_every_storage_are_read() {
    let values = [1.0, 2.0, 3.0, 0.1, -2.0, 1.0 / 3.0];
    let third = f32::from(half::f16::from_f32(1.0 / 3.0));
    let tenth = f32::from(half::f16::from_f32(0.1));
    let near = |got: &[f32], want: [f32; 2]| {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} is not {want:?}");
    };
    let source = One(StorageType::F32, vec![2, 3], singles(&values));
    near(&planned(&source, Storage::Auto).unwrap(), [321.0, 0.1 - 20.0 + 100.0 / 3.0]);
    // Rounded to halves although they are kept as singles.
    near(&planned(&source, Storage::F16).unwrap(), [321.0, tenth - 20.0 + 100.0 * third]);
    let halves = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let source = One(StorageType::F16, vec![2, 3], halves);
    near(&planned(&source, Storage::Auto).unwrap(), [321.0, tenth - 20.0 + 100.0 * third]);
    let upper = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    let source = One(StorageType::Bf16, vec![2, 3], upper);
    assert!((planned(&source, Storage::F32).unwrap()[0] - 321.0).abs() < 1e-5);
}

#[test]
fn only_large_weights_are_rounded_to_halves() {
    let s = Scope::root();
    let x = s.input("x", &[1, 1], Rate::Step);
    let graph = passes::optimize(&s.finish(&[("y", &s.linear(&x, 1))]).unwrap());
    let mut weights = MemoryWeights::default();
    weights.insert("weight", [1, 1], &[1.0 / 3.0]);
    weights.insert("bias", [1], &[0.1]);
    let device = CpuDevice::new(None).unwrap();
    let mut plan = device.plan(&graph, &weights, PlanOptions { storage: Storage::F16, ..Default::default() }).unwrap();
    plan.write("x", &[1.0]).unwrap();
    plan.run().unwrap();
    let third = f32::from(half::f16::from_f32(1.0 / 3.0));
    assert_eq!(plan.read("y").unwrap(), [third + 0.1]);
}

#[test]
fn weights_that_cannot_be_right_are_named() {
    let message = |storage, shape: &[usize], bytes| {
        let source = One(storage, shape.to_vec(), bytes);
        planned(&source, Storage::F16).unwrap_err().to_string()
    };
    let missing = planned(&MemoryWeights::default(), Storage::Auto).unwrap_err().to_string();
    assert_eq!(missing, "weight w: is missing from the checkpoint");
    assert_eq!(
        message(StorageType::F32, &[3, 2], singles(&[0.0; 6])),
        "weight w: has shape [3, 2] and the model needs [2, 3]"
    );
    assert_eq!(
        message(StorageType::F32, &[2, 3], singles(&[0.0; 5])),
        "weight w: holds 20 bytes and its shape [2, 3] needs 24"
    );
    assert_eq!(
        message(StorageType::F32, &[2, 3], singles(&[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0])),
        "weight w: element 2 is NaN, so the checkpoint is damaged"
    );
    assert_eq!(
        message(StorageType::F32, &[2, 3], singles(&[0.0, 1e6, 0.0, 0.0, 0.0, 0.0])),
        "weight w: element 1 is 1000000, beyond half precision; keep weights in single precision (f32)"
    );
}

#[test]
fn the_device_presents_itself() {
    let device = CpuDevice::new(Some(2)).unwrap();
    let info = device.info();
    assert_eq!((info.kind, &*info.backend), (DeviceKind::Cpu, "native"));
    assert!(!info.name.is_empty() && !info.driver.is_empty());
    assert!(info.features.contains(&"2 threads".to_owned()), "{:?}", info.features);
}
