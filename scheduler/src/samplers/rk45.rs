//! Dormand & Prince's embedded Runge-Kutta method of order 5(4), with steps as long as the error allows.

use std::sync::Arc;

use crate::builder::ErrorScale;
use crate::dormand_prince::{ERROR, NODES, STAGES, judge};
use crate::program::Continue;
use crate::{Builder, Expr, Program, Schedule, Settings};

/// The probability-flow ODE in ln σ, where it reads dx/d(ln σ) = x - D(x; σ) in both frames: Song et al. 2021b, section 4.3; score_sde
/// `ode_sampler`. Of the schedule only the ends count; a last sigma of 0 is reached from the one before by a step of Euler.
pub(super) fn rk45(schedule: &Schedule, settings: &Settings) -> Program {
    let sigmas = &schedule.sigmas;
    let end = sigmas.iter().rev().copied().find(|&sigma| sigma > 0.0).unwrap_or(sigmas[0]);
    let mut p = Builder::new(schedule, settings.limit);
    let log_sigma = sigmas[0].ln();
    let span = end.ln() - log_sigma;
    let state = State {
        schedule: schedule.clone(),
        settings: settings.clone(),
        log_sigma,
        end: end.ln(),
        h: span / schedule.steps().max(1) as f64,
        rejected: false,
        steps: 0,
    };
    let x = p.x();
    let denoised = p.denoise(x, sigmas[0]);
    if span == 0.0 {
        return state.last(p, x, denoised);
    }
    let k_1 = p.keep(x - denoised);
    state.attempt(p, x, k_1)
}

#[derive(Debug, Clone)]
struct State {
    schedule: Schedule,
    settings: Settings,
    log_sigma: f64,
    end: f64,
    /// Negative: towards smaller sigmas.
    h: f64,
    rejected: bool,
    steps: usize,
}

impl State {
    /// One step from x with its first derivative; carries over (x, k_1, new x, new k_1).
    fn attempt(&self, mut p: Builder, x: Expr, k_1: Expr) -> Program {
        let h = self.h.max(self.end - self.log_sigma);
        if !self.rejected {
            p.step(self.log_sigma.exp(), x - k_1);
        }
        let mut k = vec![k_1];
        let mut stage = x;
        for i in 1..7 {
            let change: Expr = k.iter().zip(STAGES[i]).map(|(&k, weight)| k * (weight * h)).sum();
            stage = p.keep(x + change);
            let sigma = if i >= 5 { self.landing(h) } else { self.log_sigma + NODES[i] * h };
            let denoised = p.denoise(stage, sigma.exp());
            k.push(p.keep(stage - denoised));
        }
        let error: Expr = k.iter().zip(ERROR).map(|(&k, weight)| k * (weight * h)).sum();
        // A tolerance of 0 is raised to the smallest number: an element that is 0 would give 0/0.
        let absolute = self.settings.absolute_tolerance.max(f64::MIN_POSITIVE);
        let relative = self.settings.relative_tolerance;
        p.measure(error, Some(ErrorScale { absolute, relative, of: &[x, stage] }));
        let outputs = [x, k_1, stage, k[6]];
        let state = Self { h, steps: self.steps + usize::from(!self.rejected), ..self.clone() };
        p.finish_segment("rk45", &outputs, Some(Arc::new(state)))
    }

    fn landing(&self, h: f64) -> f64 {
        if self.log_sigma + h <= self.end { self.end } else { self.log_sigma + h }
    }

    /// Ends the run with the step to sigma 0, if the schedule has one.
    fn last(&self, mut p: Builder, x: Expr, denoised: Expr) -> Program {
        p.step(self.end.exp(), denoised);
        let ends_at_zero = self.schedule.sigmas.last() == Some(&0.0);
        p.set_x(if ends_at_zero { denoised } else { x });
        p.finish("rk45")
    }
}

impl Continue for State {
    fn next(&self, measured: f64) -> Program {
        let shortest = self.h >= 1e-6 * (self.end - self.schedule.sigmas[0].ln());
        let (accepted, factor) = judge(measured, self.rejected, shortest);
        let limit = self.settings.limit;
        let mut state = Self { h: self.h * factor, rejected: !accepted, ..self.clone() };
        if !accepted {
            let (p, carried) = Builder::resume(&self.schedule, limit, &[0, 1], self.steps);
            return state.attempt(p, carried[0], carried[1]);
        }
        state.log_sigma = self.landing(self.h);
        let (p, carried) = Builder::resume(&self.schedule, limit, &[2, 3], self.steps);
        let (x, k_1) = (carried[0], carried[1]);
        if state.log_sigma <= self.end { state.last(p, x, x - k_1) } else { state.attempt(p, x, k_1) }
    }
}
