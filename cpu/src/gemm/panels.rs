//! The right factor of a product, in the order in which the kernel reads it.

use super::kernel::{lanes, panel_width};
use crate::memory::Memory;
use crate::weights::{self, InOrder};
use bytemuck::Pod;
use graph::q8_0::{self, BLOCK};
use graph::{Kept, StorageType};
use half::f16;
use half::slice::HalfFloatSliceExt;
use rten_simd::ops::{BitOps, Extend, IntOps, NumOps, ToFloat};
use rten_simd::{Isa, Simd, SimdOp};
use std::ops::Range;

/// A matrix as it lies in a checkpoint or in a plan's memory.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<T> {
    pub(crate) data: T,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Whether it lies as `[n, k]`, as linear layers and convolutions have it.
    pub(crate) transposed: bool,
}

impl<T> Matrix<T> {
    /// For each panel the columns that it is for, and the elements from one of its rows to the next.
    fn panels(&self, lanes: usize) -> impl Iterator<Item = (Range<usize>, usize)> + use<T> {
        let (n, most) = (self.n, panel_width(lanes));
        (0..n).step_by(most).map(move |first| {
            let columns = first..n.min(first + most);
            let width = width(columns.len(), lanes);
            (columns, width)
        })
    }

    /// The matrix's elements in panels, with `slack` more at the end. `fill` lays out the columns of a panel of that width.
    fn arrange<E: Pod>(
        &self,
        lanes: usize,
        slack: usize,
        mut fill: impl FnMut(Range<usize>, usize, &mut [E]),
    ) -> Memory<E> {
        let elements: usize = self.panels(lanes).map(|(_, width)| width * self.k).sum();
        let len = elements + slack;
        let mut all = Memory::zeroed(len).unwrap_or_else(|| vec![E::zeroed(); len].into());
        let mut rest = &mut *all;
        for (columns, width) in self.panels(lanes) {
            let (own, after) = rest.split_at_mut(width * self.k);
            fill(columns, width, own);
            rest = after;
        }
        all
    }

    /// Lays out a panel from the rows of the matrix that it needs: its columns' where the matrix lies transposed, else all.
    fn lay<E: Copy>(&self, rows: &[E], columns: Range<usize>, width: usize, out: &mut [E]) {
        if self.transposed {
            // A few rows of the panel at a time, so that what is written stays in the cache.
            const ROWS: usize = 32;
            for (i, out) in out.chunks_mut(ROWS * width).enumerate() {
                for (j, column) in rows.chunks_exact(self.k).enumerate() {
                    let column = &column[i * ROWS..][..out.len() / width];
                    column.iter().zip(out[j..].iter_mut().step_by(width)).for_each(|(x, to)| *to = *x);
                }
            }
        } else {
            for (row, to) in rows.chunks_exact(self.n).zip(out.chunks_exact_mut(width)) {
                to[..columns.len()].copy_from_slice(&row[columns.clone()]);
            }
        }
    }
}

/// Elements of a weight that are read at a time: 32 channels of a convolution with nine taps, for example. Where they belong stays in the
/// cache.
const RUN: usize = 288;

impl Matrix<InOrder<'_>> {
    /// Lays out some columns of a weight. `read` turns elements as they are stored into what is kept of them, and says whether they can be.
    fn lay_weight<F: Pod>(
        &self,
        columns: Range<usize>,
        width: usize,
        out: &mut [F],
        read: impl Fn(&[u8], &mut [F]) -> bool,
    ) -> bool {
        let mut sound = true;
        let size = self.data.storage().size();
        if !self.transposed {
            let (bytes, _) = self.data.rows(0..self.k, self.n);
            for (row, to) in bytes.chunks_exact(self.n * size).zip(out.chunks_exact_mut(width)) {
                sound &= read(&row[columns.start * size..columns.end * size], &mut to[..columns.len()]);
            }
            return sound;
        }
        let mut room = [F::zeroed(); RUN];
        let (bytes, places) = self.data.rows(columns, self.k);
        for first in (0..self.k).step_by(RUN) {
            let some = first..self.k.min(first + RUN);
            let run = &mut room[..some.len()];
            for (j, column) in bytes.chunks_exact(self.k * size).enumerate() {
                sound &= read(&column[some.start * size..some.end * size], run);
                match places {
                    Some(places) => {
                        run.iter().zip(&places[some.clone()]).for_each(|(x, place)| out[place * width + j] = *x);
                    }
                    None => {
                        let to = out[first * width + j..].iter_mut().step_by(width);
                        run.iter().zip(to).for_each(|(x, to)| *to = *x);
                    }
                }
            }
        }
        sound
    }

    /// Singles, that all are below the limit of what is kept.
    fn lay_singles(&self, kept: Kept, columns: Range<usize>, width: usize, out: &mut [f32]) -> bool {
        let storage = self.data.storage();
        let limit = weights::limit(storage, kept);
        self.lay_weight(columns, width, out, |bytes, to| {
            storage.widen(bytes, to);
            !weights::exceed(storage, bytes, limit)
        })
    }

    /// The bits of numbers of 16 bits, as they are stored, or of the halves that singles are rounded to.
    fn lay_bits(&self, kept: Kept, columns: Range<usize>, width: usize, out: &mut [i16]) -> bool {
        let storage = self.data.storage();
        let limit = weights::limit(storage, kept);
        let rounds = kept == Kept::F16 && storage != StorageType::F16;
        self.lay_weight(columns, width, out, |bytes, to| {
            if rounds {
                let mut singles = [0.0; RUN];
                let singles = &mut singles[..to.len()];
                storage.widen(bytes, singles);
                bytemuck::cast_slice_mut::<i16, f16>(to).convert_from_f32_slice(singles);
            } else {
                bytes.as_chunks().0.iter().zip(to).for_each(|(pair, to)| *to = i16::from_le_bytes(*pair));
            }
            !weights::exceed(storage, bytes, limit)
        })
    }
}

