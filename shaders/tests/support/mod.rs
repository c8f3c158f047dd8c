//! The problems that together reach every kernel and every branch of the preludes.

use graph::Op;
use graph::cases::{Case, Source, cases, text_cases};
use shaders::{Format, Operand, Problem};

/// Those that executors run, and those that only texts are made for.
pub(crate) fn all_cases() -> Vec<Case> {
    [cases(), text_cases()].concat()
}

/// Which operands take any format: more than plans keep in half precision, since no kernel asks where an operand is from.
pub(crate) fn takes_any_format(case: &Case) -> Vec<bool> {
    let takes = |i: usize| match case.op {
        Op::MatMul(_) | Op::Conv2d(_) | Op::LayerNorm(_) | Op::GroupNorm(_) => i > 0,
        Op::Gather(_) => i == 0,
        Op::Attention(_) | Op::TimestepEmbedding(_) => false,
        _ => true,
    };
    (0..case.operands.len()).map(takes).collect()
}

/// The problem with all operands that take any format, the epilogue's among them, in one.
pub(crate) fn problem(case: &Case, format: Format) -> Problem<'_> {
    fn operand(source: &Source, format: Format) -> Operand<'_> {
        Operand { shape: &source.shape, format }
    }
    let any = takes_any_format(case);
    let own = |(source, any)| operand(source, if any { format } else { Format::F32 });
    let epilogue = case.epilogue.as_ref();
    Problem {
        op: &case.op,
        operands: case.operands.iter().zip(any).map(own).collect(),
        epilogue: epilogue.map(|(expr, _)| expr),
        extras: epilogue.iter().flat_map(|(_, extras)| extras).map(|source| operand(source, format)).collect(),
        out: &case.out,
    }
}
