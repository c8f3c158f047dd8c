//! Sines and cosines of timesteps.

use crate::map::Map;
use crate::prelude::{Prelude, Width};
use crate::problem::Problem;
use graph::Op;
use graph::ops::TimestepEmbedding;

pub(crate) static NAIVE: Map =
    Map { name: "timestep_embedding_naive", op: "timestep_embedding", width: Width::One, value };

fn value(problem: &Problem<'_>, prelude: &mut Prelude, _: Width) -> Option<()> {
    let (Op::TimestepEmbedding(op), [t]) = (problem.op, &problem.operands[..]) else { return None };
    prelude.param("dim", op.dim);
    prelude.param("cosines_first", usize::from(op.flip_sin_to_cos));
    prelude.table(frequencies(op));
    prelude.operand("t", t, Width::One);
    prelude.output(problem, Width::One);
    prelude.function(crate::expression::FUNCTIONS);
    prelude.function(include_str!("value.wgsl"));
    Some(())
}

/// The frequency of each pair in 2⁻³² turns per timestep: the whole part, then the rest as an `f32`.
fn frequencies(op: &TimestepEmbedding) -> Vec<u32> {
    (0..op.dim / 2)
        .flat_map(|i| {
            let turns = op.frequency(i) / std::f64::consts::TAU;
            let scaled = (turns - turns.floor()) * 2f64.powi(32);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "split on purpose")]
            let (whole, rest) = (scaled.floor() as u32, scaled.fract() as f32);
            [whole, rest.to_bits()]
        })
        .collect()
}
