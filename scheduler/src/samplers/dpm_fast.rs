use super::dpm_adaptive::ends;
use super::dpm_solver::Singlestep;
use crate::{Builder, Schedule, Settings};

/// DPM-Solver-fast: Lu et al. 2022a, section 3.4; k-diffusion `sample_dpm_fast` (eta 0). As many evaluations as the schedule has
/// steps, in steps of order 3 equally long in λ, and one of order 2 or 1 for what is left. Of the schedule only the ends count; a
/// last sigma of 0 takes one evaluation more.
pub(super) fn dpm_fast(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    let frame = schedule.frame;
    let evaluations = schedule.steps();
    let (start, end) = ends(p, schedule);
    let count = evaluations / 3 + 1;
    let mut orders = vec![3; count - 1];
    match evaluations % 3 {
        0 => {
            orders.pop();
            orders.extend([2, 1]);
        }
        rest => orders.push(rest),
    }
    let h = (end - start) / orders.len() as f64;
    if start < end {
        for (i, order) in orders.into_iter().enumerate() {
            let lambda = start + i as f64 * h;
            let x = p.x();
            let sigma = frame.sigma_at_lambda(lambda);
            let denoised = p.denoise(x, sigma);
            p.step(sigma, denoised);
            let step = Singlestep::new(frame, lambda, h, x, denoised);
            let next = match order {
                1 => step.first(),
                2 => {
                    let difference = step.difference(p, 0.5);
                    step.second(0.5, difference)
                }
                _ => {
                    let difference = step.difference(p, 1.0 / 3.0);
                    step.third(p, difference)
                }
            };
            p.set_x(next);
        }
    }
    if schedule.sigmas.last() == Some(&0.0) {
        let sigma = frame.sigma_at_lambda(end);
        let denoised = p.denoise(p.x(), sigma);
        p.step(sigma, denoised);
        p.set_x(denoised);
    }
}
