//! Samplers for small guidance: Chung et al. 2024, CFG++, Algorithm 2; ComfyUI's `*_cfg_pp`.
//!
//! A step goes to the guided denoised image and puts back the noise that the unguided one implies. With x̂ = x + α·(D - U), where U is
//! the unguided image, that is each sampler's own step from x̂. Without guidance U = D, and they are those samplers.

use super::dpmpp_2m::{History, order_of_step};
use super::steps::{ancestral, first_order, lambda_step, renoise};
use crate::{Builder, Expr, Frame, Schedule, Settings, SolverType};

/// The denoised image of a step, the unguided one, and x with the noise of the latter and the image of the former.
fn guided(p: &mut Builder, frame: Frame, sigma: f64) -> (Expr, Expr, Expr) {
    let x = p.x();
    let denoised = p.denoise(x, sigma);
    let unguided = p.unguided(denoised);
    p.step(sigma, denoised);
    (denoised, unguided, x + (denoised - unguided) * frame.alpha(sigma))
}

/// ComfyUI `euler_cfg_pp`: DDIM with the noise of the unguided image.
pub(super) fn euler(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    euler_ancestral(p, schedule, &Settings { eta: 0.0, ..settings.clone() });
}

/// ComfyUI `euler_ancestral_cfg_pp`.
pub(super) fn euler_ancestral(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let (denoised, _, x) = guided(p, frame, sigma);
        let step = ancestral(frame, sigma, sigma_next, settings.eta);
        let next = first_order(frame, x, denoised, sigma, step.down);
        renoise(p, next, step, sigma, sigma_next, settings);
    }
}

/// ComfyUI `dpmpp_2s_ancestral_cfg_pp`.
pub(super) fn dpmpp_2s_ancestral(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let (denoised, _, x) = guided(p, frame, sigma);
        let step = ancestral(frame, sigma, sigma_next, settings.eta);
        let lambda_mid = 0.5 * (frame.lambda(sigma) + frame.lambda(step.down));
        let mut target = denoised;
        if lambda_mid.is_finite() {
            let sigma_mid = frame.sigma_at_lambda(lambda_mid);
            let x_2 = first_order(frame, x, denoised, sigma, sigma_mid);
            target = p.denoise(x_2, sigma_mid);
        }
        let next = first_order(frame, x, target, sigma, step.down);
        renoise(p, next, step, sigma, sigma_next, settings);
    }
}

/// ComfyUI `dpmpp_2m_cfg_pp`: it extrapolates from the last unguided image.
pub(super) fn dpmpp_2m(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    let settings = Settings { solver_order: 2, ..settings.clone() };
    let mut history = History::default();
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let (denoised, unguided, x) = guided(p, frame, sigma);
        let h = lambda_step(frame, sigma, sigma_next);
        let order = order_of_step(i, sigma_next, schedule, &settings);
        let target = history.target(order, denoised, h, h, settings.solver_type);
        p.set_x(x * (sigma_next / sigma) + target * frame.alpha(sigma_next));
        history.push(h, unguided);
    }
}

/// ComfyUI `res_multistep_cfg_pp`: the first and last step go to the guided image, those between to an extrapolation of the unguided.
pub(super) fn res_multistep(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    let frame = schedule.frame;
    let mut history = History::default();
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let (denoised, unguided, x) = guided(p, frame, sigma);
        let h = lambda_step(frame, sigma, sigma_next);
        let target = if i == 0 || sigma_next == 0.0 {
            history.target(1, denoised, h, h, SolverType::Heun)
        } else {
            history.target(2, unguided, h, h, SolverType::Heun)
        };
        p.set_x(x * (sigma_next / sigma) + target * frame.alpha(sigma_next));
        history.push(h, unguided);
    }
}

/// ComfyUI `gradient_estimation_cfg_pp`.
pub(super) fn gradient_estimation(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    const GAMMA: f64 = 2.0;
    let frame = schedule.frame;
    let mut before: Option<Expr> = None;
    for (sigma, sigma_next) in schedule.pairs() {
        let start = p.x();
        let (denoised, unguided, x) = guided(p, frame, sigma);
        let mut next = first_order(frame, x, denoised, sigma, sigma_next);
        if sigma_next > 0.0 {
            let d = p.keep((start - unguided) / sigma);
            if let Some(before) = before {
                next = next + (d - before) * ((GAMMA - 1.0) * (sigma_next - sigma));
            }
            before = Some(d);
        }
        p.set_x(next);
    }
}
