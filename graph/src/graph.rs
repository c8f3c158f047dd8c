use crate::expr::Expr;
use crate::op::{Cost, Op};
use crate::shape::{Shape, numel};
use std::fmt;

/// A node's position in its graph. Operands always come earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Position in [`Graph::nodes`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a graph has fewer than 2³² nodes"))
    }
}

/// How often a value changes while a plan is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// Fixed for a whole generation: weights, the prompt, and everything computed from these alone.
    Once,
    /// New at every denoising step.
    Step,
}

/// How often an operation's result changes, given how often its operands do.
pub(crate) fn rate_of(op: &Op, operands: impl Iterator<Item = Rate>) -> Rate {
    match op {
        Op::Input(input) => input.rate,
        _ => operands.max().unwrap_or(Rate::Once),
    }
}

/// An elementwise expression that a kernel applies to its result before storing it.
///
/// `Input(0)` of the expression is the operation's own result, `Input(i)` is `inputs[i − 1]`, broadcast to the result.
#[derive(Debug, Clone, PartialEq)]
pub struct Epilogue {
    /// What to compute.
    pub expr: Expr,
    /// Further operands.
    pub inputs: Vec<NodeId>,
}

/// One operation of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The operation and its attributes.
    pub op: Op,
    /// Its operands, all of them earlier nodes.
    pub inputs: Vec<NodeId>,
    /// Applied to the result before it is stored.
    pub epilogue: Option<Epilogue>,
    /// Shape of the result.
    pub shape: Shape,
    /// How often the result changes.
    pub rate: Rate,
    /// Checkpoint path of the scope that made it, for traces and errors.
    pub path: String,
}

impl Node {
    /// Every node this one reads: operands, then the epilogue's.
    pub fn reads(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inputs.iter().chain(self.epilogue.iter().flat_map(|e| &e.inputs)).copied()
    }
}

/// A weight that a graph needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightSpec {
    /// Full name in the checkpoint.
    pub name: String,
    /// Shape the model expects.
    pub shape: Shape,
}

/// An immutable list of operations in an order in which they can run, with named inputs, weights and outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) outputs: Vec<(String, NodeId)>,
}

impl Graph {
    /// All operations in running order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All operations with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, node)| (NodeId::new(i), node))
    }

    /// One operation.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The named results.
    #[must_use]
    pub fn outputs(&self) -> &[(String, NodeId)] {
        &self.outputs
    }

    /// The node of a named result.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<NodeId> {
        self.outputs.iter().find(|(own, _)| own == name).map(|(_, id)| *id)
    }

    /// The node of a named input.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<NodeId> {
        self.iter().find(|(_, node)| matches!(&node.op, Op::Input(input) if input.name == name)).map(|(id, _)| id)
    }

    /// Every weight the graph reads, in order of first use.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightSpec> {
        self.nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::Weight(weight) => Some(WeightSpec { name: weight.name.clone(), shape: weight.shape.clone() }),
                _ => None,
            })
            .collect()
    }

    /// What one node costs. Rows gathered from a table count as read once.
    #[must_use]
    pub fn node_cost(&self, id: NodeId) -> Cost {
        let node = self.node(id);
        if node.op.is_leaf() || matches!(node.op, Op::Reshape(_)) {
            return Cost::default();
        }
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|i| &*self.node(*i).shape).collect();
        let out = numel(&node.shape) as u64;
        let read: usize = match node.op {
            Op::Gather(_) | Op::Slice(_) => numel(&node.shape),
            _ => node.reads().map(|i| numel(&self.node(i).shape)).sum(),
        };
        let epilogue = node.epilogue.as_ref().map_or(0, |e| e.expr.flops() * out);
        Cost { flops: node.op.flops(&shapes, &node.shape) + epilogue, elements: read as u64 + out }
    }

    /// What all nodes of one rate cost together.
    #[must_use]
    pub fn cost(&self, rate: Rate) -> Cost {
        self.iter().filter(|(_, node)| node.rate == rate).fold(Cost::default(), |sum, (id, _)| {
            let cost = self.node_cost(id);
            Cost { flops: sum.flops + cost.flops, elements: sum.elements + cost.elements }
        })
    }

    /// How many times each node's result is read, outputs included.
    #[must_use]
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for id in self.nodes.iter().flat_map(Node::reads).chain(self.outputs.iter().map(|(_, id)| *id)) {
            uses[id.index()] += 1;
        }
        uses
    }
}

/// One line a node: id, operation, shape, rate, operands, epilogue, path. For looking at what a pass did.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.iter() {
            let rate = if node.rate == Rate::Once { "once" } else { "step" };
            write!(f, "%{} = {} {:?} {rate}", id.0, node.op.name(), node.shape)?;
            match &node.op {
                Op::Input(input) => write!(f, " {}", input.name)?,
                Op::Weight(weight) => write!(f, " {}", weight.name)?,
                Op::Elementwise(e) => write!(f, " {}", e.expr)?,
                Op::Transpose(t) => write!(f, " {:?}", t.axes)?,
                Op::Slice(s) => write!(f, " axis {} from {}", s.axis, s.start)?,
                Op::Concat(c) => write!(f, " axis {}", c.axis)?,
                _ => {}
            }
            for input in &node.inputs {
                write!(f, " %{}", input.0)?;
            }
            if let Some(epilogue) = &node.epilogue {
                write!(f, " then {}", epilogue.expr)?;
                for input in &epilogue.inputs {
                    write!(f, " %{}", input.0)?;
                }
            }
            if !node.path.is_empty() && !node.op.is_leaf() {
                write!(f, "  # {}", node.path)?;
            }
            writeln!(f)?;
        }
        for (name, id) in &self.outputs {
            writeln!(f, "{name}: %{}", id.0)?;
        }
        Ok(())
    }
}
