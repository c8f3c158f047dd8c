use super::steps::raise;
use crate::{Builder, Schedule, Settings};

/// Heun's method with churn: Karras et al. 2022, Algorithm 2; k-diffusion `sample_heun` with `s_churn`. Before each step noise is
/// added up to a higher level, from which the step then starts.
pub(super) fn edm_heun(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let churned = (settings.s_tmin..=settings.s_tmax).contains(&sigma) && settings.s_churn > 0.0;
        // k-diffusion divides by the number of sigmas less one, which is that of steps.
        let gamma =
            if churned { (settings.s_churn / schedule.full_steps as f64).min(2.0_f64.sqrt() - 1.0) } else { 0.0 };
        let (sigma_hat, rescale, up) = raise(frame, sigma, gamma);
        if up > 0.0 {
            let noise = p.fresh_noise();
            p.set_x(p.x() * rescale + noise * (up * settings.s_noise));
        }
        let x = p.x();
        let denoised = p.denoise(x, sigma_hat);
        p.step(sigma_hat, denoised);
        let d = (x - denoised) / sigma_hat;
        let x_2 = x + d * (sigma_next - sigma_hat);
        if sigma_next == 0.0 {
            p.set_x(x_2);
            continue;
        }
        let x_2 = p.keep(x_2);
        let denoised_2 = p.denoise(x_2, sigma_next);
        let d_2 = (x_2 - denoised_2) / sigma_next;
        p.set_x(x + (d + d_2) / 2.0 * (sigma_next - sigma_hat));
    }
}
