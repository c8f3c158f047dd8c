//! Matrix products, and convolutions as products of an image's patches. The tiled kernels of both have the same text.

use crate::conv2d;
use crate::kernel::{EIGHT_BITS, Kernel, LAST, Shader};
use crate::prelude::{Prelude, Width, lone_workgroup};
use crate::problem::{Format, Problem};
use crate::product::Setup;
use crate::profile::Profile;
use graph::Op;
use graph::ops::{MatMul, MatMulDims};

/// Fills a prelude. `vectors` asks for accesses of four elements wherever rows are multiples of four.
fn setup(problem: &Problem<'_>, workgroup: u32, vectors: bool) -> Option<Setup> {
    if let Op::Conv2d(op) = problem.op {
        return conv2d::setup(problem, *op, workgroup, vectors);
    }
    let (Op::MatMul(MatMul { transpose_b, bias }), [a, b, ..]) = (problem.op, &problem.operands[..]) else {
        return None;
    };
    let dims = dims(problem)?;
    let MatMulDims { batch, m, n, k } = dims;
    let width = |row: usize| if vectors { Width::of(row) } else { Width::One };

    let mut prelude = Prelude::new(workgroup);
    prelude.flag("TRANSPOSE_B", *transpose_b);
    prelude.param("batch", batch);
    prelude.param("m", m);
    prelude.param("n", n);
    prelude.param("k", k);
    prelude.param("b_batch", if b.shape.len() == 2 { 0 } else { k * n });
    prelude.operand("a", a, width(k));
    prelude.operand("b", b, width(if *transpose_b { k } else { n }));
    match problem.operands.get(2) {
        Some(operand) if *bias => prelude.operand("bias", operand, width(n)),
        _ => prelude.absent("bias"),
    }
    prelude.result(problem, width(n));
    Some(Setup { prelude, dims, rows: include_str!("matrix.wgsl") })
}

/// The extents of a well-formed product.
fn dims(problem: &Problem<'_>) -> Option<MatMulDims> {
    match (problem.op, &problem.operands[..]) {
        (Op::MatMul(op), [a, b, ..]) => Some(op.dims(a.shape, b.shape)),
        (Op::Conv2d(op), [x, weight, ..]) => Some(conv2d::as_product(&op.dims(x.shape, weight.shape, problem.out))),
        _ => None,
    }
}

/// One invocation for each element.
#[derive(Debug)]
pub(crate) struct Naive;

impl Kernel for Naive {
    fn name(&self) -> &'static str {
        "matmul_naive"
    }

    fn op(&self) -> &'static str {
        "matmul"
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        LAST
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let workgroup = lone_workgroup(profile);
        let Setup { prelude, dims, .. } = setup(problem, workgroup, false)?;
        let groups = (dims.batch * dims.m * dims.n).div_ceil(workgroup as usize);
        prelude.compose(self.name(), &[include_str!("naive.wgsl")], groups, profile)
    }
}

/// One tile for each invocation, kept in registers.
#[derive(Debug)]
pub(crate) struct Register {
    name: &'static str,
    op: &'static str,
    /// Tiles of 4 × 4 along m and n.
    blocks: u32,
}

/// For products of few rows or columns.
pub(crate) static REGISTER_4: Register = Register { name: "matmul_register_4x4", op: "matmul", blocks: 1 };
/// The same with half as many loads.
pub(crate) static REGISTER_8: Register = Register { name: "matmul_register_8x8", op: "matmul", blocks: 2 };
pub(crate) static CONV2D_REGISTER_4: Register = Register { name: "conv2d_register_4x4", op: "conv2d", blocks: 1 };
pub(crate) static CONV2D_REGISTER_8: Register = Register { name: "conv2d_register_8x8", op: "conv2d", blocks: 2 };

impl Register {
    fn tiles(&self, dims: MatMulDims) -> usize {
        let side = 4 * self.blocks as usize;
        dims.batch * dims.m.div_ceil(side) * dims.n.div_ceil(side)
    }
}

impl Kernel for Register {
    fn name(&self) -> &'static str {
        self.name
    }

    fn op(&self) -> &'static str {
        self.op
    }

    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32 {
        let Some(dims) = dims(problem) else { return LAST };
        // Large tiles are used only where there are enough of them for all threads, and where little of a tile lies
        // beyond the matrix.
        let fits = self.blocks == 1 || (dims.m > 4 && dims.n > 4 && self.tiles(dims) >= FEW_TILES);
        let order = if fits { 4 - self.blocks } else { 4 };
        if profile.barriers_are_slow { order } else { 40 + order }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let workgroup = lone_workgroup(profile).min(32);
        let Setup { mut prelude, dims, rows } = setup(problem, workgroup, true)?;
        prelude.constant("BLOCKS", self.blocks);
        let groups = self.tiles(dims).div_ceil(workgroup as usize);
        prelude.compose(self.name, &[rows, include_str!("register.wgsl")], groups, profile)
    }
}

/// One tile for each workgroup, with its operands in workgroup memory.
#[derive(Debug)]
pub(crate) struct Workgroup {
    name: &'static str,
    op: &'static str,
    /// Invocations along m and n; each keeps `blocks` × `blocks` tiles of 4 × 4.
    threads: [u32; 2],
    blocks: u32,
}

/// For products that make few tiles.
pub(crate) static WORKGROUP_32: Workgroup =
    Workgroup { name: "matmul_workgroup_32x32", op: "matmul", threads: [8, 8], blocks: 1 };
