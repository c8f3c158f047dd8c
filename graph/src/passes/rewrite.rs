use crate::graph::{Graph, Node, NodeId, Rate, rate_of};
use crate::op::Op;
use crate::shape::Shape;

/// Copies a graph node by node and renumbers operands.
pub(super) struct Rewriter {
    pub(super) nodes: Vec<Node>,
    renamed: Vec<Option<NodeId>>,
}

impl Rewriter {
    pub(super) fn new(graph: &Graph) -> Self {
        Self { nodes: Vec::with_capacity(graph.nodes.len()), renamed: vec![None; graph.nodes.len()] }
    }

    /// The new number of an old node.
    pub(super) fn renamed(&self, old: NodeId) -> NodeId {
        self.renamed[old.index()].expect("operands are rewritten before the nodes that read them")
    }

    /// The node with its operands renumbered.
    pub(super) fn rename(&self, node: &Node) -> Node {
        let mut node = node.clone();
        for id in node.inputs.iter_mut().chain(node.epilogue.iter_mut().flat_map(|e| &mut e.inputs)) {
            *id = self.renamed(*id);
        }
        node
    }

    /// Appends a node that replaces an old one.
    pub(super) fn emit(&mut self, old: NodeId, node: Node) {
        let new = NodeId::new(self.nodes.len());
        self.nodes.push(node);
        self.renamed[old.index()] = Some(new);
    }

    /// Appends a node that the old graph does not have; its operands are new nodes and fit it.
    pub(super) fn push(&mut self, op: impl Into<Op>, inputs: Vec<NodeId>, path: &str) -> NodeId {
        let op = op.into();
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| &*self.nodes[id.index()].shape).collect();
        let shape: Shape = op.infer(&shapes).expect("rewritten operands fit as those before did");
        let rate: Rate = rate_of(&op, inputs.iter().map(|id| self.nodes[id.index()].rate));
        let id = NodeId::new(self.nodes.len());
        self.nodes.push(Node { op, inputs, epilogue: None, shape, rate, path: path.to_owned() });
        id
    }

    /// Uses an already rewritten node in place of an old one.
    pub(super) fn replace(&mut self, old: NodeId, new: NodeId) {
        self.renamed[old.index()] = Some(new);
    }

    pub(super) fn finish(self, graph: &Graph) -> Graph {
        let outputs = graph.outputs.iter().map(|(name, id)| (name.clone(), self.renamed(*id))).collect();
        Graph { nodes: self.nodes, outputs }
    }
}
