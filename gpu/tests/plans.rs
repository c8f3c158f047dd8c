//! Plans on a software adapter against the graph's own evaluation.

mod common;

use common::{lavapipe, numbers, software, weights_for};
use gpu::{GpuDevice, GpuOptions, SubmitBudget, first_divergence};
use graph::ops::Conv2d;
use graph::random::{RandomGraph, random_graph};
use graph::shape::numel;
use graph::{
    Activations, Array, Device, Graph, MemoryWeights, Plan, PlanOptions, Rate, Scope, Storage, WeightSource, Winners,
    estimate_memory, evaluate, passes, q8_0, shape_key,
};
use half::f16;
use std::collections::HashMap;

/// How many times as inexact as the reference in `f32` a plan may be. Its sums run in another order.
const SLACK: f64 = 8.0;

/// Operations of a random graph.
const OPS: usize = 14;

type Inputs<'a> = HashMap<&'a str, Array<f64>>;

/// Inputs as `f32`, the type that a plan takes.
fn single(array: &Array<f64>) -> Vec<f32> {
    array.cast::<f32>().data
}

/// Writes the inputs that are left in the graph.
fn write_all(plan: &mut dyn Plan, graph: &Graph, inputs: &Inputs<'_>) {
    for (name, array) in inputs.iter().filter(|(name, _)| graph.input(name).is_some()) {
        plan.write(name, &single(array)).expect("an input of the graph");
    }
}

/// Asserts that the plan's outputs of its last run are those of the reference.
fn assert_outputs(plan: &mut dyn Plan, graph: &Graph, inputs: &Inputs<'_>, weights: &dyn WeightSource, case: &str) {
    let exact = evaluate::<f64>(graph, inputs, weights).expect("complete inputs and weights");
    let rounded = inputs.iter().map(|(name, array)| (*name, array.cast())).collect();
    let rounded = evaluate::<f32>(graph, &rounded, weights).expect("complete inputs and weights");
    for ((name, _), (exact, rounded)) in graph.outputs().iter().zip(exact.iter().zip(&rounded)) {
        let distance = |values: &[f32]| {
            let distances = values.iter().zip(&exact.data).map(|(a, b)| (f64::from(*a) - b).abs());
            // `f64::max` would ignore NaN.
            distances.fold(0.0, |worst, d| if d <= worst { worst } else { d })
        };
        let got = plan.read(name).expect("an output of the graph");
        assert_eq!(got.len(), exact.data.len(), "{case}: {name}");
        // The f32 reference may be exact by chance, so at least one unit in the last place of the largest value is
        // allowed.
        let unit = exact.data.iter().fold(0.0, |m: f64, v| m.max(v.abs())) * f64::from(f32::EPSILON);
        let (error, tolerance) = (distance(&got), SLACK * distance(&rounded.data).max(unit));
        assert!(error <= tolerance, "{case}: {name} is off by {error:e} where {tolerance:e} is rounding");
    }
}

/// Runs a random graph twice on a device and compares.
fn assert_seed(device: &GpuDevice, seed: u64, case: &str) {
    let RandomGraph { graph, inputs, weights } = random_graph(seed, OPS);
    let optimized = passes::optimize(&graph);
    let mut plan = device.plan(&optimized, &weights, PlanOptions::default()).expect("a plan");
    write_all(&mut *plan, &optimized, &inputs);
    // The second run starts with every slot full of old values.
    for run in ["first", "second"] {
        plan.run().expect("a run");
        assert_outputs(&mut *plan, &graph, &inputs, &weights, &format!("seed {seed}, {case}, {run} run"));
    }
}

#[test]
fn random_graphs_give_the_references_outputs() {
    let one_by_one = SubmitBudget { dispatches: 1, flops: 0 };
    let devices = [
        ("trusted", lavapipe(GpuOptions::default())),
        ("checked", lavapipe(GpuOptions { checked: true, ..GpuOptions::default() })),
        ("one dispatch at a time", lavapipe(GpuOptions { submit: one_by_one, ..GpuOptions::default() })),
        ("gl", software("gl").open(GpuOptions::default()).unwrap()),
    ];
    for (seed, (case, device)) in (0..48).zip(devices.iter().cycle()) {
        assert_seed(device, seed, case);
    }
}

