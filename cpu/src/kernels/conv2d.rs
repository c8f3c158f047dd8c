use super::matmul::{Right, right};
use super::{Epilogue, Tools};
use crate::parallel::with_scratch;
use graph::ops::{Conv2d, Conv2dDims};
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmError, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

/// Elements of the image's patches that are laid out at once. They stay in the second-level cache while the product
/// reads them.
const LAID_OUT: usize = 1 << 17;

/// A convolution, computed as the product of the image's patches with the kernel's matrix. Patches are laid out for
/// some pixels at a time. Reads `x`, the weight unless it is packed, and the bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolve {
    pub(crate) op: Conv2d,
    pub(crate) dims: Conv2dDims,
    pub(crate) right: Right,
}

impl Convolve {
    pub(crate) fn run(
        &self,
        tools: &Tools<'_>,
        reads: &[&[f32]],
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), GemmError> {
        let (k, n) = (self.dims.taps(), self.dims.out_channels);
        let bias = self.op.bias.then(|| reads[reads.len() - 1]);
        // Several pieces for each thread, each with enough pixels to fill the matrix product's tiles.
        let fair = self.dims.pixels().div_ceil(4 * rayon::current_num_threads());
        let pixels = (LAID_OUT / k).clamp(16, 1024).min(fair.max(16));
        let pieces = out.par_chunks_mut(pixels * n).enumerate();
        pieces.try_for_each(|(piece, out)| {
            let m = out.len() / n;
            with_scratch(m * k, |patches| {
                for (i, patch) in patches.chunks_exact_mut(k).enumerate() {
                    self.lay_out(reads[0], piece * pixels + i, patch);
                }
                let a = NdTensorView::from_data([m, k], &*patches);
                let right = match self.right {
                    Right::Packed(pack) => GemmInputB::Packed(&tools.packs[pack]),
                    Right::Loose => GemmInputB::Unpacked(right(reads[1], n, k, true)),
                };
                let options = GemmOptions { bias: bias.map(BiasVector::Row), ..GemmOptions::default() };
                tools.gemm.gemm(out, GemmInputA::Unpacked(a), right, options)
            })?;
            if let Some((fused, operands)) = epilogue {
                fused.run_part(operands, piece * pixels * n, out);
            }
            Ok(())
        })
    }

    /// What the kernel sees at one pixel of the result: rows, columns, channels, with zeros for the padding.
    fn lay_out(&self, x: &[f32], pixel: usize, patch: &mut [f32]) {
        let Conv2dDims { input: [height, width], output: [rows, columns], kernel, in_channels, .. } = self.dims;
        let (image, row, column) = (pixel / (rows * columns), pixel / columns % rows, pixel % columns);
        for (tap, part) in patch.chunks_exact_mut(in_channels).enumerate() {
            let y = self.op.source(row, tap / kernel[1], self.op.padding[0], height);
            let x_at = self.op.source(column, tap % kernel[1], self.op.padding[2], width);
            match (y, x_at) {
                (Some(y), Some(x_at)) => {
                    let at = ((image * height + y) * width + x_at) * in_channels;
                    part.copy_from_slice(&x[at..at + in_channels]);
                }
                _ => part.fill(0.0),
            }
        }
    }
}
