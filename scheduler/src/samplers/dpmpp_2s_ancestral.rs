use super::steps::{ancestral, first_order, renoise};
use crate::{Builder, Schedule, Settings};

/// DPM-Solver++(2S) (Lu et al. 2022b, Algorithm 1) with fresh noise in every step; k-diffusion `sample_dpmpp_2s_ancestral`.
pub(super) fn dpmpp_2s_ancestral(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let step = ancestral(frame, sigma, sigma_next, settings.eta);
        let lambda_mid = 0.5 * (frame.lambda(sigma) + frame.lambda(step.down));
        let mut target = denoised;
        // There is no middle between a finite and an infinite λ, so that step is of first order.
        if lambda_mid.is_finite() {
            let sigma_mid = frame.sigma_at_lambda(lambda_mid);
            let x_2 = first_order(frame, x, denoised, sigma, sigma_mid);
            target = p.denoise(x_2, sigma_mid);
        }
        let next = first_order(frame, x, target, sigma, step.down);
        renoise(p, next, step, sigma, sigma_next, settings);
    }
}
