use super::{dead_code, rewrite::Rewriter};
use crate::expr::Expr;
use crate::graph::{Epilogue, Graph, Node, NodeId};
use crate::op::Op;
use crate::ops::Elementwise;
use std::collections::HashMap;

/// Storage bindings a kernel may have everywhere: WebGPU's default limit. A kernel with more bindings would not run on
/// every device.
pub(crate) const MAX_BINDINGS: usize = 8;

/// Expressions are merged up to this many operations, so that kernels stay small.
const MAX_FLOPS: u64 = 64;

/// Merges chains of elementwise operations, then moves them into the kernel that makes one of their operands.
#[must_use]
pub fn fuse(graph: &Graph) -> Graph {
    into_epilogues(&merge_elementwise(graph))
}

/// An expression over nodes of the graph.
#[derive(Clone)]
struct Form {
    expr: Expr,
    operands: Vec<NodeId>,
}

impl Form {
    /// Puts `inner` where operand `at` is read, naming each operand once.
    fn with(&self, at: usize, inner: &Form) -> Form {
        let mut operands: Vec<NodeId> = Vec::new();
        let mut place = |id: NodeId| {
            operands.iter().position(|known| *known == id).unwrap_or_else(|| {
                operands.push(id);
                operands.len() - 1
            })
        };
        let outer: Vec<Option<usize>> =
            self.operands.iter().enumerate().map(|(i, id)| (i != at).then(|| place(*id))).collect();
        let nested: Vec<usize> = inner.operands.iter().map(|id| place(*id)).collect();
        let inner_expr = inner.expr.substitute(&|i| Expr::Input(nested[i]));
        let expr = self.expr.substitute(&|i| outer[i].map_or_else(|| inner_expr.clone(), Expr::Input));
        Form { expr, operands }
    }
}

/// Merges an elementwise operation with an elementwise operand that no other node reads and that changes at the same
/// rate.
fn merge_elementwise(graph: &Graph) -> Graph {
    let uses = graph.uses();
    let mut forms: HashMap<NodeId, Form> = HashMap::new();
    let mut rewriter = Rewriter::new(graph);
    for (id, node) in graph.iter() {
        let mut node = node.clone();
        if let Op::Elementwise(Elementwise { expr }) = &node.op {
            let mut form = Form { expr: expr.clone(), operands: node.inputs.clone() };
            while let Some(merged) = absorb_one(graph, &uses, &forms, &node, &form) {
                form = merged;
            }
            node.op = Elementwise { expr: form.expr.clone() }.into();
            node.inputs.clone_from(&form.operands);
            forms.insert(id, form);
        }
        let node = rewriter.rename(&node);
        rewriter.emit(id, node);
    }
    dead_code(&rewriter.finish(graph))
}

/// The form with one more operand absorbed, if there is one to absorb.
fn absorb_one(graph: &Graph, uses: &[usize], forms: &HashMap<NodeId, Form>, node: &Node, form: &Form) -> Option<Form> {
    form.operands.iter().enumerate().find_map(|(at, id)| {
        let inner = forms.get(id)?;
        let operand = graph.node(*id);
        // A smaller operand is computed once for each element it is stretched over: worth it only when that is cheap.
        let cheap = operand.shape == node.shape || !inner.expr.is_costly();
        let once = form.expr.count(at) == 1 || inner.expr.flops() == 0;
        if uses[id.index()] != 1 || operand.rate != node.rate || !cheap || !once {
            return None;
        }
        let merged = form.with(at, inner);
        (merged.operands.len() < MAX_BINDINGS && merged.expr.flops() <= MAX_FLOPS).then_some(merged)
    })
}

/// An elementwise operation moves into the kernel that makes one of its operands, when that kernel can apply it.
fn into_epilogues(graph: &Graph) -> Graph {
    let uses = graph.uses();
    let mut rewriter = Rewriter::new(graph);
    for (id, node) in graph.iter() {
        let node = fused(graph, &uses, node).unwrap_or_else(|| node.clone());
        let node = rewriter.rename(&node);
        rewriter.emit(id, node);
    }
    dead_code(&rewriter.finish(graph))
}

/// The operand's operation with this node's expression as epilogue. It runs in this node's place, where all operands
/// of both exist.
fn fused(graph: &Graph, uses: &[usize], node: &Node) -> Option<Node> {
    let Op::Elementwise(Elementwise { expr }) = &node.op else {
        return None;
    };
    let fits = |at: &usize| {
        let producer = graph.node(node.inputs[*at]);
        producer.op.takes_epilogue()
            && producer.epilogue.is_none()
            && uses[node.inputs[*at].index()] == 1
            && producer.shape == node.shape
            && producer.rate == node.rate
            && producer.inputs.len() + node.inputs.len() <= MAX_BINDINGS
    };
    // If there is a choice, fusing with a matrix product saves most.
    let candidates = || (0..node.inputs.len()).filter(fits);
    let at = candidates()
        .find(|at| matches!(graph.node(node.inputs[*at]).op, Op::MatMul(_) | Op::Conv2d(_)))
        .or_else(|| candidates().next())?;
    let producer = graph.node(node.inputs[at]);
    let rank = |i: usize| match i.cmp(&at) {
        std::cmp::Ordering::Less => i + 1,
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => i,
    };
    let others = node.inputs.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, id)| *id).collect();
    let epilogue = Epilogue { expr: expr.substitute(&|i| Expr::Input(rank(i))), inputs: others };
    Some(Node { epilogue: Some(epilogue), ..producer.clone() })
}
