//! In which precision plans keep weights, and what a plan holds: one rule for all devices, so that they compute with the
//! same numbers and memory is known before it is taken.

use crate::device::{Activations, DeviceKind, MemoryUse, PlanOptions, Storage};
use crate::graph::{Graph, Node};
use crate::op::Op;
use crate::ops::MatMul;
use crate::passes;
use crate::q8_0;
use crate::shape::numel;
use crate::slots::Slots;
use crate::weights::{StorageType, WeightSource};

/// What a plan keeps of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision, as the checkpoint has it.
    Bf16,
    /// Blocks of 32 along the summed axis, in eight bits ([`q8_0`]).
    Q8_0,
}

impl Kept {
    /// What such a device really keeps, of the same values: adapters widen `Bf16`.
    #[must_use]
    pub fn on(self, device: DeviceKind) -> Kept {
        match self {
            Kept::Bf16 if device != DeviceKind::Cpu => Kept::F32,
            kept => kept,
        }
    }

    /// Bytes of so many elements.
    #[must_use]
    pub fn bytes(self, elements: usize) -> usize {
        match self {
            Kept::F32 => 4 * elements,
            Kept::F16 | Kept::Bf16 => 2 * elements,
            Kept::Q8_0 => elements / q8_0::BLOCK * q8_0::BLOCK_BYTES,
        }
    }
}

/// How a plan keeps the weights of a graph, by node number; what is no weight counts as single.
///
/// Less than single precision are only those weights that serve as the right factor of products or as tables of rows and as
/// nothing else, when the options ask for it, or leave it to the checkpoint and it stores them in two bytes. Such weights hold
/// nearly all of a model's numbers; biases, norms and what is read in several ways cost next to nothing in single
/// precision. Eight bits are for right factors whose summed axis lies innermost and is made of whole blocks; other large
/// weights are halves then, as in llama.cpp.
///
/// A weight that `weights` does not have counts as what is asked for: its absence is told when it is read.
#[must_use]
pub fn kept_weights(graph: &Graph, weights: &dyn WeightSource, options: PlanOptions) -> Vec<Kept> {
    let large = large_weights(graph);
    let mut kept = vec![Kept::F32; large.len()];
    for ((kept, node), large) in kept.iter_mut().zip(graph.nodes()).zip(large) {
        let (Op::Weight(weight), Some(blocks)) = (&node.op, large) else { continue };
        *kept = match options.storage {
            Storage::F32 => Kept::F32,
            Storage::Q8_0 if blocks => Kept::Q8_0,
            Storage::F16 | Storage::Q8_0 => Kept::F16,
            Storage::Auto => match weights.stored_as(&weight.name) {
                Some(StorageType::F16) => Kept::F16,
                Some(StorageType::Bf16) => Kept::Bf16,
                Some(StorageType::F32) | None => Kept::F32,
            },
        };
    }
    kept
}

/// Which nodes are weights that are only read as right factors or as tables; of those, whether all readers sum over whole
/// blocks of neighbours.
fn large_weights(graph: &Graph) -> Vec<Option<bool>> {
    let slots = Slots::assign(graph);
    let mut large: Vec<bool> = graph.nodes().iter().map(|node| matches!(node.op, Op::Weight(_))).collect();
    let mut blocks = vec![true; large.len()];
    for node in graph.nodes() {
        let factor = match node.op {
            Op::MatMul(_) | Op::Conv2d(_) => Some(1),
            Op::Gather(_) => Some(0),
            // The readers of a reshape are looked at themselves.
            Op::Reshape(_) => continue,
            _ => None,
        };
        let row = match (&node.op, node.inputs.get(1).map(|id| &graph.node(*id).shape[..])) {
            (Op::MatMul(MatMul { transpose_b: true, .. }), Some([.., row])) => *row,
            (Op::Conv2d(_), Some([_, taps @ ..])) => numel(taps),
            _ => 0,
        };
        if let Some(id) = factor.map(|i| node.inputs[i]) {
            blocks[slots.root(id).index()] &= q8_0::fits(row);
        }
        let extras = node.epilogue.iter().flat_map(|epilogue| &epilogue.inputs);
        let others = node.inputs.iter().enumerate().filter(|(i, _)| Some(*i) != factor).map(|(_, id)| id);
        for id in others.chain(extras) {
            large[slots.root(*id).index()] = false;
        }
    }
    for (_, id) in graph.outputs() {
        large[slots.root(*id).index()] = false;
    }
    large.into_iter().zip(blocks).map(|(large, blocks)| large.then_some(blocks)).collect()
}

/// Which values an adapter with half precision keeps in it, by node number.
///
/// These are the computed ones, but for outputs, which are read as singles, and for everything that row numbers or timesteps
/// are computed from: half precision has whole numbers up to 2048 only.
#[must_use]
pub fn half_values(graph: &Graph, options: PlanOptions) -> Vec<bool> {
    let nodes = graph.nodes();
    let mut exact = vec![options.activations == Activations::F32; nodes.len()];
    for (i, node) in nodes.iter().enumerate().rev() {
        let counts = match node.op {
            Op::Gather(_) => Some(node.inputs[1]),
            Op::TimestepEmbedding(_) => Some(node.inputs[0]),
            _ => None,
        };
        let own = exact[i];
        for id in node.reads().filter(|id| own || Some(*id) == counts) {
            exact[id.index()] = true;
        }
    }
    let slots = Slots::assign(graph);
    // A reshape is another view of the same memory.
    let mut half: Vec<bool> = nodes.iter().map(|node| !node.op.is_leaf()).collect();
    for (id, _) in graph.iter() {
        half[slots.root(id).index()] &= !exact[id.index()];
    }
    for (_, id) in graph.outputs() {
        half[slots.root(*id).index()] = false;
    }
    graph.iter().map(|(id, _)| half[slots.root(id).index()]).collect()
}

