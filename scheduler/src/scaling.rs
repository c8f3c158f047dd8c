//! What a model predicts, and how the denoised image follows from it.

/// What the network F was trained to output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prediction {
    /// The noise (Ho et al. 2020); a variance-preserving model.
    Epsilon,
    /// v = α·n - σ·x0 of the variance-preserving frame (Salimans & Ho 2022).
    VPrediction,
    /// The clean image; a variance-preserving model.
    Sample,
    /// Karras et al. 2022, table 1. `v` flips the sign of c_out, as diffusers' EDM schedulers do for `v_prediction`.
    Edm {
        /// Standard deviation of the training data.
        sigma_data: f64,
        /// Whether the output is a velocity.
        v: bool,
    },
    /// A consistency model: Song et al. 2023, equation 5 and appendix C, which makes D(x; sigma_min) = x.
    Consistency {
        /// Standard deviation of the training data.
        sigma_data: f64,
        /// The noise level that counts as clean.
        sigma_min: f64,
    },
    /// The score, ∇ log p(x; σ) = (x0 - x)/σ² (Song et al. 2021); a variance-exploding model, whose input is x itself.
    Score,
    /// The flow's velocity n - x0 (rectified flow, Stable Diffusion 3, Flux).
    Flow,
}

/// D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise), Karras et al. 2022, equation 7.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scalings {
    /// Share of x in the denoised image.
    pub c_skip: f64,
    /// Share of the network's output.
    pub c_out: f64,
    /// Factor on x before the network.
    pub c_in: f64,
    /// The network's time: the `timestep` of [`crate::Op::Denoise`].
    pub c_noise: f64,
}

impl Prediction {
    /// The scalings at a noise level; `timestep` is the model's time at this level ([`crate::Op::Denoise`] has both).
    pub fn scalings(self, sigma: f64, timestep: f64) -> Scalings {
        let unit = sigma.hypot(1.0);
        let (c_skip, c_out, c_in) = match self {
            Self::Epsilon => (1.0, -sigma, 1.0 / unit),
            Self::VPrediction => (1.0 / (unit * unit), -sigma / unit, 1.0 / unit),
            Self::Sample => (0.0, 1.0, 1.0 / unit),
            Self::Edm { sigma_data, v } => {
                let total = sigma.hypot(sigma_data);
                let c_out = sigma * sigma_data / total;
                (sigma_data * sigma_data / (total * total), if v { -c_out } else { c_out }, 1.0 / total)
            }
            Self::Consistency { sigma_data, sigma_min } => {
                let total = sigma.hypot(sigma_data);
                let above = sigma - sigma_min;
                let variance = sigma_data * sigma_data;
                (variance / (above * above + variance), above * sigma_data / total, 1.0 / total)
            }
            Self::Score => (1.0, sigma * sigma, 1.0),
            Self::Flow => (1.0, -sigma, 1.0),
        };
        Scalings { c_skip, c_out, c_in, c_noise: timestep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a network that outputs its exact training target for known x0 and n, the denoised image must be x0.
    #[test]
    fn a_perfect_network_gives_the_clean_image() {
        let (x0, n) = (0.7, -1.3);
        for sigma in [1e-3, 0.4, 14.6, 80.0] {
            let vp_alpha = 1.0 / f64::hypot(sigma, 1.0);
            let vp_sigma = sigma * vp_alpha;
            let x = x0 + sigma * n;
            for (prediction, target) in [
                (Prediction::Epsilon, n),
                (Prediction::VPrediction, vp_alpha * n - vp_sigma * x0),
                (Prediction::Sample, x0),
            ] {
                let s = prediction.scalings(sigma, 0.0);
                assert!((s.c_in * x - (vp_alpha * x0 + vp_sigma * n)).abs() < 1e-12, "{prediction:?} {sigma}");
                let denoised = s.c_skip * x + s.c_out * target;
                assert!((denoised - x0).abs() < 1e-12 * (1.0 + sigma), "{prediction:?} {sigma}: {denoised}");
            }
            // EDM, equation 8: the target has unit variance, and both it and the input are made of x0 and n.
            let edm = Prediction::Edm { sigma_data: 0.5, v: false }.scalings(sigma, 0.0);
            let target = (x0 - edm.c_skip * x) / edm.c_out;
            let variance = ((1.0 - edm.c_skip).powi(2) * 0.25 + (edm.c_skip * sigma).powi(2)) / edm.c_out.powi(2);
            assert!((variance - 1.0).abs() < 1e-9, "{sigma}: {variance}");
            assert!((edm.c_skip * x + edm.c_out * target - x0).abs() < 1e-9);
            assert!(((edm.c_in * edm.c_in) * (0.25 + sigma * sigma) - 1.0).abs() < 1e-12);
        }
        let s = Prediction::Score.scalings(2.0, 0.0);
        assert_eq!(s.c_skip * (x0 + 2.0 * n) + s.c_out * (-n / 2.0), x0);
        let s = Prediction::Consistency { sigma_data: 0.5, sigma_min: 0.002 }.scalings(0.002, 0.0);
        assert_eq!((s.c_skip, s.c_out), (1.0, 0.0));
        let sigma = 0.3;
        let s = Prediction::Flow.scalings(sigma, 300.0);
        let x = (1.0 - sigma) * x0 + sigma * n;
        assert!((s.c_skip * x + s.c_out * (n - x0) - x0).abs() < 1e-15);
        assert_eq!((s.c_in, s.c_noise), (1.0, 300.0));
    }
}
