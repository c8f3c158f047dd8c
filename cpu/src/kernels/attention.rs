use super::Tools;
use crate::gemm::{DEPTH, Piece, ROW, Row, Start, Strided, lanes, panel_width, store};
use crate::parallel::with_scratch;
use graph::ops::Attention;
use rayon::prelude::*;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp, SimdUnaryOp};
use rten_vecmath::Exp;

/// Queries that one thread works on at once: their scores with one block of keys stay in its second-level cache.
const QUERIES: usize = 64;

/// Fewer queries than this would leave tiles of the products half empty, even where threads are idle.
const LEAST_QUERIES: usize = 14;

/// Keys of a block: as many as a product multiplies at once, because a block's probabilities are the left factor of one.
const KEYS: usize = DEPTH;

/// Multi-head attention whose scores never leave the cache (Milakov & Gimelshein 2018, *Online normalizer calculation for softmax*; Dao et
/// al. 2022, *FlashAttention*, algorithm 1): keys come in blocks, and what was summed so far is scaled whenever a block has a larger score.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attend {
    pub(crate) op: Attention,
    pub(crate) batch: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
}

impl Attend {
    fn depth(&self) -> usize {
        self.width / self.op.heads
    }

    /// Panels of keys, and of values, in one head.
    fn panels(&self, panel: usize) -> (usize, usize) {
        (self.keys.div_ceil(panel), self.depth().div_ceil(panel))
    }

    /// Elements of room for all panels: of keys, and of values.
    fn rooms(&self) -> (usize, usize) {
        let panel = panel_width(lanes());
        let (keys, values) = self.panels(panel);
        let heads = self.batch * self.op.heads;
        (heads * keys * panel * self.depth(), heads * values * panel * self.keys)
    }

    /// Elements of room for all panels.
    pub(crate) fn room(&self) -> usize {
        let (keys, values) = self.rooms();
        keys + values
    }

    pub(crate) fn run(&self, tools: &mut Tools<'_>, reads: &[&[f32]], out: &mut [f32]) {
        let (keys, values) = self.rooms();
        let (keys, values) = tools.heads[..keys + values].split_at_mut(keys);
        self.pack(reads, keys, values);
        let (keys, values) = (&*keys, &*values);
        let (key_bias, score_bias) = self.op.biases(reads);
        let fair = (self.queries * self.batch).div_ceil(2 * rayon::current_num_threads());
        let block = fair.clamp(LEAST_QUERIES, QUERIES).min(self.queries);
        out.par_chunks_exact_mut(self.queries * self.width).enumerate().for_each(|(b, out)| {
            out.par_chunks_mut(block * self.width).enumerate().for_each(|(i, out)| {
                for h in 0..self.op.heads {
                    let head = b * self.op.heads + h;
                    let own = |all: &'_ [f32]| all.len() / (self.batch * self.op.heads);
                    let scores = Queries {
                        attend: self,
                        q: &reads[0][(b * self.queries + i * block) * self.width + h * self.depth()..],
                        keys: &keys[head * own(keys)..][..own(keys)],
                        values: &values[head * own(values)..][..own(values)],
                        key_bias: key_bias.map(|bias| &bias[b * self.keys..(b + 1) * self.keys]),
                        score_bias: score_bias.map(|bias| &bias[(h * self.queries + i * block) * self.keys..]),
                        first: i * block,
                        column: h * self.depth(),
                    };
                    scores.compute(out);
                }
            });
        });
    }

    /// Lays out each head's keys and values as right factors: keys transposed, `[depth, keys]`, and values, `[keys, depth]`.
    fn pack(&self, reads: &[&[f32]], keys: &mut [f32], values: &mut [f32]) {
        let (panel, depth, heads) = (panel_width(lanes()), self.depth(), self.op.heads);
        let (of_keys, of_values) = self.panels(panel);
        let token = |data, head: usize, token: usize| -> &[f32] {
            let data: &[f32] = data;
            &data[((head / heads) * self.keys + token) * self.width + head % heads * depth..][..depth]
        };
        keys.par_chunks_exact_mut(panel * depth).enumerate().for_each(|(i, out)| {
            let (head, first) = (i / of_keys, i % of_keys * panel);
            for j in 0..panel.min(self.keys - first) {
                let key = token(reads[1], head, first + j);
                key.iter().zip(out[j..].iter_mut().step_by(panel)).for_each(|(value, to)| *to = *value);
            }
        });
        values.par_chunks_exact_mut(panel * self.keys).enumerate().for_each(|(i, out)| {
            let (head, first) = (i / of_values, i % of_values * panel);
            let columns = panel.min(depth - first);
            let width = if columns <= lanes() { lanes() } else { panel };
            for (j, out) in out.chunks_exact_mut(width).take(self.keys).enumerate() {
                out[..columns].copy_from_slice(&token(reads[2], head, j)[first..first + columns]);
            }
        });
    }
}

/// Some queries of one head.
struct Queries<'a> {
    attend: &'a Attend,
    /// The first query's elements; the next is `width` further.
    q: &'a [f32],
    /// Panels.
    keys: &'a [f32],
    values: &'a [f32],
    key_bias: Option<&'a [f32]>,
    /// A row of biases for each query.
    score_bias: Option<&'a [f32]>,
    /// The first query.
    first: usize,
    /// The head's first column in the result.
    column: usize,
}

