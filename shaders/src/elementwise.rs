//! One expression over broadcast operands.

use crate::expression;
use crate::map::Map;
use crate::prelude::{Prelude, Width};
use crate::problem::Problem;
use crate::strided::Strided;
use graph::Op;
use graph::ops::Elementwise;

pub(crate) static NAIVE: Map = Map { name: "elementwise_naive", op: "elementwise", width: Width::One, value };
pub(crate) static VECTOR: Map = Map { name: "elementwise_vector", op: "elementwise", width: Width::Four, value };

fn value(problem: &Problem<'_>, prelude: &mut Prelude, width: Width) -> Option<()> {
    let Op::Elementwise(Elementwise { expr }) = problem.op else { return None };
    let views = problem.operands.iter().map(|operand| (operand, Strided::broadcast(operand.shape, problem.out)));
    for (k, (operand, strided)) in views.enumerate() {
        if width == Width::Four && !strided.is_contiguous() && !strided.is_repeated() {
            return None;
        }
        let own = if strided.is_contiguous() { width } else { Width::One };
        prelude.operand(&format!("x{k}"), operand, own);
    }
    prelude.output(problem, width);
    let shapes: Vec<Option<&[usize]>> = problem.operands.iter().map(|operand| Some(operand.shape)).collect();
    expression::function(prelude, "value", &expr.simplify(), &shapes, problem.out, width);
    Some(())
}
