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
pub(crate) use matmul::{Product, Right};
pub(crate) use winograd::Winograd;

use crate::eval::Fused;
use crate::gemm::Panels;
use graph::{Array, Op, Shape};

/// What kernels share while a plan runs.
pub(crate) struct Tools<'a> {
    /// Weights as the right factors of products.
    pub(crate) packs: &'a [Panels],
    /// Scratch memory for one attention's keys and values, head by head.
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
    pub(crate) fn run(&self, tools: &mut Tools<'_>, reads: &[&[f32]], epilogue: Epilogue<'_>, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        match self {
            // These finish each piece of the result while it is in the cache.
            Kernel::Normalize(kernel) => return kernel.run(reads, epilogue, out),
            Kernel::NormalizeGroups(kernel) => return kernel.run(reads, epilogue, out),
            Kernel::Product(kernel) => return kernel.run(tools, reads, epilogue, out),
            Kernel::Convolve(kernel) => return kernel.run(tools, reads, epilogue, out),
            Kernel::Winograd(kernel) => return kernel.run(tools, reads, epilogue, out),
            Kernel::Attend(kernel) => kernel.run(tools, reads, out),
            Kernel::Elementwise(fused) => fused.run(reads, out),
            Kernel::Rows(kernel) => kernel.run(tools, reads, out),
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
    }
}
