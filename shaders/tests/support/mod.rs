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

/// The problem with all operands that take any format, the epilogue's among them, in one. Blocks of eight bits are right
/// factors in rows of whole blocks and nothing else; what else there is stays in single precision then.
pub(crate) fn problem(case: &Case, format: Format, result: Format) -> Problem<'_> {
    fn operand(source: &Source, format: Format) -> Operand<'_> {
        Operand { shape: &source.shape, format }
    }
    let any = takes_any_format(case);
    let formats = case.operands.iter().enumerate().map(|(i, source)| {
        let fits = if format == Format::Q8_0 { case.blocks() == Some(i) } else { any[i] };
        operand(source, if fits { format } else { Format::F32 })
    });
    let epilogue = case.epilogue.as_ref();
    let rest = if format == Format::Q8_0 { Format::F32 } else { format };
    Problem {
        op: &case.op,
        operands: formats.collect(),
        epilogue: epilogue.map(|(expr, _)| expr),
        extras: epilogue.iter().flat_map(|(_, extras)| extras).map(|source| operand(source, rest)).collect(),
        out: &case.out,
        result,
    }
}