#[test]
fn a_device_serves_several_plans_and_threads() {
    let device = lavapipe(GpuOptions::default());
    std::thread::scope(|threads| {
        for seed in 200..203 {
            let device = device.clone();
            threads.spawn(move || assert_seed(&device, seed, "on its own thread"));
        }
    });
}

#[test]
fn replaying_keeps_what_the_prompt_decides_until_it_changes() {
    let s = Scope::root();
    let prompt = s.input("prompt", &[1, 4, 8], Rate::Once);
    let x = s.input("x", &[1, 6, 8], Rate::Step);
    let [k, v] = ["k", "v"].map(|name| s.at(name).linear(&prompt, 8));
    let y = x.attention(&k, &v, 2, false, None);
    let graph = s.finish(&[("y", &y)]).unwrap();
    let weights = weights_for(&graph, 1);
    let device = lavapipe(GpuOptions::default());
    let optimized = passes::optimize(&graph);
    let mut plan = device.gpu_plan(&optimized, &weights, PlanOptions::default()).unwrap();
    assert_eq!((plan.dispatches(Rate::Once), plan.dispatches(Rate::Step)), (2, 1));

    let fresh = |name: &str, seed| {
        let shape = graph.node(graph.input(name).unwrap()).shape.clone();
        let data = numbers(numel(&shape), seed).into_iter().map(f64::from).collect();
        Array::new(shape, data)
    };
    let mut inputs = Inputs::from([("prompt", fresh("prompt", 2)), ("x", fresh("x", 3))]);
    write_all(&mut plan, &graph, &inputs);
    for (changed, seed) in ["x", "x", "prompt", "x", "prompt"].into_iter().zip(10..) {
        let value = fresh(changed, seed);
        plan.write(changed, &single(&value)).unwrap();
        inputs.insert(changed, value);
        plan.run().unwrap();
        assert_outputs(&mut plan, &graph, &inputs, &weights, &format!("change {seed} of {changed}"));
    }
}

/// Weights rounded to half precision.
fn rounded(graph: &Graph, weights: &MemoryWeights) -> MemoryWeights {
    let mut result = MemoryWeights::default();
    for spec in graph.weights() {
        let mut values = weights.weight(&spec.name).expect("a weight of the graph").to_f32();
        // Biases stay in single precision.
        if spec.shape.len() == 2 {
            values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
        }
        result.insert(spec.name, spec.shape, &values);
    }
    result
}

#[test]
fn half_precision_weights_are_rounded_once() {
    let s = Scope::root();
    let ids = s.input("ids", &[7], Rate::Once);
    // Odd extents: the last half of a packed weight is alone in its word.
    let x = s.at("table").embedding(&ids, 5, 9);
    let y = s.at("proj").linear(&x, 3);
    let graph = s.finish(&[("y", &y)]).unwrap();
    let weights = weights_for(&graph, 3);
    let inputs = Inputs::from([("ids", Array::new([7], vec![0.0, 4.0, 2.0, 1.0, 3.0, 4.0, 0.0]))]);
    let mut sizes = Vec::new();
    for (storage, shader_f16) in [(Storage::F32, true), (Storage::F16, true), (Storage::F16, false)] {
        let device = lavapipe(GpuOptions { shader_f16, ..GpuOptions::default() });
        assert_eq!(device.profile().shader_f16, shader_f16);
        let mut plan =
            device.plan(&passes::optimize(&graph), &weights, PlanOptions { storage, ..Default::default() }).unwrap();
        write_all(&mut *plan, &graph, &inputs);
        plan.run().unwrap();
        let expected = if storage == Storage::F16 { rounded(&graph, &weights) } else { weights.clone() };
        assert_outputs(&mut *plan, &graph, &inputs, &expected, &format!("{storage:?}, shader-f16 {shader_f16}"));
        // Buffers are rounded up to vectors of four words.
        let held = plan.memory().weights;
        let estimated =
            estimate_memory(&graph, &weights, PlanOptions { storage, ..Default::default() }, device.info().kind)
                .weights;
        assert!(
            (estimated..estimated + 3 * 16).contains(&held),
            "{storage:?}: {held} bytes where {estimated} are data"
        );
        sizes.push(held);
    }
    assert!(sizes[1] < sizes[0] && sizes[1] == sizes[2], "{sizes:?}");
}

