use super::Tools;
use graph::ops::MatMulDims;
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmError, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::{Matrix, NdTensorView};

/// Where the right factor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// A weight, packed when the plan was built.
    Packed(usize),
    /// The second operand.
    Loose,
}

/// A matrix product. Reads `a`, `b` unless it is packed, and the bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) dims: MatMulDims,
    pub(crate) transpose_b: bool,
    pub(crate) bias: bool,
    pub(crate) right: Right,
}

impl Product {
    pub(crate) fn run(&self, tools: &Tools<'_>, reads: &[&[f32]], out: &mut [f32]) -> Result<(), GemmError> {
        let MatMulDims { batch, m, n, k } = self.dims;
        let bias = self.bias.then(|| reads[reads.len() - 1]);
        if k == 0 {
            // A sum of no terms. Packing does not support it.
            match bias {
                Some(bias) => out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)),
                None => out.fill(0.0),
            }
            return Ok(());
        }
        let one = |i: usize, out: &mut [f32]| {
            let a = NdTensorView::from_data([m, k], &reads[0][i * m * k..(i + 1) * m * k]);
            let right = match self.right {
                Right::Packed(pack) => GemmInputB::Packed(&tools.packs[pack]),
                Right::Loose => {
                    GemmInputB::Unpacked(right(&reads[1][i * k * n..(i + 1) * k * n], n, k, self.transpose_b))
                }
            };
            let bias = bias.map(BiasVector::Row);
            tools.gemm.gemm(out, GemmInputA::Unpacked(a), right, GemmOptions { bias, ..GemmOptions::default() })
        };
        if batch == 1 {
            return one(0, out);
        }
        out.par_chunks_exact_mut(m * n).enumerate().try_for_each(|(i, out)| one(i, out))
    }
}

/// The right factor as `[k, n]`, also if it is stored transposed.
pub(super) fn right(data: &[f32], n: usize, k: usize, transposed: bool) -> Matrix<'_, f32> {
    if transposed { NdTensorView::from_data([n, k], data).transposed() } else { NdTensorView::from_data([k, n], data) }
}

/// A weight rearranged in the order in which the product's kernel reads it.
pub(crate) fn pack(data: &[f32], n: usize, k: usize, transposed: bool) -> PackedBMatrix<f32> {
    GemmExecutor::<f32>::new().prepack_b(right(data, n, k, transposed))
}
