use crate::array::{Array, Real};
use crate::op::{Operation, arity};
use crate::shape::{Shape, numel};

/// The same elements under another shape. Devices run nothing for it: the result shares its operand's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape {
    /// The new shape.
    pub shape: Shape,
}

impl Operation for Reshape {
    const NAME: &str = "reshape";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        if numel(x) != numel(&self.shape) {
            return Err(format!("{x:?} cannot take the shape {:?}", self.shape));
        }
        Ok(self.shape.clone())
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        Array::new(out, inputs[0].data.clone())
    }
}
