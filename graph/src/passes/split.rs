use super::dead_code;
use crate::expr::{Binary, Expr};
use crate::graph::{Graph, Node, NodeId};
use crate::op::Op;
use crate::ops::{Concat, Elementwise, Gather, MatMul, Reshape, Slice, Weight};
use crate::passes::rewrite::Rewriter;
use crate::shape::numel;
use std::collections::HashMap;
use std::ops::Range;

/// Cuts weights of more than `largest` elements into runs of rows, where their readers allow it: a table of rows, and
/// the right factor of a product or a convolution, whose rows are channels of the result. `largest` is called for each
/// weight and returns `None` for those that need no cutting.
///
/// For devices whose bindings are limited in size. Every value is rounded as before.
#[must_use]
pub fn split_weights(graph: &Graph, largest: impl Fn(NodeId, &Weight) -> Option<usize>) -> Graph {
    let cuts: HashMap<NodeId, Vec<Range<usize>>> =
        graph.iter().filter_map(|(id, node)| Some((id, runs(node, largest(id, leaf(node)?)?)?))).collect();
    if cuts.is_empty() {
        return graph.clone();
    }
    let mut splitter = Splitter { rewriter: Rewriter::new(graph), graph, cuts, pieces: HashMap::new() };
    for (id, node) in graph.iter() {
        if !splitter.split(id, node) {
            let node = splitter.rewriter.rename(node);
            splitter.rewriter.emit(id, node);
        }
    }
    // Removes the whole weights, which are not read any more.
    dead_code(&splitter.rewriter.finish(graph))
}

fn leaf(node: &Node) -> Option<&Weight> {
    if let Op::Weight(weight) = &node.op { Some(weight) } else { None }
}

/// The ranges of rows of pieces with at most `largest` elements. `None` where one piece is enough, or where a single
/// row is too large.
fn runs(node: &Node, largest: usize) -> Option<Vec<Range<usize>>> {
    let (rows, row) = (*node.shape.first()?, numel(node.shape.get(1..)?));
    // Rows can be cut only if they are also the first axis in the checkpoint.
    if rows * row <= largest || row > largest || leaf(node)?.axes.first() != Some(&0) {
        return None;
    }
    let each = largest / row;
    Some((0..rows).step_by(each).map(|from| from..rows.min(from + each)).collect())
}

struct Splitter<'a> {
    rewriter: Rewriter,
    graph: &'a Graph,
    cuts: HashMap<NodeId, Vec<Range<usize>>>,
    /// Pieces in the new graph, by the old weight and the row they begin at.
    pieces: HashMap<(NodeId, usize), NodeId>,
}

