use super::{Epilogue, Tools};
use crate::parallel::with_scratch;
use graph::Tile;
use graph::ops::{Conv2d, Conv2dDims};
use rayon::prelude::*;
use rten_gemm::{GemmError, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{Isa, SimdOp};
use rten_tensor::NdTensorView;

/// Elements of transformed tiles and products that one thread works on at once: some of them stay in its second-level cache.
const AT_ONCE: usize = 1 << 18;

/// Fewer rows than this would leave the matrix product's tiles half empty and read weights for too little.
const LEAST_TILES: usize = 32;

/// Channels that are transformed together: the lanes of the widest vector register.
const LANES: usize = 16;

/// A convolution by kernels of 3×3 with stride 1, by Winograd's transform F(m×m, 3×3) (Lavin & Gray 2015, equation 8):
/// `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` for a tile d of (m + 2)² pixels and a result of m². Summed over channels, ⊙ is one matrix
/// product for each of the (m + 2)² elements, of tiles × channels by channels × channels. Reads `x` and the bias; the
/// weight lies transformed and packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Winograd {
    pub(crate) op: Conv2d,
    pub(crate) dims: Conv2dDims,
    pub(crate) tile: Tile,
    /// Number of the weight's first pack; one for each element of a tile follows.
    pub(crate) pack: usize,
}

impl Winograd {
    pub(crate) fn run(
        &self,
        tools: &Tools<'_>,
        reads: &[&[f32]],
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), GemmError> {
        match self.tile {
            Tile::Two => self.images::<2, 4>(tools, reads, epilogue, out),
            Tile::Four => self.images::<4, 6>(tools, reads, epilogue, out),
        }
    }

    /// Each image in bands of whole rows of tiles, because a band of the result is one slice.
    fn images<const M: usize, const N: usize>(
        &self,
        tools: &Tools<'_>,
        reads: &[&[f32]],
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), GemmError> {
        let Conv2dDims { input, output: [rows, columns], in_channels, out_channels, .. } = self.dims;
        let across = columns.div_ceil(M);
        let fitting = (AT_ONCE / (N * N * (in_channels + out_channels))).max(LEAST_TILES);
        let fair = self.tile.count(&self.dims).div_ceil(2 * rayon::current_num_threads());
        let at_once = fitting.min(fair.max(1));
        let band = (at_once / across).max(1) * M * columns * out_channels;
        let (image, source) = (rows * columns * out_channels, input[0] * input[1] * in_channels);
        out.par_chunks_mut(image).enumerate().try_for_each(|(number, out)| {
            let x = &reads[0][number * source..(number + 1) * source];
            out.par_chunks_mut(band).enumerate().try_for_each(|(i, out)| {
                let first = i * band / (columns * out_channels);
                let band = Band { kernel: self, x, bias: self.op.bias.then(|| reads[1]), first };
                band.compute::<M, N>(tools, at_once, out)?;
                if let Some((fused, operands)) = epilogue {
                    fused.run_part(operands, number * image + first * columns * out_channels, out);
                }
                Ok(())
            })
        })
    }
}

/// Some rows of one image's result.
struct Band<'a> {
    kernel: &'a Winograd,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    /// The first row.
    first: usize,
}

impl Band<'_> {
    fn compute<const M: usize, const N: usize>(
        &self,
        tools: &Tools<'_>,
        at_once: usize,
        out: &mut [f32],
    ) -> Result<(), GemmError> {
        let Conv2dDims { output: [_, columns], in_channels: ci, out_channels: co, .. } = self.kernel.dims;
        let across = columns.div_ceil(M);
        let tiles = (out.len() / (columns * co)).div_ceil(M) * across;
        let at_once = at_once.min(tiles);
        let packs = &tools.packs[self.kernel.pack..][..N * N];
        with_scratch(N * N * at_once * (ci + co), |scratch| {
            for start in (0..tiles).step_by(at_once) {
                let count = at_once.min(tiles - start);
                let (pixels, products) = scratch[..N * N * count * (ci + co)].split_at_mut(N * N * count * ci);
                for i in 0..count {
                    let (row, column) = ((start + i) / across * M, (start + i) % across * M);
                    Forward::<N> { band: self, row, column, i, count, pixels }.dispatch();
                }
                let pairs = pixels.chunks_exact(count * ci).zip(products.chunks_exact_mut(count * co));
                for ((a, product), pack) in pairs.zip(packs) {
                    multiply(tools.gemm, a, pack, [count, ci], product)?;
                }
                for i in 0..count {
                    let (row, column) = ((start + i) / across * M, (start + i) % across * M);
                    Back::<M, N> { band: self, row, column, i, count, products, out }.dispatch();
                }
            }
            Ok(())
        })
    }

    /// The operand's channels under row `i` and column `j` of the tile at this place of the band; none in the padding.
    fn pixel(&self, row: usize, column: usize) -> Option<&[f32]> {
        let Winograd { op, dims, .. } = self.kernel;
        let y = op.source(self.first + row, 0, op.padding[0], dims.input[0])?;
        let x = op.source(column, 0, op.padding[2], dims.input[1])?;
        Some(&self.x[(y * dims.input[1] + x) * dims.in_channels..][..dims.in_channels])
    }
}

