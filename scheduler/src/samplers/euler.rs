use super::steps::churn;
use crate::{Builder, Schedule, Settings};

/// Euler's method on the probability-flow ODE: Karras et al. 2022, Algorithm 1 without its correction; k-diffusion
/// `sample_euler`, diffusers `EulerDiscreteScheduler`.
pub(super) fn euler(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    for (sigma, sigma_next) in schedule.pairs() {
        let sigma = churn(p, schedule, settings, sigma);
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let d = (x - denoised) / sigma;
        p.set_x(x + d * (sigma_next - sigma));
    }
}
