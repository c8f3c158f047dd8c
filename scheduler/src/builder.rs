//! Builds a program. A sampler makes as many values as it needs, and [`Builder::finish`] assigns them to a few
//! registers.

use crate::expr::{Expr, Value};
use std::sync::Arc;

use crate::program::{Continue, Limit, Op, Program, Reg, Tolerance};
use crate::schedule::Schedule;

/// A program under construction. A sampler reads [`Builder::x`], calls [`Builder::denoise`], combines, and ends each step
/// with [`Builder::set_x`].
#[derive(Debug)]
pub struct Builder {
    schedule: Schedule,
    limit: Option<Limit>,
    /// Operations on values: until registers are assigned, `Reg(v)` means value v.
    ops: Vec<Op>,
    values: usize,
    x: Expr,
    steps: usize,
    draws: usize,
    /// Positions of the values taken over, in the outputs of the previous segment.
    inputs: Vec<usize>,
}

/// The tolerance of each element in a measurement: max(`absolute`, `relative`·max|`of`|).
pub(crate) struct ErrorScale<'a> {
    pub(crate) absolute: f64,
    pub(crate) relative: f64,
    pub(crate) of: &'a [Expr],
}

impl Builder {
    /// Starts with x in value 0.
    pub fn new(schedule: &Schedule, limit: Option<Limit>) -> Self {
        let x = Expr::value(Value(0));
        let inputs = vec![0];
        Self { schedule: schedule.clone(), limit, ops: Vec::new(), values: 1, x, steps: 0, draws: 0, inputs }
    }

    /// A later segment of an adaptive sampler. It takes over these outputs of the previous segment as its first values,
    /// in this order; the first is x. `steps` is the number of steps already marked.
    pub(crate) fn resume(
        schedule: &Schedule,
        limit: Option<Limit>,
        outputs: &[usize],
        steps: usize,
    ) -> (Self, Vec<Expr>) {
        let mut builder = Self::new(schedule, limit);
        builder.values = outputs.len();
        builder.inputs = outputs.to_vec();
        builder.steps = steps;
        let values = (0..outputs.len()).map(|i| Expr::value(Value(i))).collect();
        (builder, values)
    }

    /// The noisy image at the current step.
    pub fn x(&self) -> Expr {
        self.x
    }

    /// Ends a step: from now on x is this expression, computed into one register.
    pub fn set_x(&mut self, x: Expr) {
        self.x = self.keep(x);
    }

    /// D(x; sigma). The model's timestep is the schedule's own where sigma is one of its entries, interpolated otherwise.
    pub fn denoise(&mut self, x: Expr, sigma: f64) -> Expr {
        let timestep = self.schedule.timestep_at(sigma);
        let x = self.materialise(x);
        let dst = self.fresh();
        self.ops.push(Op::Denoise { dst: Reg(dst.0), x: Reg(x.0), sigma, timestep });
        Expr::value(dst)
    }

    /// The denoised image of the last evaluation without guidance; `denoised` itself where there is no guidance.
    pub fn unguided(&mut self, denoised: Expr) -> Expr {
        let denoised = self.materialise(denoised);
        let dst = self.fresh();
        self.ops.push(Op::Unguided { dst: Reg(dst.0), denoised: Reg(denoised.0) });
        Expr::value(dst)
    }

    /// Standard normal noise for a step of the reverse SDE between two sigmas: the normalised increment of a Brownian path.
    pub fn noise(&mut self, from: f64, to: f64) -> Expr {
        self.draw((from > to).then_some((from, to)))
    }

    /// Standard normal noise that is no increment of a Brownian path: for Langevin steps, for churn, and for
    /// consistency models when they add noise again.
    pub fn fresh_noise(&mut self) -> Expr {
        self.draw(None)
    }

    fn draw(&mut self, between: Option<(f64, f64)>) -> Expr {
        let dst = self.fresh();
        self.ops.push(Op::Noise { dst: Reg(dst.0), draw: self.draws, between });
        self.draws += 1;
        Expr::value(dst)
    }

    /// x with what is known about the image in its place, noised to sigma by `noise` ([`Op::Constrain`]); x itself where nothing is
    /// known. Nothing is drawn here: `noise` is a draw or, at sigma 0, [`Expr::zero`].
    pub fn constrain(&mut self, x: Expr, noise: Expr, sigma: f64) -> Expr {
        let (x, noise) = (self.materialise(x), self.materialise(noise));
        let dst = self.fresh();
        self.ops.push(Op::Constrain { dst: Reg(dst.0), x: Reg(x.0), noise: Reg(noise.0), sigma });
        Expr::value(dst)
    }

