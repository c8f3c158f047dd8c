use super::{Epilogue, Tools};
use crate::gemm::{DEPTH, Out, Panels, Piece, ROW, Row, Start, Strided, load, store};
use crate::parallel::with_scratch;
use graph::Tile;
use graph::ops::{Conv2d, Conv2dDims};
use rayon::prelude::*;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use std::ops::{Range, RangeInclusive};

/// Elements of transformed pixels that one thread works on at once.
const PIXELS: usize = 1 << 21;

/// Tiles that one thread works on at once: fewer would transform kernels for too little, and more would leave no room for kernels in its
/// second-level cache.
const TILES: RangeInclusive<usize> = 32..=128;

/// Singles in a line of the cache.
const LINE: usize = 16;

/// A convolution by kernels of 3×3 with stride 1, by Winograd's transform F(m×m, 3×3) (Lavin & Gray 2015, equation 8):
/// `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` for a tile d of (m + 2)² pixels and a result of m². Summed over channels, ⊙ is one matrix
/// product for each of the (m + 2)² elements, of tiles × channels by channels × channels. Reads `x` and the bias.
///
/// Kernels lie as for other convolutions and are transformed block by block, in the cache, each time that they are used: that costs a few
/// percent of the products, and reading kernels that are 1.8 or 4 times as large from memory costs more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Winograd {
    pub(crate) op: Conv2d,
    pub(crate) dims: Conv2dDims,
    pub(crate) tile: Tile,
    /// The weight.
    pub(crate) pack: usize,
}

impl Winograd {
    pub(crate) fn run(&self, tools: &Tools<'_>, reads: &[&[f32]], epilogue: Epilogue<'_>, out: &mut [f32]) {
        match self.tile {
            Tile::Two => self.tasks::<2, 4>(tools, reads, epilogue, out),
            Tile::Four => self.tasks::<4, 6>(tools, reads, epilogue, out),
        }
    }

    /// Shares out rows of tiles, counted over all images, because their result is one slice; and panels, where there are few tiles.
    fn tasks<const M: usize, const N: usize>(
        &self,
        tools: &Tools<'_>,
        reads: &[&[f32]],
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let Conv2dDims { output: [height, columns], in_channels, out_channels: n, .. } = self.dims;
        let right = &tools.packs[self.pack];
        let (across, down) = (columns.div_ceil(M), height.div_ceil(M));
        let images = out.len() / (height * columns * n);
        let task = |bands: Range<usize>, panels: Range<usize>| Task {
            kernel: self,
            x: reads[0],
            bias: self.op.bias.then(|| reads[1]),
            right,
            bands,
            panels,
        };
        let most = (PIXELS / (N * N * in_channels)).clamp(*TILES.start(), *TILES.end());
        let wanted = if rayon::current_num_threads() == 1 { 1 } else { 4 * rayon::current_num_threads() };
        let fair = (images * down * across).div_ceil(wanted).max(*TILES.start());
        let bands = (most.min(fair) / across).max(1);
        let tasks = (images * down).div_ceil(bands);
        let wide = right.count().div_ceil(wanted.div_ceil(tasks).min(right.count()));
        // Pixels up to a row of tiles: images need not be whole rows of tiles high.
        let pixels = |band: usize| (band / down * height + (band % down * M).min(height)) * columns;
        let mut parts = Vec::with_capacity(tasks);
        let mut rest = &mut *out;
        for i in 0..tasks {
            let (first, end) = (i * bands, ((i + 1) * bands).min(images * down));
            let (part, after) = rest.split_at_mut((pixels(end) - pixels(first)) * n);
            parts.push((first..end, part));
            rest = after;
        }
        if wide >= right.count() {
            parts.into_par_iter().for_each(|(bands, out)| {
                let at = pixels(bands.start) * n;
                task(bands, 0..right.count()).compute::<M, N>(&mut Strided { data: &mut *out, stride: n });
                if let Some((fused, operands)) = epilogue {
                    fused.run_part(operands, at, out);
                }
            });
            return;
        }
        let mut tasks = Vec::new();
        for (bands, part) in parts {
            let mut columns: Vec<Vec<&mut [f32]>> = (0..right.count().div_ceil(wide)).map(|_| Vec::new()).collect();
            for pixel in part.chunks_exact_mut(n) {
                for (to, part) in columns.iter_mut().zip(pixel.chunks_mut(right.column(wide))) {
                    to.push(part);
                }
            }
            for (i, out) in columns.into_iter().enumerate() {
                tasks.push((task(bands.clone(), i * wide..((i + 1) * wide).min(right.count())), out));
            }
        }
        tasks.into_par_iter().for_each(|(task, mut out)| task.compute::<M, N>(&mut *out));
        if let Some((fused, operands)) = epilogue {
            fused.run(operands, out);
        }
    }
}

