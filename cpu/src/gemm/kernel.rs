//! The innermost loops of a product: a tile of the result that stays in registers.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

/// Elements of a row that are multiplied at once: the left factor's rows of one tile then fit the first-level cache.
pub(crate) const DEPTH: usize = 256;

/// From one row of the left factor to the next. Not a power of two, whose rows would all fall into the same few places of a cache.
pub(crate) const ROW: usize = DEPTH + 16;

/// How far ahead a panel is fetched, in singles: onto the next page, where processors do not go by themselves.
const AHEAD: usize = 1024;

/// Up to [`DEPTH`] elements of a row of the left factor, at a distance from the next that is known when this is compiled.
pub(crate) type Row = [f32; ROW];

/// Vectors that a panel's columns fill.
const VECTORS: usize = 2;

/// Lanes of a vector register.
struct Lanes;

impl SimdOp for Lanes {
    type Output = usize;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> usize {
        isa.f32().len()
    }
}

/// How many singles a vector register of this machine holds.
pub(crate) fn lanes() -> usize {
    Lanes.dispatch()
}

/// The instructions that products are computed with.
pub(crate) fn instructions() -> &'static str {
    match lanes() {
        16 => "avx512",
        8 => "fma",
        _ if cfg!(target_arch = "aarch64") => "neon",
        _ if cfg!(target_feature = "simd128") => "simd128",
        _ => "generic",
    }
}

/// Columns of a panel on a machine whose registers hold so many singles.
pub(crate) const fn panel_width(lanes: usize) -> usize {
    VECTORS * lanes
}

/// Rows of the largest tile: its sums, the right factor's vectors and one of the left factor's elements then fill the registers, of which
/// there are 32 in AVX-512 and NEON and 16 elsewhere.
fn most_rows(lanes: usize) -> usize {
    match lanes {
        16 => 14,
        4 if cfg!(target_arch = "aarch64") => 12,
        _ => 6,
    }
}

/// What the sums of products are added to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing: what the result held is overwritten.
    Zero,
    /// An element for each column.
    Bias(&'a [f32]),
    /// What the result holds.
    Add,
}

/// Rows of a result.
pub(crate) trait Out {
    /// Row `i`.
    fn row(&mut self, i: usize) -> &mut [f32];
}

/// Rows that lie anywhere.
impl Out for [&mut [f32]] {
    #[inline(always)]
    fn row(&mut self, i: usize) -> &mut [f32] {
        self[i]
    }
}

/// Rows at a distance of `stride`.
pub(crate) struct Strided<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) stride: usize,
}

impl Out for Strided<'_> {
    #[inline(always)]
    fn row(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..]
    }
}

/// A piece of a product: some rows of the left factor by one panel.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// The left factor's rows.
    pub(crate) a: &'a [Row],
    /// Which of their elements: `from..from + depth`.
    pub(crate) from: usize,
    pub(crate) depth: usize,
    /// The panel: `depth` rows of one or two vectors.
    pub(crate) b: &'a [f32],
    /// The result's columns from `column` on, `columns` of them: no more than the panel is wide.
    pub(crate) column: usize,
    pub(crate) columns: usize,
    pub(crate) start: Start<'a>,
}

impl Piece<'_> {
    /// Adds the products to the result's rows from `row` on. Each element is the sum over `depth` in order, whatever rows it is computed
    /// with.
    pub(crate) fn multiply(self, out: &mut (impl Out + ?Sized), row: usize) {
        Tiles { piece: self, out, row }.dispatch();
    }

    #[inline(always)]
    fn tile_of<I: Isa, const V: usize>(self, isa: I, out: &mut (impl Out + ?Sized), row: usize) {
        match self.a.len() {
            0 => {}
            1 => self.tile::<I, 1, V>(isa, out, row),
            2 => self.tile::<I, 2, V>(isa, out, row),
            3 => self.tile::<I, 3, V>(isa, out, row),
            4 => self.tile::<I, 4, V>(isa, out, row),
            5 => self.tile::<I, 5, V>(isa, out, row),
            6 => self.tile::<I, 6, V>(isa, out, row),
            7 => self.tile::<I, 7, V>(isa, out, row),
            8 => self.tile::<I, 8, V>(isa, out, row),
            9 => self.tile::<I, 9, V>(isa, out, row),
            10 => self.tile::<I, 10, V>(isa, out, row),
            11 => self.tile::<I, 11, V>(isa, out, row),
            12 => self.tile::<I, 12, V>(isa, out, row),
            13 => self.tile::<I, 13, V>(isa, out, row),
            _ => self.tile::<I, 14, V>(isa, out, row),
        }
    }

    /// `R` rows by `V` vectors.
    #[inline(always)]
    fn tile<I: Isa, const R: usize, const V: usize>(self, isa: I, out: &mut (impl Out + ?Sized), row: usize) {
        let ops = isa.f32();
        let lanes = ops.len();
        let a: &[Row; R] = self.a.first_chunk().expect("a tile has as many rows as it was chosen for");
        let mut left: [&[f32]; R] = [&[]; R];
        for (left, row) in left.iter_mut().zip(a) {
            *left = &row[self.from..self.from + self.depth];
        }
        let mut sums = [[ops.zero(); V]; R];
        for (k, b) in self.b.chunks_exact(V * lanes).enumerate().take(self.depth) {
            let mut right = [ops.zero(); V];
            for (v, right) in right.iter_mut().enumerate() {
                let b = &b[v * lanes..];
                ops.prefetch(b.as_ptr().wrapping_add(AHEAD));
                *right = ops.load(b);
            }
            for (sums, left) in sums.iter_mut().zip(left) {
                let x = ops.splat(left[k]);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = ops.mul_add(x, right, *sum);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let target = &mut out.row(row + r)[self.column..self.column + self.columns];
            for (v, sum) in sums.into_iter().enumerate() {
                let at = v * lanes;
                let sum = match self.start {
                    Start::Zero => sum,
                    Start::Bias(bias) => ops.add(load(isa, &bias[self.column..self.column + self.columns], at), sum),
                    Start::Add => ops.add(load(isa, target, at), sum),
                };
                store(isa, sum, target, at);
            }
        }
    }
}

