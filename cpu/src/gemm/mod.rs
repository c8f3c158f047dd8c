//! Matrix products.
//!
//! The right factor lies in [`Panels`], as many columns as two vector registers have lanes. A thread copies some rows of the left factor
//! to where they stay in its second-level cache, and multiplies them with one panel after another; each tile of the result stays in registers
//! (Goto & van de Geijn 2008, *Anatomy of High-Performance Matrix Multiplication*).

mod kernel;
mod panels;

pub(crate) use kernel::{DEPTH, Out, Piece, ROW, Row, Start, Strided, instructions, lanes, load, panel_width, store};
pub(crate) use panels::{Matrix, Panels};

use crate::kernels::Epilogue;
use crate::parallel::with_scratch;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of the left factor that one thread works on at once: with [`DEPTH`] elements each, they leave most of the second-level cache to
/// panels and the result.
const ROWS: usize = 256;

/// The fewest multiplications to give to a thread, because waking one costs a few microseconds.
const LEAST_WORK: usize = 1 << 19;

/// Elements of a right factor that stays in a thread's second-level cache.
const SMALL: usize = 1 << 18;

/// Rows for which a panel is worth widening.
const FEW_ROWS: usize = 28;

/// The least part of a row to apply an epilogue to: each part is interpreted anew.
const LEAST_PART: usize = 512;

/// A left factor: what its rows are, without laying them all out.
pub(crate) trait Left: Sync {
    /// Copies a row's elements from `from` on, as many as there is room for.
    fn copy(&self, row: usize, from: usize, to: &mut [f32]);
}

/// A matrix, row by row.
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) k: usize,
}

impl Left for Rows<'_> {
    fn copy(&self, row: usize, from: usize, to: &mut [f32]) {
        to.copy_from_slice(&self.data[row * self.k + from..][..to.len()]);
    }
}

/// Computes `left · right + bias` on all threads, as many rows as `out` has, and applies the epilogue to the whole of it.
pub(crate) fn multiply(
    left: &impl Left,
    right: &Panels,
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let (n, k) = (right.n, right.k);
    let rows = out.len() / n;
    let (tall, wide) = split(rows, right, rayon::current_num_threads());
    let whole = Block { left, right, bias, row: 0, panels: 0..right.count() };
    if k == 0 {
        // A sum of no terms.
        match bias {
            Some(bias) => out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)),
            None => out.fill(0.0),
        }
        if let Some((fused, operands)) = epilogue {
            fused.run(operands, out);
        }
    } else if wide >= right.count() {
        // Whole rows: finished while they are in the cache.
        let compute = |(i, out): (usize, &mut [f32])| {
            let block = Block { row: i * tall, panels: whole.panels.clone(), ..whole };
            block.compute(out.len() / n, &mut Strided { data: &mut *out, stride: n });
            if let Some((fused, operands)) = epilogue {
                fused.run_part(operands, i * tall * n, out);
            }
        };
        if tall >= rows {
            compute((0, out));
        } else {
            out.par_chunks_mut(tall * n).enumerate().for_each(compute);
        }
    } else {
        let across = right.count().div_ceil(wide);
        let mut tasks: Vec<Vec<&mut [f32]>> =
            (0..rows.div_ceil(tall) * across).map(|_| Vec::with_capacity(tall)).collect();
        for (i, row) in out.chunks_exact_mut(n).enumerate() {
            for (j, part) in row.chunks_mut(right.column(wide)).enumerate() {
                tasks[i / tall * across + j].push(part);
            }
        }
        let in_parts = right.column(wide) >= LEAST_PART;
        tasks.into_par_iter().enumerate().for_each(|(i, mut out)| {
            let (row, first) = (i / across * tall, i % across * wide);
            let panels = first..(first + wide).min(right.count());
            Block { row, panels, ..whole }.compute(out.len(), &mut *out);
            if let Some((fused, operands)) = epilogue.filter(|_| in_parts) {
                for (i, part) in out.into_iter().enumerate() {
                    fused.run_part(operands, (row + i) * n + right.column(first), part);
                }
            }
        });
        if let Some((fused, operands)) = epilogue.filter(|_| !in_parts) {
            fused.run(operands, out);
        }
    }
}

/// Rows and panels of a block that one thread computes at once.
fn split(rows: usize, right: &Panels, threads: usize) -> (usize, usize) {
    let elements = right.n * right.k;
    let affordable = (rows * elements / LEAST_WORK).max(1);
    if threads == 1 || affordable == 1 {
        return (rows.clamp(1, ROWS), right.count());
    }
    // A small right factor is read by every thread, as whole rows need no more than their own memory.
    if elements <= SMALL && rows >= 2 * threads * FEW_ROWS {
        return (rows.div_ceil(2 * threads).min(ROWS), right.count());
    }
    // Few rows are not cut, so that each panel is read once.
    let down = rows.div_ceil(ROWS).max(1);
    let across = (4 * threads).min(affordable).div_ceil(down).clamp(1, right.count());
    (rows.div_ceil(down).max(1), right.count().div_ceil(across))
}

/// Some rows by some panels.
struct Block<'a, L> {
    left: &'a L,
    right: &'a Panels,
    bias: Option<&'a [f32]>,
    /// The first row.
    row: usize,
    panels: Range<usize>,
}

impl<L: Left> Block<'_, L> {
    /// Computes it, on this thread. `out` begins with the block's first row and column.
    fn compute(&self, rows: usize, out: &mut (impl Out + ?Sized)) {
        let room = rows * ROW;
        with_scratch(room + self.right.room(DEPTH), |scratch| {
            let (a, room) = scratch.split_at_mut(room);
            for from in (0..self.right.k).step_by(DEPTH) {
                let depth = DEPTH.min(self.right.k - from);
                let (a, _) = a.as_chunks_mut();
                for (i, to) in a.iter_mut().enumerate() {
                    let to: &mut Row = to;
                    self.left.copy(self.row + i, from, &mut to[..depth]);
                }
                self.pass(a, from, depth, room, out);
            }
        });
    }

    /// Adds the products of so many elements of each row.
    fn pass(&self, a: &[Row], from: usize, depth: usize, room: &mut [f32], out: &mut (impl Out + ?Sized)) {
        let first = self.right.column(self.panels.start);
        for panel in self.panels.clone() {
            let start = match self.bias {
                _ if from > 0 => Start::Add,
                Some(bias) => Start::Bias(&bias[first..]),
                None => Start::Zero,
            };
            let b = self.right.rows(panel, from, depth, room);
            let (column, columns) = (self.right.column(panel) - first, self.right.columns(panel));
            Piece { a, from: 0, depth, b, column, columns, start }.multiply(out, 0);
        }
    }
}
