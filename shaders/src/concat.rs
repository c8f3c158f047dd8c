//! Operands joined along one axis, in one dispatch for as many as the adapter has bindings for.

use crate::map::Map;
use crate::prelude::{Prelude, Width};
use crate::problem::Problem;
use graph::Op;
use graph::shape::numel;
use std::fmt::Write;

pub(crate) static NAIVE: Map = Map { name: "concat_naive", op: "concat", width: Width::One, value };
pub(crate) static VECTOR: Map = Map { name: "concat_vector", op: "concat", width: Width::Four, value };

fn value(problem: &Problem<'_>, prelude: &mut Prelude, width: Width) -> Option<()> {
    let Op::Concat(concat) = problem.op else { return None };
    // An operand contributes one contiguous run to each run of the result.
    let runs: Vec<usize> = problem.operands.iter().map(|operand| numel(&operand.shape[concat.axis..])).collect();
    if width == Width::Four && !runs.iter().all(|run| run.is_multiple_of(4)) {
        return None;
    }
    let (name, load, kind) = match width {
        Width::One => ("value", "load", "f32"),
        Width::Four => ("value4", "load4", "vec4<f32>"),
    };
    prelude.param("run", runs.iter().sum());
    let mut text =
        format!("fn {name}(i: u32) -> {kind} {{\n    let outer = i / params.run;\n    var at = i % params.run;\n");
    for (k, (operand, run)) in problem.operands.iter().zip(&runs).enumerate() {
        prelude.operand(&format!("x{k}"), operand, width);
        prelude.param(&format!("run{k}"), *run);
        let value = format!("return {load}_x{k}(outer * params.run{k} + at);");
        if k + 1 < runs.len() {
            let _ = write!(text, "    if (at < params.run{k}) {{\n        {value}\n    }}\n    at -= params.run{k};\n");
        } else {
            let _ = write!(text, "    {value}\n}}\n");
        }
    }
    prelude.output(problem, width);
    prelude.function(&text);
    Some(())
}
