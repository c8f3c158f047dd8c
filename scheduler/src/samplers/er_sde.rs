use super::steps::posterior;
use crate::{Builder, Expr, Schedule, Settings};

/// ER-SDE-Solver-3: Cui et al. 2023, Algorithm 3, with the noise scale φ(λ) = λ·(exp(λ^0.3) + 10) of its section 4, λ being σ/α; ComfyUI
/// `er_sde`. The reverse SDE whose old noise shrinks as φ, Taylor-expanded in λ by differences of the last three denoised images.
///
/// ComfyUI sums the integrals of 1/φ over 200 left ends, which are good to half a percent; here they are Simpson's.
pub(super) fn er_sde(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    // (λ, denoised, its first difference), latest first.
    let mut history: Vec<(f64, Expr, Option<Expr>)> = Vec::new();
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let (alpha, alpha_next) = (frame.alpha(sigma), frame.alpha(sigma_next));
        let (from, to) = (sigma / alpha, sigma_next / alpha_next);
        let mut difference = None;
        if sigma_next == 0.0 {
            p.set_x(denoised);
        } else if from == to {
            continue;
        } else if alpha == 0.0 {
            // From pure noise the ratio of noise scales is 0.
            posterior(p, frame, x, denoised, sigma, sigma_next, settings);
        } else {
            let r = noise_ratio(to, from);
            let mut next = x * (alpha_next / alpha * r) + denoised * (alpha_next * (1.0 - r));
            if let Some(&(before, denoised_before, difference_before)) = history.first() {
                let dt = to - from;
                let first = p.keep((denoised - denoised_before) / (from - before));
                difference = Some(first);
                let ratio = |u: f64| noise_ratio(to, u);
                next = next + first * (alpha_next * (dt + simpson(to, from, ratio)));
                if let (Some(difference_before), Some(&(two_before, ..))) = (difference_before, history.get(1)) {
                    let second = (first - difference_before) / (0.5 * (from - two_before));
                    let weight = 0.5 * dt * dt + simpson(to, from, |u| (u - from) * ratio(u));
                    next = next + second * (alpha_next * weight);
                }
            }
            let up = (to * to - (from * r).powi(2)).max(0.0).sqrt();
            if up > 0.0 {
                next = next + p.noise(sigma, sigma_next) * (alpha_next * up * settings.s_noise);
            }
            p.set_x(next);
        }
        // Where λ is infinite, no difference can be taken.
        if from.is_finite() {
            history.insert(0, (from, denoised, difference));
            history.truncate(2);
        }
    }
}

/// φ(λ)/φ(λ'), for λ' ≥ λ. φ itself overflows at large λ.
fn noise_ratio(lambda: f64, above: f64) -> f64 {
    let (power, power_above) = (lambda.powf(0.3), above.powf(0.3));
    // Both divided by the larger's exponential.
    let scale = |power: f64| (power - power_above).exp() + 10.0 * (-power_above).exp();
    lambda / above * (scale(power) / scale(power_above))
}

/// ∫ f from a to b by Simpson's rule, over equal steps in ln u: a step may cross several orders of magnitude.
fn simpson(a: f64, b: f64, f: impl Fn(f64) -> f64) -> f64 {
    const INTERVALS: usize = 200;
    let h = (b / a).ln() / INTERVALS as f64;
    let term = |i: usize| {
        let u = a * (i as f64 * h).exp();
        let weight = if i == 0 || i == INTERVALS { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
        weight * f(u) * u
    };
    (0..=INTERVALS).map(term).sum::<f64>() * h / 3.0
}

#[cfg(test)]
mod tests {
    use super::{noise_ratio, simpson};

    #[test]
    fn ratios_of_any_level() {
        let phi = |lambda: f64| lambda * (lambda.powf(0.3).exp() + 10.0);
        for (low, high) in [(0.01, 0.02), (0.5, 80.0), (3.0, 3.0)] {
            assert!((noise_ratio(low, high) / (phi(low) / phi(high)) - 1.0).abs() < 1e-14);
        }
        assert_eq!(noise_ratio(1e11, 1e12), 0.0);
    }

    #[test]
    fn integrals_of_powers() {
        assert!((simpson(0.5, 3.0, |u| u * u) - (27.0 - 0.125) / 3.0).abs() < 1e-7);
        assert!((simpson(1e-3, 1e3, |u| 1.0 / u) - f64::ln(1e6)).abs() < 1e-12);
    }
}