/// The numbers. All but singles are widened, exactly, some rows at a time while they are multiplied.
enum Numbers {
    F32(Memory<f32>),
    /// Their bits.
    F16(Memory<i16>),
    /// The upper halves of singles.
    Bf16(Memory<i16>),
    /// A scale for each column of 32 rows, as the bits of a half.
    Q8_0 {
        quants: Memory<i8>,
        scales: Memory<i16>,
    },
}

/// A matrix `[k, n]` in panels of some columns, row by row. The last panel is half as wide where that is enough.
pub(crate) struct Panels {
    pub(crate) n: usize,
    pub(crate) k: usize,
    lanes: usize,
    numbers: Numbers,
}

impl Panels {
    /// Rearranges a matrix of singles.
    pub(crate) fn pack(matrix: Matrix<&[f32]>) -> Panels {
        let Matrix { data, n, k, transposed } = matrix;
        let lanes = lanes();
        let all = matrix.arrange(lanes, 0, |columns, width, out| {
            let rows = if transposed { &data[columns.start * k..columns.end * k] } else { data };
            matrix.lay(rows, columns, width, out);
        });
        Panels { n, k, lanes, numbers: Numbers::F32(all) }
    }

    /// Rearranges a weight, and rounds its numbers where fewer bits are kept of them. None where a number cannot be kept so.
    pub(crate) fn pack_weight(matrix: &Matrix<InOrder<'_>>, kept: Kept) -> Option<Panels> {
        let Matrix { data: _, n, k, transposed } = *matrix;
        let lanes = lanes();
        // Vectors of small numbers are loaded whole where only their first half is needed.
        let slack = 4 * lanes;
        let mut sound = true;
        let mut bits = || matrix.arrange(lanes, slack, |of, width, out| sound &= matrix.lay_bits(kept, of, width, out));
        let numbers = match kept {
            Kept::F16 => Numbers::F16(bits()),
            Kept::Bf16 => Numbers::Bf16(bits()),
            Kept::F32 => Numbers::F32(
                matrix.arrange(lanes, 0, |of, width, out| sound &= matrix.lay_singles(kept, of, width, out)),
            ),
            Kept::Q8_0 => {
                let scales = Matrix { data: (), n, k: k / BLOCK, transposed };
                let mut all_scales = scales.arrange(lanes, slack, |_, _, _: &mut [i16]| {});
                let mut left = &mut *all_scales;
                let mut singles = vec![0.0; panel_width(lanes) * k];
                let quants = matrix.arrange(lanes, slack, |columns, width, out| {
                    let singles = &mut singles[..columns.len() * k];
                    for (column, singles) in columns.clone().zip(singles.chunks_exact_mut(k)) {
                        sound &= matrix.lay_singles(kept, column..column + 1, 1, singles);
                    }
                    let Some(blocks) = q8_0::quantize(singles) else { return };
                    let quants: Vec<i8> = blocks.iter().flat_map(|block| block.quants).collect();
                    matrix.lay(&quants, columns.clone(), width, out);
                    let (own, after) = std::mem::take(&mut left).split_at_mut(width * scales.k);
                    let bits: Vec<i16> = blocks.iter().map(|block| block.scale.to_bits().cast_signed()).collect();
                    scales.lay(&bits, columns, width, own);
                    left = after;
                });
                Numbers::Q8_0 { quants, scales: all_scales }
            }
        };
        sound.then_some(Panels { n, k, lanes, numbers })
    }

