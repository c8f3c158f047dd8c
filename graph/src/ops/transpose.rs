use crate::array::{Array, Real};
use crate::op::{Operation, arity};
use crate::shape::{Shape, for_each_offset, numel, strides};

/// Axes in another order: axis `i` of the result is axis `axes[i]` of the operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transpose {
    /// A permutation of the operand's axes.
    pub axes: Vec<usize>,
}

impl Transpose {
    /// The operand's strides in the order of the result's axes.
    #[must_use]
    pub fn source_strides(&self, x: &[usize]) -> Vec<usize> {
        let own = strides(x);
        self.axes.iter().map(|axis| own[*axis]).collect()
    }
}

impl Operation for Transpose {
    const NAME: &str = "transpose";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..x.len()) {
            return Err(format!("{:?} is not an order of the axes of {x:?}", self.axes));
        }
        Ok(self.axes.iter().map(|axis| x[*axis]).collect())
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let x = inputs[0];
        let mut data = Vec::with_capacity(numel(out));
        for_each_offset(out, [&self.source_strides(&x.shape)], |_, [offset]| data.push(x.data[offset]));
        Array::new(out, data)
    }
}
