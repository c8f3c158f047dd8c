//! What the tests share: numbers from a seed, and the comparison with the references.
#![allow(dead_code, reason = "each test file uses a part")]
// Every test file has a copy of its own, of which clippy expects documentation.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use cpu::CpuDevice;
use graph::{Array, Device, Graph, MemoryWeights, Op, Plan, PlanOptions, evaluate, passes};
use std::collections::HashMap;

/// SplitMix64 (Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() % end as u64).unwrap()
    }

    /// Between −1 and 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    pub fn value(&mut self) -> f32 {
        ((self.bits() >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
    }

    pub fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }
}

pub fn numel(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Inputs for a graph: given ones, random numbers for the others.
pub fn inputs(graph: &Graph, given: &[(&str, Vec<f32>)], seed: u64) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut random = Random(seed);
    let nodes = graph.nodes().iter();
    nodes
        .filter_map(|node| match &node.op {
            Op::Input(input) => {
                let known = given.iter().find(|(name, _)| *name == input.name).map(|(_, data)| data.clone());
                let data = known.unwrap_or_else(|| random.values(numel(&input.shape)));
                Some((input.name.clone(), input.shape.clone(), data))
            }
            _ => None,
        })
        .collect()
}

/// Random weights for a graph, scaled so that products of them stay near one.
pub fn weights(graph: &Graph, seed: u64) -> MemoryWeights {
    let mut random = Random(seed ^ 0x5eed);
    let mut weights = MemoryWeights::default();
    for spec in graph.weights() {
        let data = random.values(numel(&spec.shape));
        weights.insert(spec.name, spec.shape, &data);
    }
    weights
}

/// Every output of the graph on this device, beside the references' on the graph as it was built.
///
/// What is allowed: `factor` times the error that the same arithmetic makes in singles, in the references' order, and at
/// least `factor` units in the last place of the largest element.
pub fn check_with(device: &CpuDevice, graph: &Graph, given: &[(&str, Vec<f32>)], seed: u64, factor: f64) {
    let (inputs, weights) = (inputs(graph, given, seed), weights(graph, seed));
    compare(device, graph, &inputs, &weights, PlanOptions::default(), factor, &format!("seed {seed}"));
}

/// [`check_with`] on given inputs and weights; `what` names them in messages.
pub fn compare(
    device: &CpuDevice,
    graph: &Graph,
    inputs: &[(String, Vec<usize>, Vec<f32>)],
    weights: &MemoryWeights,
    options: PlanOptions,
    factor: f64,
    what: &str,
) {
    let singles: HashMap<&str, Array<f32>> =
        inputs.iter().map(|(name, shape, data)| (&**name, Array::new(shape.clone(), data.clone()))).collect();
    let doubles: HashMap<&str, Array<f64>> = singles.iter().map(|(name, array)| (*name, array.cast())).collect();
    let exact = evaluate::<f64>(graph, &doubles, weights).unwrap();
    let rounded = evaluate::<f32>(graph, &singles, weights).unwrap();
    let optimized = passes::optimize(graph);
    let mut plan = device.plan(&optimized, weights, options).unwrap();
    for (name, _, data) in inputs {
        if optimized.input(name).is_some() {
            plan.write(name, data).unwrap();
        }
    }
    plan.run().unwrap();
    for (((name, _), exact), rounded) in graph.outputs().iter().zip(&exact).zip(&rounded) {
        let ours = plan.read(name).unwrap();
        assert_eq!(ours.len(), exact.data.len());
        let largest = exact.data.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let rounding = exact.data.iter().zip(&rounded.data).fold(0.0_f64, |a, (x, y)| a.max((x - f64::from(*y)).abs()));
        let allowed = factor * rounding.max(largest * f64::from(f32::EPSILON));
        for (i, (own, exact)) in ours.iter().zip(&exact.data).enumerate() {
            let error = (f64::from(*own) - exact).abs();
            assert!(
                error <= allowed,
                "{name}[{i}] = {own}, exactly {exact}: off by {error:e}, allowed {allowed:e}, {what}\n{graph}\n{optimized}"
            );
        }
    }
}

pub fn check(graph: &Graph, given: &[(&str, Vec<f32>)], seed: u64) {
    check_with(&CpuDevice::new(None).unwrap(), graph, given, seed, 4.0);
}

/// A plan of the optimised graph.
pub fn plan(graph: &Graph, weights: &MemoryWeights) -> Box<dyn Plan> {
    let device = CpuDevice::new(None).unwrap();
    device.plan(&passes::optimize(graph), weights, PlanOptions::default()).unwrap()
}