    /// The denoised image, limited to the range that the checkpoint asks for.
    pub fn clip(&mut self, denoised: Expr) -> Expr {
        let Some(limit) = self.limit else { return denoised };
        let src = self.materialise(denoised);
        let dst = self.fresh();
        self.ops.push(Op::Clip { dst: Reg(dst.0), src: Reg(src.0), limit });
        Expr::value(dst)
    }

    /// Computes an expression into one register now. This is useful for expressions that later steps use again: a
    /// derivative of a multistep method then holds one register, and not the two it is made from.
    pub fn keep(&mut self, expr: Expr) -> Expr {
        Expr::value(self.materialise(expr))
    }

    /// Marks that the denoised image of the step starting at x is known, so that the driver can report it.
    pub fn step(&mut self, sigma: f64, denoised: Expr) {
        let x = self.materialise(self.x);
        self.x = Expr::value(x);
        let denoised = self.materialise(denoised);
        self.ops.push(Op::Step { index: self.steps, sigma, x: Reg(x.0), denoised: Reg(denoised.0) });
        self.steps += 1;
    }

    fn fresh(&mut self) -> Value {
        self.values += 1;
        Value(self.values - 1)
    }

    fn materialise(&mut self, expr: Expr) -> Value {
        if let Some(value) = expr.as_value() {
            return value;
        }
        let terms = expr.terms().map(|(coefficient, value)| (coefficient, Reg(value.0))).collect();
        let dst = self.fresh();
        self.ops.push(Op::Combine { dst: Reg(dst.0), terms });
        dst
    }

    /// Asks for the root mean square of an expression. With a tolerance, each element is divided by its tolerance first.
    pub(crate) fn measure(&mut self, expr: Expr, tolerance: Option<ErrorScale<'_>>) {
        let terms = expr.terms().map(|(coefficient, value)| (coefficient, Reg(value.0))).collect();
        let tolerance = tolerance.map(|ErrorScale { absolute, relative, of }| {
            let of = of.iter().map(|&expr| Reg(self.materialise(expr).0)).collect();
            Tolerance { absolute, relative, of }
        });
        self.ops.push(Op::Measure { terms, tolerance });
    }

    /// Number of noise draws so far, over all segments.
    pub(crate) fn draws(&self) -> usize {
        self.draws
    }

    pub(crate) fn set_draws(&mut self, draws: usize) {
        self.draws = draws;
    }

    /// Drops values that are never read and assigns registers by liveness.
    pub fn finish(self, name: &'static str) -> Program {
        let x = self.x;
        self.finish_segment(name, &[x], None)
    }

    /// The same for a segment of an adaptive sampler, with the values that the next segment may take over.
    pub(crate) fn finish_segment(
        mut self,
        name: &'static str,
        outputs: &[Expr],
        next: Option<Arc<dyn Continue>>,
    ) -> Program {
        // Values for the next segment are computed before the measurement, because that ends the segment.
        let measure = self.ops.pop_if(|op| matches!(op, Op::Measure { .. }));
        let outputs: Vec<Value> = outputs.iter().map(|&expr| self.materialise(expr)).collect();
        let mut ops = self.ops;
        ops.extend(measure);
        drop_dead(&mut ops, self.values, &outputs);
        let (registers, register_of) = assign(&ops, self.values, self.inputs.len(), &outputs);
        for op in &mut ops {
            rename(op, &register_of);
        }
        let inputs = self.inputs.iter().enumerate().map(|(i, &place)| (place, register_of[i])).collect();
        let outputs = outputs.iter().map(|value| register_of[value.0]).collect();
        Program { name, ops, registers, inputs, outputs, final_scale: self.schedule.final_scale, next }
    }
}

/// Removes combinations, clips and constraints that nothing reads. Denoise and Noise stay, because drivers count them, and leaving
/// out a draw would shift all later draws.
fn drop_dead(ops: &mut Vec<Op>, values: usize, outputs: &[Value]) {
    let mut live = vec![false; values];
    outputs.iter().for_each(|output| live[output.0] = true);
    let mut kept: Vec<Op> = Vec::with_capacity(ops.len());
    for op in ops.drain(..).rev() {
        let pure = matches!(op, Op::Combine { .. } | Op::Clip { .. } | Op::Constrain { .. });
        if pure && op.dst().is_some_and(|dst| !live[dst.0]) {
            continue;
        }
        for source in op.sources() {
            live[source.0] = true;
        }
        kept.push(op);
    }
    kept.reverse();
    *ops = kept;
}

