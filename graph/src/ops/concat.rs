use crate::array::{Array, Real};
use crate::op::Operation;
use crate::shape::{Shape, numel};

/// Operands joined along one axis; all other extents are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concat {
    /// The axis that grows.
    pub axis: usize,
}

impl Operation for Concat {
    const NAME: &str = "concat";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let (first, rest) = inputs.split_first().ok_or("needs an operand")?;
        let axis = self.axis;
        if axis >= first.len() {
            return Err(format!("{first:?} has no axis {axis}"));
        }
        let mut out = first.to_vec();
        for shape in rest {
            let same_elsewhere = shape.len() == out.len() && (0..out.len()).all(|i| i == axis || shape[i] == out[i]);
            if !same_elsewhere {
                return Err(format!("cannot join {first:?} and {shape:?} along axis {axis}"));
            }
            out[axis] += shape[axis];
        }
        Ok(out)
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let outer = numel(&out[..self.axis]);
        let mut data = Vec::with_capacity(numel(out));
        for i in 0..outer {
            for input in inputs {
                let run = numel(&input.shape[self.axis..]);
                data.extend_from_slice(&input.data[i * run..(i + 1) * run]);
            }
        }
        Array::new(out, data)
    }
}
