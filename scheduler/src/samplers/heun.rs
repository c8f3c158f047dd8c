use super::steps::churn;
use crate::{Builder, Schedule, Settings};

/// Heun's method on the probability-flow ODE: Karras et al. 2022, Algorithm 1; k-diffusion `sample_heun`, diffusers
/// `HeunDiscreteScheduler`. The step to sigma 0 is Euler's. With churn, which `edm_heun` has by default, it is Algorithm 2.
pub(super) fn heun(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    for (sigma, sigma_next) in schedule.pairs() {
        let sigma = churn(p, schedule, settings, sigma);
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let denoised = p.clip(denoised);
        p.step(sigma, denoised);
        let d = (x - denoised) / sigma;
        let x_2 = x + d * (sigma_next - sigma);
        if sigma_next == 0.0 {
            p.set_x(x_2);
            continue;
        }
        let x_2 = p.keep(x_2);
        let denoised_2 = p.denoise(x_2, sigma_next);
        let denoised_2 = p.clip(denoised_2);
        let d_2 = (x_2 - denoised_2) / sigma_next;
        p.set_x(x + (d + d_2) / 2.0 * (sigma_next - sigma));
    }
}
