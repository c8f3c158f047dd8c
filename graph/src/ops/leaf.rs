use crate::array::{Array, Real};
use crate::graph::Rate;
use crate::op::{Operation, arity};
use crate::shape::{Shape, numel};
use crate::weights::WeightView;
use std::ops::Range;

/// A value the caller writes before running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The name callers use.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// How often it changes.
    pub rate: Rate,
}

/// A parameter of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// The full name in the checkpoint.
    pub name: String,
    /// The shape the model expects there.
    pub shape: Shape,
    /// The order in which kernels want its axes: axis `i` of the value is axis `axes[i]` of the tensor in the checkpoint. It is put so
    /// while it is read, and nothing is stored twice.
    pub axes: Vec<usize>,
    /// Which of the checkpoint's rows, along its first axis: all, unless a device takes a large tensor in pieces.
    pub rows: Range<usize>,
}

impl Weight {
    /// The value's shape: the checkpoint's `rows`, in the order of `axes`.
    #[must_use]
    pub fn value_shape(&self) -> Shape {
        self.axes.iter().map(|axis| if *axis == 0 { self.rows.len() } else { self.shape[*axis] }).collect()
    }

    /// The value out of the checkpoint's tensor.
    #[must_use]
    pub fn value<'a>(&self, tensor: WeightView<'a>) -> WeightView<'a> {
        tensor.rows(&self.rows).permuted(&self.axes)
    }
}

/// Numbers known when the graph is built.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    /// Its shape.
    pub shape: Shape,
    /// Its elements, row-major.
    pub data: Vec<f32>,
}

impl Operation for Input {
    const NAME: &str = "input";
    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        arity::<0>(inputs)?;
        Ok(self.shape.clone())
    }
    fn reference<T: Real>(&self, _: &[&Array<T>], out: &[usize]) -> Array<T> {
        // The evaluator binds inputs and weights; a value nobody bound is an error there, so this is never asked.
        Array::zeros(out)
    }
}

impl Operation for Weight {
    const NAME: &str = "weight";
    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        arity::<0>(inputs)?;
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if sorted.into_iter().ne(0..self.shape.len()) {
            return Err(format!("{:?} is no order of the axes of {:?}", self.axes, self.shape));
        }
        let rows = self.shape.first().copied().unwrap_or(1);
        if self.rows.start > self.rows.end || self.rows.end > rows {
            return Err(format!("{:?} are no rows of {:?}", self.rows, self.shape));
        }
        Ok(self.value_shape())
    }
    fn reference<T: Real>(&self, _: &[&Array<T>], out: &[usize]) -> Array<T> {
        Array::zeros(out)
    }
}

impl Operation for Constant {
    const NAME: &str = "constant";
    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        arity::<0>(inputs)?;
        if numel(&self.shape) != self.data.len() {
            return Err(format!("shape {:?} does not hold {} numbers", self.shape, self.data.len()));
        }
        Ok(self.shape.clone())
    }
    fn reference<T: Real>(&self, _: &[&Array<T>], out: &[usize]) -> Array<T> {
        Array::new(out, self.data.iter().map(|v| T::from_f64(f64::from(*v))).collect())
    }
}
