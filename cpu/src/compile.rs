//! Turns a graph into kernels and memory.

use crate::eval::Fused;
use crate::gemm::{Matrix, Panels};
use crate::kernels::{
    Attend, Convolve, Join, Kernel, Normalize, NormalizeGroups, Permute, Product, Right, Rows, Take, Winograd,
};
use crate::memory::Memory;
use crate::parallel::Threads;
use crate::weights::{self, InOrder};
use graph::ops::{GroupNorm, MatMul};
use graph::shape::numel;
use graph::{DeviceError, Graph, Node, NodeId, Op, PlanOptions, Slots, WeightSource, kept_weights, winograd};
use rayon::prelude::*;
use std::collections::HashMap;

/// A node made ready to run.
pub(crate) struct Step {
    pub(crate) id: NodeId,
    pub(crate) kernel: Kernel,
    pub(crate) reads: Vec<NodeId>,
    pub(crate) epilogue: Option<(Fused, Vec<NodeId>)>,
}

/// The kernels of a graph and the memory they read.
pub(crate) struct Compiled {
    /// In running order, reshapes and leaves left out.
    pub(crate) steps: Vec<Step>,
    /// Inputs, weights and constants by node number; empty for all other nodes.
    pub(crate) leaves: Vec<Memory<f32>>,
    pub(crate) packs: Vec<Panels>,
    /// Bytes of weights and constants, packed or not.
    pub(crate) weight_bytes: u64,
    /// Elements of scratch memory that the largest attention needs.
    pub(crate) heads: usize,
}

/// A weight as the right factor of a product, or as a table.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct PackKey {
    root: NodeId,
    n: usize,
    k: usize,
    transposed: bool,
}

impl PackKey {
    fn matrix<T>(&self, data: T) -> Matrix<T> {
        let PackKey { n, k, transposed, .. } = *self;
        Matrix { data, n, k, transposed }
    }
}

pub(crate) fn compile(
    graph: &Graph,
    slots: &Slots,
    source: &dyn WeightSource,
    options: PlanOptions,
    threads: &Threads,
    device: &str,
) -> Result<Compiled, DeviceError> {
    let kept = kept_weights(graph, source, options);
    let keys: HashMap<NodeId, PackKey> =
        graph.iter().filter_map(|(id, node)| Some((id, pack_key(graph, slots, node)?))).collect();
    let mut order: Vec<PackKey> = Vec::new();
    let mut steps = Vec::new();
    let mut read_whole = vec![false; graph.nodes().len()];
    for (_, id) in graph.outputs() {
        read_whole[slots.root(*id).index()] = true;
    }
    for (id, node) in graph.iter().filter(|(_, node)| !node.op.is_leaf() && !matches!(node.op, Op::Reshape(_))) {
        let mut reads = node.inputs.clone();
        let right = keys.get(&id).map_or(Right::Loose, |key| {
            reads.remove(packed_operand(&node.op));
            let place = order.iter().position(|known| known == key).unwrap_or(order.len());
            if place == order.len() {
                order.push(*key);
            }
            Right::Packed(place)
        });
        let epilogue = node.epilogue.as_ref().map(|epilogue| {
            (Fused::epilogue(&epilogue.expr, &node.shape, &shapes(graph, &epilogue.inputs)), epilogue.inputs.clone())
        });
        for read in reads.iter().chain(epilogue.iter().flat_map(|(_, reads)| reads)) {
            read_whole[slots.root(*read).index()] = true;
        }
        steps.push(Step { id, kernel: kernel(graph, node, right, options), reads, epilogue });
    }

    let mut compiled = Compiled { heads: heads(&steps), steps, leaves: Vec::new(), packs: Vec::new(), weight_bytes: 0 };
    let leaf = |(id, node): (NodeId, &Node)| -> Result<Leaf, DeviceError> {
        let own = order.iter().enumerate().filter(|(_, key)| key.root == id);
        match &node.op {
            Op::Weight(weight) => {
                let kept = kept[id.index()];
                let tensor = weights::load(source, weight)?;
                let mut packs = Vec::new();
                for (place, key) in own {
                    let matrix = key.matrix(InOrder::new(&tensor, weight, key.transposed));
                    match Panels::pack_weight(&matrix, kept) {
                        Some(panels) => packs.push((place, panels)),
                        None => weights::check(&tensor, weight, kept)?,
                    }
                }
                // What is packed was looked at on the way.
                if packs.is_empty() {
                    weights::check(&tensor, weight, kept)?;
                }
                let whole = read_whole[id.index()];
                let data = if whole { weights::singles(tensor, weight, kept).into() } else { Memory::default() };
                source.release(&weight.name);
                Ok(Leaf { data, packs })
            }
            Op::Constant(constant) => {
                let packs = own.map(|(place, key)| (place, Panels::pack(key.matrix(&constant.data)))).collect();
                let data = if read_whole[id.index()] { constant.data.clone().into() } else { Memory::default() };
                Ok(Leaf { data, packs })
            }
            Op::Input(input) => Ok(Leaf { data: zeros(numel(&input.shape), device)?, packs: Vec::new() }),
            _ => Ok(Leaf { data: Memory::default(), packs: Vec::new() }),
        }
    };
    // Each thread reads and packs a weight at a time. The first error in the graph's order is the one that is told.
    let nodes: Vec<(NodeId, &Node)> = graph.iter().collect();
    let leaves: Vec<_> = threads.install(|| nodes.par_iter().with_max_len(1).map(|one| leaf(*one)).collect());
    let mut packed: Vec<Option<Panels>> = order.iter().map(|_| None).collect();
    for (leaf, (_, node)) in leaves.into_iter().zip(nodes) {
        let leaf = leaf?;
        if !matches!(node.op, Op::Input(_)) {
            compiled.weight_bytes += size_of_val(&*leaf.data) as u64;
        }
        compiled.leaves.push(leaf.data);
        for (place, panels) in leaf.packs {
            compiled.weight_bytes += panels.bytes() as u64;
            packed[place] = Some(panels);
        }
    }
    compiled.packs =
        packed.into_iter().map(|panels| panels.expect("every weight that can be kept is packed")).collect();
    Ok(compiled)
}

