use crate::array::{Array, Real};
use crate::op::Operation;
use crate::shape::{Shape, numel};

/// Matrix product with an optional bias: `[…, M, K] × B → […, M, N]`.
///
/// Operands: `a`, `b`, and `bias [N]` when `bias` is set. `b` is one matrix shared by the whole batch (rank 2) or has
/// `a`'s batch axes. It is `[K, N]`, or `[N, K]` when `transpose_b` is set, which is how PyTorch's `Linear` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMul {
    /// `b` is stored as `[N, K]`.
    pub transpose_b: bool,
    /// A third operand `[N]` is added to every row.
    pub bias: bool,
}

/// The extents of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMulDims {
    /// Number of independent products; one when `b` is shared, since `a`'s batch axes then extend M.
    pub batch: usize,
    /// Rows of `a` and of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// The summed extent.
    pub k: usize,
}

impl MatMul {
    /// The extents for operands that `infer` accepted.
    #[must_use]
    pub fn dims(&self, a: &[usize], b: &[usize]) -> MatMulDims {
        let k = a[a.len() - 1];
        let n = b[b.len() - if self.transpose_b { 2 } else { 1 }];
        let rows = numel(a) / k.max(1);
        let m = a[a.len() - 2];
        if b.len() == 2 {
            MatMulDims { batch: 1, m: rows, n, k }
        } else {
            MatMulDims { batch: rows / m.max(1), m, n, k }
        }
    }
}

impl Operation for MatMul {
    const NAME: &str = "matmul";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let (a, b) = match (inputs, self.bias) {
            ([a, b], false) | ([a, b, _], true) => (*a, *b),
            _ => {
                return Err(format!("needs {} operands and has {}", 2 + usize::from(self.bias), inputs.len()));
            }
        };
        if a.len() < 2 || b.len() < 2 {
            return Err(format!("cannot multiply {a:?} by {b:?}: both need two axes or more"));
        }
        let (b_rows, b_cols) = (b[b.len() - 2], b[b.len() - 1]);
        let (k, n) = if self.transpose_b { (b_cols, b_rows) } else { (b_rows, b_cols) };
        if k == 0 {
            return Err(format!("cannot multiply {a:?} by {b:?}: nothing is summed"));
        }
        if a[a.len() - 1] != k {
            return Err(format!("cannot multiply {a:?} by {b:?}: {} is not {k}", a[a.len() - 1]));
        }
        if b.len() > 2 && b[..b.len() - 2] != a[..a.len() - 2] {
            return Err(format!("cannot multiply {a:?} by {b:?}: the batch axes differ"));
        }
        if self.bias && *inputs[2] != [n] {
            return Err(format!("a bias of shape {:?} does not fit {n} columns", inputs[2]));
        }
        let mut out = a[..a.len() - 1].to_vec();
        out.push(n);
        Ok(out)
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let (a, b) = (inputs[0], inputs[1]);
        let MatMulDims { batch, m, n, k } = self.dims(&a.shape, &b.shape);
        let (row, column) = if self.transpose_b { (1, k) } else { (n, 1) };
        let mut result = Vec::with_capacity(batch * m * n);
        for i in 0..batch {
            for a_row in a.data[i * m * k..(i + 1) * m * k].chunks_exact(k.max(1)) {
                for j in 0..n {
                    let b = &b.data[i * k * n..];
                    let mut sum = T::zero();
                    for (p, x) in a_row.iter().enumerate() {
                        sum += *x * b[p * row + j * column];
                    }
                    result.push(if self.bias { sum + inputs[2].data[j] } else { sum });
                }
            }
        }
        Array::new(out, result)
    }

    fn flops(&self, inputs: &[&[usize]], _: &[usize]) -> u64 {
        let MatMulDims { batch, m, n, k } = self.dims(inputs[0], inputs[1]);
        2 * (batch * m * n * k) as u64
    }
}