/// For products between the two.
pub(crate) static WORKGROUP_64: Workgroup =
    Workgroup { name: "matmul_workgroup_64x64", op: "matmul", threads: [8, 8], blocks: 2 };
/// For products with enough tiles for any machine.
pub(crate) static WORKGROUP_128: Workgroup =
    Workgroup { name: "matmul_workgroup_128x64", op: "matmul", threads: [16, 8], blocks: 2 };
pub(crate) static CONV2D_WORKGROUP_32: Workgroup =
    Workgroup { name: "conv2d_workgroup_32x32", op: "conv2d", threads: [8, 8], blocks: 1 };
pub(crate) static CONV2D_WORKGROUP_64: Workgroup =
    Workgroup { name: "conv2d_workgroup_64x64", op: "conv2d", threads: [8, 8], blocks: 2 };
pub(crate) static CONV2D_WORKGROUP_128: Workgroup =
    Workgroup { name: "conv2d_workgroup_128x64", op: "conv2d", threads: [16, 8], blocks: 2 };

/// Workgroups that keep a graphics card busy.
const BUSY: usize = 128;
/// Register tiles that keep a software adapter's threads busy.
const FEW_TILES: usize = 64;

impl Workgroup {
    fn tile(&self) -> [usize; 2] {
        self.threads.map(|threads| (4 * threads * self.blocks) as usize)
    }

    fn tiles(&self, dims: MatMulDims) -> usize {
        let [tile_m, tile_n] = self.tile();
        dims.batch * dims.m.div_ceil(tile_m) * dims.n.div_ceil(tile_n)
    }
}

impl Kernel for Workgroup {
    fn name(&self) -> &'static str {
        self.name
    }

    fn op(&self) -> &'static str {
        self.op
    }

    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32 {
        let Some(dims) = dims(problem) else { return LAST };
        let [tile_m, tile_n] = self.tile();
        let size = (tile_m * tile_n).ilog2();
        match (profile.barriers_are_slow, self.tiles(dims) >= BUSY) {
            (true, _) => 60 + size,
            // The largest tile that still makes enough workgroups; failing that, the smallest.
            (false, true) => 30 - size,
            (false, false) => 30 + size - 10,
        }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let [threads_m, threads_n] = self.threads;
        let Setup { mut prelude, dims, rows } = setup(problem, threads_m * threads_n, true)?;
        prelude.constant("THREADS_M", threads_m);
        prelude.constant("THREADS_N", threads_n);
        prelude.constant("ROW_BLOCKS", self.blocks);
        prelude.constant("COLUMN_BLOCKS", self.blocks);
        prelude.part("PartA", problem.operands.iter().take(1));
        prelude.part("PartB", problem.operands.iter().skip(1).take(1));
        prelude.compose(self.name, &[rows, include_str!("workgroup.wgsl")], self.tiles(dims), profile)
    }
}

/// One workgroup for each four columns of a row.
#[derive(Debug)]
pub(crate) struct Reduce;

impl Kernel for Reduce {
    fn name(&self) -> &'static str {
        "matmul_reduce"
    }

    fn op(&self) -> &'static str {
        "matmul"
    }

    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32 {
        let few_rows = dims(problem).is_some_and(|dims| dims.m <= 8);
        if few_rows && !profile.barriers_are_slow { 0 } else { 90 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let Setup { prelude, dims, .. } = setup(problem, 64, true)?;
        let groups = dims.batch * dims.m * dims.n.div_ceil(4);
        prelude.compose(self.name(), &[include_str!("reduce.wgsl")], groups, profile)
    }
}

/// One subgroup for each tile, with the adapter's own units for small matrices.
#[derive(Debug)]
pub(crate) struct Cooperative;

impl Cooperative {
    const SIDE: usize = 32;
}

impl Kernel for Cooperative {
    fn name(&self) -> &'static str {
        "matmul_cooperative"
    }

    fn op(&self) -> &'static str {
        "matmul"
    }

    fn rank(&self, problem: &Problem<'_>, _: &Profile) -> u32 {
        // Few rows leave most of a tile empty.
        if dims(problem).is_some_and(|dims| dims.m > 8) { 10 } else { 80 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let Setup { mut prelude, dims, rows } = setup(problem, profile.cooperative?, true)?;
        prelude.enable("wgpu_cooperative_matrix");
        let tiles = dims.batch * dims.m.div_ceil(Self::SIDE) * dims.n.div_ceil(Self::SIDE);
        prelude.compose(self.name(), &[rows, include_str!("cooperative.wgsl")], tiles, profile)
    }
}

/// Whole numbers of eight bits, for weights that are kept so.
#[derive(Debug)]
pub(crate) struct EightBits;

impl EightBits {
    const SIDE: usize = 32;
}

impl Kernel for EightBits {
    fn name(&self) -> &'static str {
        EIGHT_BITS
    }

    fn op(&self) -> &'static str {
        "matmul"
    }

    fn rank(&self, problem: &Problem<'_>, _: &Profile) -> u32 {
        // Few rows leave most of a tile empty.
        if dims(problem).is_some_and(|dims| dims.m > 8) { 0 } else { 80 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        if !profile.integer_products || problem.operands.get(1)?.format != Format::Q8_0 {
            return None;
        }
        let Setup { prelude, dims, rows } = setup(problem, 64, true)?;
        let tiles = dims.batch * dims.m.div_ceil(Self::SIDE) * dims.n.div_ceil(Self::SIDE);
        prelude.compose(self.name(), &[rows, include_str!("eight_bits.wgsl")], tiles, profile)
    }
}
