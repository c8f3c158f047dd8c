//! Linear expressions over values of a program: what a sampler's author writes.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// Most values a single expression may mention. The widest sampler (four stored derivatives, x and noise) needs 6.
const MAX_TERMS: usize = 12;

/// A value in a program under construction: every denoise, noise or combination makes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value(pub(crate) usize);

/// A linear combination of values, with f64 coefficients: `(x - denoised) / sigma`.
///
/// It is `Copy`, costs nothing to form, and becomes a [`crate::Op::Combine`] only where a sampler needs it in a register.
#[derive(Debug, Clone, Copy)]
pub struct Expr {
    terms: [(f64, Value); MAX_TERMS],
    len: usize,
}

impl Expr {
    /// The expression 0.
    pub fn zero() -> Self {
        Self { terms: [(0.0, Value(usize::MAX)); MAX_TERMS], len: 0 }
    }

    pub(crate) fn value(value: Value) -> Self {
        Self::zero().plus(1.0, value)
    }

    /// Terms with a coefficient that is not zero, in the order in which they were first mentioned.
    pub(crate) fn terms(&self) -> impl Iterator<Item = (f64, Value)> + '_ {
        self.terms[..self.len].iter().copied().filter(|&(coefficient, _)| coefficient != 0.0)
    }

    /// The value itself, if this is one value times 1.
    pub(crate) fn as_value(&self) -> Option<Value> {
        let mut terms = self.terms();
        match (terms.next(), terms.next()) {
            (Some((1.0, value)), None) => Some(value),
            _ => None,
        }
    }

    fn plus(mut self, coefficient: f64, value: Value) -> Self {
        if let Some(term) = self.terms[..self.len].iter_mut().find(|term| term.1 == value) {
            term.0 += coefficient;
            return self;
        }
        assert!(self.len < MAX_TERMS, "an expression mentions more than {MAX_TERMS} values: keep() a part of it");
        self.terms[self.len] = (coefficient, value);
        self.len += 1;
        self
    }

    fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        for term in &mut self.terms[..self.len] {
            term.0 = f(term.0);
        }
        self
    }
}

impl Add for Expr {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        other.terms[..other.len].iter().fold(self, |sum, &(coefficient, value)| sum.plus(coefficient, value))
    }
}

impl Sub for Expr {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Expr {
    type Output = Self;
    fn neg(self) -> Self {
        self.map(|c| -c)
    }
}

impl Mul<f64> for Expr {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        self.map(|c| c * factor)
    }
}

impl Mul<Expr> for f64 {
    type Output = Expr;
    fn mul(self, expr: Expr) -> Expr {
        expr * self
    }
}

impl Div<f64> for Expr {
    type Output = Self;
    fn div(self, divisor: f64) -> Self {
        self.map(|c| c / divisor)
    }
}

impl std::iter::Sum for Expr {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::zero(), |a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_terms_meet_and_zeros_vanish() {
        let (x, d) = (Expr::value(Value(0)), Expr::value(Value(1)));
        let sigma = 3.0;
        // An Euler step to sigma 0 is the denoised image, exactly.
        let landed = x + (x - d) / sigma * (0.0 - sigma);
        assert_eq!(landed.as_value(), Some(Value(1)));
        let half: Vec<_> = (0.5 * (x + d) - d).terms().collect();
        assert_eq!(half, [(0.5, Value(0)), (-0.5, Value(1))]);
        assert_eq!([x, d, -x].into_iter().sum::<Expr>().as_value(), Some(Value(1)));
    }
}
