use super::dpmpp_2m::order_of_step;
use super::steps::first_order;
use crate::{Builder, Expr, Schedule, Settings};

/// DEIS: Zhang & Chen 2023, the log-ρ multistep variant; diffusers `DEISMultistepScheduler`. The predicted noise is extrapolated
/// by polynomials in ln ρ, ρ = σ/α, and integrated over ρ exactly.
pub(super) fn deis(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    // (ρ, noise), latest first.
    let mut history: Vec<(f64, Expr)> = Vec::new();
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let denoised = p.clip(denoised);
        p.step(sigma, denoised);
        let (alpha, alpha_next) = (frame.alpha(sigma), frame.alpha(sigma_next));
        let (rho, rho_next) = (sigma / alpha, sigma_next / alpha_next);
        let noise = p.keep((x - denoised * alpha) / sigma);
        history.retain(|(earlier, _)| earlier.is_finite() && *earlier != rho);
        history.insert(0, (rho, noise));
        history.truncate(settings.solver_order);
        let order = order_of_step(i, sigma_next, schedule, settings).min(history.len());
        if order == 1 || rho.is_infinite() {
            p.set_x(first_order(frame, x, denoised, sigma, sigma_next));
            continue;
        }
        let past: Vec<f64> = history[..order].iter().map(|(rho, _)| rho.ln()).collect();
        let weights = (0..order).map(|j| {
            let integral = |rho: f64| antiderivative(rho, &past, j);
            integral(rho_next) - integral(rho)
        });
        let change: Expr = weights.zip(&history).map(|(weight, &(_, noise))| noise * weight).sum();
        p.set_x((x / alpha + change) * alpha_next);
    }
}

/// ∫ over ρ of the Lagrange polynomial in ln ρ that is 1 at `past[j]` and 0 at the others; of degree 1 or 2.
fn antiderivative(rho: f64, past: &[f64], j: usize) -> f64 {
    let l = rho.ln();
    let others: Vec<f64> = (0..past.len()).filter(|&k| k != j).map(|k| past[k]).collect();
    let scale: f64 = others.iter().map(|other| past[j] - other).product();
    // ∫ ln ρ = ρ(l - 1), ∫ ln² ρ = ρ(l² - 2l + 2).
    let value = match others[..] {
        [c] => l - 1.0 - c,
        [c, d] => l * l - 2.0 * l + 2.0 - (c + d) * (l - 1.0) + c * d,
        _ => 1.0,
    };
    rho * value / scale
}