fn multiply(
    gemm: &GemmExecutor,
    a: &[f32],
    pack: &PackedBMatrix<f32>,
    shape: [usize; 2],
    out: &mut [f32],
) -> Result<(), GemmError> {
    let a = NdTensorView::from_data(shape, a);
    gemm.gemm(out, GemmInputA::Unpacked(a), GemmInputB::Packed(pack), GemmOptions::default())
}

type Lanes = [f32; LANES];

/// `Bᵀ d B` of one tile, scattered over the left factors of the products.
struct Forward<'a, const N: usize> {
    band: &'a Band<'a>,
    row: usize,
    column: usize,
    /// The tile's row in the products.
    i: usize,
    /// Rows of each product.
    count: usize,
    pixels: &'a mut [f32],
}

impl<const N: usize> SimdOp for Forward<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let Forward { band, row, column, i, count, pixels } = self;
        let channels = band.kernel.dims.in_channels;
        let sources: [[Option<&[f32]>; N]; N] =
            std::array::from_fn(|y| std::array::from_fn(|x| band.pixel(row + y, column + x)));
        for c in (0..channels).step_by(LANES) {
            let d: [[Lanes; N]; N] =
                sources.map(|row| row.map(|pixel| pixel.map_or([0.0; LANES], |data| load(data, c))));
            // Columns first, then rows.
            let d = transposed(transposed(d).map(|column| forward(&column))).map(|row| forward(&row));
            for (e, value) in d.iter().flatten().enumerate() {
                store(value, &mut pixels[(e * count + i) * channels..][..channels], c);
            }
        }
    }
}

/// `Aᵀ m A` of one tile, and the bias, to the pixels that the result has there.
struct Back<'a, const M: usize, const N: usize> {
    band: &'a Band<'a>,
    row: usize,
    column: usize,
    i: usize,
    count: usize,
    products: &'a [f32],
    out: &'a mut [f32],
}

