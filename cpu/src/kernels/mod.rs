//! One file per kind of kernel. A kernel reads slices and writes one, cut into pieces for the threads.

mod attention;
mod conv2d;
mod copy;
mod group_norm;
mod layer_norm;
mod matmul;
mod winograd;

pub(crate) use attention::Attend;
pub(crate) use conv2d::Convolve;
pub(crate) use copy::{Join, Permute, Rows, Take};
pub(crate) use group_norm::NormalizeGroups;
pub(crate) use layer_norm::Normalize;
pub(crate) use matmul::{Product, Right, pack};
pub(crate) use winograd::{Winograd, transform};

use crate::eval::Fused;
use graph::{Array, Op, Shape};
use rten_gemm::{GemmError, GemmExecutor, PackedBMatrix};

/// What kernels share while a plan runs.
pub(crate) struct Tools<'a> {
    pub(crate) gemm: &'a GemmExecutor,
    /// Weights packed for the matrix product's kernel.
    pub(crate) packs: &'a [PackedBMatrix<f32>],
    /// Scratch memory for one attention's result, head by head.
    pub(crate) heads: &'a mut [f32],
}

/// An epilogue and the values of its further operands.
pub(crate) type Epilogue<'a> = Option<(&'a Fused, &'a [&'a [f32]])>;

/// A node's computation, with everything that depends only on its shapes worked out.
pub(crate) enum Kernel {
    Product(Product),
    Convolve(Convolve),
    Winograd(Winograd),
    Normalize(Normalize),
    NormalizeGroups(NormalizeGroups),
    Attend(Attend),
    Elementwise(Fused),
    Rows(Rows),
    Join(Join),
    Take(Take),
    Permute(Permute),
    /// Any other operation: its reference, in single precision.
    Reference {
        op: Op,
        shapes: Vec<Shape>,
        out: Shape,
    },
}

impl Kernel {
    /// Computes the result, epilogue included.
    pub(crate) fn run(
        &self,
        tools: &mut Tools<'_>,
        reads: &[&[f32]],
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), GemmError> {
        if out.is_empty() {
            return Ok(());
        }
        match self {
            // A row is normalised and finished while it is in the first-level cache.
            Kernel::Normalize(kernel) => {
                kernel.run(reads, epilogue, out);
                return Ok(());
            }
            Kernel::NormalizeGroups(kernel) => {
                kernel.run(reads, epilogue, out);
                return Ok(());
            }
            // Each piece of a convolution is finished while it is in the second-level cache.
            Kernel::Convolve(kernel) => return kernel.run(tools, reads, epilogue, out),
            Kernel::Winograd(kernel) => return kernel.run(tools, reads, epilogue, out),
            Kernel::Product(kernel) => kernel.run(tools, reads, out)?,
            Kernel::Attend(kernel) => kernel.run(tools, reads, out)?,
            Kernel::Elementwise(fused) => fused.run(reads, out),
            Kernel::Rows(kernel) => kernel.run(reads, out),
            Kernel::Join(kernel) => kernel.run(reads, out),
            Kernel::Take(kernel) => kernel.run(reads, out),
            Kernel::Permute(kernel) => kernel.run(reads, out),
            Kernel::Reference { op, shapes, out: shape } => {
                let arrays: Vec<Array<f32>> =
                    reads.iter().zip(shapes).map(|(data, shape)| Array::new(shape.clone(), data.to_vec())).collect();
                let result = op.reference(&arrays.iter().collect::<Vec<_>>(), shape);
                out.copy_from_slice(&result.data);
            }
        }
        if let Some((fused, operands)) = epilogue {
            fused.run(operands, out);
        }
        Ok(())
    }
}
