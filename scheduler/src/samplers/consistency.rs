use crate::{Builder, Schedule, Settings};

/// Multistep consistency sampling: Song et al. 2023, Algorithm 1; diffusers `CMStochasticIterativeScheduler`. The model maps any
/// noise level to the data at `sigma_min`, so noise is added on top of that level. One step is one evaluation, without noise.
pub(super) fn consistency(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let denoised = p.clip(denoised);
        p.step(sigma, denoised);
        let added = (sigma_next * sigma_next - settings.sigma_min * settings.sigma_min).max(0.0).sqrt();
        if i + 1 == schedule.steps() || added == 0.0 {
            p.set_x(denoised);
        } else {
            let noise = p.fresh_noise();
            p.set_x(denoised * frame.alpha(sigma_next) + noise * (added * settings.s_noise));
        }
    }
}

/// One evaluation at the first noise level: Song et al. 2023, section 3. The rest of the schedule does not count.
pub(super) fn one_step(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    let sigma = schedule.sigmas[0];
    let denoised = p.denoise(p.x(), sigma);
    let denoised = p.clip(denoised);
    p.step(sigma, denoised);
    p.set_x(denoised);
}
