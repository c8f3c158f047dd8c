use super::dead_code;
use super::rewrite::Rewriter;
use crate::graph::{Graph, Node, NodeId};
use crate::op::Op;
use crate::ops::{MatMul, Slice, Weight};
use std::collections::{HashMap, HashSet};

/// Computes the parts of a product's last axis each by itself, from its own rows of the weight, where only parts are read: the halves of a
/// gated projection, or queries, keys and values that one projection makes. Nothing is copied out of a whole then, and what follows a part
/// can become its epilogue.
#[must_use]
pub fn part_products(graph: &Graph) -> Graph {
    let parted = parted(graph);
    if parted.is_empty() {
        return graph.clone();
    }
    let mut rewriter = Rewriter::new(graph);
    let mut parts: HashMap<(NodeId, usize, usize), NodeId> = HashMap::new();
    for (id, node) in graph.iter() {
        match &node.op {
            _ if parted.contains(&id) => {}
            Op::Slice(slice) if parted.contains(&node.inputs[0]) => {
                let product = node.inputs[0];
                let known = parts.get(&(product, slice.start, slice.len)).copied();
                let part = known.unwrap_or_else(|| part(&mut rewriter, graph, product, slice));
                parts.insert((product, slice.start, slice.len), part);
                rewriter.replace(id, part);
            }
            _ => {
                let node = rewriter.rename(node);
                rewriter.emit(id, node);
            }
        }
    }
    // Removes the whole weights, which are not read any more.
    dead_code(&rewriter.finish(graph))
}

fn part(rewriter: &mut Rewriter, graph: &Graph, product: NodeId, slice: &Slice) -> NodeId {
    let node = graph.node(product);
    let mut inputs = vec![rewriter.renamed(node.inputs[0])];
    for id in &node.inputs[1..] {
        let weight = rows(graph, *id).expect("only products by weights are parted");
        let start = weight.rows.start + slice.start;
        let weight = Weight { rows: start..start + slice.len, ..weight.clone() };
        inputs.push(rewriter.push(weight, Vec::new(), &graph.node(*id).path));
    }
    rewriter.push(node.op.clone(), inputs, &node.path)
}

/// Products by weights, of whose result only parts of the last axis are read, which together are no more than the whole.
fn parted(graph: &Graph) -> HashSet<NodeId> {
    let uses = graph.uses();
    let mut read: HashMap<NodeId, HashSet<(usize, usize)>> = HashMap::new();
    let mut slices: HashMap<NodeId, usize> = HashMap::new();
    for node in graph.nodes() {
        let Op::Slice(slice) = &node.op else { continue };
        let product = node.inputs[0];
        if slice.axis + 1 == graph.node(product).shape.len() && is_candidate(graph, &uses, graph.node(product)) {
            read.entry(product).or_default().insert((slice.start, slice.len));
            *slices.entry(product).or_default() += 1;
        }
    }
    let fits = |(product, parts): &(NodeId, HashSet<(usize, usize)>)| {
        let whole = graph.node(*product).shape.last().copied().unwrap_or(0);
        // Whoever reads it otherwise needs the whole.
        slices[product] == uses[product.index()] && parts.iter().map(|(_, len)| len).sum::<usize>() <= whole
    };
    read.into_iter().filter(fits).map(|(product, _)| product).collect()
}

/// A product by a weight that serves nothing else, and the same of its bias.
fn is_candidate(graph: &Graph, uses: &[usize], node: &Node) -> bool {
    let own = |id: &NodeId| uses[id.index()] == 1 && rows(graph, *id).is_some();
    matches!(node.op, Op::MatMul(MatMul { transpose_b: true, .. }))
        && node.epilogue.is_none()
        && graph.node(node.inputs[1]).shape.len() == 2
        && node.inputs[1..].iter().all(own)
}

/// A weight whose first axis is also the first in the checkpoint.
fn rows(graph: &Graph, id: NodeId) -> Option<&Weight> {
    match &graph.node(id).op {
        Op::Weight(weight) if weight.axes.first() == Some(&0) => Some(weight),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, MemoryWeights, Rate, Scope, evaluate};

    #[test]
    fn parts_are_what_the_whole_had_there() {
        let s = Scope::root();
        let x = s.input("x", &[2, 3, 4], Rate::Step);
        let gated = s.at("gated").linear(&x, 6).chunk(2, 2);
        let all = s.at("qkv").linear_no_bias(&x, 9).chunk(2, 3);
        let whole = s.at("whole").linear(&x, 4);
        let y = &gated[0] * &gated[1].gelu();
        let z = &(&all[0] * &all[2]) + &all[1];
        let w = whole.chunk(2, 2);
        let outputs = [("y", &y), ("z", &z), ("w", &w[0]), ("whole", &whole)];
        let graph = s.finish(&outputs).expect("the shapes fit");
        let parted = part_products(&graph);
        let count = |graph: &Graph, name: &str| graph.nodes().iter().filter(|node| node.op.name() == name).count();
        // Two halves and three thirds; what is also read as a whole stays one.
        assert_eq!([count(&graph, "matmul"), count(&graph, "slice")], [3, 6]);
        assert_eq!([count(&parted, "matmul"), count(&parted, "slice")], [6, 1]);
        let mut weights = MemoryWeights::default();
        for spec in graph.weights() {
            let data: Vec<f32> = (0..crate::shape::numel(&spec.shape)).map(|i| (i * 37 % 101) as f32 / 64.0).collect();
            weights.insert(spec.name, spec.shape, &data);
        }
        let x = Array::new(vec![2, 3, 4], (0..24).map(|i| f64::from(i) / 8.0 - 1.0).collect());
        let run = |graph: &Graph| {
            evaluate::<f64>(graph, &[("x", x.clone())].into_iter().collect(), &weights).expect("every input is bound")
        };
        assert_eq!(run(&parted), run(&graph));
    }
}