    /// Memory held, without what is behind the last column.
    pub(crate) fn bytes(&self) -> usize {
        let kept = match self.numbers {
            Numbers::F32(_) => Kept::F32,
            Numbers::F16(_) => Kept::F16,
            Numbers::Bf16(_) => Kept::Bf16,
            Numbers::Q8_0 { .. } => Kept::Q8_0,
        };
        kept.bytes(self.n * self.k)
    }

    /// Copies row `row` of the matrix.
    pub(crate) fn copy_row(&self, row: usize, to: &mut [f32]) {
        // Of the widest vectors there are.
        let mut room = [0.0; panel_width(64)];
        for (panel, to) in to.chunks_mut(panel_width(self.lanes)).enumerate() {
            to.copy_from_slice(&self.rows(panel, row, 1, &mut room)[..to.len()]);
        }
    }

    /// How many panels there are.
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(panel_width(self.lanes))
    }

    /// The first column of a panel.
    pub(crate) fn column(&self, panel: usize) -> usize {
        panel * panel_width(self.lanes)
    }

    /// Columns of the result that a panel is for.
    pub(crate) fn columns(&self, panel: usize) -> usize {
        panel_width(self.lanes).min(self.n - self.column(panel))
    }

    /// Singles from one row of a panel to the next.
    pub(crate) fn width(&self, panel: usize) -> usize {
        width(self.columns(panel), self.lanes)
    }

    /// Singles that [`rows`](Self::rows) needs room for, to widen so many rows.
    pub(crate) fn room(&self, depth: usize) -> usize {
        match self.numbers {
            Numbers::F32(_) => 0,
            _ => depth * panel_width(self.lanes),
        }
    }

    /// Rows `from..from + depth` of a panel, widened into `room` unless they are kept as singles.
    pub(crate) fn rows<'a>(&'a self, panel: usize, from: usize, depth: usize, room: &'a mut [f32]) -> &'a [f32] {
        let width = self.width(panel);
        let at = panel * panel_width(self.lanes) * self.k + from * width;
        if let Numbers::F32(all) = &self.numbers {
            return &all[at..at + depth * width];
        }
        let room = &mut room[..depth * width];
        let scales = panel * panel_width(self.lanes) * (self.k / BLOCK);
        Widen { numbers: &self.numbers, width, at, scales, from, room }.dispatch();
        room
    }
}

/// Widens some rows of a panel.
struct Widen<'a> {
    numbers: &'a Numbers,
    width: usize,
    /// Where the first row begins.
    at: usize,
    /// Where the panel's scales begin.
    scales: usize,
    /// The number of the first row.
    from: usize,
    room: &'a mut [f32],
}

impl SimdOp for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Widen { numbers, width, at, scales: first_scale, from, room } = self;
        let (ops, lanes) = (isa.f32(), isa.f32().len());
        for (i, row) in room.chunks_exact_mut(width).enumerate() {
            let at = at + i * width;
            let (low, high) = match numbers {
                Numbers::F32(all) => (ops.load(&all[at..]), ops.zero()),
                Numbers::F16(all) => {
                    let halves: I::F16 = isa.i16().load(&all[at..]).reinterpret_cast();
                    (isa.f16().extend_low(halves), isa.f16().extend_high(halves))
                }
                Numbers::Bf16(all) => {
                    let halves = isa.i16().load(&all[at..]);
                    (upper(isa, isa.i16().extend_low(halves)), upper(isa, isa.i16().extend_high(halves)))
                }
                Numbers::Q8_0 { quants, scales } => {
                    let scales = &scales[first_scale + (from + i) / BLOCK * width..];
                    let scales: I::F16 = isa.i16().load(scales).reinterpret_cast();
                    let quants = isa.i8().extend_low(isa.i8().load(&quants[at..]));
                    let low = isa.i32().to_float(isa.i16().extend_low(quants));
                    let high = isa.i32().to_float(isa.i16().extend_high(quants));
                    (ops.mul(low, isa.f16().extend_low(scales)), ops.mul(high, isa.f16().extend_high(scales)))
                }
            };
            ops.store(low, row);
            if width > lanes {
                ops.store(high, &mut row[lanes..]);
            }
        }
    }
}

/// Singles whose upper halves these are.
#[inline(always)]
fn upper<I: Isa>(isa: I, halves: I::I32) -> I::F32 {
    isa.i32().shift_left::<16>(halves).reinterpret_cast()
}

/// Width of a panel of so many columns.
fn width(columns: usize, lanes: usize) -> usize {
    if columns <= lanes { lanes } else { panel_width(lanes) }
}
