//! DPM-Solver-23 with steps as long as the difference of its two solutions allows.

use std::sync::Arc;

use super::dpm_solver::Singlestep;
use super::steps::first_order;
use crate::builder::ErrorScale;
use crate::program::Continue;
use crate::{Builder, Expr, Program, Schedule, Settings};

/// Lu et al. 2022a, Algorithm 3 and appendix C; k-diffusion `sample_dpm_adaptive` (order 3, eta 0). Of the schedule only the ends
/// count; a last sigma of 0 is reached from the one before by a step of Euler.
pub(super) fn dpm_adaptive(schedule: &Schedule, settings: &Settings) -> Program {
    let mut p = Builder::new(schedule, settings.limit);
    let (lambda, end) = ends(&mut p, schedule);
    let state = State {
        schedule: schedule.clone(),
        settings: settings.clone(),
        lambda,
        target: lambda,
        end,
        h: 0.05,
        steps: 0,
    };
    let x = p.x();
    state.fresh(p, x, x)
}

/// λ at the ends of the schedule, the last sigma above 0 being one of them. At pure noise λ is infinite, so the first
/// step from there is a short one of first order.
pub(super) fn ends(p: &mut Builder, schedule: &Schedule) -> (f64, f64) {
    let frame = schedule.frame;
    let sigmas = &schedule.sigmas;
    let end = sigmas.iter().rev().copied().find(|&sigma| sigma > 0.0).unwrap_or(sigmas[0]);
    let mut start = sigmas[0];
    if frame.alpha(start) == 0.0 && end < start {
        let leave = (1.0 - 1e-2_f64).max(end);
        let x = p.x();
        let denoised = p.denoise(x, start);
        p.set_x(first_order(frame, x, denoised, start, leave));
        start = leave;
    }
    (frame.lambda(start), frame.lambda(end))
}

#[derive(Debug, Clone)]
struct State {
    schedule: Schedule,
    settings: Settings,
    /// Where x is, and where the attempted step goes.
    lambda: f64,
    target: f64,
    end: f64,
    h: f64,
    steps: usize,
}

impl State {
    /// Starts a step from an x that has not been denoised yet, or takes the last step.
    fn fresh(mut self, mut p: Builder, x: Expr, x_prev: Expr) -> Program {
        let sigma = self.schedule.frame.sigma_at_lambda(self.lambda);
        let arrived = self.lambda >= self.end - 1e-5;
        let ends_at_zero = self.schedule.sigmas.last() == Some(&0.0);
        if arrived && !ends_at_zero {
            p.set_x(x);
            return p.finish("dpm_adaptive");
        }
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        if arrived {
            p.set_x(denoised);
            return p.finish("dpm_adaptive");
        }
        self.steps += 1;
        self.attempt(p, x, x_prev, denoised)
    }

    /// Steps of order 2 and 3 to the same λ; carries over (order 3, order 2, x, previous x, denoised).
    fn attempt(mut self, mut p: Builder, x: Expr, x_prev: Expr, denoised: Expr) -> Program {
        self.target = self.end.min(self.lambda + self.h);
        let step = Singlestep::new(self.schedule.frame, self.lambda, self.target - self.lambda, x, denoised);
        let r1 = 1.0 / 3.0;
        let difference = step.difference(&mut p, r1);
        let low = p.keep(step.second(r1, difference));
        let high = step.third(&mut p, difference);
        let high = p.keep(high);
        let (absolute, relative) = (self.settings.absolute_tolerance, self.settings.relative_tolerance);
        p.measure(low - high, Some(ErrorScale { absolute, relative, of: &[low, x_prev] }));
        p.finish_segment("dpm_adaptive", &[high, low, x, x_prev, denoised], Some(Arc::new(self)))
    }
}

impl Continue for State {
    fn next(&self, measured: f64) -> Program {
        // k-diffusion's PIDStepSizeController with its default coefficients: integral only, limited by an arctangent.
        let factor = (1.0 / (measured + 1e-8)).powf(1.0 / 3.0);
        let factor = if factor.is_nan() { 1.0 } else { 1.0 + (factor - 1.0).atan() };
        // A step this short is taken whatever its error, because it would be shortened for ever.
        let accepted = factor >= 0.81 || self.h <= 1e-6;
        let mut state = Self { h: self.h * factor, ..self.clone() };
        let limit = self.settings.limit;
        if accepted {
            state.lambda = self.target;
            let (p, carried) = Builder::resume(&self.schedule, limit, &[0, 1], self.steps);
            state.fresh(p, carried[0], carried[1])
        } else {
            let (p, carried) = Builder::resume(&self.schedule, limit, &[2, 3, 4], self.steps);
            state.attempt(p, carried[0], carried[1], carried[2])
        }
    }
}