impl Splitter<'_> {
    /// Replaces a node that reads a weight with cuts; `false` if it stays as it is.
    fn split(&mut self, id: NodeId, node: &Node) -> bool {
        let large = match node.op {
            Op::Gather(_) => 0,
            Op::MatMul(MatMul { transpose_b: true, .. }) | Op::Conv2d(_) => 1,
            _ => return false,
        };
        let weight = self.weight_of(node.inputs[large]);
        let Some(cuts) = self.cuts.get(&weight).cloned() else { return false };
        let read = node.inputs[large];
        // A reshape between weight and reader must keep the rows.
        if self.graph.node(read).shape[0] != self.graph.node(weight).shape[0] {
            return false;
        }
        let whole = if let Op::Gather(_) = node.op {
            self.gather(node, read, weight, &cuts)
        } else {
            self.product(node, read, weight, &cuts)
        };
        match &node.epilogue {
            None => self.rewriter.replace(id, whole),
            Some(epilogue) => {
                let extras = epilogue.inputs.iter().map(|id| self.rewriter.renamed(*id));
                let inputs = std::iter::once(whole).chain(extras).collect();
                let last = self.push(Elementwise { expr: epilogue.expr.clone() }, inputs, &node.path);
                self.rewriter.replace(id, last);
            }
        }
        true
    }

    /// The leaf behind reshapes.
    fn weight_of(&self, mut id: NodeId) -> NodeId {
        while let Op::Reshape(_) = self.graph.node(id).op {
            id = self.graph.node(id).inputs[0];
        }
        id
    }

    fn push(&mut self, op: impl Into<Op>, inputs: Vec<NodeId>, path: &str) -> NodeId {
        self.rewriter.push(op, inputs, path)
    }

    /// Some rows of a weight, in the shape in which they are read.
    fn piece(&mut self, read: NodeId, weight: NodeId, rows: Range<usize>) -> NodeId {
        let known = self.pieces.get(&(weight, rows.start)).copied();
        let piece = known.unwrap_or_else(|| {
            let node = self.graph.node(weight);
            let mut op = leaf(node).expect("cuts are of weights").clone();
            op.rows = op.rows.start + rows.start..op.rows.start + rows.end;
            let id = self.push(op, Vec::new(), &node.path);
            self.pieces.insert((weight, rows.start), id);
            id
        });
        if read == weight {
            return piece;
        }
        let mut shape = self.graph.node(read).shape.clone();
        shape[0] = rows.len();
        self.push(Reshape { shape }, vec![piece], &self.graph.node(read).path.clone())
    }

    /// Each piece gives a part of the result's last axis, and the parts are joined.
    fn product(&mut self, node: &Node, read: NodeId, weight: NodeId, cuts: &[Range<usize>]) -> NodeId {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|id| self.rewriter.renamed(*id)).collect();
        let mut parts = Vec::new();
        for rows in cuts {
            let mut inputs = inputs.clone();
            inputs[1] = self.piece(read, weight, rows.clone());
            if let Some(bias) = inputs.get_mut(2) {
                *bias = self.push(Slice { axis: 0, start: rows.start, len: rows.len() }, vec![*bias], &node.path);
            }
            parts.push(self.push(node.op.clone(), inputs, &node.path));
        }
        self.push(Concat { axis: node.shape.len() - 1 }, parts, &node.path)
    }

    /// Every id is looked up in every piece. Only one piece holds the id's row, and what the others return is
    /// multiplied by zero.
    fn gather(&mut self, node: &Node, read: NodeId, weight: NodeId, cuts: &[Range<usize>]) -> NodeId {
        let ids = self.rewriter.renamed(node.inputs[1]);
        let mut column = self.rewriter.nodes[ids.index()].shape.clone();
        column.push(1);
        let column = self.push(Reshape { shape: column }, vec![ids], &node.path);
        let id = || Box::new(Expr::Input(0));
        let number = |n: usize| Box::new(Expr::Const(n as f64));
        let minus = |n| Expr::Binary(Binary::Sub, id(), number(n));
        // Ids are whole numbers, so one of these is 1 and all others are 0. An id beyond the table's end counts as the
        // last row.
        let unit =
            |expr| Expr::binary(Binary::Max, Expr::binary(Binary::Min, expr, Expr::Const(1.0)), Expr::Const(0.0));
        let mut sum = None;
        for (i, &Range { start: from, end: to }) in cuts.iter().enumerate() {
            let table = self.piece(read, weight, from..to);
            let below = self.push(Elementwise { expr: minus(from) }, vec![ids], &node.path);
            let rows = self.push(Gather, vec![table, below], &node.path);
            let started = unit(Expr::binary(Binary::Add, minus(from), Expr::Const(1.0)));
            let open = unit(Expr::Binary(Binary::Sub, number(to), id()));
            let mask = match (i == 0, i + 1 == cuts.len()) {
                (true, _) => open,
                (_, true) => started,
                _ => Expr::binary(Binary::Mul, started, open),
            };
            let mask = self.push(Elementwise { expr: mask }, vec![column], &node.path);
            let product = Expr::binary(Binary::Mul, Expr::Input(0), Expr::Input(1));
            let (expr, mut inputs) = match sum {
                None => (product, vec![rows, mask]),
                Some(_) => (Expr::binary(Binary::Add, Expr::Input(2), product), vec![rows, mask]),
            };
            inputs.extend(sum);
            sum = Some(self.push(Elementwise { expr }, inputs, &node.path));
        }
        sum.expect("a cut has pieces")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Conv2d;
    use crate::{Array, MemoryWeights, Rate, Scope, evaluate, passes::optimize};

    #[test]
    fn pieces_give_what_the_whole_gave() {
        let s = Scope::root();
        let ids = s.input("ids", &[2, 5], Rate::Once);
        let x = s.at("embed").embedding(&ids, 11, 6);
        let h = s.at("proj").linear(&x, 9).silu();
        let image = h.reshape(&[2, 5, 1, 9]);
        let y = s.at("conv").conv2d(&image, 7, 3, Conv2d::same(3));
        let z = &s.at("pixel").conv2d(&y, 8, 1, Conv2d::same(1)) + &s.at("skip").conv2d(&image, 8, 1, Conv2d::same(1));
        let graph = optimize(&s.finish(&[("z", &z)]).expect("the shapes fit"));
        let mut weights = MemoryWeights::default();
        for spec in graph.weights() {
            let data: Vec<f32> = (0..numel(&spec.shape)).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect();
            weights.insert(spec.name, spec.shape, &data);
        }
        // The last id is beyond the table, and reads its last row.
        let ids = Array::new(vec![2, 5], vec![0.0, 3.0, 4.0, 5.0, 7.0, 8.0, 9.0, 10.0, 4.0, 12.0]);
        let run = |graph: &Graph| {
            let inputs = [("ids", ids.clone())].into_iter().collect();
            evaluate::<f64>(graph, &inputs, &weights).expect("every input is bound").remove(0).data
        };
        let whole = run(&graph);
        for largest in [24, 30, 63, 100] {
            let split = split_weights(&graph, |_, weight| (weight.shape.len() > 1).then_some(largest));
            let large = |node: &Node| {
                node.shape.len() > 1 && numel(&node.shape) > largest && numel(&node.shape[1..]) <= largest
            };
            let left = split.nodes().iter().filter(|node| leaf(node).is_some() && large(node)).count();
            assert_eq!(left, 0, "{largest}: only rows that are too long themselves stay");
            assert!(split.nodes().len() > graph.nodes().len());
            assert_eq!(run(&split), whole, "{largest}");
        }
        assert_eq!(split_weights(&graph, |_, _| None), graph);
    }
}