/// What is kept of an input, a weight or a constant.
struct Leaf {
    data: Memory<f32>,
    /// Its packed forms, by their place in the order of all.
    packs: Vec<(usize, Panels)>,
}

/// Which operand is a right factor or a table.
fn packed_operand(op: &Op) -> usize {
    usize::from(!matches!(op, Op::Gather(_)))
}

/// How the product's right factor is packed, or a table, when it is one matrix known before the graph runs.
fn pack_key(graph: &Graph, slots: &Slots, node: &Node) -> Option<PackKey> {
    let operand = *node.inputs.get(packed_operand(&node.op))?;
    let (n, k, transposed) = match (&node.op, &graph.node(operand).shape[..]) {
        (Op::MatMul(MatMul { transpose_b: true, .. }), &[n, k]) => (n, k, true),
        (Op::MatMul(MatMul { transpose_b: false, .. }), &[k, n]) => (n, k, false),
        (Op::Conv2d(_), &[n, ref taps @ ..]) => (n, numel(taps), true),
        (Op::Gather(_), &[rows, channels]) => (channels, rows, false),
        _ => return None,
    };
    let root = slots.root(operand);
    let known = matches!(graph.node(root).op, Op::Weight(_) | Op::Constant(_));
    (known && n > 0 && k > 0).then_some(PackKey { root, n, k, transposed })
}

fn shapes<'a>(graph: &'a Graph, ids: &[NodeId]) -> Vec<&'a [usize]> {
    ids.iter().map(|id| &*graph.node(*id).shape).collect()
}

fn kernel(graph: &Graph, node: &Node, right: Right, options: PlanOptions) -> Kernel {
    let inputs = shapes(graph, &node.inputs);
    match &node.op {
        Op::MatMul(op) => {
            let dims = op.dims(inputs[0], inputs[1]);
            Kernel::Product(Product { dims, transpose_b: op.transpose_b, bias: op.bias, right })
        }
        Op::Conv2d(op) => {
            let dims = op.dims(inputs[0], inputs[1], &node.shape);
            match (winograd(graph, node, options), right) {
                (Some(tile), Right::Packed(pack)) => Kernel::Winograd(Winograd { op: *op, dims, tile, pack }),
                _ => Kernel::Convolve(Convolve { op: *op, dims, right }),
            }
        }
        Op::GroupNorm(op) => Kernel::NormalizeGroups(NormalizeGroups { op: *op, dims: GroupNorm::dims(inputs[0]) }),
        Op::LayerNorm(op) => {
            let channels = inputs[0].last().copied().unwrap_or(1);
            Kernel::Normalize(Normalize { channels, eps: op.eps, centred: true, affine: op.affine })
        }
        Op::RmsNorm(op) => {
            let channels = inputs[0].last().copied().unwrap_or(1);
            Kernel::Normalize(Normalize { channels, eps: op.eps, centred: false, affine: false })
        }
        Op::Attention(op) => {
            let (q, k) = (inputs[0], inputs[1]);
            Kernel::Attend(Attend { op: *op, batch: q[0], queries: q[1], keys: k[1], width: q[2] })
        }
        Op::Elementwise(op) => Kernel::Elementwise(Fused::new(&op.expr, &node.shape, &inputs)),
        Op::Gather(_) => Kernel::Rows(Rows { rows: inputs[0][0], channels: inputs[0][1], table: right }),
        Op::Concat(op) => Kernel::Join(Join { runs: inputs.iter().map(|shape| numel(&shape[op.axis..])).collect() }),
        Op::Slice(op) => {
            let inner = numel(&inputs[0][op.axis + 1..]);
            let whole = inputs[0][op.axis] * inner;
            Kernel::Take(Take { whole, start: op.start * inner, run: op.len * inner })
        }
        Op::Transpose(op) => Kernel::Permute(Permute::new(&node.shape, op.source_strides(inputs[0]))),
        op => Kernel::Reference {
            op: op.clone(),
            shapes: inputs.iter().map(|shape| shape.to_vec()).collect(),
            out: node.shape.clone(),
        },
    }
}

fn heads(steps: &[Step]) -> usize {
    let room = |step: &Step| if let Kernel::Attend(kernel) = &step.kernel { kernel.room() } else { 0 };
    steps.iter().map(room).max().unwrap_or(0)
}

/// Zeroed memory for this many elements, or an error when the system has no memory left.
pub(crate) fn zeros(len: usize, device: &str) -> Result<Memory<f32>, DeviceError> {
    Memory::zeroed(len).ok_or_else(|| DeviceError::OutOfMemory {
        device: device.to_owned(),
        doing: format!("reserving {} MiB for activations", len.saturating_mul(size_of::<f32>()) >> 20),
    })
}
