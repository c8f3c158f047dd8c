use crate::array::{Array, Real};
use crate::ops::{
    Attention, Concat, Constant, Conv2d, Elementwise, Gather, GroupNorm, Input, LayerNorm, MatMul, Reshape, RmsNorm,
    Slice, TimestepEmbedding, Transpose, Weight,
};
use crate::shape::Shape;

/// What an operation costs, for pricing a graph without running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: u64,
    /// Elements read and written, each operand once.
    pub elements: u64,
}

/// What every operation knows about itself. One file per operation implements this.
pub trait Operation {
    /// Lower-case name, as printed and as kernels are named.
    const NAME: &str;

    /// The result's shape, or a sentence saying why these operands do not fit.
    ///
    /// # Errors
    /// When the operands' number or shapes do not fit the operation.
    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String>;

    /// Clear loops that define what the operation means. Operands have the shapes `infer` accepted.
    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T>;

    /// Arithmetic work of one evaluation.
    fn flops(&self, _inputs: &[&[usize]], _out: &[usize]) -> u64 {
        0
    }
}

macro_rules! operations {
    ($($op:ident),+ $(,)?) => {
        /// An operation and its attributes.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Op {
            $(#[doc = concat!("See [`", stringify!($op), "`].")] $op($op),)+
        }

        impl Op {
            /// [`Operation::NAME`] of every operation there is, for tests that must leave none out.
            pub const NAMES: &[&str] = &[$($op::NAME,)+];

            /// [`Operation::NAME`].
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Op::$op(_) => $op::NAME,)+ }
            }

            /// [`Operation::infer`].
            ///
            /// # Errors
            /// When the operands' number or shapes do not fit the operation.
            pub fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
                match self { $(Op::$op(op) => op.infer(inputs),)+ }
            }

            /// [`Operation::reference`].
            #[must_use]
            pub fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
                match self { $(Op::$op(op) => op.reference(inputs, out),)+ }
            }

            /// [`Operation::flops`].
            #[must_use]
            pub fn flops(&self, inputs: &[&[usize]], out: &[usize]) -> u64 {
                match self { $(Op::$op(op) => op.flops(inputs, out),)+ }
            }
        }

        $(impl From<$op> for Op {
            fn from(op: $op) -> Op { Op::$op(op) }
        })+
    };
}

operations!(
    Input,
    Weight,
    Constant,
    MatMul,
    Conv2d,
    LayerNorm,
    RmsNorm,
    GroupNorm,
    Attention,
    Elementwise,
    Gather,
    Concat,
    Slice,
    Reshape,
    Transpose,
    TimestepEmbedding,
);

impl Op {
    /// Whether kernels of this operation can apply an elementwise expression to their result before storing it.
    #[must_use]
    pub fn takes_epilogue(&self) -> bool {
        matches!(self, Op::MatMul(_) | Op::Conv2d(_) | Op::LayerNorm(_) | Op::RmsNorm(_) | Op::GroupNorm(_))
    }

    /// Whether the value exists before the graph runs.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Input(_) | Op::Weight(_) | Op::Constant(_))
    }
}

/// Checks the number of operands.
pub(crate) fn arity<'a, const N: usize>(inputs: &[&'a [usize]]) -> Result<[&'a [usize]; N], String> {
    inputs.try_into().map_err(|_| format!("needs {N} operands and has {}", inputs.len()))
}
