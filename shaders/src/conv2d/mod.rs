//! Convolutions: products of an image's patches, which are never stored, with the kernel's matrix.

use crate::kernel::{Kernel, LAST, Shader};
use crate::prelude::{Prelude, Width, lone_workgroup};
use crate::problem::Problem;
use crate::product::Setup;
use crate::profile::Profile;
use graph::Op;
use graph::ops::{Conv2d, Conv2dDims, MatMulDims};

/// The matrix product that computes a convolution: a row for each pixel of the result, a column for each of its
/// channels.
pub(crate) fn as_product(dims: &Conv2dDims) -> MatMulDims {
    MatMulDims { batch: 1, m: dims.pixels(), n: dims.out_channels, k: dims.taps() }
}

/// Fills a prelude as a matrix product's, whose left factor is the image.
pub(crate) fn setup(problem: &Problem<'_>, op: Conv2d, workgroup: u32, vectors: bool) -> Option<Setup> {
    let [x, weight, ..] = &problem.operands[..] else { return None };
    let conv = op.dims(x.shape, weight.shape, problem.out);
    let dims = as_product(&conv);
    let width = |row: usize| if vectors { Width::of(row) } else { Width::One };

    let mut prelude = Prelude::new(workgroup);
    prelude.flag("TRANSPOSE_B", true);
    prelude.flag("VECTORS", width(conv.in_channels) == Width::Four);
    prelude.flag("UPSAMPLE", op.upsample == 2);
    for (name, value) in [
        ("batch", dims.batch),
        ("m", dims.m),
        ("n", dims.n),
        ("k", dims.k),
        ("b_batch", 0),
        ("channels", conv.in_channels),
        ("in_rows", conv.input[0]),
        ("in_columns", conv.input[1]),
        ("out_rows", conv.output[0]),
        ("out_columns", conv.output[1]),
        ("kernel_columns", conv.kernel[1]),
        ("stride", op.stride),
        ("top", op.padding[0]),
        ("left", op.padding[2]),
    ] {
        prelude.param(name, value);
    }
    prelude.operand("a", x, width(conv.in_channels));
    prelude.operand("b", weight, width(dims.k));
    match problem.operands.get(2) {
        Some(operand) if op.bias => prelude.operand("bias", operand, width(dims.n)),
        _ => prelude.absent("bias"),
    }
    prelude.result(problem, width(dims.n));
    Some(Setup { prelude, dims, rows: include_str!("patches.wgsl") })
}

/// One invocation for each element.
#[derive(Debug)]
pub(crate) struct Naive;

impl Kernel for Naive {
    fn name(&self) -> &'static str {
        "conv2d_naive"
    }

    fn op(&self) -> &'static str {
        "conv2d"
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        LAST
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let Op::Conv2d(op) = problem.op else { return None };
        let workgroup = lone_workgroup(profile);
        let Setup { prelude, dims, rows } = setup(problem, *op, workgroup, false)?;
        let groups = (dims.m * dims.n).div_ceil(workgroup as usize);
        prelude.compose(self.name(), &[rows, include_str!("naive.wgsl")], groups, profile)
    }
}

/// Winograd's F(2×2, 3×3): one invocation for each 4 × 4 pixels and four channels.
#[derive(Debug)]
pub(crate) struct Winograd;

impl Kernel for Winograd {
    fn name(&self) -> &'static str {
        "conv2d_winograd_register"
    }

    fn op(&self) -> &'static str {
        "conv2d"
    }

    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32 {
        // Smaller images leave most of a block empty.
        let fills = problem.out.iter().skip(1).take(2).all(|extent| *extent > 2);
        if profile.barriers_are_slow && fills { 0 } else { 95 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let (Op::Conv2d(op), [x, weight, ..]) = (problem.op, &problem.operands[..]) else { return None };
        let conv = op.dims(x.shape, weight.shape, problem.out);
        if conv.kernel != [3, 3] || op.stride != 1 {
            return None;
        }
        let workgroup = lone_workgroup(profile).min(32);
        let [block_rows, block_columns] = conv.output.map(|extent| extent.div_ceil(4));
        let blocks = problem.out.first()? * block_rows * block_columns;

        let mut prelude = Prelude::new(workgroup);
        prelude.flag("UPSAMPLE", op.upsample == 2);
        for (name, value) in [
            ("n", conv.out_channels),
            ("channels", conv.in_channels),
            ("in_rows", conv.input[0]),
            ("in_columns", conv.input[1]),
            ("out_rows", conv.output[0]),
            ("out_columns", conv.output[1]),
            ("top", op.padding[0]),
            ("left", op.padding[2]),
            ("blocks", blocks),
            ("block_rows", block_rows),
            ("block_columns", block_columns),
        ] {
            prelude.param(name, value);
        }
        prelude.operand("a", x, Width::One);
        prelude.operand("b", weight, Width::One);
        match problem.operands.get(2) {
            Some(operand) if op.bias => prelude.operand("bias", operand, Width::of(conv.out_channels)),
            _ => prelude.absent("bias"),
        }
        prelude.result(problem, Width::of(conv.out_channels));
        let groups = (blocks * conv.out_channels.div_ceil(4)).div_ceil(workgroup as usize);
        prelude.compose(self.name(), &[include_str!("winograd.wgsl")], groups, profile)
    }
}
