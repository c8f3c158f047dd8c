use crate::{Builder, Schedule, Settings, TimestepMap, Variance};

/// Ancestral sampling: Ho et al. 2020, Algorithm 2 and equation 7; diffusers `DDPMScheduler`. Unlike `ddim`, it keeps
/// the noise of the clipped image.
pub(super) fn ddpm(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let denoised = p.clip(denoised);
        p.step(sigma, denoised);
        if sigma == sigma_next {
            continue;
        }
        // The posterior q(x' | x, x0), in σ/α: its mean keeps (σ'/σ)² of x.
        let (alpha, alpha_next) = (frame.alpha(sigma), frame.alpha(sigma_next));
        let ratio = sigma_next / sigma * (alpha / alpha_next);
        let keep = sigma_next / sigma * ratio;
        let mut next = x * keep + denoised * (alpha_next - keep * alpha);
        let std = match settings.variance {
            Variance::Posterior => sigma_next * (1.0 - ratio * ratio).max(0.0).sqrt(),
            // β of the step, in the variance-preserving frame, where it does not vanish with sigma_next.
            Variance::Step => {
                let noise = sigma_next / alpha_next;
                let beta = 1.0 - ((1.0 + noise * noise) / (1.0 + (sigma / alpha).powi(2))).min(1.0);
                alpha_next * beta.sqrt() * noise.hypot(1.0)
            }
        };
        // The step from training timestep 0 adds no noise, even where its variance is not 0.
        let first_timestep = matches!(schedule.map, TimestepMap::Discrete { .. }) && schedule.timesteps[i] <= 0.0;
        if std > 0.0 && !first_timestep {
            next = next + p.noise(sigma, sigma_next) * (std * settings.s_noise);
        }
        p.set_x(next);
    }
}
