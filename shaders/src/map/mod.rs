//! Operations whose elements do not depend on each other: a function `value(i)` under one of two shared bodies.

use crate::kernel::{Kernel, LAST, Shader};
use crate::prelude::{Prelude, Width, lone_workgroup};
use crate::problem::Problem;
use crate::profile::Profile;
use graph::shape::numel;

/// A kernel made of a function `value(i)`, or `value4(i)` for four elements from `i` on.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) name: &'static str,
    pub(crate) op: &'static str,
    pub(crate) width: Width,
    /// Binds the operands and the result and generates the function; none when the width does not fit the problem.
    pub(crate) value: fn(&Problem<'_>, &mut Prelude, Width) -> Option<()>,
}

impl Kernel for Map {
    fn name(&self) -> &'static str {
        self.name
    }

    fn op(&self) -> &'static str {
        self.op
    }

    fn rank(&self, _: &Problem<'_>, _: &Profile) -> u32 {
        if self.width == Width::One { LAST } else { 0 }
    }

    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader> {
        // Neither body applies an epilogue; graphs give none to these operations.
        if problem.op.name() != self.op || problem.epilogue.is_some() {
            return None;
        }
        let workgroup = lone_workgroup(profile);
        let mut prelude = Prelude::new(workgroup);
        let count = numel(problem.out);
        prelude.param("count", count);
        (self.value)(problem, &mut prelude, self.width)?;
        let (body, each) = match self.width {
            Width::One => (include_str!("naive.wgsl"), 1),
            Width::Four => (include_str!("vector.wgsl"), 4),
        };
        prelude.compose(self.name, &[body], count.div_ceil(workgroup as usize * each), profile)
    }
}
