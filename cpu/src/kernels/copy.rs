//! Operations that only move elements, in runs as long as the shapes allow.

use super::Tools;
use super::matmul::Right;
use crate::layout::Walk;
use crate::parallel::piece;
use rayon::prelude::*;

/// Rows of a table by number. Reads the table, unless it is a weight in panels, and the numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    pub(crate) table: Right,
}

impl Rows {
    pub(crate) fn run(&self, tools: &Tools<'_>, reads: &[&[f32]], out: &mut [f32]) {
        let ids = reads[reads.len() - 1];
        let each = out.par_chunks_exact_mut(self.channels).with_min_len(64).zip(ids);
        each.for_each(|(row, id)| {
            // An id outside the table reads the nearest row, and NaN reads the first, because `as` saturates.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is the meaning")]
            let at = (*id as usize).min(self.rows - 1);
            match self.table {
                Right::Packed(pack) => tools.packs[pack].copy_row(at, row),
                Right::Loose => row.copy_from_slice(&reads[0][at * self.channels..][..self.channels]),
            }
        });
    }
}

/// Operands one after the other along an axis.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// For each operand the elements that it contributes to each position of the axes before the joined one.
    pub(crate) runs: Vec<usize>,
}

impl Join {
    pub(crate) fn run(&self, reads: &[&[f32]], out: &mut [f32]) {
        let whole: usize = self.runs.iter().sum();
        let piece = piece(out.len(), whole, 1) / whole;
        out.par_chunks_exact_mut(whole).with_min_len(piece).enumerate().for_each(|(i, mut out)| {
            for (data, run) in reads.iter().zip(&self.runs) {
                let (target, rest) = out.split_at_mut(*run);
                target.copy_from_slice(&data[i * run..(i + 1) * run]);
                out = rest;
            }
        });
    }
}

/// A range of an axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take {
    /// Elements for each position of the axes before the cut one.
    pub(crate) whole: usize,
    /// Where the range starts in these elements.
    pub(crate) start: usize,
    /// Elements of the range.
    pub(crate) run: usize,
}

impl Take {
    pub(crate) fn run(&self, reads: &[&[f32]], out: &mut [f32]) {
        let Take { whole, start, run } = *self;
        let piece = piece(out.len(), run, 1) / run;
        out.par_chunks_exact_mut(run).with_min_len(piece).enumerate().for_each(|(i, out)| {
            let at = i * whole + start;
            out.copy_from_slice(&reads[0][at..at + run]);
        });
    }
}

/// Axes in another order.
#[derive(Debug, Clone)]
pub(crate) struct Permute {
    walk: Walk,
}

impl Permute {
    /// `strides` are the operand's, in the order of the result's axes.
    pub(crate) fn new(out: &[usize], strides: Vec<usize>) -> Permute {
        Permute { walk: Walk::new(out, &[strides]) }
    }

    pub(crate) fn run(&self, reads: &[&[f32]], out: &mut [f32]) {
        let row = self.walk.row();
        let step = self.walk.strides[0].last().copied().unwrap_or(0);
        let piece = piece(out.len(), row, 1) / row;
        out.par_chunks_exact_mut(row).with_min_len(piece).enumerate().for_each(|(number, out)| {
            let data = &reads[0][self.walk.row_offset(0, number)..];
            match step {
                1 => out.copy_from_slice(&data[..row]),
                _ => out.iter_mut().enumerate().for_each(|(i, value)| *value = data[i * step]),
            }
        });
    }
}
