use super::steps::{ancestral, first_order};
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
        let mut next = first_order(frame, x, denoised, sigma, step.down) * step.rescale;
        if step.up > 0.0 {
            next = next + p.noise(sigma, sigma_next) * (step.up * settings.s_noise);
        }
        p.set_x(next);
    }
}
