//! Layer and root mean square normalisation over the last axis: one text for both, which differ by a flag.

use crate::kernel::{Kernel, LAST, Shader};
use crate::prelude::{Prelude, Width, lone_workgroup};
use crate::problem::Problem;
use crate::profile::Profile;
use crate::total::Total;
use graph::ops::{LayerNorm, RmsNorm};
use graph::shape::numel;
use graph::{Op, Operation};

pub(crate) static NAIVE: Norm = Norm { name: "layer_norm_naive", op: LayerNorm::NAME, variant: Variant::Naive };
pub(crate) static REGISTER: Norm =
    Norm { name: "layer_norm_register", op: LayerNorm::NAME, variant: Variant::Register };
pub(crate) static WORKGROUP: Norm =
    Norm { name: "layer_norm_workgroup", op: LayerNorm::NAME, variant: Variant::Workgroup(Total::Tree) };
pub(crate) static SUBGROUP: Norm =
    Norm { name: "layer_norm_subgroup", op: LayerNorm::NAME, variant: Variant::Workgroup(Total::Subgroup) };
pub(crate) static RMS_NAIVE: Norm = Norm { name: "rms_norm_naive", op: RmsNorm::NAME, variant: Variant::Naive };
pub(crate) static RMS_REGISTER: Norm =
    Norm { name: "rms_norm_register", op: RmsNorm::NAME, variant: Variant::Register };
pub(crate) static RMS_WORKGROUP: Norm =
    Norm { name: "rms_norm_workgroup", op: RmsNorm::NAME, variant: Variant::Workgroup(Total::Tree) };
pub(crate) static RMS_SUBGROUP: Norm =
    Norm { name: "rms_norm_subgroup", op: RmsNorm::NAME, variant: Variant::Workgroup(Total::Subgroup) };

/// A kernel of one of the two operations.
#[derive(Debug)]
pub(crate) struct Norm {
    name: &'static str,
    op: &'static str,
    variant: Variant,
}

/// How rows are shared among invocations.
#[derive(Debug, Clone, Copy)]
enum Variant {
    /// One invocation for each row.
    Naive,
    /// One invocation for each row, four channels an access.
    Register,
    /// One workgroup for each row.
    Workgroup(Total),
}

/// Fills a prelude; also gives the number of rows.
fn setup(problem: &Problem<'_>, workgroup: u32, vectors: bool) -> Option<(Prelude, usize)> {
    let (eps, centred, affine) = match problem.op {
        Op::LayerNorm(op) => (op.eps, true, op.affine),
        Op::RmsNorm(op) => (op.eps, false, false),
        _ => return None,
    };
    let channels = *problem.out.last()?;
    let rows = numel(problem.out) / channels.max(1);
    let width = if vectors { Width::of(channels) } else { Width::One };
    #[allow(clippy::cast_possible_truncation, reason = "kernels compute in f32")]
    let eps = eps as f32;

    let mut prelude = Prelude::new(workgroup);
    prelude.flag("CENTRED", centred);
    prelude.flag("AFFINE", affine);
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

impl Kernel for Norm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn op(&self) -> &'static str {
        self.op
    }

    fn rank(&self, _: &Problem<'_>, profile: &Profile) -> u32 {
        match self.variant {
            Variant::Naive => LAST,
            Variant::Register if profile.barriers_are_slow => 0,
            Variant::Register => 3,
            Variant::Workgroup(Total::Tree) => 2,
            Variant::Workgroup(Total::Subgroup) => 1,
        }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        if problem.op.name() != self.op {
            return None;
        }
        let (body, workgroup, vectors) = match self.variant {
            Variant::Naive => (include_str!("naive.wgsl"), lone_workgroup(profile), false),
            Variant::Register => (include_str!("register.wgsl"), lone_workgroup(profile), true),
            // A row of a thousand channels gives 64 invocations four vectors each; longer rows share among more.
            Variant::Workgroup(_) if *problem.out.last()? > 1024 => (include_str!("workgroup.wgsl"), 256, true),
            Variant::Workgroup(_) => (include_str!("workgroup.wgsl"), 64, true),
        };
        let (prelude, rows) = setup(problem, workgroup, vectors)?;
        let groups = match self.variant {
            Variant::Naive | Variant::Register => rows.div_ceil(workgroup as usize),
            Variant::Workgroup(_) => rows,
        };
        match self.variant {
            Variant::Workgroup(total) => prelude.compose(self.name, &[total.text(profile)?, body], groups, profile),
            Variant::Naive | Variant::Register => prelude.compose(self.name, &[body], groups, profile),
        }
    }
}
