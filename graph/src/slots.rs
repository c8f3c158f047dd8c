//! Memory by liveness: values that are never alive together share a slot.
//!
//! One buffer per slot, not one arena: wgpu tracks usage per whole buffer and forbids reading and writing the same buffer
//! in one dispatch, so an arena would force read-write bindings everywhere.

use crate::graph::{Graph, NodeId, Rate};
use crate::op::Op;
use crate::shape::numel;

/// Index of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub usize);

/// Where every computed value of a graph lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    roots: Vec<NodeId>,
    slots: Vec<Option<Slot>>,
    sizes: Vec<usize>,
}

/// The positions from the node that writes a value to the last node that reads it, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Slots {
    /// Assigns slots, greatest value first, each to the best-fitting slot that is free over its whole life.
    ///
    /// The order of the nodes must put everything of rate `Once` before everything of rate `Step` (the hoist pass does).
    #[must_use]
    pub fn assign(graph: &Graph) -> Slots {
        let roots = roots(graph);
        let ranges = live_ranges(graph, &roots);
        let mut order: Vec<usize> = (0..ranges.len()).filter(|i| ranges[*i].is_some()).collect();
        let size = |i: usize| numel(&graph.nodes()[i].shape);
        order.sort_by_key(|i| std::cmp::Reverse(size(*i)));

        let mut sizes: Vec<usize> = Vec::new();
        let mut taken: Vec<Vec<Range>> = Vec::new();
        let mut slots = vec![None; ranges.len()];
        for i in order {
            let range = ranges[i].expect("only nodes with a range were kept");
            let free = |slot: &usize| taken[*slot].iter().all(|r| r.last < range.first || range.last < r.first);
            // Values come in order of falling size, so every existing slot is large enough, and the smallest one wastes
            // least.
            let slot = (0..sizes.len()).filter(free).min_by_key(|slot| sizes[*slot]).unwrap_or_else(|| {
                sizes.push(size(i));
                taken.push(Vec::new());
                sizes.len() - 1
            });
            taken[slot].push(range);
            slots[i] = Some(Slot(slot));
        }
        Slots { roots, slots, sizes }
    }

    /// The node whose memory holds this one's value: the node itself or, for a reshape, its operand's.
    #[must_use]
    pub fn root(&self, id: NodeId) -> NodeId {
        self.roots[id.index()]
    }

    /// The slot of a value; none for inputs, weights and constants, which own their memory.
    #[must_use]
    pub fn of(&self, id: NodeId) -> Option<Slot> {
        self.slots[self.root(id).index()]
    }

    /// Elements each slot must hold.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }
}

/// The node whose memory holds each node's value.
pub(crate) fn roots(graph: &Graph) -> Vec<NodeId> {
    let mut roots: Vec<NodeId> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.iter() {
        roots.push(if matches!(node.op, Op::Reshape(_)) { roots[node.inputs[0].index()] } else { id });
    }
    roots
}

/// When each value is alive; none for leaves and reshapes.
pub(crate) fn live_ranges(graph: &Graph, roots: &[NodeId]) -> Vec<Option<Range>> {
    const FOREVER: usize = usize::MAX;
    let mut ranges: Vec<Option<Range>> = graph
        .iter()
        .map(|(id, node)| {
            let owns = !node.op.is_leaf() && roots[id.index()] == id;
            owns.then_some(Range { first: id.index(), last: id.index() })
        })
        .collect();
    for (id, node) in graph.iter() {
        for read in node.reads() {
            let root = roots[read.index()];
            // Replaying skips the nodes of rate `Once`, so what a step reads from them must outlive every step.
            let kept = graph.node(root).rate == Rate::Once && node.rate == Rate::Step;
            if let Some(range) = &mut ranges[root.index()] {
                range.last = range.last.max(if kept { FOREVER } else { id.index() });
            }
        }
    }
    for (_, output) in graph.outputs() {
        if let Some(range) = &mut ranges[roots[output.index()].index()] {
            range.last = FOREVER;
        }
    }
    ranges
}
