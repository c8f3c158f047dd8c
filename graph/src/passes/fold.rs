use super::rewrite::Rewriter;
use crate::array::Array;
use crate::expr::Expr;
use crate::graph::{Graph, Node, NodeId};
use crate::op::{Op, Operation};
use crate::ops::{Constant, Elementwise, Reshape};
use crate::shape::numel;

/// Constants are folded up to this many elements; larger results would cost more to store than to compute.
const LARGEST_FOLDED: usize = 1 << 16;

/// Evaluates what is constant, simplifies expressions, and removes operations that change nothing.
#[must_use]
pub fn fold(graph: &Graph) -> Graph {
    let mut rewriter = Rewriter::new(graph);
    for (id, node) in graph.iter() {
        let mut node = rewriter.rename(node);
        collapse_reshapes(&rewriter.nodes, &mut node);
        simplify(&rewriter.nodes, &mut node);
        if let Some(same) = unchanged(&rewriter.nodes, &node) {
            rewriter.replace(id, same);
            continue;
        }
        if let Some(constant) = evaluate(&rewriter.nodes, &node) {
            node.op = constant.into();
            node.inputs.clear();
        }
        rewriter.emit(id, node);
    }
    rewriter.finish(graph)
}

/// A reshape of a reshape is one reshape.
fn collapse_reshapes(nodes: &[Node], node: &mut Node) {
    if let Op::Reshape(_) = node.op {
        let operand = &nodes[node.inputs[0].index()];
        if let Op::Reshape(_) = operand.op {
            node.inputs[0] = operand.inputs[0];
        }
    }
}

/// Scalar constants become part of the expression, and the expression loses neutral elements and unread operands.
fn simplify(nodes: &[Node], node: &mut Node) {
    let Op::Elementwise(Elementwise { expr }) = &mut node.op else {
        return;
    };
    let scalar = |id: &NodeId| match &nodes[id.index()] {
        Node { op: Op::Constant(c), .. } if c.data.len() == 1 => Some(f64::from(c.data[0])),
        _ => None,
    };
    let known: Vec<Option<f64>> = node.inputs.iter().map(scalar).collect();
    let simple = expr.substitute(&|i| known[i].map_or(Expr::Input(i), Expr::Const)).simplify();
    // An operand that is no longer read may still set the result's shape by broadcasting: keep those.
    let shape_without = |dropped: &[usize]| {
        let shapes: Vec<&[usize]> = (0..node.inputs.len())
            .filter(|i| !dropped.contains(i))
            .map(|i| &*nodes[node.inputs[i].index()].shape)
            .collect();
        Elementwise { expr: Expr::Const(0.0) }.infer(&shapes).ok()
    };
    let mut dropped = Vec::new();
    for i in 0..node.inputs.len() {
        if simple.count(i) == 0 {
            dropped.push(i);
            if shape_without(&dropped).as_ref() != Some(&node.shape) {
                dropped.pop();
            }
        }
    }
    let kept: Vec<usize> = (0..node.inputs.len()).filter(|i| !dropped.contains(i)).collect();
    let position = |old: usize| kept.iter().position(|k| *k == old).expect("an operand that is read is kept");
    *expr = simple.substitute(&|i| Expr::Input(position(i)));
    node.inputs = kept.into_iter().map(|i| node.inputs[i]).collect();
}

/// The operand to which a node is equal, if there is one.
fn unchanged(nodes: &[Node], node: &Node) -> Option<NodeId> {
    if node.epilogue.is_some() {
        return None;
    }
    let operand = *node.inputs.first()?;
    let same_shape = nodes[operand.index()].shape == node.shape;
    let repeats = match &node.op {
        Op::Elementwise(Elementwise { expr: Expr::Input(0) }) => node.inputs.len() == 1,
        Op::Reshape(Reshape { .. }) | Op::Slice(_) => true,
        Op::Concat(_) => node.inputs.len() == 1,
        Op::Transpose(t) => t.axes.iter().copied().eq(0..t.axes.len()),
        _ => false,
    };
    (repeats && same_shape).then_some(operand)
}

/// The value of a node whose operands are all constants.
fn evaluate(nodes: &[Node], node: &Node) -> Option<Constant> {
    if node.op.is_leaf() || node.epilogue.is_some() || numel(&node.shape) > LARGEST_FOLDED {
        return None;
    }
    let operands = node
        .inputs
        .iter()
        .map(|id| match &nodes[id.index()].op {
            Op::Constant(c) => Some(Array::new(c.shape.clone(), c.data.iter().map(|v| f64::from(*v)).collect())),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let value = node.op.reference(&operands.iter().collect::<Vec<_>>(), &node.shape);
    Some(Constant { shape: node.shape.clone(), data: value.cast::<f32>().data })
}
