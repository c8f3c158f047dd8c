//! Multi-head scaled dot-product attention.

use crate::kernel::{Kernel, LAST, Shader};
use crate::prelude::{Prelude, Width, lone_workgroup};
use crate::problem::{Format, Problem};
use crate::profile::Profile;
use graph::Op;

/// What all variants share: bindings and extents.
struct Setup {
    prelude: Prelude,
    batch: usize,
    heads: usize,
    queries: usize,
    depth: usize,
}

/// Fills a prelude. `vectors` asks for accesses of four elements where the depth is a multiple of four.
fn setup(problem: &Problem<'_>, workgroup: u32, vectors: bool) -> Option<Setup> {
    let Op::Attention(op) = problem.op else { return None };
    // Graphs give it no epilogue.
    if problem.epilogue.is_some() {
        return None;
    }
    let [batch, queries, channels] = *problem.out else { return None };
    let keys = *problem.operands.get(1)?.shape.get(1)?;
    let depth = channels / op.heads;
    let width = if vectors { Width::of(depth) } else { Width::One };
    #[allow(clippy::cast_possible_truncation, reason = "kernels compute in f32")]
    let scale = op.scale as f32;

    let mut prelude = Prelude::new(workgroup);
    prelude.flag("CAUSAL", op.causal);
    prelude.flag("SCORE_BIAS", op.score_bias);
    prelude.param("batch", batch);
    prelude.param("heads", op.heads);
    prelude.param("queries", queries);
    prelude.param("keys", keys);
    prelude.param("depth", depth);
    prelude.param_f32("scale", scale);
    for (name, operand) in ["q", "k", "v"].into_iter().zip(&problem.operands) {
        prelude.operand(name, operand, width);
    }
    let (key_bias, score_bias) = op.biases(&problem.operands);
    for (name, bias) in [("key_bias", key_bias), ("score_bias", score_bias)] {
        match bias {
            Some(operand) => prelude.operand(name, operand, Width::One),
            None => prelude.absent(name),
        }
    }
    prelude.result(problem, width);
    Some(Setup { prelude, batch, heads: op.heads, queries, depth })
}

/// One invocation for each query of each head.
#[derive(Debug)]
pub(crate) struct Naive;

impl Kernel for Naive {
    fn name(&self) -> &'static str {
        "attention_naive"
    }

    fn op(&self) -> &'static str {
        "attention"
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        LAST
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        // It adds up in its result.
        if problem.result != Format::F32 {
            return None;
        }
        let workgroup = lone_workgroup(profile);
        let Setup { prelude, batch, heads, queries, .. } = setup(problem, workgroup, false)?;
        let groups = (batch * heads * queries).div_ceil(workgroup as usize);
        prelude.compose(self.name(), &[include_str!("naive.wgsl")], groups, profile)
    }
}

/// Four queries for each invocation, online softmax in registers.
#[derive(Debug)]
pub(crate) struct Register;

impl Kernel for Register {
    fn name(&self) -> &'static str {
        "attention_register"
    }

    fn op(&self) -> &'static str {
        "attention"
    }

    fn rank(&self, _: &Problem<'_>, profile: &Profile) -> u32 {
        if profile.barriers_are_slow { 0 } else { 2 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let workgroup = lone_workgroup(profile);
        let Setup { mut prelude, batch, heads, queries, depth } = setup(problem, workgroup, true)?;
        let vectors = depth.div_ceil(4);
        let kept = vectors.next_power_of_two().min(8);
        let parts = vectors.div_ceil(kept);
        prelude.constant("GROUPS", u32::try_from(kept).ok()?);
        prelude.param("parts", parts);
        let units = batch * heads * queries.div_ceil(4) * parts;
        prelude.compose(self.name(), &[include_str!("register.wgsl")], units.div_ceil(workgroup as usize), profile)
    }
}

/// Thirty-two queries for each workgroup, keys and values in workgroup memory.
#[derive(Debug)]
pub(crate) struct Workgroup;

impl Kernel for Workgroup {
    fn name(&self) -> &'static str {
        "attention_workgroup"
    }

    fn op(&self) -> &'static str {
        "attention"
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        1
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        let Setup { mut prelude, batch, heads, queries, depth } = setup(problem, 64, true)?;
        // Every invocation keeps four channels of each 32.
        let blocks = depth.div_ceil(32);
        let kept = blocks.next_power_of_two().min(4);
        let parts = blocks.div_ceil(kept);
        prelude.constant("GROUPS", u32::try_from(kept).ok()?);
        prelude.param("parts", parts);
        prelude.part("Staged", problem.operands.iter().take(3));
        let groups = batch * heads * queries.div_ceil(32) * parts;
        prelude.compose(self.name(), &[include_str!("workgroup.wgsl")], groups, profile)
    }
}
