//! Layer normalisation over the last axis.

use crate::kernel::{Kernel, LAST, Shader};
use crate::prelude::{Prelude, Width, lone_workgroup};
use crate::problem::Problem;
use crate::profile::Profile;
use graph::Op;
use graph::shape::numel;

/// Fills a prelude; also gives the number of rows.
fn setup(problem: &Problem<'_>, workgroup: u32, vectors: bool) -> Option<(Prelude, usize)> {
    let Op::LayerNorm(op) = problem.op else { return None };
    let channels = *problem.out.last()?;
    let rows = numel(problem.out) / channels.max(1);
    let width = if vectors { Width::of(channels) } else { Width::One };
    #[allow(clippy::cast_possible_truncation, reason = "kernels compute in f32")]
    let eps = op.eps as f32;

    let mut prelude = Prelude::new(workgroup);
    prelude.flag("AFFINE", op.affine);
    prelude.param("rows", rows);
    prelude.param("channels", channels);
    prelude.param_f32("eps", eps);
    for (k, name) in ["x", "weight", "bias"].into_iter().enumerate() {
        match problem.operands.get(k) {
            Some(operand) => prelude.operand(name, operand, width),
            None => prelude.absent(name),
        }
    }
    prelude.result(problem, width);
    Some((prelude, rows))
}

/// One invocation for each row.
#[derive(Debug)]
pub(crate) struct Naive;

impl Kernel for Naive {
    fn name(&self) -> &'static str {
        "layer_norm_naive"
    }

    fn op(&self) -> &'static str {
        "layer_norm"
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        LAST
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let workgroup = lone_workgroup(profile);
        let (prelude, rows) = setup(problem, workgroup, false)?;
        prelude.compose(self.name(), &[include_str!("naive.wgsl")], rows.div_ceil(workgroup as usize), profile)
    }
}

/// One invocation for each row, four channels an access.
#[derive(Debug)]
pub(crate) struct Register;

impl Kernel for Register {
    fn name(&self) -> &'static str {
        "layer_norm_register"
    }

    fn op(&self) -> &'static str {
        "layer_norm"
    }

    fn rank(&self, _: &Problem<'_>, profile: &Profile) -> u32 {
        if profile.barriers_are_slow { 0 } else { 2 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let workgroup = lone_workgroup(profile);
        let (prelude, rows) = setup(problem, workgroup, true)?;
        prelude.compose(self.name(), &[include_str!("register.wgsl")], rows.div_ceil(workgroup as usize), profile)
    }
}

/// One workgroup for each row.
#[derive(Debug)]
pub(crate) struct Workgroup;

impl Kernel for Workgroup {
    fn name(&self) -> &'static str {
        "layer_norm_workgroup"
    }

    fn op(&self) -> &'static str {
        "layer_norm"
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        1
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        // A row of a thousand channels gives 64 invocations four vectors each; longer rows share among more.
        let workgroup = if *problem.out.last()? > 1024 { 256 } else { 64 };
        let (prelude, rows) = setup(problem, workgroup, true)?;
        prelude.compose(self.name(), &[include_str!("workgroup.wgsl")], rows, profile)
    }
}
