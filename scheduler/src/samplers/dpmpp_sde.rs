use super::steps::{ancestral, first_order};
use crate::{Builder, Schedule, Settings};

/// DPM-Solver++ for the reverse SDE, two evaluations a step (r = ½); k-diffusion `sample_dpmpp_sde`, diffusers
/// `DPMSolverSDEScheduler`. Both take their noise from a Brownian path, on which the increment over a step contains
/// that over its half; here the two halves are drawn and added, so that the increments fit together with every driver.
/// (With independent ones the weak order is 1.)
pub(super) fn dpmpp_sde(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let lambda_mid = 0.5 * (frame.lambda(sigma) + frame.lambda(sigma_next));
        let mut target = denoised;
        let mut first_half = None;
        if lambda_mid.is_finite() {
            let sigma_mid = frame.sigma_at_lambda(lambda_mid);
            let half = ancestral(frame, sigma, sigma_mid, settings.eta);
            let mut x_2 = first_order(frame, x, denoised, sigma, half.down) * half.rescale;
            if half.up > 0.0 {
                let noise = p.noise(sigma, sigma_mid);
                first_half = Some((sigma_mid, noise));
                x_2 = x_2 + noise * (half.up * settings.s_noise);
            }
            target = p.denoise(x_2, sigma_mid);
        }
        let step = ancestral(frame, sigma, sigma_next, settings.eta);
        let mut next = first_order(frame, x, target, sigma, step.down) * step.rescale;
        if step.up > 0.0 {
            let noise = match first_half {
                None => p.noise(sigma, sigma_next),
                // The path over the whole step is the path over its halves, in the time of the Brownian motion, which is sigma.
                Some((sigma_mid, noise)) => {
                    let share = (sigma - sigma_mid) / (sigma - sigma_next);
                    noise * share.sqrt() + p.noise(sigma_mid, sigma_next) * (1.0 - share).sqrt()
                }
            };
            next = next + noise * (step.up * settings.s_noise);
        }
        p.set_x(next);
    }
}