/// Linear scan: a value takes the lowest register that is free, and gives it back after its last reader. An op's own
/// sources are still held while its destination is chosen, so no op writes what it reads.
fn assign(ops: &[Op], values: usize, inputs: usize, outputs: &[Value]) -> (usize, Vec<Reg>) {
    let mut last_use = vec![None; values];
    for (i, op) in ops.iter().enumerate() {
        for source in op.sources() {
            last_use[source.0] = Some(i);
        }
    }
    outputs.iter().for_each(|output| last_use[output.0] = Some(ops.len()));
    let mut register_of: Vec<Reg> = (0..values).map(|value| Reg(if value < inputs { value } else { 0 })).collect();
    let mut free: Vec<bool> = (0..inputs).map(|value| last_use[value].is_none()).collect();
    for (i, op) in ops.iter().enumerate() {
        if let Some(dst) = op.dst() {
            let slot = free.iter().position(|&f| f).unwrap_or_else(|| {
                free.push(true);
                free.len() - 1
            });
            free[slot] = false;
            register_of[dst.0] = Reg(slot);
            if last_use[dst.0].is_none() {
                free[slot] = true;
            }
        }
        for source in op.sources() {
            if last_use[source.0] == Some(i) {
                free[register_of[source.0].0] = true;
            }
        }
    }
    (free.len(), register_of)
}

fn rename(op: &mut Op, register_of: &[Reg]) {
    let to = |reg: &mut Reg| *reg = register_of[reg.0];
    match op {
        Op::Denoise { dst, x, .. } => [dst, x].into_iter().for_each(to),
        Op::Unguided { dst, denoised } => [dst, denoised].into_iter().for_each(to),
        Op::Constrain { dst, x, noise, .. } => [dst, x, noise].into_iter().for_each(to),
        Op::Noise { dst, .. } => to(dst),
        Op::Clip { dst, src, .. } => [dst, src].into_iter().for_each(to),
        Op::Step { x, denoised, .. } => [x, denoised].into_iter().for_each(to),
        Op::Combine { dst, terms } => {
            to(dst);
            terms.iter_mut().for_each(|(_, reg)| to(reg));
        }
        Op::Measure { terms, tolerance } => {
            terms.iter_mut().for_each(|(_, reg)| to(reg));
            if let Some(Tolerance { of, .. }) = tolerance {
                of.iter_mut().for_each(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Frame, Stepper, TimestepMap};

    /// A driver sees x and the noise that go into a constraint, and the program goes on from its answer.
    #[test]
    fn a_constraint_is_the_drivers() {
        let schedule = Schedule::new(vec![2.0, 0.0], Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
        let mut p = Builder::new(&schedule, None);
        let noise = p.fresh_noise();
        let unread = p.constrain(p.x(), noise, 1.0);
        let x = p.constrain(p.x() * 3.0, noise, 0.5);
        let same = p.constrain(x, x, 0.25);
        let last = p.constrain(same, Expr::zero(), 0.0);
        assert!(unread.as_value() != x.as_value());
        p.set_x(last * 2.0);
        let program = p.finish("test");
        assert!(program.is_constrained() && program.registers() <= 3, "{program}");
        assert_eq!(program.to_string().matches("constrain").count(), 3, "{program}");

        let mut stepper = Stepper::new(program, &[1.0, 2.0]);
        let mut seen = Vec::new();
        loop {
            match stepper.ask() {
                Ask::Noise { out, .. } => out.fill(7.0),
                Ask::Constrain { x, noise, sigma, out } => {
                    seen.push((x.to_vec(), noise.to_vec(), sigma));
                    out.copy_from_slice(x);
                    out[0] = 10.0 + noise[0] * sigma;
                }
                Ask::Done => break,
                other => panic!("{other:?}"),
            }
            stepper.advance();
        }
        let expected = [
            (vec![3.0, 6.0], vec![7.0, 7.0], 0.5),
            (vec![13.5, 6.0], vec![13.5, 6.0], 0.25),
            (vec![13.375, 6.0], vec![0.0, 0.0], 0.0),
        ];
        assert_eq!(seen, expected);
        assert_eq!(stepper.finish(), [20.0, 12.0]);
    }
}
