//! The pieces that several samplers are made of.

use crate::{Builder, Expr, Frame, Schedule, Settings};

/// The first-order step in either frame: the noise that x and its denoised image imply is put back at another level.
/// DDIM, Euler's method in σ and a first-order exponential integrator are all this step.
pub(super) fn first_order(frame: Frame, x: Expr, denoised: Expr, from: f64, to: f64) -> Expr {
    let ratio = to / from;
    x * ratio + denoised * (frame.alpha(to) - frame.alpha(from) * ratio)
}

/// An ancestral step: go down to `down` without noise, multiply by `rescale`, and add `up` times noise. The result has
/// the marginal of the next sigma.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ancestral {
    pub(super) down: f64,
    pub(super) rescale: f64,
    pub(super) up: f64,
}

/// k-diffusion's `get_ancestral_step`, in σ/α so that it holds in both frames. eta = 1 is the variance of DDPM's posterior.
pub(super) fn ancestral(frame: Frame, from: f64, to: f64, eta: f64) -> Ancestral {
    let (from_alpha, to_alpha) = (frame.alpha(from), frame.alpha(to));
    if eta == 0.0 || to == 0.0 || from == to {
        return Ancestral { down: to, rescale: 1.0, up: 0.0 };
    }
    let noise = to / to_alpha;
    let ratio = (to / from) * (from_alpha / to_alpha);
    let up = (eta * noise * (1.0 - ratio * ratio).max(0.0).sqrt()).min(noise);
    let down = (noise * noise - up * up).max(0.0).sqrt();
    match frame {
        Frame::VarianceExploding => Ancestral { down, rescale: 1.0, up },
        Frame::Flow => {
            // The sigma of this frame at which σ/α is `down`.
            let down = down / (1.0 + down);
            Ancestral { down, rescale: to_alpha / frame.alpha(down), up: up * to_alpha }
        }
    }
}

/// Ends an ancestral step: adds the step's noise to `next`, which is at the level `step.down`, and sets x to the
/// result.
pub(super) fn renoise(p: &mut Builder, next: Expr, step: Ancestral, from: f64, to: f64, settings: &Settings) {
    let mut next = next * step.rescale;
    if step.up > 0.0 {
        next = next + p.noise(from, to) * (step.up * settings.s_noise);
    }
    p.set_x(next);
}

/// A whole step of the posterior, q(x' | x, x0). Samplers of the reverse SDE use it to leave pure noise, where their
/// own σ/α is infinite.
pub(super) fn posterior(
    p: &mut Builder,
    frame: Frame,
    x: Expr,
    denoised: Expr,
    from: f64,
    to: f64,
    settings: &Settings,
) {
    let step = ancestral(frame, from, to, 1.0);
    renoise(p, first_order(frame, x, denoised, from, step.down), step, from, to, settings);
}

/// Karras et al. 2022, Algorithm 2, lines 4 to 6; k-diffusion's `s_churn`: adds noise to x up to a higher level and
/// returns this level, where the step then starts. Without churn it returns sigma and adds nothing.
pub(super) fn churn(p: &mut Builder, schedule: &Schedule, settings: &Settings, sigma: f64) -> f64 {
    if settings.s_churn <= 0.0 || !(settings.s_tmin..=settings.s_tmax).contains(&sigma) {
        return sigma;
    }
    // k-diffusion divides by the number of sigmas less one, which is the number of steps.
    let gamma = (settings.s_churn / schedule.full_steps as f64).min(2.0_f64.sqrt() - 1.0);
    let (sigma_hat, rescale, up) = raise(schedule.frame, sigma, gamma);
    if up > 0.0 {
        let noise = p.fresh_noise();
        p.set_x(p.x() * rescale + noise * (up * settings.s_noise));
    }
    sigma_hat
}

/// The level (1+γ)·σ, and the factors on x and on the added noise that bring x to this level.
fn raise(frame: Frame, sigma: f64, gamma: f64) -> (f64, f64, f64) {
    let wanted = sigma * (1.0 + gamma);
    let raised = match frame {
        Frame::VarianceExploding => wanted,
        // At most half of the way to pure noise.
        Frame::Flow => wanted.min(0.5 * (sigma + 1.0)),
    };
    if raised <= sigma {
        return (sigma, 1.0, 0.0);
    }
    let rescale = frame.alpha(raised) / frame.alpha(sigma);
    (raised, rescale, (raised * raised - (sigma * rescale).powi(2)).sqrt())
}

/// h divided by an earlier step's; 0 where the earlier one is infinite (a flow's first sigma is 1, where λ = -∞) or has no length.
pub(super) fn inverse_ratio(h: f64, earlier: f64) -> f64 {
    if earlier.is_infinite() || earlier == 0.0 { 0.0 } else { h / earlier }
}

/// 1 - e^-h, (e^-h - 1)/h + 1 and (e^-h - 1 + h)/h² - ½: the weights of a data-prediction method's constant, linear and
/// quadratic parts (Lu et al. 2022b, equation 9), by their series where the closed forms cancel.
pub(super) fn phis(h: f64) -> (f64, f64, f64) {
    if h == f64::INFINITY {
        return (1.0, 1.0, -0.5);
    }
    let phi_1 = -(-h).exp_m1();
    if h.abs() < 1e-2 {
        let phi_2 = h / 2.0 * (1.0 - h / 3.0 * (1.0 - h / 4.0 * (1.0 - h / 5.0 * (1.0 - h / 6.0 * (1.0 - h / 7.0)))));
        let phi_3 = -h / 6.0 * (1.0 - h / 4.0 * (1.0 - h / 5.0 * (1.0 - h / 6.0 * (1.0 - h / 7.0 * (1.0 - h / 8.0)))));
        return (phi_1, phi_2, phi_3);
    }
    (phi_1, 1.0 - phi_1 / h, (h - phi_1) / (h * h) - 0.5)
}

/// λ at the next sigma minus λ here; 0 for two equal sigmas, even where both λ are infinite.
pub(super) fn lambda_step(frame: Frame, sigma: f64, sigma_next: f64) -> f64 {
    if sigma == sigma_next { 0.0 } else { frame.lambda(sigma_next) - frame.lambda(sigma) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_meet_the_closed_forms() {
        for h in [0.0099_f64, -0.0099] {
            let (phi_1, phi_2, phi_3) = phis(h);
            assert!((phi_2 - (1.0 - phi_1 / h)).abs() < 1e-12);
            assert!((phi_3 - ((h - phi_1) / (h * h) - 0.5)).abs() < 1e-10);
        }
        assert_eq!(phis(0.0), (0.0, 0.0, 0.0));
    }

    /// down, rescale and up keep the total noise and the image's share.
    #[test]
    fn ancestral_steps_keep_the_marginal() {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            for (from, to) in [(0.9, 0.5), (1.0, 0.7), (0.3, 0.01), (0.5, 0.0), (1.0, 1.0)] {
                for eta in [0.0, 0.4, 1.0] {
                    let step = ancestral(frame, from, to, eta);
                    let image = frame.alpha(step.down) * step.rescale;
                    let noise = (step.down * step.rescale).hypot(step.up);
                    assert!(
                        (image - frame.alpha(to)).abs() < 1e-12 && (noise - to).abs() < 1e-12,
                        "{frame:?} {from} {to}"
                    );
                }
            }
        }
    }
}