/// Some rows of tiles by some panels.
struct Task<'a> {
    kernel: &'a Winograd,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    right: &'a Panels,
    bands: Range<usize>,
    panels: Range<usize>,
}

impl Task<'_> {
    /// Computes it, on this thread. `out` has a row for each pixel and begins with the first panel's first column.
    fn compute<const M: usize, const N: usize>(&self, out: &mut (impl Out + ?Sized)) {
        let Conv2dDims { output: [height, columns], in_channels, .. } = self.kernel.dims;
        let (across, down) = (columns.div_ceil(M), height.div_ceil(M));
        let place = |i: usize| {
            let (band, x) = (self.bands.start + i / across, i % across * M);
            Place { image: band / down, y: band % down * M, x }
        };
        let tiles = self.bands.len() * across;
        let top = place(0);
        let blocks = in_channels.div_ceil(DEPTH);
        // Channels of a kernel that are transformed at once.
        let channels = if N == 4 { 128 } else { 64 };
        let panel = self.right.width(0);
        // From one element of a tile to the next, in pixels, kernels and products. A power of two would put what is used together into
        // the same few places of a cache.
        let apart = [blocks * tiles + 1, channels * panel + LINE, tiles * panel + LINE];
        let [pixels, kernel, products] = [apart[0] * ROW, apart[1], apart[2]].map(|each| N * N * each);
        with_scratch(pixels + kernel + products + self.right.room(9 * channels), |scratch| {
            let (pixels, scratch) = scratch.split_at_mut(pixels);
            let (kernel, scratch) = scratch.split_at_mut(kernel);
            let (products, room) = scratch.split_at_mut(products);
            // Element by element of a tile, and block by block of channels: a row for each tile.
            let (pixels, _) = pixels.as_chunks_mut::<ROW>();
            for i in 0..tiles {
                Forward::<N> { task: self, place: place(i), i, tiles, apart: apart[0], pixels }.dispatch();
            }
            for panel in self.panels.clone() {
                let width = self.right.width(panel);
                for from in (0..in_channels).step_by(channels) {
                    let depth = channels.min(in_channels - from);
                    Transform::<N> { task: self, panel, from, depth, room, apart: apart[1], out: kernel }.dispatch();
                    for e in 0..N * N {
                        let piece = Piece {
                            a: &pixels[e * apart[0] + from / DEPTH * tiles..][..tiles],
                            from: from % DEPTH,
                            depth,
                            b: &kernel[e * apart[1]..][..depth * width],
                            column: 0,
                            columns: width,
                            start: if from == 0 { Start::Zero } else { Start::Add },
                        };
                        let products = &mut products[e * apart[2]..][..tiles * width];
                        piece.multiply(&mut Strided { data: products, stride: width }, 0);
                    }
                }
                for i in 0..tiles {
                    let place = place(i);
                    let row = (place.image - top.image) * height + place.y - top.y;
                    let shape = [M.min(height - place.y), M.min(columns - place.x)];
                    let first = row * columns + place.x;
                    let apart = apart[2];
                    Back::<M, N, _> { task: self, panel, i, apart, products, first, shape, out: &mut *out }.dispatch();
                }
            }
        });
    }

    /// The operand's channels under a pixel of the result, moved by so many rows and columns; none in the padding.
    fn pixel(&self, place: Place, rows: usize, columns: usize) -> Option<&[f32]> {
        let Winograd { op, dims, .. } = self.kernel;
        let y = op.source(place.y + rows, 0, op.padding[0], dims.input[0])?;
        let x = op.source(place.x + columns, 0, op.padding[2], dims.input[1])?;
        let at = (place.image * dims.input[0] + y) * dims.input[1] + x;
        Some(&self.x[at * dims.in_channels..][..dims.in_channels])
    }
}

