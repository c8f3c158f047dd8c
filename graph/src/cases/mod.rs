//! The table of problems that every executor and every kernel is tried on: an operation with shapes and values.
//!
//! Whoever computes graphs derives its tests from here, so a new operation or case is added once. A test in this crate
//! fails when an operation has no case.

mod attention;
mod elementwise;
mod moves;
mod norms;
mod products;
mod text;

pub use text::text_cases;

use crate::array::Array;
use crate::expr::{Binary, Expr, Unary};
use crate::graph::{Graph, Rate};
use crate::op::Op;
use crate::ops::{Elementwise, MatMul};
use crate::q8_0;
use crate::random::SplitMix;
use crate::scope::Scope;
use crate::shape::{Shape, numel};
use crate::tensor::Tensor;
use half::f16;

/// How much to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Every kernel on every problem.
    #[default]
    Full,
    /// The same, but kernels of products, norms and attention, which take long to compile, only once for each storage
    /// format, with an epilogue and without.
    Brief,
}

/// What an operand's elements look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Between −2 and 2.
    Signed,
    /// Between ½ and 4, for logarithms, roots and divisors.
    Positive,
    /// Between 28 and 32, where a variance that is summed in one pass loses its digits.
    Far,
    /// Row numbers of a table of so many rows, some of them past its end.
    Rows(usize),
    /// Timesteps between 0 and 1000.
    Timesteps,
    /// Between −1 and 1 for keys that are seen, −10⁹ for a third, which are hidden; the first of a row is always seen.
    Mask,
}

/// One operand of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its shape.
    pub shape: Shape,
    /// What its elements look like.
    pub values: Values,
    /// In models it is a large weight: a right factor or a table. Plans may pack it or keep it in half precision.
    pub is_weight: bool,
}

/// An operation on given operands, with or without an epilogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Shapes and flags in words; with the operation's name it tells cases apart.
    pub label: String,
    /// The operation.
    pub op: Op,
    /// Its operands.
    pub operands: Vec<Source>,
    /// An expression of the result (`Input(0)`) and further operands (`Input(1)`…), applied before the result is stored.
    pub epilogue: Option<(Expr, Vec<Source>)>,
    /// Shape of the result.
    pub out: Shape,
}

impl Source {
    fn new(shape: &[usize], values: Values) -> Self {
        Self { shape: shape.to_vec(), values, is_weight: false }
    }

    fn weight(shape: &[usize]) -> Self {
        Self { is_weight: true, ..signed(shape) }
    }

    /// The elements, the same on every machine; with `rounded`, numbers that half precision holds exactly.
    #[must_use]
    pub fn array(&self, seed: u64, rounded: bool) -> Array<f32> {
        let mut random = SplitMix(seed.wrapping_mul(0xd134_2543_de82_ef95));
        let row = self.shape.last().copied().unwrap_or(1);
        let mut element = |i: usize| match self.values {
            Values::Signed => 2.0 * random.signed(),
            Values::Positive => 2.25 + 1.75 * random.signed(),
            Values::Far => 30.0 + 2.0 * random.signed(),
            Values::Rows(rows) => random.below(rows + 2) as f32,
            Values::Timesteps => 500.0 + 500.0 * random.signed(),
            Values::Mask if random.below(3) == 0 && !i.is_multiple_of(row) => -1e9,
            Values::Mask => random.signed(),
        };
        let round = |value: f32| if rounded { f16::from_f32(value).to_f32() } else { value };
        let data = (0..numel(&self.shape)).map(|i| round(element(i))).collect();
        Array::new(self.shape.clone(), data)
    }
}

impl Case {
    fn new(label: impl Into<String>, op: impl Into<Op>, operands: Vec<Source>) -> Self {
        let (label, op) = (label.into(), op.into());
        let shapes: Vec<&[usize]> = operands.iter().map(|source| &*source.shape).collect();
        let out = op.infer(&shapes).unwrap_or_else(|error| panic!("case {label} is malformed: {error}"));
        Self { label, op, operands, epilogue: None, out }
    }

    fn then(&self, label: &str, expr: Expr, extras: Vec<Source>) -> Self {
        Self { label: format!("{} {label}", self.label), epilogue: Some((expr, extras)), ..self.clone() }
    }

    /// What fusing leaves behind products: an activation, and a gated residual whose gate is stretched over the rows.
    fn with_epilogues(self) -> [Self; 3] {
        let gate = [1, self.out[self.out.len() - 1]];
        let gated = add(x(2), mul(x(0), x(1)));
        let activated = self.then("gelu_tanh", Expr::unary(Unary::GeluTanh, x(0)), Vec::new());
        let residual = self.then("gated residual", gated, vec![signed(&gate), signed(&self.out)]);
        [self, activated, residual]
    }

