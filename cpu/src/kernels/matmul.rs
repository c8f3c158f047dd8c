use super::{Epilogue, Tools};
use crate::gemm::{Matrix, Panels, Rows, multiply};
use graph::ops::MatMulDims;
use rayon::prelude::*;

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
    pub(crate) fn run(&self, tools: &Tools<'_>, reads: &[&[f32]], epilogue: Epilogue<'_>, out: &mut [f32]) {
        let MatMulDims { batch, m, n, k } = self.dims;
        let bias = self.bias.then(|| reads[reads.len() - 1]);
        if let Right::Packed(pack) = self.right {
            // All of a batch by one right factor is one product.
            return multiply(&Rows { data: reads[0], k }, &tools.packs[pack], bias, epilogue, out);
        }
        let one = |(i, out): (usize, &mut [f32])| {
            let left = Rows { data: &reads[0][i * m * k..(i + 1) * m * k], k };
            let right = Matrix { data: &reads[1][i * k * n..(i + 1) * k * n], n, k, transposed: self.transpose_b };
            multiply(&left, &Panels::pack(right), bias, None, out);
        };
        if batch == 1 {
            one((0, &mut *out));
        } else {
            out.par_chunks_exact_mut(m * n).enumerate().for_each(one);
        }
        if let Some((fused, operands)) = epilogue {
            fused.run(operands, out);
        }
    }
}
