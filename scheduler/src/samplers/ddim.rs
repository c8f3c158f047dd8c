use crate::{Builder, Schedule, Settings};

/// Denoising diffusion implicit models: Song et al. 2021, equation 12; diffusers `DDIMScheduler`.
///
/// With eta = 0 this is Euler's method in σ/α. diffusers clips the denoised image but not the noise that goes with it,
/// and the timestep where a step lands follows from its own rule, so it need not be the next entry of the table.
pub(super) fn ddim(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let landing = schedule.landings.as_ref().map_or(sigma_next, |landings| landings[i]);
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let clipped = p.clip(denoised);
        p.step(sigma, clipped);

        // Equation 16 with σ/α in place of √((1-ᾱ)/ᾱ); eta = 1 is DDPM's variance.
        let ratio = landing / sigma * (frame.alpha(sigma) / frame.alpha(landing));
        let sigma_up = settings.eta * landing * (1.0 - ratio * ratio).max(0.0).sqrt();
        let sigma_down = (landing * landing - sigma_up * sigma_up).max(0.0).sqrt();

        // x = α·denoised + σ·noise, so this is the noise times sigma_down.
        let direction = (x - frame.alpha(sigma) * denoised) * (sigma_down / sigma);
        let mut next = frame.alpha(landing) * clipped + direction;
        if sigma_up > 0.0 {
            next = next + p.noise(sigma, landing) * (sigma_up * settings.s_noise);
        }
        // diffusers keeps the same x and reads it at another timestep. In this frame that multiplies x by a factor.
        let reread = landing.hypot(1.0).recip() / sigma_next.hypot(1.0).recip();
        p.set_x(if landing == sigma_next { next } else { next * reread });
    }
}