impl<const M: usize, const N: usize> SimdOp for Back<'_, M, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let Back { band, row, column, i, count, products, out } = self;
        let Conv2dDims { output: [_, columns], out_channels: channels, .. } = band.kernel.dims;
        for c in (0..channels).step_by(LANES) {
            let m: [[Lanes; N]; N] = std::array::from_fn(|y| {
                std::array::from_fn(|x| load(&products[((y * N + x) * count + i) * channels..][..channels], c))
            });
            let m: [[Lanes; N]; M] = transposed(transposed(m).map(|column| back::<M, N>(&column)));
            let y: [[Lanes; M]; M] = m.map(|row| back(&row));
            let bias = band.bias.map_or([0.0; LANES], |bias| load(bias, c));
            for (y, values) in y.iter().enumerate() {
                for (x, value) in values.iter().enumerate().take(columns.saturating_sub(column)) {
                    let at = ((row + y) * columns + column + x) * channels;
                    if let Some(pixel) = out.get_mut(at..at + channels) {
                        store(&add(value, &bias), pixel, c);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn load(data: &[f32], at: usize) -> Lanes {
    match data[at..].first_chunk::<LANES>() {
        Some(values) => *values,
        None => {
            let rest = &data[at..];
            std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(0.0))
        }
    }
}

#[inline(always)]
fn store(values: &Lanes, data: &mut [f32], at: usize) {
    let rest = &mut data[at..];
    match rest.first_chunk_mut::<LANES>() {
        Some(room) => *room = *values,
        None => rest.copy_from_slice(&values[..rest.len()]),
    }
}

#[inline(always)]
fn transposed<const A: usize, const B: usize>(values: [[Lanes; A]; B]) -> [[Lanes; B]; A] {
    std::array::from_fn(|a| std::array::from_fn(|b| values[b][a]))
}

#[inline(always)]
fn add(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] + b[lane])
}

/// A row of coefficients times a vector of lanes. Coefficients are constants once this is inlined, and those of zero vanish.
#[inline(always)]
fn combine<const N: usize>(coefficients: [f32; N], values: &[Lanes; N]) -> Lanes {
    std::array::from_fn(|lane| {
        let mut sum = None;
        for (coefficient, value) in coefficients.iter().zip(values) {
            let value = value[lane];
            sum = match (sum, *coefficient) {
                (sum, 0.0) => sum,
                (None, factor) => Some(factor * value),
                (Some(sum), 1.0) => Some(sum + value),
                (Some(sum), -1.0) => Some(sum - value),
                (Some(sum), factor) => Some(sum + factor * value),
            };
        }
        sum.unwrap_or(0.0)
    })
}

/// `Bᵀ d` for four or six rows (Lavin & Gray 2015, section 4.1 and 4.2).
#[inline(always)]
fn forward<const N: usize>(d: &[Lanes; N]) -> [Lanes; N] {
    std::array::from_fn(|row| {
        let coefficients: [f32; N] =
            std::array::from_fn(|i| if N == 4 { FORWARD_2[row][i] } else { FORWARD_4[row][i] });
        combine(coefficients, d)
    })
}

/// `Aᵀ m` for two or four rows.
#[inline(always)]
fn back<const M: usize, const N: usize>(m: &[Lanes; N]) -> [Lanes; M] {
    std::array::from_fn(|row| {
        let coefficients: [f32; N] = std::array::from_fn(|i| if M == 2 { BACK_2[row][i] } else { BACK_4[row][i] });
        combine(coefficients, m)
    })
}

// Rows and columns beyond a transform's own size are never read; they let one function index either table.
const FORWARD_2: [[f32; 6]; 6] = [
    [1., 0., -1., 0., 0., 0.],
    [0., 1., 1., 0., 0., 0.],
    [0., -1., 1., 0., 0., 0.],
    [0., 1., 0., -1., 0., 0.],
    [0.; 6],
    [0.; 6],
];
const FORWARD_4: [[f32; 6]; 6] = [
    [4., 0., -5., 0., 1., 0.],
    [0., -4., -4., 1., 1., 0.],
    [0., 4., -4., -1., 1., 0.],
    [0., -2., -1., 2., 1., 0.],
    [0., 2., -1., -2., 1., 0.],
    [0., 4., 0., -5., 0., 1.],
];
const BACK_2: [[f32; 6]; 4] = [[1., 1., 1., 0., 0., 0.], [0., 1., -1., -1., 0., 0.], [0.; 6], [0.; 6]];
const BACK_4: [[f32; 6]; 4] =
    [[1., 1., 1., 1., 1., 0.], [0., 1., -1., 2., -2., 0.], [0., 1., 1., 4., 4., 0.], [0., 1., -1., 8., -8., 1.]];

const KERNEL_2: [[f64; 3]; 4] = [[1., 0., 0.], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0., 0., 1.]];
const KERNEL_4: [[f64; 3]; 6] = [
    [0.25, 0., 0.],
    [-1. / 6., -1. / 6., -1. / 6.],
    [-1. / 6., 1. / 6., -1. / 6.],
    [1. / 24., 1. / 12., 1. / 6.],
    [1. / 24., -1. / 12., 1. / 6.],
    [0., 0., 1.],
];

/// The kernels `[n, 3, 3, channels]` transformed, `G g Gᵀ`, in double precision, rounded once: a packed matrix of channels × n for each
/// element of a tile.
pub(crate) fn transform(data: &[f32], n: usize, channels: usize, tile: Tile) -> Vec<PackedBMatrix<f32>> {
    let rows: &[[f64; 3]] = match tile {
        Tile::Two => &KERNEL_2,
        Tile::Four => &KERNEL_4,
    };
    let side = rows.len();
    let one = |e: usize| {
        let (a, b) = (&rows[e / side], &rows[e % side]);
        let mut element = vec![0.0_f32; n * channels];
        for (kernel, element) in data.chunks_exact(9 * channels).zip(element.chunks_exact_mut(channels)) {
            for (c, value) in element.iter_mut().enumerate() {
                let mut sum = 0.0_f64;
                for (tap, factor) in
                    (0..9).map(|tap| (tap, a[tap / 3] * b[tap % 3])).filter(|(_, factor)| *factor != 0.0)
                {
                    sum += factor * f64::from(kernel[tap * channels + c]);
                }
                #[allow(clippy::cast_possible_truncation, reason = "weights are singles")]
                {
                    *value = sum as f32;
                }
            }
        }
        super::pack(&element, n, channels, true)
    };
    (0..side * side).into_par_iter().map(one).collect()
}
