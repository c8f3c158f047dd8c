use crate::{Builder, Expr, Schedule, Settings};

/// Improved pseudo linear multistep: Zhang & Chen 2023, section 3; ComfyUI `ipndm`. Adams-Bashforth of order 4, started
/// by lower orders. The weights are always those of equal steps.
pub(super) fn ipndm(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    // Latest first.
    let mut derivatives: Vec<Expr> = Vec::new();
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let d = p.keep((x - denoised) / sigma);
        derivatives.insert(0, d);
        derivatives.truncate(4);
        let combined = match derivatives[..] {
            // The step to sigma 0 lands on the denoised image.
            _ if sigma_next == 0.0 => d,
            [d0, d1, d2, d3] => (d0 * 55.0 - d1 * 59.0 + d2 * 37.0 - d3 * 9.0) / 24.0,
            [d0, d1, d2] => (d0 * 23.0 - d1 * 16.0 + d2 * 5.0) / 12.0,
            [d0, d1] => (d0 * 3.0 - d1) / 2.0,
            _ => d,
        };
        p.set_x(x + combined * (sigma_next - sigma));
    }
}
