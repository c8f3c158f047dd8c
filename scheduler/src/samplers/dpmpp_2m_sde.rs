use super::dpmpp_2m::{History, order_of_step};
use super::steps::lambda_step;
use crate::{Builder, Schedule, Settings, SolverType};

/// DPM-Solver++(2M) for the reverse SDE; k-diffusion `sample_dpmpp_2m_sde`, diffusers `DPMSolverMultistepScheduler` with
/// `sde-dpmsolver++`. eta = 0 is `dpmpp_2m`.
pub(super) fn dpmpp_2m_sde(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    multistep_sde(p, schedule, settings);
}

/// ComfyUI `dpmpp_2m_sde_heun`: k-diffusion's with `solver_type` heun.
pub(super) fn dpmpp_2m_sde_heun(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    multistep_sde(p, schedule, &Settings { solver_type: SolverType::Heun, ..settings.clone() });
}

/// DPM-Solver++(3M) for the reverse SDE; k-diffusion `sample_dpmpp_3m_sde`. Its second-order start is of the `heun` type.
pub(super) fn dpmpp_3m_sde(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let settings = Settings { solver_order: 3, solver_type: SolverType::Heun, ..settings.clone() };
    multistep_sde(p, schedule, &settings);
}

fn multistep_sde(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    let eta = settings.eta;
    let mut history = History::default();
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let m0 = p.clip(denoised);
        p.step(sigma, m0);
        let h = lambda_step(frame, sigma, sigma_next);
        let order = order_of_step(i, sigma_next, schedule, settings);
        let target = history.target(order, m0, h, h * (1.0 + eta), settings.solver_type);
        // The share e^-ηh of the old noise is kept, and fresh noise makes up for the rest of its variance.
        let kept = if eta == 0.0 { 1.0 } else { (-eta * h).exp() };
        let mut next = x * (sigma_next / sigma * kept) + target * frame.alpha(sigma_next);
        let fresh = sigma_next * (1.0 - kept * kept).max(0.0).sqrt();
        if fresh > 0.0 {
            next = next + p.noise(sigma, sigma_next) * (fresh * settings.s_noise);
        }
        p.set_x(next);
        history.push(h, m0);
    }
}
