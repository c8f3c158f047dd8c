use crate::graph::{Graph, Node, NodeId};

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

    /// Uses an already rewritten node in place of an old one.
    pub(super) fn replace(&mut self, old: NodeId, new: NodeId) {
        self.renamed[old.index()] = Some(new);
    }

    pub(super) fn finish(self, graph: &Graph) -> Graph {
        let outputs = graph.outputs.iter().map(|(name, id)| (name.clone(), self.renamed(*id))).collect();
        Graph { nodes: self.nodes, outputs }
    }
}