/// Weights of two axes whose rows are whole blocks, rounded to them.
fn in_blocks(graph: &Graph, weights: &MemoryWeights) -> MemoryWeights {
    let mut result = MemoryWeights::default();
    for spec in graph.weights() {
        let values = weights.weight(&spec.name).expect("a weight of the graph").to_f32();
        let fits = spec.shape.len() == 2 && q8_0::fits(spec.shape[1]);
        let blocks = fits.then(|| q8_0::quantize(&values).expect("tests' values are small"));
        result.insert(spec.name, spec.shape, &blocks.map_or(values, |blocks| q8_0::values(&blocks)));
    }
    result
}

#[test]
fn weights_of_eight_bits_are_rounded_once() {
    let s = Scope::root();
    let x = s.input("x", &[33, 64], Rate::Step);
    // An odd number of blocks: the last scale is alone in its word. Rows of 31 stay halves.
    let h = s.at("first").linear(&x, 31);
    let y = s.at("second").linear_no_bias(&s.at("third").linear(&s.input("z", &[33, 96], Rate::Step), 31), 5);
    let graph = s.finish(&[("h", &h), ("y", &y)]).unwrap();
    let weights = weights_for(&graph, 4);
    let expected = in_blocks(&graph, &weights);
    let mut expected_second = expected.weight("second.weight").unwrap().to_f32();
    expected_second.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
    let mut expected = expected;
    expected.insert("second.weight", [5, 31], &expected_second);
    let optimized = passes::optimize(&graph);
    let options = PlanOptions { storage: Storage::Q8_0, ..Default::default() };
    let array = |shape: [usize; 2], seed| {
        Array::new(shape, numbers(shape[0] * shape[1], seed).into_iter().map(f64::from).collect())
    };
    let inputs = Inputs::from([("x", array([33, 64], 1)), ("z", array([33, 96], 2))]);
    for shader_f16 in [true, false] {
        let device = lavapipe(GpuOptions { shader_f16, ..GpuOptions::default() });
        let mut plan = device.gpu_plan(&optimized, &weights, options).unwrap();
        write_all(&mut plan, &graph, &inputs);
        plan.run().unwrap();
        assert_outputs(&mut plan, &graph, &inputs, &expected, &format!("shader-f16 {shader_f16}"));
        let held = plan.memory().weights;
        let estimated = estimate_memory(&graph, &weights, options, device.info().kind).weights;
        assert!((estimated..estimated + 5 * 16).contains(&held), "{held} bytes where {estimated} are data");
        // Two fifths of half precision's, but for what stays in it.
        assert!(held < 31 * (64 + 96) * 2, "{held}");
    }

    // The products of whole numbers are those of the rounded factor, and so are near the others.
    let device = lavapipe(GpuOptions { integer_products: true, ..GpuOptions::default() });
    let mut plan = device.gpu_plan(&optimized, &weights, options).unwrap();
    write_all(&mut plan, &graph, &inputs);
    assert_eq!(plan.first_divergence(), Ok(None));
    let kernels: Vec<&str> = plan.profile().unwrap().iter().map(|time| time.kernel).collect();
    assert_eq!(kernels.iter().filter(|kernel| **kernel == shaders::EIGHT_BITS).count(), 2, "{kernels:?}");
}

