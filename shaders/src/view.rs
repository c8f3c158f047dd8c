//! Slice and transpose: the operand's elements at other positions.

use crate::map::Map;
use crate::prelude::{Prelude, Width};
use crate::problem::Problem;
use crate::strided::Strided;
use graph::Op;
use graph::shape::strides;

pub(crate) static SLICE_NAIVE: Map = Map { name: "slice_naive", op: "slice", width: Width::One, value };
pub(crate) static SLICE_VECTOR: Map = Map { name: "slice_vector", op: "slice", width: Width::Four, value };
pub(crate) static TRANSPOSE_NAIVE: Map = Map { name: "transpose_naive", op: "transpose", width: Width::One, value };
pub(crate) static TRANSPOSE_VECTOR: Map = Map { name: "transpose_vector", op: "transpose", width: Width::Four, value };

fn value(problem: &Problem<'_>, prelude: &mut Prelude, width: Width) -> Option<()> {
    let [x] = problem.operands[..] else { return None };
    let strided = match problem.op {
        Op::Slice(slice) => {
            let own = strides(x.shape);
            Strided::new(problem.out, &own, slice.start * own[slice.axis])
        }
        Op::Transpose(transpose) => Strided::new(problem.out, &transpose.source_strides(x.shape), 0),
        _ => return None,
    };
    if width == Width::Four && !strided.is_contiguous() {
        return None;
    }
    prelude.operand("x", &x, width);
    prelude.output(problem, width);
    let index = strided.index(prelude, "x");
    prelude.function(&match width {
        Width::One => format!("fn value(i: u32) -> f32 {{\n    return load_x({index});\n}}\n"),
        Width::Four => format!("fn value4(i: u32) -> vec4<f32> {{\n    return load4_x({index});\n}}\n"),
    });
    Some(())
}
