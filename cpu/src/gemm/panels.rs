//! The right factor of a product, in the order in which the kernel reads it.

use super::kernel::{lanes, panel_width};
use graph::q8_0::{self, BLOCK};
use graph::{Kept, StorageType, WeightView};
use half::{bf16, f16};
use rten_simd::ops::{BitOps, Extend, IntOps, NumOps, ToFloat};
use rten_simd::{Isa, Simd, SimdOp};

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
    fn with<U>(&self, data: U) -> Matrix<U> {
        let Matrix { n, k, transposed, .. } = *self;
        Matrix { data, n, k, transposed }
    }
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
    /// Rearranges a matrix of singles.
    pub(crate) fn pack(matrix: Matrix<&[f32]>) -> Panels {
        let lanes = lanes();
        Panels { n: matrix.n, k: matrix.k, lanes, numbers: Numbers::F32(arrange(matrix, lanes, 0, |value| value)) }
    }

    /// Rearranges a weight that was looked at before, and rounds its numbers where fewer bits are kept of them.
    pub(crate) fn pack_weight(matrix: Matrix<&WeightView<'_>>, kept: Kept) -> Panels {
        let Matrix { data: view, n, k, .. } = matrix;
        let lanes = lanes();
        // Vectors of small numbers are loaded whole where only their first half is needed.
        let slack = 4 * lanes;
        let (fours, _) = view.bytes.as_chunks::<4>();
        let (pairs, _) = view.bytes.as_chunks::<2>();
        let numbers = match (kept, view.storage) {
            (Kept::F32, StorageType::F32) => Numbers::F32(arrange(matrix.with(fours), lanes, 0, f32::from_le_bytes)),
            (Kept::F32, _) => return Panels::pack(matrix.with(&*view.to_f32())),
            (Kept::F16, StorageType::F32) => {
                let round = |bytes| half(f16::from_f32(f32::from_le_bytes(bytes)));
                Numbers::F16(arrange(matrix.with(fours), lanes, slack, round))
            }
            (Kept::F16, StorageType::F16) => {
                Numbers::F16(arrange(matrix.with(pairs), lanes, slack, |bytes| half(f16::from_le_bytes(bytes))))
            }
            (Kept::F16, StorageType::Bf16) => {
                let round = |bytes| half(f16::from_f32(bf16::from_le_bytes(bytes).to_f32()));
                Numbers::F16(arrange(matrix.with(pairs), lanes, slack, round))
            }
            (Kept::Bf16, StorageType::Bf16) => {
                Numbers::Bf16(arrange(matrix.with(pairs), lanes, slack, i16::from_le_bytes))
            }
            (Kept::Bf16, _) => unreachable!("only what is stored so is kept so"),
            (Kept::Q8_0, _) => quantized(matrix.with(&*view.to_f32()), lanes, slack),
        };
        Panels { n, k, lanes, numbers }
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
fn arrange<E: Copy, T: Copy + Default>(
    matrix: Matrix<&[E]>,
    lanes: usize,
    slack: usize,
    convert: impl Fn(E) -> T,
) -> Vec<T> {
    let Matrix { data, n, k, transposed } = matrix;
    let most = panel_width(lanes);
    let (whole, rest) = (n / most, n % most);
    let last = if rest == 0 { 0 } else { width(rest, lanes) };
    let mut all = vec![T::default(); (whole * most + last) * k + slack];
    for (panel, out) in all.chunks_mut(most * k).enumerate().take(n.div_ceil(most)) {
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

/// Rounded to blocks along each column, which lie as rows of a weight `[n, k]`.
fn quantized(matrix: Matrix<&[f32]>, lanes: usize, slack: usize) -> Numbers {
    let blocks = q8_0::quantize(matrix.data).expect("values beyond blocks were refused");
    let quants: Vec<i8> = blocks.iter().flat_map(|block| block.quants).collect();
    let scales: Vec<f16> = blocks.iter().map(|block| block.scale).collect();
    let scales = Matrix { k: matrix.k / BLOCK, ..matrix.with(&*scales) };
    Numbers::Q8_0 {
        quants: arrange(matrix.with(&*quants), lanes, slack, |quant| quant),
        scales: arrange(scales, lanes, slack, half),
    }
}
