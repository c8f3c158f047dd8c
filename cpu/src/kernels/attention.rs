use super::Tools;
use crate::parallel::with_scratch;
use graph::ops::Attention;
use rayon::prelude::*;
use rten_gemm::{GemmError, GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_simd::SimdOp;
use rten_tensor::NdTensorView;
use rten_vecmath::Softmax;

/// Scores kept at once by one thread: they are written, normalised and read again, so they should stay in its cache.
const SCORES: usize = 1 << 16;

/// Each piece packs its head's keys and values anew, so it should not have fewer queries than this to use them on, even
/// where the scores outgrow the cache.
const QUERIES_PER_PACKING: usize = 64;

/// Fewer queries than this would leave the matrix product's tiles half empty, even where threads are idle.
const LEAST_QUERIES: usize = 16;

/// Multi-head attention: per head and block of queries two matrix products with a softmax between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attend {
    pub(crate) op: Attention,
    pub(crate) batch: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
}

/// One head's share of the operands, `width` elements from token to token.
struct Head<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    key_bias: Option<&'a [f32]>,
    /// A row of biases for each query.
    score_bias: Option<&'a [f32]>,
}

impl Attend {
    fn depth(&self) -> usize {
        self.width / self.op.heads
    }

    /// Elements of head-by-head room it needs: none when there is one head, whose result is the whole result.
    pub(crate) fn room(&self) -> usize {
        if self.op.heads == 1 { 0 } else { self.batch * self.queries * self.width }
    }

    /// Queries per piece.
    fn block(&self) -> usize {
        let heads = self.batch * self.op.heads;
        let fair = (self.queries * heads).div_ceil(2 * rayon::current_num_threads());
        let fitting = (SCORES / self.keys).max(QUERIES_PER_PACKING);
        fair.min(fitting).max(LEAST_QUERIES).min(self.queries)
    }

    pub(crate) fn run(&self, tools: &mut Tools<'_>, reads: &[&[f32]], out: &mut [f32]) -> Result<(), GemmError> {
        let gemm = tools.gemm;
        if self.op.heads == 1 {
            return self.heads(gemm, reads, out);
        }
        // Heads are computed each into memory of its own, then laid side by side.
        let room = &mut tools.heads[..self.room()];
        self.heads(gemm, reads, room)?;
        let (depth, heads, queries) = (self.depth(), self.op.heads, self.queries);
        let room = &*room;
        out.par_chunks_exact_mut(self.width).with_min_len(64).enumerate().for_each(|(token, out)| {
            let (b, i) = (token / queries, token % queries);
            for (h, out) in out.chunks_exact_mut(depth).enumerate() {
                let at = ((b * heads + h) * queries + i) * depth;
                out.copy_from_slice(&room[at..at + depth]);
            }
        });
        Ok(())
    }

    /// Every head's result, `[batch, heads, queries, depth]`.
    fn heads(&self, gemm: &GemmExecutor, reads: &[&[f32]], out: &mut [f32]) -> Result<(), GemmError> {
        let (depth, block) = (self.depth(), self.block());
        let (key_bias, score_bias) = self.op.biases(reads);
        out.par_chunks_exact_mut(self.queries * depth).enumerate().try_for_each(|(number, out)| {
            let (b, h) = (number / self.op.heads, number % self.op.heads);
            let own = |data: &'_ [f32], tokens: usize| (b * tokens * self.width + h * depth)..data.len();
            let head = Head {
                q: &reads[0][own(reads[0], self.queries)],
                k: &reads[1][own(reads[1], self.keys)],
                v: &reads[2][own(reads[2], self.keys)],
                key_bias: key_bias.map(|bias| &bias[b * self.keys..(b + 1) * self.keys]),
                score_bias: score_bias.map(|bias| &bias[h * self.queries * self.keys..]),
            };
            out.par_chunks_mut(block * depth).enumerate().try_for_each(|(i, out)| {
                let rows = out.len() / depth;
                with_scratch(rows * self.keys, |scratch| self.piece(gemm, &head, i * block, scratch, out))
            })
        })
    }

    /// The queries from `first` on: as many as `out` has rows.
    fn piece(
        &self,
        gemm: &GemmExecutor,
        head: &Head<'_>,
        first: usize,
        scratch: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), GemmError> {
        let depth = self.depth();
        let rows = out.len() / depth;
        let keys = if self.op.causal { first + rows } else { self.keys };
        let scores = &mut scratch[..rows * keys];
        let view = |data, tokens| {
            NdTensorView::from_slice_with_strides([tokens, depth], data, [self.width, 1])
                .expect("infer checked the operands' shapes")
        };
        let q = view(&head.q[first * self.width..], rows);
        #[allow(clippy::cast_possible_truncation, reason = "scores are singles")]
        let scaled = GemmOptions { alpha: self.op.scale as f32, ..GemmOptions::default() };
        let k = view(head.k, keys).transposed();
        gemm.gemm(scores, GemmInputA::Unpacked(q), GemmInputB::Unpacked(k), scaled)?;
        for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
            let visible = if self.op.causal { first + i + 1 } else { keys };
            let (row, hidden) = row.split_at_mut(visible);
            hidden.fill(0.0);
            let own = head.score_bias.map(|bias| &bias[(first + i) * self.keys..]);
            for biases in head.key_bias.into_iter().chain(own) {
                row.iter_mut().zip(biases).for_each(|(score, bias)| *score += bias);
            }
            Softmax::new_mut(row).dispatch();
        }
        let probabilities = NdTensorView::from_data([rows, keys], &*scores);
        let v = view(head.v, keys);
        gemm.gemm(out, GemmInputA::Unpacked(probabilities), GemmInputB::Unpacked(v), GemmOptions::default())
    }
}
