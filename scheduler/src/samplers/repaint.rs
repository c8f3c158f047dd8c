use crate::{Builder, Schedule, Settings};

/// Inpainting by a model that knows no masks: Lugmayr et al. 2022, Algorithm 1; diffusers `RePaintScheduler`.
///
/// Every step is DDIM's (eta = 1 is the DDPM of the paper), and then what is known about the image takes its place at the new noise
/// level. Runs of `jump_length` steps are undone by noise and repeated, `jump_n_sample` times in all, so that the rest comes to agree
/// with what is known. As in diffusers one draw serves the step's variance and the known part, which are different parts of x; it is
/// made even where neither needs it.
pub(super) fn repaint(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let steps = schedule.steps();
    let length = jump_length(steps, settings.jump_length);
    // How often the run will still be taken back once this many steps are left: diffusers' `jumps`.
    let mut jumps = vec![0; steps];
    if length > 0 {
        for left in (0..steps - length).step_by(length) {
            jumps[left] = settings.jump_n_sample.saturating_sub(1);
        }
    }
    let mut i = 0;
    while i < steps {
        step(p, schedule, settings, i);
        i += 1;
        let left = steps - i;
        if left < steps && jumps[left] > 0 {
            jumps[left] -= 1;
            jump_back(p, schedule, settings, i, i - length);
            i -= length;
        }
    }
}

/// diffusers makes no jump in a run that is no longer than one. Here half of such a run is a jump.
fn jump_length(steps: usize, wanted: usize) -> usize {
    if wanted < steps { wanted } else { steps / 2 }
}

/// DDIM's step i, and the known part.
fn step(p: &mut Builder, schedule: &Schedule, settings: &Settings, i: usize) {
    let frame = schedule.frame;
    let (sigma, sigma_next) = (schedule.sigmas[i], schedule.sigmas[i + 1]);
    let landing = schedule.landings.as_ref().map_or(sigma_next, |landings| landings[i]);
    let x = p.x();
    let denoised = p.denoise(x, sigma);
    let clipped = p.clip(denoised);
    p.step(sigma, clipped);
    // No increment of one Brownian path: a step that is repeated needs other noise.
    let noise = p.fresh_noise();

    // As in ddim.rs: Song et al. 2021, equations 12 and 16.
    let ratio = landing / sigma * (frame.alpha(sigma) / frame.alpha(landing));
    let sigma_up = settings.eta * landing * (1.0 - ratio * ratio).max(0.0).sqrt();
    let sigma_down = (landing * landing - sigma_up * sigma_up).max(0.0).sqrt();
    let direction = (x - frame.alpha(sigma) * denoised) * (sigma_down / sigma);
    let mut next = frame.alpha(landing) * clipped + direction + noise * (sigma_up * settings.s_noise);
    if settings.constrained {
        next = p.constrain(next, noise, landing);
    }
    let reread = sigma_next.hypot(1.0) / landing.hypot(1.0);
    p.set_x(if landing == sigma_next { next } else { next * reread });
}

/// From before step `from` to before the earlier step `to`, by noise: q(x_hi | x_lo) of the forward process, x' = r·x + √(σ_hi² - r²σ_lo²)·z
/// with r = α_hi/α_lo. That is √(σ_hi² - σ_lo²)·z where the variance explodes, and √(ᾱ_hi/ᾱ_lo)·x + √(1 - ᾱ_hi/ᾱ_lo)·z in a
/// variance-preserving model's own x; flows have α = 1 - σ.
fn jump_back(p: &mut Builder, schedule: &Schedule, settings: &Settings, from: usize, to: usize) {
    if !settings.betas.is_empty() {
        for undone in (to..from).rev() {
            undo_step(p, schedule, settings, undone);
        }
        return;
    }
    let (low, high) = (schedule.sigmas[from], schedule.sigmas[to]);
    if low == high {
        return;
    }
    let ratio = schedule.frame.alpha(high) / schedule.frame.alpha(low);
    let std = (high * high - (ratio * low).powi(2)).max(0.0).sqrt();
    let noise = p.fresh_noise();
    p.set_x(p.x() * ratio + noise * std);
}

/// diffusers' `undo_step` of step i, one draw for every training timestep: x ← √(1-β)·x + √β·z in the model's variance-preserving x.
///
/// It takes β of the timesteps from the step's own upwards, where those below it were taken away. The noise level it arrives at is
/// therefore a little above the one that the next step reads it at, unless steps are single timesteps.
fn undo_step(p: &mut Builder, schedule: &Schedule, settings: &Settings, i: usize) {
    let stride = settings.betas.len() / schedule.full_steps;
    let first = schedule.timesteps[i] as usize;
    // x here is the model's own times √(σ²+1) of the level it is read at.
    let (scale_low, scale_high) = (schedule.sigmas[i + 1].hypot(1.0), schedule.sigmas[i].hypot(1.0));
    for beta in settings.betas.iter().skip(first).take(stride) {
        let noise = p.fresh_noise();
        p.set_x(p.x() * (1.0 - beta).sqrt() + noise * (beta.sqrt() * scale_low));
    }
    p.set_x(p.x() * (scale_high / scale_low));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Op, TimestepMap, sampler};

    /// The steps of diffusers' `RePaintScheduler.set_timesteps`, counted from the start.
    #[test]
    fn jumps() {
        let order = |steps: usize, jump_length: usize, jump_n_sample: usize| -> Vec<usize> {
            let sigmas: Vec<f64> = (0..=steps).rev().map(|i| i as f64).collect();
            let schedule = Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
            let settings = Settings { jump_length, jump_n_sample, ..Settings::default() };
            let program = sampler("repaint").unwrap().program(&schedule, &settings);
            let level = |op: &Op| if let Op::Step { sigma, .. } = op { Some(steps - *sigma as usize) } else { None };
            program.ops().iter().filter_map(level).collect()
        };
        assert_eq!(order(6, 2, 2), [0, 1, 2, 3, 2, 3, 4, 5, 4, 5]);
        assert_eq!(order(3, 1, 3), [0, 1, 1, 1, 2, 2, 2]);
        // No longer than a jump: half of the run is one.
        assert_eq!(order(4, 10, 2), [0, 1, 2, 3, 2, 3]);
        assert_eq!(order(2, 10, 2), [0, 1, 1]);
        assert_eq!(order(1, 10, 10), [0]);
        for (steps, jump_length, jump_n_sample) in [(4, 0, 10), (4, 2, 0), (4, 2, 1)] {
            assert_eq!(order(steps, jump_length, jump_n_sample), [0, 1, 2, 3]);
        }
    }
}
