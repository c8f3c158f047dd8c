use super::{Epilogue, Tools};
use crate::parallel::with_scratch;
use graph::Tile;
use graph::ops::{Conv2d, Conv2dDims};
use rayon::prelude::*;
use rten_gemm::{GemmError, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use rten_tensor::NdTensorView;

/// Elements of transformed tiles and products that one thread works on at once: some of them stay in its second-level cache.
const AT_ONCE: usize = 1 << 18;

/// Fewer rows than this would leave the matrix product's tiles half empty and read weights for too little.
const LEAST_TILES: usize = 32;

/// Lanes of the widest vector register.
const MOST_LANES: usize = 64;

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

// Loops are written out, without closures: what is not inlined here would be compiled for the oldest processor.
impl<const N: usize> SimdOp for Forward<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Forward { band, row, column, i, count, pixels } = self;
        let (ops, channels) = (isa.f32(), band.kernel.dims.in_channels);
        let mut sources: [[Option<&[f32]>; N]; N] = [[None; N]; N];
        for (y, sources) in sources.iter_mut().enumerate() {
            for (x, source) in sources.iter_mut().enumerate() {
                *source = band.pixel(row + y, column + x);
            }
        }
        for c in (0..channels).step_by(ops.len()) {
            let mut d = [[ops.zero(); N]; N];
            for x in 0..N {
                let mut pixels = [ops.zero(); N];
                for (y, pixel) in pixels.iter_mut().enumerate() {
                    if let Some(source) = sources[y][x] {
                        *pixel = load(isa, source, c);
                    }
                }
                let pixels = forward(isa, &pixels);
                for (d, value) in d.iter_mut().zip(pixels) {
                    d[x] = value;
                }
            }
            for (y, d) in d.iter().enumerate() {
                for (x, value) in forward(isa, d).into_iter().enumerate() {
                    store(isa, value, &mut pixels[((y * N + x) * count + i) * channels..][..channels], c);
                }
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
    fn eval<I: Isa>(self, isa: I) {
        let Back { band, row, column, i, count, products, out } = self;
        let Conv2dDims { output: [_, columns], out_channels: channels, .. } = band.kernel.dims;
        let ops = isa.f32();
        for c in (0..channels).step_by(ops.len()) {
            let mut m = [[ops.zero(); N]; M];
            for x in 0..N {
                let mut products_of_column = [ops.zero(); N];
                for (y, product) in products_of_column.iter_mut().enumerate() {
                    *product = load(isa, &products[((y * N + x) * count + i) * channels..][..channels], c);
                }
                let values: [I::F32; M] = back(isa, &products_of_column);
                for (m, value) in m.iter_mut().zip(values) {
                    m[x] = value;
                }
            }
            let bias = band.bias.map_or(ops.zero(), |bias| load(isa, bias, c));
            for (y, m) in m.iter().enumerate() {
                let values: [I::F32; M] = back(isa, m);
                for (x, value) in values.into_iter().enumerate().take(columns.saturating_sub(column)) {
                    let at = ((row + y) * columns + column + x) * channels;
                    if let Some(pixel) = out.get_mut(at..at + channels) {
                        store(isa, ops.add(value, bias), pixel, c);
                    }
                }
            }
        }
    }
}

/// The vector of elements from `at` on, with zeros behind the last.
#[inline(always)]
fn load<I: Isa>(isa: I, data: &[f32], at: usize) -> I::F32 {
    let (ops, rest) = (isa.f32(), &data[at..]);
    if rest.len() >= ops.len() { ops.load(rest) } else { ops.load_pad(rest).0 }
}

/// As many of the vector's elements as there is room for from `at` on.
#[inline(always)]
fn store<I: Isa>(isa: I, value: I::F32, data: &mut [f32], at: usize) {
    let (ops, rest) = (isa.f32(), &mut data[at..]);
    if rest.len() >= ops.len() {
        ops.store(value, rest);
    } else {
        let mut whole = [0.0; MOST_LANES];
        ops.store(value, &mut whole);
        rest.copy_from_slice(&whole[..rest.len()]);
    }
}

/// `Bᵀ d` for four or six rows (Lavin & Gray 2015, sections 4.1 and 4.3).
#[inline(always)]
fn forward<I: Isa, const N: usize>(isa: I, d: &[I::F32; N]) -> [I::F32; N] {
    let ops = isa.f32();
    let mut out = [ops.zero(); N];
    if N == 4 {
        out[0] = ops.sub(d[0], d[2]);
        out[1] = ops.add(d[1], d[2]);
        out[2] = ops.sub(d[2], d[1]);
        out[3] = ops.sub(d[1], d[3]);
    } else {
        let (two, four, five) = (ops.splat(2.0), ops.splat(4.0), ops.splat(5.0));
        let even = ops.sub(d[4], ops.mul(four, d[2]));
        let odd = ops.sub(d[3], ops.mul(four, d[1]));
        let near = ops.sub(d[4], d[2]);
        let far = ops.mul(two, ops.sub(d[3], d[1]));
        out[0] = ops.add(ops.sub(ops.mul(four, d[0]), ops.mul(five, d[2])), d[4]);
        out[1] = ops.add(even, odd);
        out[2] = ops.sub(even, odd);
        out[3] = ops.add(near, far);
        out[4] = ops.sub(near, far);
        out[5] = ops.add(ops.sub(ops.mul(four, d[1]), ops.mul(five, d[3])), d[5]);
    }
    out
}

/// `Aᵀ m` for four or six rows.
#[inline(always)]
fn back<I: Isa, const M: usize, const N: usize>(isa: I, m: &[I::F32; N]) -> [I::F32; M] {
    let ops = isa.f32();
    let mut out = [ops.zero(); M];
    if M == 2 {
        out[0] = ops.add(ops.add(m[0], m[1]), m[2]);
        out[1] = ops.sub(ops.sub(m[1], m[2]), m[3]);
    } else {
        let (two, four, eight) = (ops.splat(2.0), ops.splat(4.0), ops.splat(8.0));
        let (sum, difference) = (ops.add(m[1], m[2]), ops.sub(m[1], m[2]));
        let (outer_sum, outer_difference) = (ops.add(m[3], m[4]), ops.sub(m[3], m[4]));
        out[0] = ops.add(ops.add(m[0], sum), outer_sum);
        out[1] = ops.mul_add(two, outer_difference, difference);
        out[2] = ops.mul_add(four, outer_sum, sum);
        out[3] = ops.add(ops.mul_add(eight, outer_difference, difference), m[5]);
    }
    out
}

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
