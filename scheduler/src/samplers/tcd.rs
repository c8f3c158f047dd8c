use super::steps::first_order;
use crate::{Builder, Schedule, Settings};

/// Strategic stochastic sampling by a trajectory consistency model: Zheng et al. 2024, Algorithm 4; diffusers `TCDScheduler`. Every
/// step goes down further than the next sigma and comes back up to it with fresh noise; eta = 0 does not go further.
pub(super) fn tcd(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        // In diffusers the timestep is lowered by the factor 1 - eta; without timesteps, the sigma.
        let down = match &schedule.landings {
            Some(landings) => landings[i],
            None => (1.0 - settings.eta).max(0.0) * sigma_next,
        };
        if i + 1 == schedule.steps() || down >= sigma_next {
            p.set_x(first_order(frame, x, denoised, sigma, down.min(sigma_next)));
            continue;
        }
        let rescale = frame.alpha(sigma_next) / frame.alpha(down);
        let up = (sigma_next * sigma_next - (down * rescale).powi(2)).max(0.0).sqrt();
        let noise = p.fresh_noise();
        p.set_x(first_order(frame, x, denoised, sigma, down) * rescale + noise * (up * settings.s_noise));
    }
}
