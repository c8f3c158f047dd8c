//! The right factor of a product, in the order in which the kernel reads it.

use super::kernel::{lanes, panel_width};
use graph::q8_0::{self, BLOCK};
use half::{bf16, f16};
use rten_simd::ops::{BitOps, Extend, IntOps, NumOps, ToFloat};
use rten_simd::{Isa, Simd, SimdOp};

/// A matrix as it lies in a checkpoint or in a plan's memory.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Whether it lies as `[n, k]`, as linear layers and convolutions have it.
    pub(crate) transposed: bool,
}

/// How numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(dead_code, reason = "plans will ask for all of them")]
pub(crate) enum Keep {
    F32,
    F16,
    Bf16,
    Q8_0,
}

/// The numbers. All but singles are widened, exactly, some rows at a time while they are multiplied.
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<rten_simd::f16>),
    /// The upper halves of singles.
    Bf16(Vec<i16>),
    /// A scale for each column of 32 rows.
    Q8_0 {
        quants: Vec<i8>,
        scales: Vec<rten_simd::f16>,
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
    /// Rearranges a matrix, whose numbers are rounded where they are kept in fewer bits.
    pub(crate) fn pack(matrix: Matrix<'_>, keep: Keep) -> Panels {
        let Matrix { n, k, .. } = matrix;
        let lanes = lanes();
        // Vectors of small numbers are loaded whole where only their first half is needed.
        let slack = 4 * lanes;
        let numbers = match keep {
            Keep::F32 => Numbers::F32(arrange(matrix, lanes, 0, |value| value)),
            Keep::F16 => Numbers::F16(arrange(matrix, lanes, slack, |value| half(f16::from_f32(value)))),
            Keep::Bf16 => Numbers::Bf16(arrange(matrix, lanes, slack, |value| {
                i16::from_ne_bytes(bf16::from_f32(value).to_bits().to_ne_bytes())
            })),
            Keep::Q8_0 => quantized(matrix, lanes, slack),
        };
        Panels { n, k, lanes, numbers }
    }

    /// Memory held, without what is behind the last column.
    pub(crate) fn bytes(&self) -> usize {
        let elements = self.n * self.k;
        match self.numbers {
            Numbers::F32(_) => 4 * elements,
            Numbers::F16(_) | Numbers::Bf16(_) => 2 * elements,
            Numbers::Q8_0 { .. } => elements / BLOCK * q8_0::BLOCK_BYTES,
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
                    let halves = isa.f16().load(&all[at..]);
                    (isa.f16().extend_low(halves), isa.f16().extend_high(halves))
                }
                Numbers::Bf16(all) => {
                    let halves = isa.i16().load(&all[at..]);
                    (upper(isa, isa.i16().extend_low(halves)), upper(isa, isa.i16().extend_high(halves)))
                }
                Numbers::Q8_0 { quants, scales } => {
                    let scales = isa.f16().load(&scales[first_scale + (from + i) / BLOCK * width..]);
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

fn half(value: f16) -> rten_simd::f16 {
    rten_simd::f16::from_bits(value.to_bits())
}

/// Width of a panel of so many columns.
fn width(columns: usize, lanes: usize) -> usize {
    if columns <= lanes { lanes } else { panel_width(lanes) }
}

/// The matrix's elements in panels, with `slack` more at the end.
fn arrange<T: Copy + Default>(matrix: Matrix<'_>, lanes: usize, slack: usize, convert: impl Fn(f32) -> T) -> Vec<T> {
    let Matrix { data, n, k, transposed } = matrix;
    let most = panel_width(lanes);
    let (whole, rest) = (n / most, n % most);
    let last = if rest == 0 { 0 } else { width(rest, lanes) };
    let mut all = vec![T::default(); (whole * most + last) * k + slack];
    for (panel, out) in all.chunks_mut((most * k).max(1)).enumerate().take(n.div_ceil(most)) {
        let first = panel * most;
        let columns = most.min(n - first);
        let width = width(columns, lanes);
        if transposed {
            for (j, column) in data[first * k..(first + columns) * k].chunks_exact(k).enumerate() {
                for (value, to) in column.iter().zip(out[j..].iter_mut().step_by(width)) {
                    *to = convert(*value);
                }
            }
        } else {
            for (row, to) in data.chunks_exact(n).zip(out.chunks_exact_mut(width)) {
                row[first..first + columns].iter().zip(to).for_each(|(value, to)| *to = convert(*value));
            }
        }
    }
    all
}

/// Rounded to blocks along each column.
///
/// # Panics
/// When the matrix is not transposed, a column is not whole blocks, or a value is beyond them: who asks for blocks has looked.
fn quantized(matrix: Matrix<'_>, lanes: usize, slack: usize) -> Numbers {
    assert!(matrix.transposed, "blocks lie along rows of a weight [n, k]");
    let blocks = q8_0::quantize(matrix.data).expect("values were looked at before");
    #[allow(clippy::cast_lossless, reason = "every whole number of eight bits is a single")]
    let quants: Vec<f32> = blocks.iter().flat_map(|block| block.quants.map(f32::from)).collect();
    let scales: Vec<f32> = blocks.iter().map(|block| block.scale.to_f32()).collect();
    let scales = Matrix { data: &scales, k: matrix.k / BLOCK, ..matrix };
    #[allow(clippy::cast_possible_truncation, reason = "they were whole numbers of eight bits")]
    let whole = |value: f32| value as i8;
    Numbers::Q8_0 {
        quants: arrange(Matrix { data: &quants, ..matrix }, lanes, slack, whole),
        scales: arrange(scales, lanes, slack, |scale| half(f16::from_f32(scale))),
    }
}