/// A piece in tiles.
struct Tiles<'a, O: ?Sized> {
    piece: Piece<'a>,
    out: &'a mut O,
    row: usize,
}

impl<O: Out + ?Sized> SimdOp for Tiles<'_, O> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Tiles { piece, out, row } = self;
        let lanes = isa.f32().len();
        let rows = piece.a.len();
        // Of nearly the same height.
        let tiles = rows.div_ceil(most_rows(lanes));
        for tile in 0..tiles {
            let (first, end) = (tile * rows / tiles, (tile + 1) * rows / tiles);
            let part = Piece { a: &piece.a[first..end], ..piece };
            if piece.columns <= lanes {
                part.tile_of::<I, 1>(isa, out, row + first);
            } else {
                part.tile_of::<I, VECTORS>(isa, out, row + first);
            }
        }
    }
}

/// Lanes of the widest vector register.
const MOST_LANES: usize = 64;

/// The vector of elements from `at` on, with zeros behind the last.
#[inline(always)]
pub(crate) fn load<I: Isa>(isa: I, data: &[f32], at: usize) -> I::F32 {
    let (ops, rest) = (isa.f32(), &data[at..]);
    if rest.len() >= ops.len() { ops.load(rest) } else { ops.load_pad(rest).0 }
}

/// As many of the vector's elements as there is room for from `at` on.
#[inline(always)]
pub(crate) fn store<I: Isa>(isa: I, value: I::F32, data: &mut [f32], at: usize) {
    let (ops, rest) = (isa.f32(), &mut data[at..]);
    if rest.len() >= ops.len() {
        ops.store(value, rest);
    } else {
        let mut whole = [0.0; MOST_LANES];
        ops.store(value, &mut whole);
        rest.copy_from_slice(&whole[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of products by these instructions, which other machines have too: for each number of rows, and panels of one and of two vectors.
    fn check<I: Isa>(isa: I) {
        const LEFT: usize = 3;
        let lanes = isa.f32().len();
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 64.0;
        let a: Vec<Row> = (0..40).map(|i| std::array::from_fn(|k| value(i * 7 + k))).collect();
        for rows in 1..=a.len() {
            for columns in [1, lanes - 1, lanes, lanes + 1, 2 * lanes] {
                let (from, depth, width) = (5, 19, if columns <= lanes { lanes } else { 2 * lanes });
                let b: Vec<f32> = (0..depth * width).map(|i| value(i * 3 + 1)).collect();
                let bias: Vec<f32> = (0..LEFT + columns).map(|i| value(i + 11)).collect();
                let stride = LEFT + columns + 2;
                let mut out = vec![9.0; rows * stride];
                for start in [Start::Bias(&bias), Start::Add] {
                    let piece = Piece { a: &a[..rows], from, depth, b: &b, column: LEFT, columns, start };
                    let out = &mut Strided { data: &mut out, stride };
                    Tiles { piece, out, row: 0 }.eval(isa);
                }
                for (i, row) in out.chunks_exact(stride).enumerate() {
                    for (j, got) in row.iter().enumerate() {
                        let wanted = match j.checked_sub(LEFT).filter(|j| *j < columns) {
                            None => 9.0,
                            Some(j) => {
                                bias[LEFT + j]
                                    + 2.0 * (0..depth).map(|k| a[i][from + k] * b[k * width + j]).sum::<f32>()
                            }
                        };
                        assert!(
                            (got - wanted).abs() < 1e-4,
                            "{lanes} lanes, {rows} by {columns}, ({i}, {j}): {got}, not {wanted}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_machine_s_instructions_sum_products() {
        check(rten_simd::isa::GenericIsa::new());
        #[cfg(target_arch = "x86_64")]
        {
            rten_simd::isa::Avx2Isa::new().into_iter().for_each(check);
            rten_simd::isa::Avx512Isa::new().into_iter().for_each(check);
        }
        #[cfg(target_arch = "aarch64")]
        rten_simd::isa::ArmNeonIsa::new().into_iter().for_each(check);
    }
}
