use crate::{Builder, Expr, Schedule, Settings};

/// Most derivatives remembered.
const ORDER: usize = 4;

/// The linear multistep (Adams-Bashforth) method with the steps' own lengths; k-diffusion `sample_lms`, diffusers
/// `LMSDiscreteScheduler`.
pub(super) fn lms(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    let sigmas: Vec<f64> = schedule.before.iter().chain(&schedule.sigmas).copied().collect();
    // Latest first.
    let mut derivatives: Vec<Expr> = Vec::new();
    for (i, (sigma, _)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let d = p.keep((x - denoised) / sigma);
        derivatives.insert(0, d);
        derivatives.truncate(ORDER);
        let i = i + schedule.before.len();
        // diffusers starts the tail of a schedule with the weights of the whole schedule. Weights of derivatives that
        // were never computed are left out.
        let order = (i + 1).min(ORDER);
        // Two equal sigmas give no second point to extrapolate from.
        let distinct = (1..order).take_while(|k| sigmas[i - k] != sigmas[i - k + 1]).count() + 1;
        let past: Vec<f64> = (0..distinct).map(|k| sigmas[i - k]).collect();
        let weights = adams_bashforth(&past, sigmas[i + 1]);
        let change: Expr = weights.iter().zip(&derivatives).map(|(&w, &d)| d * w).sum();
        p.set_x(x + change);
    }
}

/// ∫ from `past[0]` to `to` of each Lagrange polynomial through the points `past`.
fn adams_bashforth(past: &[f64], to: f64) -> Vec<f64> {
    // Four Gauss-Legendre nodes integrate polynomials up to degree 7 exactly.
    const NODES: [(f64, f64); 4] = [
        (-0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
        (-0.339_981_043_584_856_26, 0.652_145_154_862_546_2),
        (0.339_981_043_584_856_26, 0.652_145_154_862_546_2),
        (0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
    ];
    let (middle, half) = ((past[0] + to) / 2.0, (to - past[0]) / 2.0);
    (0..past.len())
        .map(|j| {
            let polynomial = |tau: f64| -> f64 {
                (0..past.len()).filter(|&k| k != j).map(|k| (tau - past[k]) / (past[j] - past[k])).product()
            };
            half * NODES.iter().map(|(node, weight)| weight * polynomial(middle + half * node)).sum::<f64>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::adams_bashforth;

    /// On equal steps the weights are the classical ones.
    #[test]
    fn classical_weights() {
        let cases: [(&[f64], &[f64]); 3] = [
            (&[0.0], &[1.0]),
            (&[0.0, -1.0], &[1.5, -0.5]),
            (&[0.0, -1.0, -2.0, -3.0], &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0]),
        ];
        for (past, expected) in cases {
            for (ours, theirs) in adams_bashforth(past, 1.0).iter().zip(expected) {
                assert!((ours - theirs).abs() < 1e-14, "{past:?}: {ours} {theirs}");
            }
        }
    }
}