#[test]
fn activations_in_half_precision_take_half_the_memory_and_saturate() {
    let s = Scope::root();
    let x = s.input("x", &[64, 128], Rate::Step);
    let h = s.at("first").linear(&x, 256);
    let large = s.at("second").linear(&h, 256);
    let y = s.at("third").linear(&large, 4);
    let graph = passes::optimize(&s.finish(&[("y", &y)]).unwrap());
    let weights = weights_for(&graph, 5);
    let device = lavapipe(GpuOptions::default());
    let plan_of =
        |activations| device.gpu_plan(&graph, &weights, PlanOptions { activations, ..Default::default() }).unwrap();
    let [mut single, mut half] = [Activations::F32, Activations::F16].map(plan_of);
    // The input, the parameters and the output are the same; two values of 64 × 256 are not.
    assert_eq!(single.memory().activations - half.memory().activations, 2 * 64 * 256 * 2);
    // Sums beyond 65504, which are infinite in half precision, and their differences no numbers.
    let values: Vec<f32> = numbers(64 * 128, 6).iter().map(|v| v * 1e5).collect();
    let mut outputs = [&mut single, &mut half].map(|plan| {
        plan.write("x", &values).unwrap();
        plan.run().unwrap();
        plan.read("y").unwrap()
    });
    assert!(outputs[0].iter().any(|v| v.abs() > 1e5), "the case must be beyond half precision");
    assert!(outputs[1].iter().all(|v| v.is_finite()));
    // Within half precision they agree to its rounding.
    outputs = [&mut single, &mut half].map(|plan| {
        plan.write("x", &numbers(64 * 128, 6)).unwrap();
        plan.run().unwrap();
        plan.read("y").unwrap()
    });
    let largest = outputs[0].iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let apart = outputs[0].iter().zip(&outputs[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart > 0.0 && apart < largest * 2e-3, "{apart} of {largest}");
    assert_eq!(half.first_divergence(), Ok(None));
    // Without the type in shaders, everything stays single.
    let plain = lavapipe(GpuOptions { shader_f16: false, ..GpuOptions::default() });
    let options = PlanOptions { activations: Activations::F16, ..Default::default() };
    let plan = plain.gpu_plan(&graph, &weights, options).unwrap();
    assert_eq!(plan.memory().activations, single.memory().activations);
}

#[test]
fn what_was_measured_is_obeyed_by_images_and_their_batches() {
    let device = lavapipe(GpuOptions::default());
    let graph_of = |batch: usize| {
        let s = Scope::root();
        let x = s.input("x", &[batch, 6, 5, 8], Rate::Step);
        let h = s.at("conv").conv2d(&x, 8, 3, Conv2d::same(3)).silu();
        let y = s.at("proj").linear(&h.reshape(&[batch, 30, 8]), 12);
        passes::optimize(&s.finish(&[("y", &y)]).unwrap())
    };
    let one = graph_of(1);
    let weights = weights_for(&one, 7);
    let ways = device.ways(&one, &weights, PlanOptions::default());
    let run = |batch: usize, winners: Option<&'static Winners>| {
        let options = PlanOptions { winners, ..Default::default() };
        let mut plan = device.gpu_plan(&graph_of(batch), &weights, options).unwrap();
        // Images that differ.
        plan.write("x", &numbers(batch * 6 * 5 * 8, 8)).unwrap();
        plan.run().unwrap();
        let y = plan.read("y").unwrap();
        let kernels: Vec<&str> = plan.profile().unwrap().iter().map(|time| time.kernel).collect();
        (y, kernels)
    };
    let (_, own) = run(1, None);
    let chosen: Vec<&str> = ways.iter().filter_map(|ways| ways.first().copied()).collect();
    assert_eq!(own, chosen, "the first way is what is taken without a measurement");
    let measured = one.nodes().iter().zip(&ways).filter_map(|(node, ways)| Some((shape_key(&one, node)?, ways)));
    for (shape, ways) in measured.collect::<Vec<_>>() {
        assert!(ways.len() > 2 && ways.iter().all(|way| !way.ends_with("_naive")), "{ways:?}");
        for way in ways {
            let winners: &Winners = Box::leak(Box::new([(shape.clone(), (*way).to_owned())].into_iter().collect()));
            let ((alone, kernels), (batch, in_batch)) = (run(1, Some(winners)), run(3, Some(winners)));
            assert!(kernels.contains(way) && in_batch.contains(way), "{shape}: {kernels:?} {in_batch:?}");
            // The first image of the batch is the one alone, and where all kernels are the same, bit for bit.
            if kernels == in_batch {
                assert_eq!(alone, batch[..alone.len()], "{shape} by {way}");
            }
        }
    }
    // A kernel that there is not is as good as none.
    let shape = shape_key(&one, one.nodes().iter().find(|node| node.op.name() == "conv2d").unwrap()).unwrap();
    let winners: &Winners = Box::leak(Box::new([(shape, "no such kernel".to_owned())].into_iter().collect()));
    assert_eq!(run(1, Some(winners)).1, own);
}

