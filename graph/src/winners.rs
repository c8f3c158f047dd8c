//! Which way of computing an operation was measured to be the fastest on a device, by the operation's shapes.
//!
//! A device has several ways for some operations and a rule that chooses. What was measured on the machine at hand comes before
//! that rule ([`PlanOptions::winners`](crate::PlanOptions)); it changes rounding and speed and nothing else.

use crate::error::GraphError;
use crate::graph::{Graph, Node, NodeId, Rate};
use crate::op::Op;
use crate::ops::{Conv2d, MatMul};
use crate::scope::Scope;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The name of a way for each shape that was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Winners(BTreeMap<String, String>);

impl Winners {
    /// Notes that operations of this shape ([`shape_key`]) are computed fastest in this way.
    pub fn insert(&mut self, shape: String, way: String) {
        self.0.insert(shape, way);
    }

    /// The way for a node, where its shape was measured.
    #[must_use]
    pub fn way(&self, graph: &Graph, node: &Node) -> Option<&str> {
        self.0.get(&shape_key(graph, node)?).map(String::as_str)
    }

    /// Shapes and ways, in the shapes' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(shape, way)| (&**shape, &**way))
    }

    /// How many shapes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, String)> for Winners {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// An operation and its operands' shapes in words; none for operations that take little time or have one way only.
///
/// Images and sequences count as one: their first axis is left out, so that a batch is computed as each of its images alone.
#[must_use]
pub fn shape_key(graph: &Graph, node: &Node) -> Option<String> {
    let mut key = node.op.name().to_owned();
    match &node.op {
        Op::MatMul(MatMul { transpose_b, .. }) => key += if *transpose_b { " by rows" } else { " by columns" },
        Op::Conv2d(Conv2d { stride, padding: [top, bottom, left, right], upsample, .. }) => {
            let _ = write!(key, " stride {stride} padding {top} {bottom} {left} {right} enlarged {upsample}");
        }
        Op::Attention(op) => {
            let _ = write!(key, " of {} heads{}", op.heads, if op.causal { " causal" } else { "" });
        }
        Op::GroupNorm(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => {}
        _ => return None,
    }
    for id in &node.inputs {
        let operand = graph.node(*id);
        let is_weight = matches!(operand.op, Op::Weight(_) | Op::Constant(_));
        let shape = if operand.shape.len() > 2 && !is_weight { &operand.shape[1..] } else { &operand.shape };
        let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
        let _ = write!(key, " {}", extents.join("x"));
    }
    Some(key)
}

/// One node with its epilogue as a graph of its own, with one output: weights stay weights, under names of their own, and what else it
/// reads are inputs.
///
/// # Errors
/// Never for a node of a well-formed graph.
pub fn alone(graph: &Graph, id: NodeId) -> Result<Graph, GraphError> {
    let scope = Scope::root();
    let node = graph.node(id);
    let leaf = |id: &NodeId| -> Tensor {
        let operand = graph.node(*id);
        let name = format!("x{}", id.index());
        match operand.op {
            Op::Weight(_) | Op::Constant(_) => scope.weight(&name, &operand.shape),
            _ => scope.input(&name, &operand.shape, Rate::Step),
        }
    };
    let operands: Vec<Tensor> = node.inputs.iter().map(leaf).collect();
    let mut result = scope.push(node.op.clone(), &operands.iter().collect::<Vec<_>>());
    if let Some(epilogue) = &node.epilogue {
        let extras: Vec<Tensor> = epilogue.inputs.iter().map(leaf).collect();
        result = result.elementwise(epilogue.expr.clone(), &extras.iter().collect::<Vec<_>>());
    }
    scope.finish(&[("y", &result)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes;
    use crate::random::{RandomGraph, random_graph};

    /// A layer on so many sequences, of as many images' pixels.
    fn graph(batch: usize) -> Graph {
        let s = Scope::root();
        let x = s.input("x", &[batch, 8, 8, 16], Rate::Step);
        let h = s.at("conv").conv2d(&x, 32, 3, Conv2d::same(3)).silu();
        let y = s.at("proj").linear(&h.reshape(&[batch, 64, 32]), 8);
        passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit"))
    }

    fn keys(graph: &Graph) -> Vec<String> {
        graph.nodes().iter().filter_map(|node| shape_key(graph, node)).collect()
    }

    #[test]
    fn a_batch_has_the_shapes_of_its_images() {
        assert_eq!(keys(&graph(1)), keys(&graph(3)));
        assert_eq!(
            keys(&graph(1)),
            ["conv2d stride 1 padding 1 1 1 1 enlarged 1 8x8x16 32x3x3x16 32", "matmul by rows 64x32 8x32 8"]
        );
    }

    #[test]
    fn a_node_alone_is_found_under_the_same_shape() {
        for seed in 0..40 {
            let RandomGraph { graph, .. } = random_graph(seed, 14);
            let graph = passes::optimize(&graph);
            for (id, node) in graph.iter() {
                let Some(key) = shape_key(&graph, node) else { continue };
                let own = passes::optimize(&alone(&graph, id).expect("the graph is well-formed"));
                assert_eq!(keys(&own), [key], "seed {seed}\n{own}");
            }
        }
    }

    #[test]
    fn what_was_measured_is_found() {
        let graph = graph(2);
        let conv = graph.nodes().iter().find(|node| node.op.name() == "conv2d").expect("it has one");
        let mut winners = Winners::default();
        assert!(winners.is_empty() && winners.way(&graph, conv).is_none());
        winners.insert(shape_key(&graph, conv).expect("convolutions are measured"), "direct".into());
        assert_eq!((winners.len(), winners.way(&graph, conv)), (1, Some("direct")));
    }
}
