//! Variants of kernels in turn on the first software adapter or, with `HEADWATER_ADAPTER`, on one whose name contains that:
//! the median time of each on some shapes, and how many times as fast as the last it is.
#![allow(missing_docs, reason = "a program")]

use gpu::{Adapter, GpuOptions, adapters};
use graph::ops::Conv2d;
use graph::shape::numel;
use graph::{Device, DeviceKind, Graph, MemoryWeights, Op, Plan, PlanOptions, Rate, Scope, passes};

/// Times of each variant. Variants take turns, so that what else the machine does meets all of them.
const ROUNDS: usize = 11;

/// Kernels, what they are compared with last.
const GROUP: &[&str] = &["group_norm_subgroup", "group_norm_register", "group_norm_workgroup"];
const CONV: &[&str] = &["conv2d_winograd_register", "conv2d_register_4x4", "conv2d_register_8x8"];
const LAYER: &[&str] = &["layer_norm_subgroup", "layer_norm_register", "layer_norm_workgroup"];

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.618_034).fract() - 0.5).collect()
}

fn adapter() -> Adapter {
    let wanted = std::env::var("HEADWATER_ADAPTER").ok().map(|name| name.to_lowercase());
    let fits = |adapter: &Adapter| match &wanted {
        Some(name) => adapter.info().name.to_lowercase().contains(name),
        None => adapter.info().kind == DeviceKind::SoftwareGpu,
    };
    adapters(gpu::Backends::default()).into_iter().find(fits).expect("there is such an adapter")
}

/// A plan that computes the graph's one operation by `kernel`.
fn plan(adapter: &Adapter, graph: &Graph, kernel: &str, variants: &[&'static str]) -> Box<dyn Plan> {
    // Options are values that last as long as the program, as this one's lists do.
    let avoid: Vec<&'static str> = variants.iter().copied().filter(|name| *name != kernel).collect();
    let device = adapter.open(GpuOptions { avoid: avoid.leak(), ..GpuOptions::default() }).expect("the adapter opens");
    let mut weights = MemoryWeights::default();
    for spec in graph.weights() {
        let data = numbers(numel(&spec.shape));
        weights.insert(spec.name, spec.shape, &data);
    }
    let mut plan = device.plan(graph, &weights, PlanOptions::default()).expect("the graph fits");
    for node in graph.nodes() {
        if let Op::Input(input) = &node.op {
            plan.write(&input.name, &numbers(numel(&input.shape))).expect("an input of the graph");
        }
    }
    plan
}

fn seconds(plan: &mut dyn Plan, kernel: &str) -> f64 {
    let times = plan.profile().expect("the adapter runs");
    times.iter().filter(|time| time.kernel == kernel).map(|time| time.seconds).sum()
}

fn compare(adapter: &Adapter, shape: &[usize], graph: &Graph, variants: &[&'static str]) {
    let mut plans: Vec<_> = variants.iter().map(|kernel| plan(adapter, graph, kernel, variants)).collect();
    let mut times = vec![Vec::new(); plans.len()];
    for _ in 0..ROUNDS {
        for ((plan, kernel), times) in plans.iter_mut().zip(variants).zip(&mut times) {
            times.push(seconds(plan.as_mut(), kernel));
        }
    }
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    let last = medians.last().copied().unwrap_or(0.0);
    for (kernel, median) in variants.iter().zip(medians) {
        println!("{:<22} {kernel:<22} {:>9.1} us {:>6.2}", format!("{shape:?}"), median * 1e6, last / median);
    }
}

fn main() {
    let adapter = adapter();
    println!("{}", adapter.info().name);
    // Those of Stable Diffusion 1.5 at a picture of 64 pixels, then of larger ones.
    for (shape, out) in [
        ([1, 8, 8, 320], 320),
        ([2, 8, 8, 320], 320),
        ([1, 8, 8, 640], 320),
        ([2, 4, 4, 640], 640),
        ([1, 32, 32, 320], 320),
        ([1, 64, 64, 128], 128),
    ] {
        let s = Scope::root();
        let y = s.conv2d(&s.input("x", &shape, Rate::Step), out, 3, Conv2d::same(3));
        compare(&adapter, &shape, &passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit")), CONV);
    }
    for shape in [[1, 64 * 64, 320], [1, 16 * 16, 640], [2, 8 * 8, 320], [1, 128 * 128, 128], [1, 512 * 512, 128]] {
        let s = Scope::root();
        let y = s.group_norm(&s.input("x", &shape, Rate::Step), 32, 1e-5);
        compare(&adapter, &shape, &passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit")), GROUP);
    }
    for shape in [[1, 4096, 320], [1, 1024, 640], [1, 256, 1280], [2, 64, 256], [1, 16, 4096]] {
        let s = Scope::root();
        let y = s.layer_norm(&s.input("x", &shape, Rate::Step), 1e-5);
        compare(&adapter, &shape, &passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit")), LAYER);
    }
}
