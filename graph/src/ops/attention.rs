use crate::array::{Array, Real};
use crate::op::Operation;
use crate::shape::Shape;

/// Multi-head scaled dot-product attention (Vaswani et al. 2017): `softmax(scale · q kᵀ + bias) v` in each head.
///
/// Operands: `q [B, Sq, H·D]`, `k [B, Sk, H·D]`, `v [B, Sk, H·D]`, and with `key_bias` a fourth, `[B, Sk]`, added to
/// every query's scores: 0 keeps a key, a large negative number hides it. Result `[B, Sq, H·D]`. Heads lie side by side
/// in the last axis, as projections leave them, so nothing is transposed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Number of heads, H.
    pub heads: usize,
    /// Factor on the scores, usually 1/√D.
    pub scale: f64,
    /// Query i sees keys 0..=i only.
    pub causal: bool,
    /// A fourth operand biases each key.
    pub key_bias: bool,
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let wanted = if self.key_bias { 4 } else { 3 };
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
        if self.key_bias && *inputs[3] != [k[0], k[1]] {
            return Err(format!("a key bias of shape {:?} does not fit keys {k:?}", inputs[3]));
        }
        Ok(q.to_vec())
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        let [batch, queries, width] = q.shape[..] else { unreachable!("infer checked the rank") };
        let keys = k.shape[1];
        let depth = width / self.heads;
        let scale = T::from_f64(self.scale);
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
                        if self.key_bias {
                            *score += inputs[3].data[b * keys + j];
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