#[test]
fn values_that_no_kernel_makes_can_be_read() {
    let s = Scope::root();
    let x = s.input("x", &[2, 3], Rate::Step);
    let c = s.constant(&[2], vec![4.0, 5.0]);
    let graph = s.finish(&[("x", &x.reshape(&[6])), ("c", &c), ("w", &s.weight("w", &[2, 2]))]).unwrap();
    let mut weights = MemoryWeights::default();
    weights.insert("w", [2, 2], &[0.1, 0.2, 0.3, 0.4]);
    let device = lavapipe(GpuOptions::default());
    let options = PlanOptions { storage: Storage::F16, ..Default::default() };
    let mut plan = device.plan(&passes::optimize(&graph), &weights, options).unwrap();
    plan.write("x", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    plan.run().unwrap();
    assert_eq!(plan.read("x").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(plan.read("c").unwrap(), [4.0, 5.0]);
    assert_eq!(plan.read("w").unwrap(), [0.1, 0.2, 0.3, 0.4]);
}

#[test]
fn weights_larger_than_one_upload_arrive_whole() {
    // 17 Mi elements: more than a piece of 64 MiB, with an odd one at the end; rows are read back by their number.
    let (rows, channels) = (5_942_188, 3);
    let s = Scope::root();
    let ids = s.input("ids", &[4], Rate::Step);
    let y = s.at("table").embedding(&ids, rows, channels);
    let graph = passes::optimize(&s.finish(&[("y", &y)]).unwrap());
    let mut weights = MemoryWeights::default();
    let value = |i: usize| (i % 2039) as f32;
    weights.insert("table.weight", [rows, channels], &(0..rows * channels).map(value).collect::<Vec<_>>());
    let device = lavapipe(GpuOptions::default());
    for storage in [Storage::F32, Storage::F16] {
        let mut plan = device.plan(&graph, &weights, PlanOptions { storage, ..Default::default() }).unwrap();
        let piece = (64 << 20) / 4 / channels;
        let wanted = [0, piece, piece + 1, rows - 1];
        plan.write("ids", &wanted.map(|row| row as f32)).unwrap();
        plan.run().unwrap();
        let expected: Vec<f32> =
            wanted.iter().flat_map(|row| (0..channels).map(move |c| value(row * channels + c))).collect();
        assert_eq!(plan.read("y").unwrap(), expected, "{storage:?}");
    }
}

#[test]
fn tracing_a_right_graph_finds_nothing_and_times_everything() {
    let device = lavapipe(GpuOptions::default());
    for seed in 100..106 {
        let RandomGraph { graph, inputs, weights } = random_graph(seed, OPS);
        let optimized = passes::optimize(&graph);
        let written: Vec<(&str, Vec<f32>)> = inputs
            .iter()
            .filter(|(name, _)| optimized.input(name).is_some())
            .map(|(name, array)| (*name, single(array)))
            .collect();
        let slices: Vec<(&str, &[f32])> = written.iter().map(|(name, data)| (*name, &data[..])).collect();
        let half = PlanOptions { storage: Storage::F16, ..Default::default() };
        let eight = PlanOptions { storage: Storage::Q8_0, ..Default::default() };
        let all = PlanOptions { activations: Activations::F16, ..half };
        for options in [half, eight, all] {
            let found = first_divergence(&device, &optimized, &slices, &weights, options);
            assert_eq!(found, Ok(None), "seed {seed}, {options:?}");
        }

        let mut plan = device.gpu_plan(&optimized, &weights, PlanOptions::default()).unwrap();
        write_all(&mut plan, &optimized, &inputs);
        let times = plan.profile().unwrap();
        assert_eq!(times.len(), plan.dispatches(Rate::Once) + plan.dispatches(Rate::Step));
        let flops: u64 = times.iter().map(|time| time.flops).sum();
        assert_eq!(flops, optimized.cost(Rate::Once).flops + optimized.cost(Rate::Step).flops);
        assert!(times.iter().all(|time| time.seconds > 0.0), "{times:?}");
        // Timing must not change the plan's values.
        assert_outputs(&mut plan, &graph, &inputs, &weights, &format!("seed {seed} after timing"));
    }
}
