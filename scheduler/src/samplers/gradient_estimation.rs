use crate::{Builder, Expr, Schedule, Settings};

/// Euler's method with the derivative extrapolated from the last two, x' = γ·d + (1-γ)·d_old with γ = 2: Permenter & Yuan 2024,
/// Algorithm 2; ComfyUI `gradient_estimation`.
pub(super) fn gradient_estimation(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    const GAMMA: f64 = 2.0;
    let mut before: Option<Expr> = None;
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let d = p.keep((x - denoised) / sigma);
        let d_bar = match before {
            Some(before) if sigma_next > 0.0 => d * GAMMA + before * (1.0 - GAMMA),
            // The step to sigma 0 lands on the denoised image.
            _ => d,
        };
        p.set_x(x + d_bar * (sigma_next - sigma));
        before = Some(d);
    }
}
