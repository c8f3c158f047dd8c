use crate::shape::{Shape, numel};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// An element type of reference implementations. `f64` gives the result to compare with, and `f32` shows the error that
/// comes from rounding alone.
pub trait Real:
    Copy
    + PartialOrd
    + Send
    + Sync
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;
    /// Widens, exactly.
    fn to_f64(self) -> f64;
    /// Zero.
    #[must_use]
    fn zero() -> Self {
        Self::from_f64(0.0)
    }
    /// Applies a scalar function through `f64`, rounding once.
    #[must_use]
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self::from_f64(f(self.to_f64()))
    }
}

impl Real for f32 {
    // Rounding to f32 is what this function is for.
    #[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
}

/// A dense row-major tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T> {
    /// Extents, outermost first.
    pub shape: Shape,
    /// Elements, last axis contiguous.
    pub data: Vec<T>,
}

impl<T: Real> Array<T> {
    /// Wraps elements in a shape.
    ///
    /// # Panics
    /// When the number of elements is not the shape's.
    #[must_use]
    pub fn new(shape: impl Into<Shape>, data: Vec<T>) -> Self {
        let shape = shape.into();
        assert_eq!(numel(&shape), data.len(), "an array of shape {shape:?} needs that many elements");
        Self { shape, data }
    }

    /// All zeros.
    #[must_use]
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data = vec![T::zero(); numel(&shape)];
        Self { shape, data }
    }

    /// Converts every element.
    #[must_use]
    pub fn cast<U: Real>(&self) -> Array<U> {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|v| U::from_f64(v.to_f64())).collect() }
    }
}
