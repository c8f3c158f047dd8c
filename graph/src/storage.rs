//! In which precision plans keep weights, and what a plan holds: one rule for all devices, so that they compute with the
//! same numbers and memory is known before it is taken.

use crate::device::{DeviceKind, MemoryUse, PlanOptions, Storage};
use crate::graph::Graph;
use crate::op::Op;
use crate::passes;
use crate::shape::numel;
use crate::slots::Slots;
use crate::weights::{StorageType, WeightSource};

/// Which nodes are weights that a plan uses in half precision, by node number.
///
/// These are the weights that only ever serve as the right factor of a product or as a table of rows, when the options ask
/// for half precision, or leave it to the checkpoint and it stores them so. Such weights hold nearly all of a model's
/// numbers; biases, norms and what is read in several ways cost next to nothing in single precision. Devices that keep
/// no halves ([`DeviceKind::keeps_halves`]) round these weights all the same.
///
/// A weight that `weights` does not have counts as single: its absence is told when it is read.
#[must_use]
pub fn half_weights(graph: &Graph, weights: &dyn WeightSource, options: PlanOptions) -> Vec<bool> {
    let mut half = large_weights(graph);
    for (half, node) in half.iter_mut().zip(graph.nodes()) {
        let Op::Weight(weight) = &node.op else { continue };
        *half &= match options.storage {
            Storage::F32 => false,
            Storage::F16 => true,
            Storage::Auto => weights.stored_as(&weight.name) == Some(StorageType::F16),
        };
    }
    half
}

/// Which nodes are weights that are only read as right factors or as tables.
fn large_weights(graph: &Graph) -> Vec<bool> {
    let slots = Slots::assign(graph);
    let mut large: Vec<bool> = graph.nodes().iter().map(|node| matches!(node.op, Op::Weight(_))).collect();
    for node in graph.nodes() {
        let factor = match node.op {
            Op::MatMul(_) | Op::Conv2d(_) => Some(1),
            Op::Gather(_) => Some(0),
            // The readers of a reshape are looked at themselves.
            Op::Reshape(_) => continue,
            _ => None,
        };
        let extras = node.epilogue.iter().flat_map(|epilogue| &epilogue.inputs);
        let others = node.inputs.iter().enumerate().filter(|(i, _)| Some(*i) != factor).map(|(_, id)| id);
        for id in others.chain(extras) {
            large[slots.root(*id).index()] = false;
        }
    }
    for (_, id) in graph.outputs() {
        large[slots.root(*id).index()] = false;
    }
    large
}

/// What a plan of an optimised graph will hold on such a device, without making it.
///
/// An estimate: devices round buffers up, and some need a little room of their own (parameters of kernels, scratch memory of
/// attention) or keep a weight twice that is read in two ways.
#[must_use]
pub fn estimate_memory(
    graph: &Graph,
    weights: &dyn WeightSource,
    options: PlanOptions,
    device: DeviceKind,
) -> MemoryUse {
    // As plans do before they assign slots.
    let graph = &passes::hoist(graph);
    let half = half_weights(graph, weights, options);
    let mut memory = MemoryUse::default();
    for (node, half) in graph.nodes().iter().zip(half) {
        let elements = numel(&node.shape) as u64;
        match node.op {
            Op::Weight(_) => memory.weights += elements * if half && device.keeps_halves() { 2 } else { 4 },
            Op::Constant(_) => memory.weights += elements * 4,
            Op::Input(_) => memory.activations += elements * 4,
            _ => {}
        }
    }
    memory.activations += 4 * Slots::assign(graph).sizes().iter().map(|size| *size as u64).sum::<u64>();
    memory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryWeights, Rate, Scope, WeightView};
    use std::borrow::Cow;

    /// A table, a linear layer and something small, as a graph.
    fn graph() -> Graph {
        let s = Scope::root();
        let ids = s.input("ids", &[2, 3], Rate::Once);
        let x = s.at("embed").embedding(&ids, 7, 4);
        let position = s.weight("position", &[3, 4]);
        let y = s.at("proj").linear(&(&x + &position), 5);
        passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit"))
    }

    /// Names of the weights that are halves.
    fn halves(weights: &dyn WeightSource, storage: Storage) -> Vec<String> {
        let graph = graph();
        let half = half_weights(&graph, weights, PlanOptions { storage, ..Default::default() });
        let names = graph.nodes().iter().zip(half).filter(|(_, half)| *half).map(|(node, _)| match &node.op {
            Op::Weight(weight) => weight.name.clone(),
            other => panic!("{other:?} is no weight"),
        });
        names.collect()
    }

    /// A checkpoint that stores everything alike.
    struct All(StorageType);

    impl WeightSource for All {
        fn weight(&self, _: &str) -> Option<WeightView<'_>> {
            Some(WeightView { storage: self.0, shape: Vec::new(), bytes: Cow::Borrowed(&[]) })
        }
    }

    #[test]
    fn large_weights_are_halves_when_asked_for_or_stored_so() {
        let large = ["embed.weight", "proj.weight"].map(str::to_owned).to_vec();
        for stored in [StorageType::F32, StorageType::F16, StorageType::Bf16] {
            assert_eq!(halves(&All(stored), Storage::F16), large);
            assert_eq!(halves(&All(stored), Storage::F32), Vec::<String>::new());
            let auto = halves(&All(stored), Storage::Auto);
            assert_eq!(auto, if stored == StorageType::F16 { large.clone() } else { Vec::new() });
        }
        assert_eq!(halves(&MemoryWeights::default(), Storage::Auto), Vec::<String>::new(), "missing weights");
    }

    #[test]
    fn memory_is_told_before_it_is_taken() {
        let estimate = |storage, device| {
            estimate_memory(&graph(), &All(StorageType::F32), PlanOptions { storage, ..Default::default() }, device)
        };
        // The table and the matrix, then the positions and the bias.
        let (large, small) = (7 * 4 + 5 * 4, 3 * 4 + 5);
        // Six ids, the sum of rows and positions, and the result, which takes the gathered rows' place.
        let activations = 4 * (6 + 24 + 30);
        let single = MemoryUse { weights: 4 * (large + small), activations };
        assert_eq!(estimate(Storage::Auto, DeviceKind::DiscreteGpu), single);
        assert_eq!(estimate(Storage::F16, DeviceKind::Cpu), single);
        let half = MemoryUse { weights: 2 * large + 4 * small, activations };
        assert_eq!(estimate(Storage::F16, DeviceKind::DiscreteGpu), half);
    }
}