    /// The operand that plans may keep in blocks of eight bits ([`q8_0`]), if there is one.
    #[must_use]
    pub fn blocks(&self) -> Option<usize> {
        let weight = self.operands.get(1).filter(|source| source.is_weight)?;
        let row = match (&self.op, &weight.shape[..]) {
            (Op::MatMul(MatMul { transpose_b: true, .. }), [.., row]) => *row,
            (Op::Conv2d(_), [_, taps @ ..]) => numel(taps),
            _ => return None,
        };
        q8_0::fits(row).then_some(1)
    }

    /// Every operand in the order in which a kernel binds them, the epilogue's last, with a number that seeds its values.
    pub fn sources(&self) -> impl Iterator<Item = (&Source, u64)> {
        let extras = self.epilogue.iter().flat_map(|(_, extras)| extras);
        self.operands.iter().zip(0..).chain(extras.zip(100..))
    }

    /// The case as a graph with one output, `y`. Its operands are inputs named `x0`, `x1`, … in the order of
    /// [`sources`](Self::sources); those that are weights in models are weights here too when `weights` is set.
    ///
    /// # Panics
    /// Never: cases are well-formed.
    #[must_use]
    pub fn graph(&self, weights: bool) -> Graph {
        let scope = Scope::root();
        let leaf = |(i, (source, _)): (usize, (&Source, u64))| match weights && source.is_weight {
            true => scope.weight(&format!("x{i}"), &source.shape),
            false => scope.input(&format!("x{i}"), &source.shape, Rate::Step),
        };
        let leaves: Vec<Tensor> = self.sources().enumerate().map(leaf).collect();
        let (operands, extras) = leaves.split_at(self.operands.len());
        let mut y = scope.push(self.op.clone(), &operands.iter().collect::<Vec<_>>());
        if let Some((expr, _)) = &self.epilogue {
            y = y.elementwise(expr.clone(), &extras.iter().collect::<Vec<_>>());
        }
        scope.finish(&[("y", &y)]).expect("cases are well-formed")
    }
}

/// All problems that are run: small and odd, so that every tile, vector and block has an edge.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        products::matmuls(),
        products::convolutions(),
        norms::layer_norms(),
        norms::rms_norms(),
        norms::group_norms(),
        attention::attentions(),
        elementwise::elementwise(),
        moves::moves(),
        moves::timesteps(),
    ]
    .concat()
}

fn signed(shape: &[usize]) -> Source {
    Source::new(shape, Values::Signed)
}

fn x(i: usize) -> Expr {
    Expr::Input(i)
}

fn add(a: Expr, b: Expr) -> Expr {
    Expr::binary(Binary::Add, a, b)
}

fn mul(a: Expr, b: Expr) -> Expr {
    Expr::binary(Binary::Mul, a, b)
}

fn elementwise_case(label: impl Into<String>, expr: Expr, operands: Vec<Source>) -> Case {
    Case::new(label, Elementwise { expr }, operands)
}

/// Flags that are set, in words.
fn flags<const N: usize>(flags: [(bool, &str); N]) -> String {
    flags.into_iter().filter(|(on, _)| *on).map(|(_, text)| text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_has_a_case() {
        let have: BTreeSet<&str> = cases().iter().map(|case| case.op.name()).collect();
        // Leaves compute nothing, and a reshape is another view of the same memory: nobody has a kernel for them.
        let none = ["input", "weight", "constant", "reshape"];
        let wanted = Op::NAMES.iter().copied().filter(|name| !none.contains(name)).collect();
        assert_eq!(have, wanted);
    }

    #[test]
    fn labels_tell_cases_apart() {
        let mut seen = BTreeSet::new();
        for case in cases() {
            assert!(seen.insert((case.op.name(), case.label.clone())), "{} {} twice", case.op.name(), case.label);
        }
    }

    #[test]
    fn values_are_what_they_say() {
        let of = |values| Source::new(&[40, 5], values).array(3, true).data;
        let within = |values, least: f32, most: f32| of(values).iter().all(|v| (least..=most).contains(v));
        assert!(within(Values::Signed, -2.0, 2.0) && within(Values::Positive, 0.5, 4.0));
        assert!(within(Values::Far, 28.0, 32.0) && within(Values::Timesteps, 0.0, 1000.0));
        assert!(of(Values::Rows(3)).iter().all(|v| v.fract() == 0.0 && (0.0..5.0).contains(v)));
        let masked = Source::new(&[40, 5], Values::Mask).array(3, false).data;
        assert!(masked.contains(&-1e9) && masked.iter().step_by(5).all(|v| v.abs() <= 1.0));
    }
}