/// What a plan of an optimised graph will hold on such a device, without making it.
///
/// An estimate: values count as singles, devices round buffers up, and some need a little room of their own (parameters of kernels) or keep a weight
/// twice that is read in two ways.
#[must_use]
pub fn estimate_memory(
    graph: &Graph,
    weights: &dyn WeightSource,
    options: PlanOptions,
    device: DeviceKind,
) -> MemoryUse {
    // As plans do before they assign slots.
    let graph = &passes::hoist(graph);
    let kept = kept_weights(graph, weights, options);
    let mut memory = MemoryUse::default();
    for (node, kept) in graph.nodes().iter().zip(kept) {
        let elements = numel(&node.shape) as u64;
        match node.op {
            Op::Weight(_) => memory.weights += kept.on(device).bytes(numel(&node.shape)) as u64,
            Op::Constant(_) => memory.weights += elements * 4,
            Op::Input(_) => memory.activations += elements * 4,
            _ => {}
        }
    }
    if device == DeviceKind::Cpu {
        memory.activations +=
            4 * graph.nodes().iter().map(|node| attention_room(graph, node)).max().unwrap_or(0) as u64;
    }
    memory.activations += 4 * Slots::assign(graph).sizes().iter().map(|size| *size as u64).sum::<u64>();
    memory
}

/// Elements of the room in which the native executor lays out an attention's keys and values, in panels of as many columns as there are on a machine
/// with the widest registers.
fn attention_room(graph: &Graph, node: &Node) -> usize {
    const PANEL: usize = 32;
    let Op::Attention(attention) = &node.op else { return 0 };
    let [batch, keys, width] = graph.node(node.inputs[1]).shape[..] else { return 0 };
    let depth = width / attention.heads;
    batch * attention.heads * (keys.next_multiple_of(PANEL) * depth + depth.next_multiple_of(PANEL) * keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Conv2d;
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

    /// Names of the weights of a graph that are kept so.
    fn named(graph: &Graph, weights: &dyn WeightSource, storage: Storage, wanted: Kept) -> Vec<String> {
        let kept = kept_weights(graph, weights, PlanOptions { storage, ..Default::default() });
        let names =
            graph.nodes().iter().zip(kept).filter(|(_, kept)| *kept == wanted).map(|(node, _)| match &node.op {
                Op::Weight(weight) => weight.name.clone(),
                other => panic!("{other:?} is no weight"),
            });
        names.collect()
    }

    fn halves(weights: &dyn WeightSource, storage: Storage) -> Vec<String> {
        named(&graph(), weights, storage, Kept::F16)
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
            let upper = named(&graph(), &All(stored), Storage::Auto, Kept::Bf16);
            assert_eq!(upper, if stored == StorageType::Bf16 { large.clone() } else { Vec::new() });
        }
        assert_eq!(halves(&MemoryWeights::default(), Storage::Auto), Vec::<String>::new(), "missing weights");
    }

    #[test]
    fn eight_bits_are_for_whole_blocks_of_what_is_summed() {
        let s = Scope::root();
        let x = s.input("x", &[2, 4, 4, 64], Rate::Step);
        let h = s.at("conv").conv2d(&x, 6, 3, Conv2d::same(3));
        let odd = s.at("odd").conv2d(&h, 64, 3, Conv2d::same(3));
        let rows = odd.reshape(&[32, 64]);
        let by_columns = rows.matmul(&s.weight("by_columns", &[64, 32]));
        let y = s.at("proj").linear(&by_columns, 64);
        let both = s.at("both").weight("weight", &[64, 64]);
        let z = y.matmul_transposed(&both);
        let graph = passes::optimize(&s.finish(&[("z", &z)]).expect("the shapes fit"));
        let all = All(StorageType::Bf16);
        assert_eq!(named(&graph, &all, Storage::Q8_0, Kept::Q8_0), ["conv.weight", "proj.weight", "both.weight"]);
        assert_eq!(named(&graph, &all, Storage::Q8_0, Kept::F16), ["odd.weight", "by_columns"]);
        assert_eq!(halves(&all, Storage::Q8_0), ["embed.weight", "proj.weight"], "tables and short rows");
        assert_eq!(Kept::Q8_0.bytes(64), 68);
    }

    #[test]
    fn values_are_halves_but_for_counts_and_outputs() {
        let s = Scope::root();
        let t = s.input("t", &[2], Rate::Step);
        let doubled = &t + &t;
        let time = s.at("time").linear(&doubled.timestep_embedding(8, true, 0.0), 4);
        let ids = s.input("ids", &[3], Rate::Once);
        let next = (&ids + &ids).reshape(&[3, 1]).reshape(&[3]);
        let rows = s.at("embed").embedding(&next, 7, 4);
        let mixed = rows.matmul_transposed(&time);
        let view = mixed.reshape(&[6]);
        let out = view.scale(2.0);
        let graph = s.finish(&[("out", &out)]).expect("the shapes fit");
        let options = PlanOptions { activations: Activations::F16, ..Default::default() };
        let half = half_values(&graph, options);
        let names: Vec<_> =
            graph.nodes().iter().zip(&half).filter(|(_, half)| **half).map(|(node, _)| node.op.name()).collect();
        assert_eq!(names, ["timestep_embedding", "matmul", "gather", "matmul", "reshape"]);
        assert!(half_values(&graph, PlanOptions::default()).iter().all(|half| !half));
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
        let half = MemoryUse { weights: 2 * large + 4 * small, activations };
        for device in [DeviceKind::DiscreteGpu, DeviceKind::Cpu] {
            assert_eq!(estimate(Storage::F16, device), half);
        }
    }
}
