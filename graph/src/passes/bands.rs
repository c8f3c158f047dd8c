use super::rewrite::Rewriter;
use crate::expr::{Binary, Expr, Unary};
use crate::graph::{Epilogue, Graph, Node, NodeId, rate_of};
use crate::op::Op;
use crate::ops::{Concat, Constant, Conv2d, Elementwise, GroupNorm, MatMul, Reshape, Slice};
use crate::shape::numel;
use std::collections::HashMap;
use std::ops::Range;

/// Computes images `[B, H, W, C]` of more than `largest` elements in bands of rows, each a value of its own, for
/// devices whose bindings are limited in size. A convolution reads the rows around its band, and group norms still see
/// the whole image: only the order of sums changes. If another kind of operation reads such an image, the graph is left
/// as it is.
#[must_use]
pub fn split_images(graph: &Graph, largest: usize) -> Graph {
    let is_large = |node: &Node| numel(&node.shape) > largest && !node.op.is_leaf();
    if !graph.nodes().iter().any(is_large) {
        return graph.clone();
    }
    let mut splitter = Splitter { rewriter: Rewriter::new(graph), graph, bands: HashMap::new(), largest };
    for (id, node) in graph.iter() {
        let reads_bands = node.reads().any(|id| splitter.bands.contains_key(&id));
        if !reads_bands && !is_large(node) {
            let node = splitter.rewriter.rename(node);
            splitter.rewriter.emit(id, node);
        } else if splitter.split(id, node).is_none() {
            return graph.clone();
        }
    }
    if graph.outputs.iter().any(|(_, id)| splitter.bands.contains_key(id)) {
        return graph.clone();
    }
    splitter.rewriter.finish(graph)
}

/// An image in bands: where each begins and ends, and its node.
type Bands = Vec<(Range<usize>, NodeId)>;

struct Splitter<'a> {
    rewriter: Rewriter,
    graph: &'a Graph,
    /// Bands by the old node.
    bands: HashMap<NodeId, Bands>,
    largest: usize,
}

