use super::steps::posterior;
use crate::{Builder, Schedule, Settings};

/// Euler-Maruyama on the reverse SDE, with ln σ as its time: Song et al. 2021b, section 4.1; score_sde `EulerMaruyamaPredictor` for
/// its variance-exploding SDE. The last step to sigma 0 is the denoised image.
pub(super) fn euler_maruyama(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    // g² dt = 2 σ² d(ln σ), at the start of the step.
    reverse(p, schedule, settings, |noise, noise_next| 2.0 * noise * noise * (noise / noise_next).ln());
}

/// The reverse SDE discretised as the forward one was: Song et al. 2021b, appendix E, equation 46; score_sde
/// `ReverseDiffusionPredictor`.
pub(super) fn reverse_diffusion(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    reverse(p, schedule, settings, |noise, noise_next| noise * noise - noise_next * noise_next);
}

/// x' = x + v·score + √v·z in σ/α, with v the variance that the step takes away.
fn reverse(p: &mut Builder, schedule: &Schedule, settings: &Settings, variance: impl Fn(f64, f64) -> f64) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let (alpha, alpha_next) = (frame.alpha(sigma), frame.alpha(sigma_next));
        if sigma_next == 0.0 {
            p.set_x(denoised);
        } else if alpha == 0.0 {
            // From pure noise the variance to take away is infinite.
            posterior(p, frame, x, denoised, sigma, sigma_next, settings);
        } else {
            let noise_level = sigma / alpha;
            let v = variance(noise_level, sigma_next / alpha_next);
            let share = v / (noise_level * noise_level);
            let mut next = x * (alpha_next / alpha * (1.0 - share)) + denoised * (alpha_next * share);
            if v > 0.0 {
                next = next + p.noise(sigma, sigma_next) * (alpha_next * v.sqrt() * settings.s_noise);
            }
            p.set_x(next);
        }
    }
}