/// A tile's first pixel of the result.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    y: usize,
    x: usize,
}

// Loops are written out, without closures: what is not inlined here would be compiled for the oldest processor.

/// `Bᵀ d B` of one tile, scattered over the left factors of the products.
struct Forward<'a, const N: usize> {
    task: &'a Task<'a>,
    place: Place,
    /// The tile's row in the products, of so many.
    i: usize,
    tiles: usize,
    apart: usize,
    pixels: &'a mut [Row],
}

impl<const N: usize> SimdOp for Forward<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Forward { task, place, i, tiles, apart, pixels } = self;
        let (ops, channels) = (isa.f32(), task.kernel.dims.in_channels);
        let mut sources: [[Option<&[f32]>; N]; N] = [[None; N]; N];
        for (y, sources) in sources.iter_mut().enumerate() {
            for (x, source) in sources.iter_mut().enumerate() {
                *source = task.pixel(place, y, x);
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
                let values = forward(isa, &pixels);
                for (d, value) in d.iter_mut().zip(values) {
                    d[x] = value;
                }
            }
            for (y, d) in d.iter().enumerate() {
                let values = forward(isa, d);
                for (x, value) in values.into_iter().enumerate() {
                    let row = (y * N + x) * apart + c / DEPTH * tiles + i;
                    // A last vector reaches into the room behind the row's elements.
                    ops.store(value, &mut pixels[row][c % DEPTH..]);
                }
            }
        }
    }
}

/// `G g Gᵀ` of some channels of a panel's kernels: for each element of a tile a right factor.
struct Transform<'a, const N: usize> {
    task: &'a Task<'a>,
    panel: usize,
    from: usize,
    depth: usize,
    room: &'a mut [f32],
    apart: usize,
    out: &'a mut [f32],
}

impl<const N: usize> SimdOp for Transform<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Transform { task, panel, from, depth, mut room, apart, out } = self;
        let Task { right, kernel: Winograd { dims: Conv2dDims { in_channels, .. }, .. }, .. } = task;
        let (ops, size) = (isa.f32(), depth * right.width(panel));
        let mut taps: [&[f32]; 9] = [&[]; 9];
        for (tap, rows) in taps.iter_mut().enumerate() {
            let (own, rest) = room.split_at_mut(right.room(depth));
            *rows = right.rows(panel, tap * in_channels + from, depth, own);
            room = rest;
        }
        for at in (0..size).step_by(ops.len()) {
            let mut g = [[ops.zero(); 3]; N];
            for x in 0..3 {
                let mut column = [ops.zero(); 3];
                for (y, value) in column.iter_mut().enumerate() {
                    *value = ops.load(&taps[3 * y + x][at..]);
                }
                let values: [I::F32; N] = kernel(isa, &column);
                for (g, value) in g.iter_mut().zip(values) {
                    g[x] = value;
                }
            }
            for (y, g) in g.iter().enumerate() {
                let values: [I::F32; N] = kernel(isa, g);
                for (x, value) in values.into_iter().enumerate() {
                    ops.store(value, &mut out[(y * N + x) * apart + at..]);
                }
            }
        }
    }
}

/// `Aᵀ m A` of one tile, and the bias, to the pixels that the result has there.
struct Back<'a, const M: usize, const N: usize, O: ?Sized> {
    task: &'a Task<'a>,
    panel: usize,
    i: usize,
    apart: usize,
    products: &'a [f32],
    /// The first pixel in `out`.
    first: usize,
    /// Rows and columns that the result has there.
    shape: [usize; 2],
    out: &'a mut O,
}

impl<const M: usize, const N: usize, O: Out + ?Sized> SimdOp for Back<'_, M, N, O> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Back { task, panel, i, apart, products, first, shape: [rows, columns], out } = self;
        let (ops, right) = (isa.f32(), task.right);
        let (column, width, channels) = (right.column(panel), right.width(panel), right.columns(panel));
        let begin = column - right.column(task.panels.start);
        for c in (0..channels).step_by(ops.len()) {
            let mut m = [[ops.zero(); N]; M];
            for x in 0..N {
                let mut products_of_column = [ops.zero(); N];
                for (y, product) in products_of_column.iter_mut().enumerate() {
                    *product = ops.load(&products[(y * N + x) * apart + i * width + c..]);
                }
                let values: [I::F32; M] = back(isa, &products_of_column);
                for (m, value) in m.iter_mut().zip(values) {
                    m[x] = value;
                }
            }
            let bias = match task.bias {
                Some(bias) => load(isa, &bias[column..column + channels], c),
                None => ops.zero(),
            };
            for (y, m) in m.iter().enumerate().take(rows) {
                let values: [I::F32; M] = back(isa, m);
                for (x, value) in values.into_iter().enumerate().take(columns) {
                    let pixel = out.row(first + y * task.kernel.dims.output[1] + x);
                    store(isa, ops.add(value, bias), &mut pixel[begin..begin + channels], c);
                }
            }
        }
    }
}