impl Queries<'_> {
    /// Computes the result's rows, as many as `out` has.
    fn compute(&self, out: &mut [f32]) {
        let (depth, width) = (self.attend.depth(), self.attend.width);
        let rows = out.len() / width;
        let parts = depth.div_ceil(DEPTH);
        with_scratch((parts + 1) * rows * ROW, |scratch| {
            let (scratch, _) = scratch.as_chunks_mut();
            let (q, scores): (&mut [Row], &mut [Row]) = scratch.split_at_mut(parts * rows);
            // Part by part, all queries in each.
            #[allow(clippy::cast_possible_truncation, reason = "scores are singles")]
            let scale = self.attend.op.scale as f32;
            for (i, to) in q.iter_mut().enumerate() {
                let from = i / rows * DEPTH;
                let query = &self.q[i % rows * width..][from..depth.min(from + DEPTH)];
                to.iter_mut().zip(query).for_each(|(to, x)| *to = x * scale);
            }
            let mut largest = [f32::NEG_INFINITY; QUERIES];
            let mut sums = [0.0_f32; QUERIES];
            let keys = if self.attend.op.causal { self.first + rows } else { self.attend.keys };
            for from in (0..keys).step_by(KEYS) {
                let count = KEYS.min(keys - from);
                KeyBlock { queries: self, q, scores, from, count, largest: &mut largest, sums: &mut sums, out }
                    .dispatch();
            }
            for (row, sum) in out.chunks_exact_mut(width).zip(sums) {
                row[self.column..self.column + depth].iter_mut().for_each(|value| *value /= sum);
            }
        });
    }
}

/// The queries with one block of keys.
struct KeyBlock<'a> {
    queries: &'a Queries<'a>,
    q: &'a [Row],
    scores: &'a mut [Row],
    from: usize,
    count: usize,
    /// The largest score of each query so far.
    largest: &'a mut [f32],
    /// The sum of each query's exponentials so far.
    sums: &'a mut [f32],
    out: &'a mut [f32],
}

impl SimdOp for KeyBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let KeyBlock { queries, q, scores, from, count, largest, sums, out } = self;
        let Queries { attend, column, .. } = *queries;
        let (depth, width, rows) = (attend.depth(), attend.width, scores.len());
        let panel = panel_width(isa.f32().len());
        // Blocks of keys are whole panels, but for the last.
        for (i, keys) in queries.keys.chunks_exact(panel * depth).skip(from / panel).enumerate() {
            if i * panel >= count {
                break;
            }
            for (part, q) in q.chunks_exact(rows).enumerate() {
                let b = &keys[part * DEPTH * panel..];
                let depth = DEPTH.min(depth - part * DEPTH);
                let start = if part == 0 { Start::Zero } else { Start::Add };
                // The last panel may have keys that are not there; what comes out for them is not read.
                let out = &mut Strided { data: scores.as_flattened_mut(), stride: ROW };
                Piece { a: q, from: 0, depth, b, column: i * panel, columns: panel, start }.multiply(out, 0);
            }
        }
        for (i, scores) in scores.iter_mut().enumerate() {
            let scores = &mut scores[..count];
            let own = queries.score_bias.map(|bias| &bias[i * attend.keys..]);
            for biases in queries.key_bias.into_iter().chain(own) {
                scores.iter_mut().zip(&biases[from..]).for_each(|(score, bias)| *score += bias);
            }
            if attend.op.causal {
                let visible = (queries.first + i + 1).saturating_sub(from).min(count);
                scores[visible..].fill(f32::NEG_INFINITY);
            }
            let before = largest[i];
            largest[i] = exponentials(isa, scores, before, &mut sums[i]);
            if from > 0 && largest[i] != before {
                let factor = (before - largest[i]).exp();
                out[i * width + column..][..depth].iter_mut().for_each(|value| *value *= factor);
            }
        }
        let start = if from == 0 { Start::Zero } else { Start::Add };
        for (i, values) in queries.values.chunks_exact(panel * attend.keys).enumerate() {
            let columns = panel.min(depth - i * panel);
            let lane = isa.f32().len();
            let b = &values[from * if columns <= lane { lane } else { panel }..];
            let (a, column) = (&*scores, column + i * panel);
            let out = &mut Strided { data: &mut *out, stride: width };
            Piece { a, from: 0, depth: count, b, column, columns, start }.multiply(out, 0);
        }
    }
}

/// Turns scores into exponentials of their differences from the largest score so far, which is returned, and adds them to the sum of those
/// before, scaled to it.
#[inline(always)]
fn exponentials<I: Isa>(isa: I, scores: &mut [f32], before: f32, sum: &mut f32) -> f32 {
    let ops = isa.f32();
    let mut most = ops.splat(before);
    for at in (0..scores.len()).step_by(ops.len()) {
        let rest = &scores[at..];
        let values = if rest.len() >= ops.len() { ops.load(rest) } else { last(isa, rest) };
        // In this order a score that is not a number is passed over here, and comes out again below.
        most = ops.select(values, most, ops.gt(values, most));
    }
    let most = ops.fold_splat(most, before, f32::max);
    let largest = most.to_array()[0];
    // Where every score so far is −∞, each exponential is that of −∞.
    let shift = if largest == f32::NEG_INFINITY { ops.zero() } else { most };
    let mut added = ops.zero();
    for at in (0..scores.len()).step_by(ops.len()) {
        let rest = &scores[at..];
        let values = if rest.len() >= ops.len() { ops.load(rest) } else { last(isa, rest) };
        let values = Exp::apply(isa, ops.sub(values, shift));
        added = ops.add(added, values);
        store(isa, values, scores, at);
    }
    let factor = if largest == before { 1.0 } else { (before - largest).exp() };
    *sum = *sum * factor + ops.sum(added);
    largest
}

/// A last vector that is not full: −∞ behind its end, whose exponential is zero.
#[inline(always)]
fn last<I: Isa>(isa: I, rest: &[f32]) -> I::F32 {
    let ops = isa.f32();
    let (values, there) = ops.load_pad(rest);
    ops.select(values, ops.splat(f32::NEG_INFINITY), there)
}
