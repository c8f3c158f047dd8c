use crate::expr::{Binary, Expr, Unary};
use crate::graph::NodeId;
use crate::ops::{
    Attention, Concat, Elementwise, LayerNorm, MatMul, Reshape, RmsNorm, Slice, TimestepEmbedding, Transpose,
};
use crate::scope::Scope;
use crate::shape::Shape;
use std::ops::{Add, Div, Mul, Range, Sub};

/// A value in a graph under construction.
#[derive(Debug, Clone)]
pub struct Tensor {
    scope: Scope,
    /// `None` once the graph is poisoned.
    id: Option<NodeId>,
    shape: Shape,
}

impl Tensor {
    pub(crate) fn new(scope: Scope, id: NodeId, shape: Shape) -> Self {
        Self { scope, id: Some(id), shape }
    }

    pub(crate) fn poisoned(scope: Scope) -> Self {
        Self { scope, id: None, shape: Vec::new() }
    }

    pub(crate) fn id(&self) -> Option<NodeId> {
        self.id
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Extents, outermost first. Empty after an error.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The extent of one axis; negative axes count from the end. Zero where there is no such axis: then either an
    /// earlier error is reported, or the operation that uses the extent reports one.
    #[must_use]
    pub fn extent(&self, axis: isize) -> usize {
        let index = if axis < 0 { self.shape.len().checked_add_signed(axis) } else { axis.try_into().ok() };
        index.and_then(|i| self.shape.get(i)).copied().unwrap_or(0)
    }

    fn unary(&self, op: Unary) -> Tensor {
        self.elementwise(Expr::unary(op, Expr::Input(0)), &[])
    }

    /// An expression of this tensor (`Input(0)`) and others (`Input(1)`…), broadcast together.
    #[must_use]
    pub fn elementwise(&self, expr: Expr, others: &[&Tensor]) -> Tensor {
        let inputs: Vec<&Tensor> = std::iter::once(self).chain(others.iter().copied()).collect();
        self.scope.push(Elementwise { expr }, &inputs)
    }

    /// x · sigmoid(x).
    #[must_use]
    pub fn silu(&self) -> Tensor {
        self.unary(Unary::Silu)
    }

    /// GELU with the exact normal distribution.
    #[must_use]
    pub fn gelu(&self) -> Tensor {
        self.unary(Unary::Gelu)
    }

    /// GELU's tanh approximation.
    #[must_use]
    pub fn gelu_tanh(&self) -> Tensor {
        self.unary(Unary::GeluTanh)
    }

    /// x · sigmoid(1.702 x).
    #[must_use]
    pub fn quick_gelu(&self) -> Tensor {
        self.unary(Unary::QuickGelu)
    }

    /// Any function of one value.
    #[must_use]
    pub fn apply(&self, op: Unary) -> Tensor {
        self.unary(op)
    }

    /// Multiplies by a number.
    #[must_use]
    pub fn scale(&self, factor: f64) -> Tensor {
        self.elementwise(Expr::binary(Binary::Mul, Expr::Input(0), Expr::Const(factor)), &[])
    }

    /// Adds a number.
    #[must_use]
    pub fn offset(&self, amount: f64) -> Tensor {
        self.elementwise(Expr::binary(Binary::Add, Expr::Input(0), Expr::Const(amount)), &[])
    }

    /// `self · (1 + scale) + shift`, the modulation of adaptive normalisation (Peebles & Xie 2022).
    #[must_use]
    pub fn modulate(&self, shift: &Tensor, scale: &Tensor) -> Tensor {
        &(self * &scale.offset(1.0)) + shift
    }

    /// Matrix product with `b [K, N]` or `[…, K, N]`.
    #[must_use]
    pub fn matmul(&self, b: &Tensor) -> Tensor {
        self.scope.push(MatMul { transpose_b: false, bias: false }, &[self, b])
    }

    /// Matrix product with `bᵀ`, where `b` is `[N, K]` or `[…, N, K]`.
    #[must_use]
    pub fn matmul_transposed(&self, b: &Tensor) -> Tensor {
        self.scope.push(MatMul { transpose_b: true, bias: false }, &[self, b])
    }

    /// Layer normalisation over the last axis, without parameters.
    #[must_use]
    pub fn layer_norm(&self, eps: f64) -> Tensor {
        self.scope.push(LayerNorm { eps, affine: false }, &[self])
    }

    /// Root mean square normalisation over the last axis, without parameters.
    #[must_use]
    pub fn rms_norm(&self, eps: f64) -> Tensor {
        self.scope.push(RmsNorm { eps }, &[self])
    }

    /// Multi-head attention of these queries `[B, Sq, H·D]` over keys and values `[B, Sk, H·D]`, scaled by 1/√D;
    /// `key_bias [B, Sk]` is added to the scores.
    #[must_use]
    pub fn attention(&self, k: &Tensor, v: &Tensor, heads: usize, causal: bool, key_bias: Option<&Tensor>) -> Tensor {
        let depth = self.extent(-1) as f64 / heads.max(1) as f64;
        let op =
            Attention { heads, scale: depth.sqrt().recip(), causal, key_bias: key_bias.is_some(), score_bias: false };
        let inputs: Vec<&Tensor> = [self, k, v].into_iter().chain(key_bias).collect();
        self.scope.push(op, &inputs)
    }

    /// The same elements under another shape.
    #[must_use]
    pub fn reshape(&self, shape: &[usize]) -> Tensor {
        self.scope.push(Reshape { shape: shape.to_vec() }, &[self])
    }

    /// Axes in another order: axis `i` of the result is axis `axes[i]` of this tensor.
    #[must_use]
    pub fn transpose(&self, axes: &[usize]) -> Tensor {
        self.scope.push(Transpose { axes: axes.to_vec() }, &[self])
    }

    /// A range of one axis.
    #[must_use]
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Tensor {
        self.scope.push(Slice { axis, start: range.start, len: range.len() }, &[self])
    }

    /// Equal parts of one axis.
    #[must_use]
    pub fn chunk(&self, axis: usize, parts: usize) -> Vec<Tensor> {
        let extent = self.shape.get(axis).copied().unwrap_or(0);
        if self.id.is_some() && (parts == 0 || !extent.is_multiple_of(parts)) {
            let tensor = self.scope.poison(format!("{:?} does not split into {parts} on axis {axis}", self.shape));
            return vec![tensor; parts];
        }
        let len = extent / parts.max(1);
        (0..parts).map(|i| self.slice(axis, i * len..(i + 1) * len)).collect()
    }

    /// Tensors joined along an axis.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn concat(tensors: &[&Tensor], axis: usize) -> Tensor {
        tensors[0].scope.push(Concat { axis }, tensors)
    }

