use crate::array::{Array, Real};
use crate::op::Operation;
use crate::shape::Shape;

/// Multi-head scaled dot-product attention (Vaswani et al. 2017): `softmax(scale · q kᵀ + biases) v` in each head.
///
/// Operands: `q [B, Sq, H·D]`, `k [B, Sk, H·D]`, `v [B, Sk, H·D]`; then, with `key_bias`, `[B, Sk]`, added to every
/// query's scores: 0 keeps a key, a large negative number hides it; then, with `score_bias`, `[H, Sq, Sk]`, added to the
/// scores of every batch entry, such as T5's relative positions (Raffel et al. 2019). Result `[B, Sq, H·D]`. Heads lie
/// side by side in the last axis, as projections leave them, so nothing is transposed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Number of heads, H.
    pub heads: usize,
    /// Factor on the scores, usually 1/√D.
    pub scale: f64,
    /// Query i sees keys 0..=i only.
    pub causal: bool,
    /// An operand `[B, Sk]` biases each key.
    pub key_bias: bool,
    /// A last operand `[H, Sq, Sk]` biases each score.
    pub score_bias: bool,
}

impl Attention {
    /// Of all operands, those that bias keys and scores.
    #[must_use]
    pub fn biases<'a, T>(&self, operands: &'a [T]) -> (Option<&'a T>, Option<&'a T>) {
        let key_bias = self.key_bias.then(|| &operands[3]);
        let score_bias = self.score_bias.then(|| &operands[3 + usize::from(self.key_bias)]);
        (key_bias, score_bias)
    }
}

impl Operation for Attention {
    const NAME: &str = "attention";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let wanted = 3 + usize::from(self.key_bias) + usize::from(self.score_bias);
        if inputs.len() != wanted {
            return Err(format!("needs {wanted} operands and has {}", inputs.len()));
        }
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        if q.len() != 3 || k.len() != 3 || v != k || q[0] != k[0] || q[2] != k[2] {
            return Err(format!("cannot attend with q {q:?}, k {k:?}, v {v:?}"));
        }
        if self.heads == 0 || !q[2].is_multiple_of(self.heads) {
            return Err(format!("{} channels do not split into {} heads", q[2], self.heads));
        }
        if k[1] == 0 {
            return Err("cannot attend to no keys".into());
        }
        if self.causal && q[1] != k[1] {
            return Err(format!("causal attention needs as many queries ({}) as keys ({})", q[1], k[1]));
        }
        let (key_bias, score_bias) = self.biases(inputs);
        if let Some(bias) = key_bias.filter(|bias| ***bias != [k[0], k[1]]) {
            return Err(format!("a key bias of shape {bias:?} does not fit keys {k:?}"));
        }
        if let Some(bias) = score_bias.filter(|bias| ***bias != [self.heads, q[1], k[1]]) {
            return Err(format!("a bias of shape {bias:?} does not fit {} heads, q {q:?} and k {k:?}", self.heads));
        }
        Ok(q.to_vec())
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        let [batch, queries, width] = q.shape[..] else { unreachable!("infer checked the rank") };
        let keys = k.shape[1];
        let depth = width / self.heads;
        let scale = T::from_f64(self.scale);
        let (key_bias, score_bias) = self.biases(inputs);
        let mut result = Array::zeros(out);
        let mut scores = vec![T::zero(); keys];
        for b in 0..batch {
            for h in 0..self.heads {
                for i in 0..queries {
                    let visible = if self.causal { i + 1 } else { keys };
                    let at_query = (b * queries + i) * width + h * depth;
                    let at_key = |j: usize| (b * keys + j) * width + h * depth;
                    let mut largest = T::from_f64(f64::NEG_INFINITY);
                    for (j, score) in scores[..visible].iter_mut().enumerate() {
                        let mut dot = T::zero();
                        for d in 0..depth {
                            dot += q.data[at_query + d] * k.data[at_key(j) + d];
                        }
                        *score = dot * scale;
                        if let Some(bias) = key_bias {
                            *score += bias.data[b * keys + j];
                        }
                        if let Some(bias) = score_bias {
                            *score += bias.data[(h * queries + i) * keys + j];
                        }
                        if *score > largest {
                            largest = *score;
                        }
                    }
                    let mut total = T::zero();
                    for score in &mut scores[..visible] {
                        *score = (*score - largest).map(f64::exp);
                        total += *score;
                    }
                    for d in 0..depth {
                        let mut sum = T::zero();
                        for (j, score) in scores[..visible].iter().enumerate() {
                            sum += *score * v.data[at_key(j) + d];
                        }
                        result.data[at_query + d] = sum / total;
                    }
                }
            }
        }
        result
    }

    fn flops(&self, inputs: &[&[usize]], out: &[usize]) -> u64 {
        // Two products of 2·Sq·Sk·D per head, and about five operations per score for the softmax.
        let pairs = (out[0] * out[1] * inputs[1][1]) as u64;
        pairs * (4 * out[2] as u64 + 5 * self.heads as u64)
    }
}
