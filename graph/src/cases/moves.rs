//! Operations that move numbers, and those that make them.

use super::{Case, Source, Values, signed};
use crate::ops::{Concat, Gather, Slice, TimestepEmbedding, Transpose};

pub(super) fn moves() -> Vec<Case> {
    let mut all = Vec::new();
    for (rows, channels, ids) in [(3, 5, &[4][..]), (11, 8, &[2, 3]), (7, 33, &[1, 77]), (4, 1, &[])] {
        let operands = vec![Source::weight(&[rows, channels]), Source::new(ids, Values::Rows(rows))];
        all.push(Case::new(format!("{ids:?} of {rows}×{channels}"), Gather, operands));
    }
    let joined: [(usize, &[&[usize]]); 8] = [
        (0, &[&[1, 3], &[4, 3]]),
        (1, &[&[3, 2], &[3, 5], &[3, 1]]),
        (1, &[&[2, 3, 4], &[2, 1, 4]]),
        (2, &[&[2, 3, 8], &[2, 3, 4]]),
        (0, &[&[7]]),
        (0, &[&[3, 4, 5], &[3, 4, 5]]),
        (1, &[&[3, 4, 5], &[3, 2, 5], &[3, 4, 5]]),
        (2, &[&[3, 4, 5], &[3, 4, 5]]),
    ];
    for (axis, shapes) in joined {
        let operands = shapes.iter().map(|shape| signed(shape)).collect();
        all.push(Case::new(format!("{shapes:?} on axis {axis}"), Concat { axis }, operands));
    }
    let cut: [(&[usize], usize, usize, usize); 8] = [
        (&[9], 0, 2, 5),
        (&[4, 7], 1, 3, 4),
        (&[4, 7], 0, 1, 2),
        (&[2, 5, 8], 1, 4, 1),
        (&[3, 2, 16], 2, 4, 8),
        (&[3, 4, 5], 0, 1, 1),
        (&[3, 4, 5], 1, 0, 3),
        (&[3, 4, 5], 2, 2, 3),
    ];
    for (shape, axis, start, len) in cut {
        let label = format!("{shape:?} axis {axis} {start}..{}", start + len);
        all.push(Case::new(label, Slice { axis, start, len }, vec![signed(shape)]));
    }
    let orders: [(&[usize], &[usize]); 13] = [
        (&[5, 7], &[1, 0]),
        (&[2, 3, 4], &[0, 2, 1]),
        (&[2, 3, 5, 4], &[0, 2, 1, 3]),
        (&[2, 3, 2, 3, 2, 3], &[0, 1, 3, 5, 2, 4]),
        (&[33, 34], &[1, 0]),
        (&[3, 4, 5], &[0, 1, 2]),
        (&[3, 4, 5], &[0, 2, 1]),
        (&[3, 4, 5], &[1, 0, 2]),
        (&[3, 4, 5], &[1, 2, 0]),
        (&[3, 4, 5], &[2, 0, 1]),
        (&[3, 4, 5], &[2, 1, 0]),
        // Pixels to patches of four and back.
        (&[2, 2, 4, 3, 4, 3], &[0, 1, 3, 5, 2, 4]),
        (&[2, 2, 3, 4, 4, 3], &[0, 1, 3, 2, 4, 5]),
    ];
    for (shape, axes) in orders {
        all.push(Case::new(format!("{shape:?} to {axes:?}"), Transpose { axes: axes.to_vec() }, vec![signed(shape)]));
    }
    all
}

pub(super) fn timesteps() -> Vec<Case> {
    let mut all = Vec::new();
    // One pair cannot be spread when the shift takes it away.
    let embeddings =
        [(1, 2, true, 0.0), (3, 34, false, 1.0), (2, 256, true, 0.0), (3, 32, false, 1.0), (3, 32, true, 0.0)];
    for (batch, dim, flip_sin_to_cos, downscale_freq_shift) in embeddings {
        let op = TimestepEmbedding { dim, flip_sin_to_cos, downscale_freq_shift, max_period: 10_000.0 };
        let label = format!("{batch}×{dim} shift {downscale_freq_shift}");
        all.push(Case::new(label, op, vec![Source::new(&[batch], Values::Timesteps)]));
    }
    all
}
