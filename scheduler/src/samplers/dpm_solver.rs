//! DPM-Solver's single steps of order 1, 2 and 3 in λ = ln(α/σ), on the predicted noise: Lu et al. 2022a, Algorithms 1, 2 and 4.

use crate::{Builder, Expr, Frame};

/// A step from λ, where the denoised image is known, over h.
#[derive(Debug, Clone, Copy)]
pub(super) struct Singlestep {
    frame: Frame,
    lambda: f64,
    h: f64,
    x: Expr,
    eps: Expr,
}

impl Singlestep {
    pub(super) fn new(frame: Frame, lambda: f64, h: f64, x: Expr, denoised: Expr) -> Self {
        let eps = noise_of(frame, lambda, x, denoised);
        Self { frame, lambda, h, x, eps }
    }

    /// x at a part of the step if the noise stays constant.
    fn along(&self, part: f64) -> Expr {
        let lambda = self.lambda + part * self.h;
        let (sigma, alpha) = level(self.frame, lambda);
        let (_, alpha_0) = level(self.frame, self.lambda);
        self.x * (alpha / alpha_0) - self.eps * (sigma * (part * self.h).exp_m1())
    }

    pub(super) fn first(&self) -> Expr {
        self.along(1.0)
    }

    /// How the predicted noise has changed at the part `r1` of the step, which the higher orders use.
    pub(super) fn difference(&self, p: &mut Builder, r1: f64) -> Expr {
        let u = p.keep(self.along(r1));
        let lambda = self.lambda + r1 * self.h;
        let denoised = p.denoise(u, level(self.frame, lambda).0);
        p.keep(noise_of(self.frame, lambda, u, denoised) - self.eps)
    }

    pub(super) fn second(&self, r1: f64, difference: Expr) -> Expr {
        let (sigma, _) = level(self.frame, self.lambda + self.h);
        self.first() - difference * (sigma / (2.0 * r1) * self.h.exp_m1())
    }

    /// The third-order step, with `difference` taken at 1/3.
    pub(super) fn third(&self, p: &mut Builder, difference: Expr) -> Expr {
        let (r1, r2) = (1.0 / 3.0, 2.0 / 3.0);
        let h = self.h;
        let lambda = self.lambda + r2 * h;
        let (sigma_2, _) = level(self.frame, lambda);
        let weight = sigma_2 * (r2 / r1) * ((r2 * h).exp_m1() / (r2 * h) - 1.0);
        let u = p.keep(self.along(r2) - difference * weight);
        let denoised = p.denoise(u, sigma_2);
        let difference = noise_of(self.frame, lambda, u, denoised) - self.eps;
        let (sigma, _) = level(self.frame, self.lambda + h);
        self.first() - difference * (sigma / r2 * (h.exp_m1() / h - 1.0))
    }
}

/// (σ, α) at λ.
fn level(frame: Frame, lambda: f64) -> (f64, f64) {
    let sigma = frame.sigma_at_lambda(lambda);
    (sigma, frame.alpha(sigma))
}

fn noise_of(frame: Frame, lambda: f64, x: Expr, denoised: Expr) -> Expr {
    let (sigma, alpha) = level(frame, lambda);
    (x - denoised * alpha) / sigma
}
