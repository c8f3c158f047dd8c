//! Group normalisation.

use crate::kernel::{Kernel, LAST, Shader};
use crate::prelude::{Prelude, Width, lone_workgroup};
use crate::problem::Problem;
use crate::profile::Profile;
use crate::total::Total;
use graph::Op;
use graph::ops::{GroupNorm, GroupNormDims};

/// Fills a prelude. Also returns the number of groups of all images together.
fn setup(problem: &Problem<'_>, workgroup: u32, vectors: bool) -> Option<(Prelude, usize)> {
    let (Op::GroupNorm(op), [x, weight, bias]) = (problem.op, &problem.operands[..]) else { return None };
    let GroupNormDims { batch, positions, channels } = GroupNorm::dims(x.shape);
    let group_channels = channels / op.groups;
    let width = if vectors { Width::of(group_channels) } else { Width::One };
    #[allow(clippy::cast_possible_truncation, reason = "kernels compute in f32")]
    let eps = op.eps as f32;

    let mut prelude = Prelude::new(workgroup);
    prelude.flag("VECTORS", width == Width::Four);
    prelude.param("batch", batch);
    prelude.param("groups", op.groups);
    prelude.param("positions", positions);
    prelude.param("channels", channels);
    prelude.param("group_channels", group_channels);
    prelude.param_f32("eps", eps);
    prelude.operand("x", x, width);
    prelude.operand("weight", weight, width);
    prelude.operand("bias", bias, width);
    prelude.result(problem, width);
    Some((prelude, batch * op.groups))
}

/// Whether one invocation may walk a whole group. Mesa's software driver ends loops without an error once an invocation
/// has taken 65535 turns in all. The groups of a large picture must therefore be shared among invocations there,
/// although barriers are slow.
fn lone_invocation_fits(problem: &Problem<'_>) -> bool {
    const TURNS: usize = 65_535;
    let (Op::GroupNorm(op), [x, ..]) = (problem.op, &problem.operands[..]) else { return true };
    let GroupNormDims { positions, channels, .. } = GroupNorm::dims(x.shape);
    // Leaving a loop counts as a turn too.
    3 * positions * (3 + channels / op.groups.max(1)) < TURNS
}

/// One invocation for each group of an image.
#[derive(Debug)]
pub(crate) struct Naive;

impl Kernel for Naive {
    fn name(&self) -> &'static str {
        "group_norm_naive"
    }

    fn op(&self) -> &'static str {
        "group_norm"
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        LAST
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        // There are few groups, so small workgroups spread them over a software adapter's threads.
        let workgroup = lone_workgroup(profile).min(8);
        let (prelude, groups) = setup(problem, workgroup, false)?;
        prelude.compose(self.name(), &[include_str!("naive.wgsl")], groups.div_ceil(workgroup as usize), profile)
    }
}

/// One invocation for each group of an image, four numbers at a time.
#[derive(Debug)]
pub(crate) struct Register;

impl Kernel for Register {
    fn name(&self) -> &'static str {
        "group_norm_register"
    }

    fn op(&self) -> &'static str {
        "group_norm"
    }

    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32 {
        if profile.barriers_are_slow && lone_invocation_fits(problem) { 0 } else { 2 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let workgroup = lone_workgroup(profile).min(8);
        let (prelude, groups) = setup(problem, workgroup, true)?;
        prelude.compose(
            self.name(),
            &[include_str!("access.wgsl"), include_str!("register.wgsl")],
            groups.div_ceil(workgroup as usize),
            profile,
        )
    }
}

/// One workgroup for each group of an image.
#[derive(Debug)]
pub(crate) struct Workgroup {
    name: &'static str,
    total: Total,
}

pub(crate) static WORKGROUP: Workgroup = Workgroup { name: "group_norm_workgroup", total: Total::Tree };
/// The same with fewer barriers.
pub(crate) static SUBGROUP: Workgroup = Workgroup { name: "group_norm_subgroup", total: Total::Subgroup };

impl Kernel for Workgroup {
    fn name(&self) -> &'static str {
        self.name
    }

    fn op(&self) -> &'static str {
        "group_norm"
    }

    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32 {
        // Sweeps over a group are long beside its two sums: nothing was gained by other sums yet.
        let order = u32::from(self.total == Total::Subgroup);
        if profile.barriers_are_slow && lone_invocation_fits(problem) { 3 + order } else { order }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let total = self.total.text(profile)?;
        // A power of two, so that the sum by halving includes every invocation.
        let workgroup = if profile.max_workgroup_invocations >= 256 { 256 } else { 64 };
        let (prelude, groups) = setup(problem, workgroup, true)?;
        let bodies = [include_str!("access.wgsl"), total, include_str!("workgroup.wgsl")];
        prelude.compose(self.name, &bodies, groups, profile)
    }
}
