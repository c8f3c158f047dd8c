use crate::{Builder, Expr, Schedule, Settings};

/// iPNDM with weights that follow the steps' lengths: Zhou et al. 2024, diff-sampler's and ComfyUI's
/// `ipndm_v`.
///
/// In the published method and in both programs, two signs differ from Adams-Bashforth: the third-order term multiplies
/// what it should subtract first (which is the same on equal steps), and the fourth-order one adds a part that it
/// should subtract. So it is of second order. The signs are kept, so that the same model gives the same picture. `lms`
/// is Adams-Bashforth.
pub(super) fn ipndm_v(p: &mut Builder, schedule: &Schedule, _: &Settings) {
    let sigmas = &schedule.sigmas;
    // Latest first.
    let mut derivatives: Vec<Expr> = Vec::new();
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let d = p.keep((x - denoised) / sigma);
        derivatives.insert(0, d);
        derivatives.truncate(4);
        // Lengths of this step and of the steps before it, up to the first of length 0.
        let lengths: Vec<f64> =
            (0..derivatives.len()).map(|k| sigmas[i + 1 - k] - sigmas[i - k]).take_while(|h| *h != 0.0).collect();
        let combined = if sigma_next == 0.0 {
            // The step to sigma 0 lands on the denoised image.
            d
        } else {
            weights(&lengths).iter().zip(&derivatives).map(|(&weight, &d)| d * weight).sum()
        };
        p.set_x(x + combined * (sigma_next - sigma));
    }
}

/// Weights of the latest derivatives, for steps of these lengths, latest first.
fn weights(lengths: &[f64]) -> Vec<f64> {
    let third = |h: f64, h1: f64, h2: f64| (1.0 - h / (3.0 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2.0;
    match *lengths {
        [h, h1] => vec![1.0 + h / h1 / 2.0, -h / h1 / 2.0],
        [h, h1, h2] => {
            let t = third(h, h1, h2);
            vec![1.0 + h / h1 / 2.0 + t, -h / h1 / 2.0 - (1.0 + h1 / h2) * t, t * h1 / h2]
        }
        [h, h1, h2, h3] => {
            let t = third(h, h1, h2);
            let inner = (1.0 - h / (3.0 * (h + h1))) / 2.0 + (1.0 - h / (2.0 * (h + h1))) * h / (6.0 * (h + h1 + h2));
            let fourth = inner * (h * (h + h1) * (h + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3));
            // The ratio of the lengths over which the last two differences extend.
            let reach = h1 * (h1 + h2) / (h2 * (h2 + h3));
            vec![
                1.0 + h / h1 / 2.0 + t + fourth,
                -h / h1 / 2.0 - (1.0 + h1 / h2) * t - (1.0 + h1 / h2 + reach) * fourth,
                t * h1 / h2 + (h1 / h2 + reach * (1.0 + h2 / h3)) * fourth,
                -fourth * reach * h1 / h2,
            ]
        }
        _ => vec![1.0],
    }
}

#[cfg(test)]
mod tests {
    use super::weights;

    /// On equal steps they are Adams-Bashforth's, except for the sign in the fourth order: 11/24 in place of 9/24.
    #[test]
    fn classical_weights() {
        let cases: [&[f64]; 4] = [
            &[1.0],
            &[1.5, -0.5],
            &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            &[57.0 / 24.0, -65.0 / 24.0, 43.0 / 24.0, -11.0 / 24.0],
        ];
        for expected in cases {
            let ours = weights(&vec![-0.7; expected.len()]);
            assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{ours:?} {expected:?}");
        }
    }
}