const SQRT_2: f32 = std::f32::consts::SQRT_2;
const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// `Bᵀ d` for four or six rows: values of polynomials at 0, ±1 and ∞ (Lavin & Gray 2015, section 4.1), or at 0, ±√½, ±√2 and ∞. The usual points
/// for six rows are 0, ±1, ±2 and ∞; these are chosen because they make rounding errors three times smaller (Barabasz et al. 2018, *Error
/// Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks*).
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
        let (half, two, sum) = (ops.splat(0.5), ops.splat(2.0), ops.splat(2.5));
        let inner = ops.mul(ops.splat(SQRT_HALF), ops.sub(d[3], ops.mul(two, d[1])));
        let outer = ops.mul(ops.splat(SQRT_2), ops.sub(d[3], ops.mul(half, d[1])));
        let (even, wide) = (ops.sub(d[4], ops.mul(two, d[2])), ops.sub(d[4], ops.mul(half, d[2])));
        out[0] = ops.add(ops.sub(d[0], ops.mul(sum, d[2])), d[4]);
        out[1] = ops.add(even, inner);
        out[2] = ops.sub(even, inner);
        out[3] = ops.add(wide, outer);
        out[4] = ops.sub(wide, outer);
        out[5] = ops.add(ops.sub(d[1], ops.mul(sum, d[3])), d[5]);
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
        let (sum, difference) = (ops.add(m[1], m[2]), ops.sub(m[1], m[2]));
        let (outer_sum, outer_difference) = (ops.add(m[3], m[4]), ops.sub(m[3], m[4]));
        let (one, three) = ([SQRT_HALF, SQRT_2], [SQRT_HALF / 2.0, 2.0 * SQRT_2]);
        out[0] = ops.add(ops.add(m[0], sum), outer_sum);
        out[1] = ops.mul_add(ops.splat(one[1]), outer_difference, ops.mul(ops.splat(one[0]), difference));
        out[2] = ops.mul_add(ops.splat(2.0), outer_sum, ops.mul(ops.splat(0.5), sum));
        out[3] =
            ops.add(ops.mul_add(ops.splat(three[1]), outer_difference, ops.mul(ops.splat(three[0]), difference)), m[5]);
    }
    out
}

/// `G g` for four or six rows.
#[inline(always)]
fn kernel<I: Isa, const N: usize>(isa: I, g: &[I::F32; 3]) -> [I::F32; N] {
    let ops = isa.f32();
    let mut out = [ops.zero(); N];
    if N == 4 {
        let (half, outer) = (ops.splat(0.5), ops.add(g[0], g[2]));
        out[0] = g[0];
        out[1] = ops.mul(half, ops.add(outer, g[1]));
        out[2] = ops.mul(half, ops.sub(outer, g[1]));
        out[3] = g[2];
    } else {
        let (sixth, third, thirds) = (ops.splat(1.0 / 6.0), ops.splat(1.0 / 3.0), ops.splat(-2.0 / 3.0));
        let inner = ops.sub(ops.mul(thirds, g[0]), ops.mul(third, g[2]));
        let outer = ops.mul_add(third, g[2], ops.mul(sixth, g[0]));
        let (odd, wide) = (ops.mul(ops.splat(-SQRT_2 / 3.0), g[1]), ops.mul(ops.splat(SQRT_2 / 6.0), g[1]));
        out[0] = g[0];
        out[1] = ops.add(inner, odd);
        out[2] = ops.sub(inner, odd);
        out[3] = ops.add(outer, wide);
        out[4] = ops.sub(outer, wide);
        out[5] = g[2];
    }
    out
}