    /// Sinusoidal embedding of timesteps `[B]`, diffusers' `Timesteps`; the longest period is 10000.
    #[must_use]
    pub fn timestep_embedding(&self, dim: usize, flip_sin_to_cos: bool, downscale_freq_shift: f64) -> Tensor {
        let op = TimestepEmbedding { dim, flip_sin_to_cos, downscale_freq_shift, max_period: 10_000.0 };
        self.scope.push(op, &[self])
    }

    /// Square patches of an image as tokens, each with its channels outermost, as the weight of a patch-embedding
    /// convolution lies in memory: `[B, H, W, C]` → `[B, (H/p)·(W/p), C·p·p]`.
    #[must_use]
    pub fn patchify(&self, patch: usize) -> Tensor {
        let [b, h, w, c] = self.shape[..] else {
            return self.no_image("patchify");
        };
        if patch == 0 || !h.is_multiple_of(patch) || !w.is_multiple_of(patch) {
            return self.scope.poison(format!("{h}×{w} does not split into patches of {patch}"));
        }
        let (rows, columns) = (h / patch, w / patch);
        self.reshape(&[b, rows, patch, columns, patch, c]).transpose(&[0, 1, 3, 5, 2, 4]).reshape(&[
            b,
            rows * columns,
            c * patch * patch,
        ])
    }

    /// Tokens back to an image of `rows × columns` patches, each token with its channels innermost, as diffusers'
    /// transformers project them: `[B, rows·columns, p·p·C]` → `[B, rows·p, columns·p, C]`.
    #[must_use]
    pub fn unpatchify(&self, patch: usize, rows: usize, columns: usize) -> Tensor {
        let [b, _, width] = self.shape[..] else {
            return self.no_image("unpatchify");
        };
        let channels = width / (patch * patch).max(1);
        self.reshape(&[b, rows, columns, patch, patch, channels]).transpose(&[0, 1, 3, 2, 4, 5]).reshape(&[
            b,
            rows * patch,
            columns * patch,
            channels,
        ])
    }

    fn no_image(&self, what: &str) -> Tensor {
        if self.id.is_none() {
            return self.clone();
        }
        self.scope.poison(format!("{what} cannot take a tensor of shape {:?}", self.shape))
    }
}

macro_rules! arithmetic {
    ($($trait:ident :: $method:ident => $op:ident),+) => {$(
        impl $trait<&Tensor> for &Tensor {
            type Output = Tensor;
            fn $method(self, other: &Tensor) -> Tensor {
                self.elementwise(Expr::binary(Binary::$op, Expr::Input(0), Expr::Input(1)), &[other])
            }
        }
    )+};
}

arithmetic!(Add::add => Add, Sub::sub => Sub, Mul::mul => Mul, Div::div => Div);
