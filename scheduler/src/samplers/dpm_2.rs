use super::steps::{ancestral, churn, renoise};
use crate::{Builder, Schedule, Settings};

/// The midpoint method with the middle in ln σ: DPM-Solver-2 (Lu et al. 2022a) in the manner of Karras et al. 2022; k-diffusion
/// `sample_dpm_2`, diffusers `KDPM2DiscreteScheduler`. The step to sigma 0 is Euler's.
pub(super) fn dpm_2(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    midpoint(p, schedule, &Settings { eta: 0.0, ..settings.clone() });
}

/// The same with fresh noise in every step; k-diffusion `sample_dpm_2_ancestral`, diffusers
/// `KDPM2AncestralDiscreteScheduler`.
pub(super) fn dpm_2_ancestral(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    midpoint(p, schedule, &Settings { s_churn: 0.0, ..settings.clone() });
}

fn midpoint(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    for (sigma, sigma_next) in schedule.pairs() {
        let sigma = churn(p, schedule, settings, sigma);
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let step = ancestral(schedule.frame, sigma, sigma_next, settings.eta);
        let d = (x - denoised) / sigma;
        if step.down == 0.0 {
            p.set_x(x + d * (step.down - sigma));
            continue;
        }
        let sigma_mid = (sigma * step.down).sqrt();
        let x_2 = p.keep(x + d * (sigma_mid - sigma));
        let denoised_2 = p.denoise(x_2, sigma_mid);
        let d_2 = (x_2 - denoised_2) / sigma_mid;
        renoise(p, x + d_2 * (step.down - sigma), step, sigma, sigma_next, settings);
    }
}
