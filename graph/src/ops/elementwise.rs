use crate::array::{Array, Real};
use crate::expr::Expr;
use crate::op::Operation;
use crate::shape::{Shape, broadcast, broadcast_strides, for_each_offset, numel};

/// One expression evaluated at every position of its broadcast operands.
#[derive(Debug, Clone, PartialEq)]
pub struct Elementwise {
    /// What to compute from the operands' elements.
    pub expr: Expr,
}

impl Operation for Elementwise {
    const NAME: &str = "elementwise";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let (first, rest) = inputs.split_first().ok_or("needs an operand")?;
        rest.iter().try_fold(first.to_vec(), |shape, next| {
            broadcast(&shape, next).ok_or_else(|| format!("{shape:?} and {next:?} do not broadcast together"))
        })
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        apply(&self.expr, inputs, out)
    }

    fn flops(&self, _: &[&[usize]], out: &[usize]) -> u64 {
        self.expr.flops() * numel(out) as u64
    }
}

/// Evaluates an expression over operands that broadcast to `out`.
pub(crate) fn apply<T: Real>(expr: &Expr, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
    // Walk each operand's offsets once and gather, so any number of operands shares one loop.
    let offsets: Vec<Vec<usize>> = inputs
        .iter()
        .map(|input| {
            let mut offsets = Vec::with_capacity(numel(out));
            for_each_offset(out, [&broadcast_strides(&input.shape, out)], |_, [offset]| offsets.push(offset));
            offsets
        })
        .collect();
    let mut values = vec![T::zero(); inputs.len()];
    let data = (0..numel(out))
        .map(|i| {
            for (value, (input, offsets)) in values.iter_mut().zip(inputs.iter().zip(&offsets)) {
                *value = input.data[offsets[i]];
            }
            expr.eval(&values)
        })
        .collect();
    Array::new(out, data)
}
