use super::matmul::Right;
use super::{Epilogue, Tools};
use crate::gemm::{Left, Matrix, Panels, multiply};
use graph::ops::{Conv2d, Conv2dDims};

/// A convolution, computed as the product of the image's patches with the kernel's matrix. Patches are never laid out as a whole: the product
/// asks for parts of them. Reads `x`, the weight unless it is packed, and the bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolve {
    pub(crate) op: Conv2d,
    pub(crate) dims: Conv2dDims,
    pub(crate) right: Right,
}

impl Convolve {
    pub(crate) fn run(&self, tools: &Tools<'_>, reads: &[&[f32]], epilogue: Epilogue<'_>, out: &mut [f32]) {
        let (k, n) = (self.dims.taps(), self.dims.out_channels);
        let bias = self.op.bias.then(|| reads[reads.len() - 1]);
        let patches = Patches { kernel: self, x: reads[0] };
        match self.right {
            Right::Packed(pack) => multiply(&patches, &tools.packs[pack], bias, epilogue, out),
            Right::Loose => {
                let right = Panels::pack(Matrix { data: reads[1], n, k, transposed: true });
                multiply(&patches, &right, bias, epilogue, out);
            }
        }
    }
}

/// What the kernel sees at each pixel of the result: rows, columns, channels, with zeros for the padding.
struct Patches<'a> {
    kernel: &'a Convolve,
    x: &'a [f32],
}

impl Left for Patches<'_> {
    fn copy(&self, pixel: usize, from: usize, mut to: &mut [f32]) {
        let Convolve { op, dims, .. } = self.kernel;
        let Conv2dDims { input: [height, width], output: [rows, columns], kernel, in_channels, .. } = *dims;
        let (image, row, column) = (pixel / (rows * columns), pixel / columns % rows, pixel % columns);
        let (mut tap, mut channel) = (from / in_channels, from % in_channels);
        while !to.is_empty() {
            let (part, rest) = to.split_at_mut((in_channels - channel).min(to.len()));
            let y = op.source(row, tap / kernel[1], op.padding[0], height);
            let x = op.source(column, tap % kernel[1], op.padding[2], width);
            match (y, x) {
                (Some(y), Some(x)) => {
                    let at = ((image * height + y) * width + x) * in_channels + channel;
                    part.copy_from_slice(&self.x[at..at + part.len()]);
                }
                _ => part.fill(0.0),
            }
            (tap, channel, to) = (tap + 1, 0, rest);
        }
    }
}
