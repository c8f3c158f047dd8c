use crate::{Builder, Frame, Schedule, Settings};

/// Multistep consistency sampling by a latent consistency model: Luo et al. 2023, Algorithm 3; diffusers `LCMScheduler`. Every
/// step goes to the clean image and back up with fresh noise.
pub(super) fn lcm(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let mut denoised = p.clip(denoised);
        if let (Some(scaling), Frame::VarianceExploding) = (settings.timestep_scaling, frame) {
            // The boundary condition that the model was distilled with. It applies to the model's own
            // variance-preserving x, with sigma_data = ½.
            let t = schedule.timesteps[i] * scaling;
            let total = t * t + 0.25;
            denoised = denoised * (t / total.sqrt()) + x * (0.25 / total / sigma.hypot(1.0));
        }
        let denoised = p.keep(denoised);
        p.step(sigma, denoised);
        let last = i + 1 == schedule.steps();
        if last || sigma_next == 0.0 {
            p.set_x(denoised);
        } else {
            let noise = p.fresh_noise();
            p.set_x(denoised * frame.alpha(sigma_next) + noise * (sigma_next * settings.s_noise));
        }
    }
}