impl Splitter<'_> {
    /// Computes a node in bands. `None` if bands are not supported for it.
    fn split(&mut self, id: NodeId, node: &Node) -> Option<()> {
        let [_, height, _, _] = node.shape[..] else { return None };
        let rows = self.rows_at_once(node)?;
        let ranges = (0..height).step_by(rows).map(|from| from..height.min(from + rows));
        let norm = match &node.op {
            Op::GroupNorm(norm) => Some(self.statistics(node, *norm)?),
            Op::Conv2d(Conv2d { stride: 1, .. }) | Op::Elementwise(_) => None,
            Op::MatMul(MatMul { transpose_b: true, .. }) if self.graph.node(node.inputs[1]).shape.len() == 2 => None,
            Op::Concat(Concat { axis: 3 }) => None,
            _ => return None,
        };
        let mut bands = Bands::new();
        for range in ranges {
            let band = self.band(node, range.clone(), norm)?;
            bands.push((range, band));
        }
        if numel(&node.shape) <= self.largest {
            let parts = bands.iter().map(|(_, id)| *id).collect();
            let whole = self.push(Concat { axis: 1 }, parts, &node.path);
            self.rewriter.replace(id, whole);
        } else {
            self.bands.insert(id, bands);
        }
        Some(())
    }

    /// The most rows of a result for which the result and its operands are small enough.
    fn rows_at_once(&self, node: &Node) -> Option<usize> {
        let fits = |shape: &[usize]| self.largest / (shape[0] * numel(&shape[2..])).max(1);
        // Where a band begins or ends in the middle of a doubled row, one more row is computed.
        let cut = if matches!(node.op, Op::Conv2d(Conv2d { upsample: 2, .. })) { 2 } else { 0 };
        let mut rows = fits(&node.shape).checked_sub(cut)?;
        for id in node.reads() {
            let shape = &self.graph.node(id).shape;
            let around = match &node.op {
                Op::Conv2d(conv) if id == node.inputs[0] => {
                    (fits(shape).checked_sub(self.graph.node(node.inputs[1]).shape[1] + 1)?) * conv.upsample
                }
                _ if shape.len() == 4 && shape[1] > 1 => fits(shape),
                _ => continue,
            };
            rows = rows.min(around);
        }
        (rows > 0).then_some(rows)
    }

    fn push(&mut self, op: impl Into<Op>, inputs: Vec<NodeId>, path: &str) -> NodeId {
        self.push_with(op, inputs, None, path)
    }

    fn push_with(&mut self, op: impl Into<Op>, inputs: Vec<NodeId>, epilogue: Option<Epilogue>, path: &str) -> NodeId {
        let op = op.into();
        let nodes = &mut self.rewriter.nodes;
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| &*nodes[id.index()].shape).collect();
        let shape = op.infer(&shapes).expect("bands fit as the whole did");
        let reads = inputs.iter().chain(epilogue.iter().flat_map(|epilogue| &epilogue.inputs));
        let rate = rate_of(&op, reads.map(|id| nodes[id.index()].rate));
        let id = NodeId::new(nodes.len());
        nodes.push(Node { op, inputs, epilogue, shape, rate, path: path.to_owned() });
        id
    }

    /// Rows of an old image.
    fn rows(&mut self, id: NodeId, rows: &Range<usize>, path: &str) -> NodeId {
        let whole = || vec![(0..self.graph.node(id).shape[1], self.rewriter.renamed(id))];
        let bands = self.bands.get(&id).cloned().unwrap_or_else(whole);
        let mut parts = Vec::new();
        for (band, node) in bands {
            let (from, to) = (rows.start.max(band.start), rows.end.min(band.end));
            if from >= to {
                continue;
            }
            let all = from == band.start && to == band.end;
            let slice = Slice { axis: 1, start: from - band.start, len: to - from };
            parts.push(if all { node } else { self.push(slice, vec![node], path) });
        }
        if parts.len() == 1 { parts[0] } else { self.push(Concat { axis: 1 }, parts, path) }
    }

    /// An operand for some rows of a result of four axes: its own rows, or all of it where it is the same for all rows.
    fn beside(&mut self, id: NodeId, rows: &Range<usize>, path: &str) -> Option<NodeId> {
        let shape = &self.graph.node(id).shape;
        match shape[..] {
            [_, height, _, _] if height > 1 => Some(self.rows(id, rows, path)),
            // Rows of an image without a batch.
            [height, _, _] if height > 1 => None,
            _ => Some(self.rewriter.renamed(id)),
        }
    }

    /// Some rows of a node's result; `norm` are the mean and the scale of a group norm.
    fn band(&mut self, node: &Node, rows: Range<usize>, norm: Option<(NodeId, NodeId)>) -> Option<NodeId> {
        let path = &*node.path;
        let extras = node.epilogue.iter().flat_map(|epilogue| epilogue.inputs.clone()).collect::<Vec<_>>();
        let extras = extras.into_iter().map(|id| self.beside(id, &rows, path)).collect::<Option<Vec<_>>>()?;
        let epilogue = |inputs| node.epilogue.as_ref().map(|own| Epilogue { expr: own.expr.clone(), inputs });
        if let Some((mean, scale)) = norm {
            let x = self.rows(node.inputs[0], &rows, path);
            let bias = self.rewriter.renamed(node.inputs[2]);
            // (x − mean)·scale + bias, followed by the node's epilogue.
            let centred = Expr::binary(Binary::Sub, Expr::Input(0), Expr::Input(1));
            let scaled = Expr::binary(Binary::Mul, centred, Expr::Input(2));
            let normed = Expr::binary(Binary::Add, scaled, Expr::Input(3));
            let expr = match &node.epilogue {
                None => normed,
                Some(own) => own.expr.substitute(&|i| if i == 0 { normed.clone() } else { Expr::Input(i + 3) }),
            };
            let inputs = [x, mean, scale, bias].into_iter().chain(extras).collect();
            return Some(self.push(Elementwise { expr }, inputs, path));
        }
        if let Op::Conv2d(conv) = &node.op {
            return Some(self.convolved(node, *conv, &rows, epilogue(extras)));
        }
        let inputs = match &node.op {
            Op::MatMul(_) => {
                let mut inputs = vec![self.rows(node.inputs[0], &rows, path)];
                inputs.extend(node.inputs[1..].iter().map(|id| self.rewriter.renamed(*id)));
                inputs
            }
            _ => node.inputs.iter().map(|id| self.beside(*id, &rows, path)).collect::<Option<Vec<_>>>()?,
        };
        Some(self.push_with(node.op.clone(), inputs, epilogue(extras), path))
    }

    /// Rows of a convolution, from the rows that they see.
    fn convolved(&mut self, node: &Node, conv: Conv2d, rows: &Range<usize>, epilogue: Option<Epilogue>) -> NodeId {
        let path = &*node.path;
        let height = self.graph.node(node.inputs[0]).shape[1] * conv.upsample;
        let kernel = self.graph.node(node.inputs[1]).shape[1];
        let [top, _, left, right] = conv.padding;
        // Rows of the enlarged image, the first of which may lie in the padding.
        let (first, last) = (rows.start as isize - top as isize, (rows.end + kernel - 1) as isize - top as isize);
        let (from, to) = (first.max(0).unsigned_abs(), last.unsigned_abs().min(height));
        let stored = from / conv.upsample..to.div_ceil(conv.upsample);
        // Doubled rows enter as a whole. If only one half of the first or the last is needed, the result of the other
        // half is cut off.
        let (before, after) = (from - stored.start * conv.upsample, stored.end * conv.upsample - to);
        let padding = [first.min(0).unsigned_abs(), last.unsigned_abs() - to, left, right];
        let mut inputs = vec![self.rows(node.inputs[0], &stored, path)];
        inputs.extend(node.inputs[1..].iter().map(|id| self.rewriter.renamed(*id)));
        let conv = Conv2d { padding, ..conv };
        if before == 0 && after == 0 {
            return self.push_with(conv, inputs, epilogue, path);
        }
        let wider = self.push(conv, inputs, path);
        let cut = self.push(Slice { axis: 1, start: before, len: rows.len() }, vec![wider], path);
        match epilogue {
            None => cut,
            Some(Epilogue { expr, inputs }) => {
                self.push(Elementwise { expr }, std::iter::once(cut).chain(inputs).collect(), path)
            }
        }
    }

    /// Mean and scale, each `[B, 1, 1, C]`, of a group norm over all bands: the variance around the mean, as in one piece.
    fn statistics(&mut self, node: &Node, norm: GroupNorm) -> Option<(NodeId, NodeId)> {
        let path = &*node.path;
        let [batch, height, width, channels] = self.graph.node(node.inputs[0]).shape[..] else { return None };
        let size = channels / norm.groups;
        let share = (1.0 / (height * width * size) as f64) as f32;
        let same = |i: usize| if i / channels / size == i % channels / size { share } else { 0.0 };
        let data = (0..channels * channels).map(same).collect();
        let groups = self.push(Constant { shape: vec![channels, channels], data }, Vec::new(), path);
        let weight = self.rewriter.renamed(node.inputs[1]);

        let x = node.inputs[0];
        let whole = || Bands::from([(0..height, x)]);
        let bands = self.bands.get(&x).cloned().unwrap_or_else(whole);
        let ranges: Vec<Range<usize>> = bands.into_iter().map(|(range, _)| range).collect();
        let of_all = |splitter: &mut Self, of: &mut dyn FnMut(&mut Self, NodeId) -> NodeId| {
            let mut sum = None;
            for range in &ranges {
                let band = splitter.rows(x, range, path);
                let values = of(splitter, band);
                let part = splitter.sums(values, path);
                let add = Expr::binary(Binary::Add, Expr::Input(0), Expr::Input(1));
                sum = Some(match sum {
                    None => part,
                    Some(sum) => splitter.push(Elementwise { expr: add }, vec![sum, part], path),
                });
            }
            let sum = sum.expect("an image has rows");
            let means = splitter.push(MatMul { transpose_b: false, bias: false }, vec![sum, groups], path);
            splitter.push(Reshape { shape: vec![batch, 1, 1, channels] }, vec![means], path)
        };
        let mean = of_all(self, &mut |_, band| band);
        let centred = || Expr::binary(Binary::Sub, Expr::Input(0), Expr::Input(1));
        let square = Expr::binary(Binary::Mul, centred(), centred());
        let variance = of_all(self, &mut |splitter, band| {
            splitter.push(Elementwise { expr: square.clone() }, vec![band, mean], path)
        });
        let deviation = Expr::unary(Unary::Sqrt, Expr::binary(Binary::Add, Expr::Input(0), Expr::Const(norm.eps)));
        let scale = Expr::binary(Binary::Div, Expr::Input(1), deviation);
        Some((mean, self.push(Elementwise { expr: scale }, vec![variance, weight], path)))
    }

    /// Sums `[B, 1, C]` over rows and columns, columns first, so that no single sum is long.
    fn sums(&mut self, image: NodeId, path: &str) -> NodeId {
        let [batch, rows, width, channels] = self.rewriter.nodes[image.index()].shape[..] else {
            unreachable!("bands are images")
        };
        let product = MatMul { transpose_b: false, bias: false };
        let mut sum = image;
        for (outer, inner) in [(batch * rows, width), (batch, rows)] {
            let values = self.push(Reshape { shape: vec![outer, inner, channels] }, vec![sum], path);
            let ones = Constant { shape: vec![outer, 1, inner], data: vec![1.0; outer * inner] };
            let ones = self.push(ones, Vec::new(), path);
            sum = self.push(product, vec![ones, values], path);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, MemoryWeights, Rate, Scope, evaluate, passes::optimize};

    /// What a decoder does at its finest levels.
    fn decoder(s: &Scope, x: &crate::Tensor) -> crate::Tensor {
        let h = s.at("in").conv2d(x, 6, 3, Conv2d::same(3));
        let g = s.at("norm1").group_norm(&h, 3, 1e-5).silu();
        let g = s.at("conv1").conv2d(&g, 6, 3, Conv2d::same(3));
        let h = &h + &g;
        let h = s.at("up").conv2d(&h, 6, 3, Conv2d { upsample: 2, ..Conv2d::same(3) }).silu();
        let g = s.at("norm2").group_norm(&h, 2, 1e-6).silu();
        let g = s.at("conv2").conv2d(&g, 4, 3, Conv2d::same(3));
        let h = &s.at("skip").conv2d(&h, 4, 1, Conv2d::same(1)) + &g;
        let h = crate::Tensor::concat(&[&h, &h.scale(0.5)], 3);
        s.at("out").conv2d(&h, 3, 3, Conv2d::same(3))
    }

    #[test]
    fn bands_give_what_the_whole_gave() {
        for batch in [1, 2] {
            let s = Scope::root();
            let x = s.input("x", &[batch, 9, 7, 2], Rate::Step);
            let graph = optimize(&s.finish(&[("y", &decoder(&s, &x))]).expect("the shapes fit"));
            let mut weights = MemoryWeights::default();
            for spec in graph.weights() {
                let data: Vec<f32> = (0..numel(&spec.shape)).map(|i| ((i * 37 % 101) as f32 - 45.0) / 64.0).collect();
                weights.insert(spec.name, spec.shape, &data);
            }
            let x: Vec<f64> = (0..batch * 126).map(|i| ((i * 29 % 83) as f64 - 40.0) / 16.0).collect();
            let run = |graph: &Graph| {
                let inputs = [("x", Array::new(vec![batch, 9, 7, 2], x.clone()))].into_iter().collect();
                evaluate::<f64>(graph, &inputs, &weights).expect("every input is bound").remove(0).data
            };
            let whole = run(&graph);
            for largest in [batch * 770, batch * 900, batch * 1500] {
                let split = split_images(&graph, largest);
                let values = split.nodes().iter().filter(|node| !node.op.is_leaf()).map(|node| numel(&node.shape));
                assert!(values.max() <= Some(largest), "{largest}: a value is too large");
                let bands = run(&split);
                let worst = bands.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                // The weights of a mean's parts are rounded to single precision.
                assert!(worst < 1e-6, "{largest}: {worst}");
            }
            assert_eq!(split_images(&graph, 1 << 20), graph);
        }
    }

    #[test]
    fn what_cannot_be_split_stays() {
        let s = Scope::root();
        let x = s.input("x", &[1, 8, 8, 2], Rate::Step);
        let h = s.at("in").conv2d(&x, 4, 3, Conv2d::same(3)).reshape(&[1, 64, 4]);
        let graph = optimize(&s.finish(&[("y", &h.attention(&h, &h, 1, false, None))]).expect("the shapes fit"));
        assert_eq!(split_images(&graph, 200), graph);
    }
}
