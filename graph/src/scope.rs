use crate::error::GraphError;
use crate::graph::{Graph, Node, NodeId, Rate, rate_of};
use crate::op::Op;
use crate::ops::{Constant, Conv2d, Gather, GroupNorm, Input, LayerNorm, MatMul, Weight};
use crate::passes;
use crate::shape::{Shape, numel};
use crate::tensor::Tensor;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::rc::Rc;

/// The graph under construction, shared by its scopes and tensors.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    nodes: Vec<Node>,
    weights: HashMap<String, NodeId>,
    /// Results of blocks with the blocks' paths, in the order of building.
    marks: Vec<(String, NodeId)>,
    /// Values at which the graph may be cut, by role and name.
    seams: Vec<(&'static str, String, NodeId)>,
    /// Roles of seams whose values the caller writes.
    given: Vec<(&'static str, Rate)>,
    /// The first error. Everything built after it is ignored, and [`Scope::finish`] reports it.
    error: Option<GraphError>,
}

/// The most elements of a value: a file may ask for any shape, and products of extents must not overflow, nor bytes of four for each.
const MOST_ELEMENTS: usize = 1 << (if usize::BITS < 64 { 28 } else { 40 });

/// A place in the checkpoint: weights are named under it, and errors say where they happened.
///
/// The builder needs no `?`: the first shape error is remembered with its path, everything built after it is ignored,
/// and [`Scope::finish`] returns the error.
#[derive(Debug, Clone)]
pub struct Scope {
    builder: Rc<RefCell<Builder>>,
    path: Rc<str>,
}

impl Default for Scope {
    fn default() -> Self {
        Self::root()
    }
}

impl Scope {
    /// An empty graph.
    #[must_use]
    pub fn root() -> Self {
        Self { builder: Rc::default(), path: Rc::from("") }
    }

    /// The scope below this one, as checkpoints join names: `s.at("transformer_blocks").at(3)`.
    #[must_use]
    pub fn at(&self, name: impl Display) -> Self {
        Self { builder: Rc::clone(&self.builder), path: self.full_name(&name.to_string()).into() }
    }

    /// An empty graph that is cut at every [`seam`](Self::seam) of these roles: their values are inputs, and what only they need is left out.
    #[must_use]
    pub fn cut(given: &[(&'static str, Rate)]) -> Self {
        let builder = Builder { given: given.to_vec(), ..Builder::default() };
        Self { builder: Rc::new(RefCell::new(builder)), path: Rc::from("") }
    }

    /// This scope's path in the checkpoint.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    fn full_name(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A value the caller writes before running. Asking twice for one name gives the same tensor.
    #[must_use]
    pub fn input(&self, name: &str, shape: &[usize], rate: Rate) -> Tensor {
        let wanted = Input { name: name.to_owned(), shape: shape.to_vec(), rate };
        let known = self.builder.borrow().nodes.iter().position(|n| matches!(&n.op, Op::Input(i) if i.name == name));
        let Some(at) = known else { return self.push(wanted, &[]) };
        if self.builder.borrow().nodes[at].op != Op::Input(wanted) {
            return self.poison(format!("input {name} is used with two shapes or rates"));
        }
        Tensor::new(self.clone(), NodeId::new(at), shape.to_vec())
    }

    /// A parameter named under this scope. Asking twice for one name gives the same tensor.
    #[must_use]
    pub fn weight(&self, name: &str, shape: &[usize]) -> Tensor {
        self.weight_in_order(name, shape, &(0..shape.len()).collect::<Vec<_>>())
    }

    /// A parameter with its axes in another order than the checkpoint's: axis `i` of the tensor is axis `axes[i]` of
    /// `shape`.
    #[must_use]
    pub fn weight_in_order(&self, name: &str, shape: &[usize], axes: &[usize]) -> Tensor {
        let name = self.full_name(name);
        let rows = 0..shape.first().copied().unwrap_or(1);
        let wanted = Weight { name: name.clone(), shape: shape.to_vec(), axes: axes.to_vec(), rows };
        let known = self.builder.borrow().weights.get(&name).copied();
        if let Some(id) = known {
            let Node { op, shape: known_shape, .. } = self.builder.borrow().nodes[id.index()].clone();
            if op != Op::Weight(wanted) {
                return self.poison(format!("{name} is used as {known_shape:?} and as {shape:?}"));
            }
            return Tensor::new(self.clone(), id, known_shape);
        }
        let tensor = self.push(wanted, &[]);
        if let Some(id) = tensor.id() {
            self.builder.borrow_mut().weights.insert(name, id);
        }
        tensor
    }

    /// Numbers that are known when the graph is built.
    #[must_use]
    pub fn constant(&self, shape: &[usize], data: Vec<f32>) -> Tensor {
        self.push(Constant { shape: shape.to_vec(), data }, &[])
    }

    /// `x Wᵀ + b` with `weight [out, in]` and `bias [out]`, as PyTorch's `Linear`: `[…, in]` → `[…, out]`.
    #[must_use]
    pub fn linear(&self, x: &Tensor, out: usize) -> Tensor {
        let weight = self.weight("weight", &[out, x.extent(-1)]);
        let bias = self.weight("bias", &[out]);
        self.push(MatMul { transpose_b: true, bias: true }, &[x, &weight, &bias])
    }

    /// `x Wᵀ` with `weight [out, in]`.
    #[must_use]
    pub fn linear_no_bias(&self, x: &Tensor, out: usize) -> Tensor {
        let weight = self.weight("weight", &[out, x.extent(-1)]);
        self.push(MatMul { transpose_b: true, bias: false }, &[x, &weight])
    }

    /// Layer normalisation with `weight` and `bias` of the last axis.
    #[must_use]
    pub fn layer_norm(&self, x: &Tensor, eps: f64) -> Tensor {
        let channels = x.extent(-1);
        let (weight, bias) = (self.weight("weight", &[channels]), self.weight("bias", &[channels]));
        self.push(LayerNorm { eps, affine: true }, &[x, &weight, &bias])
    }

    /// Root mean square normalisation with a `weight` of the last axis, which multiplies the result.
    #[must_use]
    pub fn rms_norm(&self, x: &Tensor, eps: f64) -> Tensor {
        let weight = self.weight("weight", &[x.extent(-1)]);
        &x.rms_norm(eps) * &weight
    }

    /// Convolution of an image `[B, H, W, C]` with `weight [out, C, kernel, kernel]` and, if it has one, `bias [out]`, as PyTorch's
    /// `Conv2d`: → `[B, H', W', out]`.
    #[must_use]
    pub fn conv2d(&self, x: &Tensor, out: usize, kernel: usize, conv: Conv2d) -> Tensor {
        let channels = x.extent(-1);
        let shape = [out, channels, kernel, kernel];
        let bias = conv.bias.then(|| self.weight("bias", &[out]));
        // With a kernel of one pixel it is a matrix product over pixels.
        let pixelwise = kernel == 1 && conv == (Conv2d { bias: conv.bias, ..Conv2d::same(1) });
        let weight = if pixelwise {
            self.weight("weight", &shape).reshape(&[out, channels])
        } else {
            self.weight_in_order("weight", &shape, &[0, 2, 3, 1])
        };
        let operands: Vec<&Tensor> = [x, &weight].into_iter().chain(&bias).collect();
        if pixelwise {
            return self.push(MatMul { transpose_b: true, bias: conv.bias }, &operands);
        }
        self.push(conv, &operands)
    }

    /// Group normalisation with `weight` and `bias` of the last axis.
    #[must_use]
    pub fn group_norm(&self, x: &Tensor, groups: usize, eps: f64) -> Tensor {
        let channels = x.extent(-1);
        let (weight, bias) = (self.weight("weight", &[channels]), self.weight("bias", &[channels]));
        self.push(GroupNorm { groups, eps }, &[x, &weight, &bias])
    }

    /// Rows of `weight [rows, channels]`: `ids […]` → `[…, channels]`.
    #[must_use]
    pub fn embedding(&self, ids: &Tensor, rows: usize, channels: usize) -> Tensor {
        let table = self.weight("weight", &[rows, channels]);
        self.push(Gather, &[&table, ids])
    }

    /// Adds an operation. Shapes are checked here; if they do not fit, the graph is in error from here on.
    #[must_use]
    pub fn push(&self, op: impl Into<Op>, inputs: &[&Tensor]) -> Tensor {
        let op = op.into();
        let Some(ids) = inputs.iter().map(|tensor| tensor.id()).collect::<Option<Vec<_>>>() else {
            return Tensor::poisoned(self.clone());
        };
        if let Some(stranger) = inputs.iter().find(|t| !Rc::ptr_eq(&t.scope().builder, &self.builder)) {
            return self.poison(format!("{} uses a tensor of another graph ({:?})", op.name(), stranger.shape()));
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|tensor| tensor.shape()).collect();
        match op.infer(&shapes) {
            Ok(shape) => self.append(op, ids, shape),
            Err(message) => self.poison(format!("{}: {message}", op.name())),
        }
    }

    fn append(&self, op: Op, inputs: Vec<NodeId>, shape: Shape) -> Tensor {
        if numel(&shape) > MOST_ELEMENTS {
            return self.poison(format!("{}: a value of {shape:?} is larger than any memory", op.name()));
        }
        let mut builder = self.builder.borrow_mut();
        if builder.error.is_some() {
            return Tensor::poisoned(self.clone());
        }
        let rate = rate_of(&op, inputs.iter().map(|id| builder.nodes[id.index()].rate));
        let id = NodeId::new(builder.nodes.len());
        builder.nodes.push(Node {
            op,
            inputs,
            epilogue: None,
            shape: shape.clone(),
            rate,
            path: self.path.to_string(),
        });
        Tensor::new(self.clone(), id, shape)
    }

    /// Remembers a block's result under this scope's path, for [`marked`](Self::marked). The graph stays the same.
    #[must_use]
    pub fn mark(&self, result: Tensor) -> Tensor {
        if let Some(id) = result.id() {
            self.builder.borrow_mut().marks.push((self.path.to_string(), id));
        }
        result
    }

    /// The results of the blocks, in the order in which they were built, so that two implementations can be compared
    /// block by block.
    #[must_use]
    pub fn marked(&self) -> Vec<(String, Tensor)> {
        let builder = self.builder.borrow();
        let tensor = |id: NodeId| Tensor::new(self.clone(), id, builder.nodes[id.index()].shape.clone());
        builder.marks.iter().map(|(path, id)| (path.clone(), tensor(*id))).collect()
    }

    /// A place where the graph may be cut in two: one that ends with this value, and one that begins with it. In a graph that is [`cut`](Self::cut)
    /// here the value is an input, named as this scope and the role (`blocks.0.attn2.cross_attention`); in all others nothing changes.
    #[must_use]
    pub fn seam(&self, role: &'static str, value: Tensor) -> Tensor {
        let name = self.full_name(role);
        let rate = self.builder.borrow().given.iter().find(|(own, _)| *own == role).map(|(_, rate)| *rate);
        let value = match rate {
            Some(rate) => self.input(&name, value.shape(), rate),
            None => value,
        };
        if let Some(id) = value.id() {
            self.builder.borrow_mut().seams.push((role, name, id));
        }
        value
    }

    /// Names and values of all seams of a role, in the order in which they were built.
    #[must_use]
    pub fn seams(&self, role: &str) -> Vec<(String, Tensor)> {
        let builder = self.builder.borrow();
        let tensor = |id: NodeId| Tensor::new(self.clone(), id, builder.nodes[id.index()].shape.clone());
        let own = builder.seams.iter().filter(|(own, ..)| *own == role);
        own.map(|(_, name, id)| (name.clone(), tensor(*id))).collect()
    }

    /// Records that the model cannot be built, for a reason the shapes do not show.
    #[must_use]
    pub fn poison(&self, message: impl Into<String>) -> Tensor {
        let mut builder = self.builder.borrow_mut();
        let error = GraphError { path: self.path.to_string(), message: message.into() };
        builder.error.get_or_insert(error);
        Tensor::poisoned(self.clone())
    }

    /// The finished graph with its named results. Nodes that these do not need are left out.
    ///
    /// # Errors
    /// The first error met while building.
    pub fn finish(&self, outputs: &[(&str, &Tensor)]) -> Result<Graph, GraphError> {
        let builder = self.builder.borrow();
        if let Some(error) = &builder.error {
            return Err(error.clone());
        }
        let outputs = outputs
            .iter()
            .map(|(name, tensor)| {
                let id = tensor.id().filter(|_| Rc::ptr_eq(&tensor.scope().builder, &self.builder));
                let message = || format!("output {name} is a tensor of another graph");
                id.map(|id| ((*name).to_owned(), id))
                    .ok_or_else(|| GraphError { path: String::new(), message: message() })
            })
            .collect::<Result<_, _>>()?;
        Ok(passes::dead_code(&Graph { nodes: builder.nodes.clone(), outputs }))
    }
}
