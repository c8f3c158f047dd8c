use crate::array::{Array, Real};
use crate::op::{Operation, arity};
use crate::shape::{Shape, numel};

/// A range of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// The axis that shrinks.
    pub axis: usize,
    /// First position kept.
    pub start: usize,
    /// Number of positions kept.
    pub len: usize,
}

impl Operation for Slice {
    const NAME: &str = "slice";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        let Slice { axis, start, len } = *self;
        let extent = *x.get(axis).ok_or_else(|| format!("{x:?} has no axis {axis}"))?;
        if start.checked_add(len).is_none_or(|end| end > extent) {
            return Err(format!("{x:?} has no range {start}..{} on axis {axis}", start.saturating_add(len)));
        }
        let mut out = x.to_vec();
        out[axis] = len;
        Ok(out)
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let x = inputs[0];
        let inner = numel(&x.shape[self.axis + 1..]);
        let run = x.shape[self.axis] * inner;
        let mut data = Vec::with_capacity(numel(out));
        for i in 0..numel(&x.shape[..self.axis]) {
            let from = i * run + self.start * inner;
            data.extend_from_slice(&x.data[from..from + self.len * inner]);
        }
        Array::new(out, data)
    }
}
