//! Attention.

use super::{Case, Source, Values, flags, signed};
use crate::ops::Attention;

pub(super) fn attentions() -> Vec<Case> {
    let mut all = Vec::new();
    // batch, queries, keys, heads, depth of a head: single keys, edges of every block, depths of several parts
    let shapes = [
        (1, 33, 70, 2, 16),
        (2, 5, 7, 3, 4),
        (2, 17, 17, 1, 40),
        (1, 9, 130, 2, 64),
        (1, 1, 1, 1, 1),
        (2, 3, 5, 2, 4),
        (1, 17, 17, 3, 8),
        (2, 40, 33, 1, 16),
        (1, 70, 130, 2, 5),
        (3, 64, 64, 4, 9),
    ];
    for (i, (batch, queries, keys, heads, depth)) in shapes.into_iter().enumerate() {
        // The usual scale, and one that makes sharper scores.
        let scale = if i % 2 == 0 { (depth as f64).sqrt().recip() } else { 0.7 };
        for (causal, key_bias, score_bias) in every_way() {
            if causal && queries != keys {
                continue;
            }
            let op = Attention { heads, scale, causal, key_bias, score_bias };
            all.push(case(op, batch, queries, keys, depth));
        }
    }
    all
}

/// causal, key_bias and score_bias.
pub(super) fn every_way() -> impl Iterator<Item = (bool, bool, bool)> {
    (0..8).map(|i| (i & 1 != 0, i & 2 != 0, i & 4 != 0))
}

pub(super) fn case(op: Attention, batch: usize, queries: usize, keys: usize, depth: usize) -> Case {
    let (heads, width) = (op.heads, op.heads * depth);
    let keys_shape = [batch, keys, width];
    let mut operands = vec![signed(&[batch, queries, width]), signed(&keys_shape), signed(&keys_shape)];
    operands.extend(op.key_bias.then(|| Source::new(&[batch, keys], Values::Mask)));
    operands.extend(op.score_bias.then(|| signed(&[heads, queries, keys])));
    let flags = flags([(op.causal, " causal"), (op.key_bias, " masked"), (op.score_bias, " biased")]);
    Case::new(format!("{batch}×{heads}×{queries}×{keys}×{depth}{flags}"), op, operands)
}
