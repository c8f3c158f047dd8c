use super::steps::{ancestral, first_order, renoise};
use crate::{Builder, Schedule, Settings};

/// Euler's method with fresh noise in every step; k-diffusion `sample_euler_ancestral`, diffusers
/// `EulerAncestralDiscreteScheduler`.
pub(super) fn euler_ancestral(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let step = ancestral(frame, sigma, sigma_next, settings.eta);
        let next = first_order(frame, x, denoised, sigma, step.down);
        renoise(p, next, step, sigma, sigma_next, settings);
    }
}
