//! Rows of a table.

use crate::map::Map;
use crate::prelude::{Prelude, Width};
use crate::problem::Problem;
use graph::Op;

pub(crate) static NAIVE: Map = Map { name: "gather_naive", op: "gather", width: Width::One, value };
pub(crate) static VECTOR: Map = Map { name: "gather_vector", op: "gather", width: Width::Four, value };

fn value(problem: &Problem<'_>, prelude: &mut Prelude, width: Width) -> Option<()> {
    let (Op::Gather(_), [table, ids]) = (problem.op, &problem.operands[..]) else { return None };
    let [rows, channels] = *table.shape else { return None };
    if width == Width::Four && !channels.is_multiple_of(4) {
        return None;
    }
    prelude.param("rows", rows);
    prelude.param("channels", channels);
    prelude.operand("table", table, width);
    prelude.operand("ids", ids, Width::One);
    prelude.output(problem, width);
    prelude.function(include_str!("value.wgsl"));
    prelude.function(match width {
        Width::One => "fn value(i: u32) -> f32 {\n    return load_table(at(i));\n}\n",
        Width::Four => "fn value4(i: u32) -> vec4<f32> {\n    return load4_table(at(i));\n}\n",
    });
    Some(())
}
