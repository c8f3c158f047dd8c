//! Samplers from an image to the noise from which a deterministic sampler makes this image: the probability-flow ODE,
//! followed upwards.
//!
//! These samplers follow a schedule from its last entry to its first. x starts as the image at the last sigma and ends
//! at the first, close to noise times that sigma. From there `ddim` and `heun` lead back to the image.

use super::steps::first_order;
use crate::{Builder, Frame, Schedule, Settings};

/// DDIM inversion: Song et al. 2021, section 4.3; diffusers `DDIMInverseScheduler`. As in diffusers, each step takes
/// the model's noise at the level it goes to, because at a last sigma of 0 the model predicts no noise.
pub(super) fn ddim_inverse(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (low, high) in upwards(schedule) {
        let x = p.x();
        // The network gets the same input, although it is told another level. In this frame its input is x / √(σ²+1),
        // so the same input means another x.
        let told = match frame {
            Frame::VarianceExploding => p.keep(x * (high.hypot(1.0) / low.hypot(1.0))),
            Frame::Flow => x,
        };
        let denoised = p.denoise(told, high);
        let noise = (told - denoised * frame.alpha(high)) / high;
        let noise = if settings.velocity {
            // v is read as noise at the level of x.
            let v = (noise - denoised * high) / high.hypot(1.0);
            (v + x * (low / low.hypot(1.0))) / low.hypot(1.0)
        } else {
            noise
        };
        let noise = p.keep(noise);
        let image = p.keep((x - noise * low) / frame.alpha(low));
        let image = p.clip(image);
        p.step(low, denoised);
        p.set_x(image * frame.alpha(high) + noise * high);
    }
}

/// Heun's method upwards: Karras et al. 2022, Algorithm 1 with ascending sigmas. At a last sigma of 0 there is no
/// derivative, so the first step takes the derivative at the level that it goes to.
pub(super) fn heun_inverse(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    let frame = schedule.frame;
    for (low, high) in upwards(schedule) {
        let x = p.x();
        if low == 0.0 {
            let raised = p.keep(x * frame.alpha(high));
            let denoised = p.denoise(raised, high);
            p.step(low, denoised);
            p.set_x(raised * 2.0 - denoised * frame.alpha(high));
            continue;
        }
        let denoised = p.denoise(x, low);
        p.step(low, denoised);
        let x_2 = p.keep(first_order(frame, x, denoised, low, high));
        let denoised_2 = p.denoise(x_2, high);
        let d = ((x - denoised) / low + (x_2 - denoised_2) / high) / 2.0;
        p.set_x(x + d * (high - low));
    }
}

/// (from, to) of every step, ascending.
fn upwards(schedule: &Schedule) -> impl Iterator<Item = (f64, f64)> + '_ {
    schedule.sigmas.windows(2).rev().map(|pair| (pair[1], pair[0]))
}
