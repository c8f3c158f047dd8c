//! The forward processes as stochastic differential equations: Song et al. 2021, Score-Based Generative Modeling through Stochastic
//! Differential Equations.

/// dx = f(t)·x dt + g(t) dw, for t from 0 (data) on; to 1, for [`Sde::Edm`] to its largest σ.
///
/// All of them mix x(t) = α(t)·x0 + std(t)·n. Samplers step in σ = std/α. In terms of x/α all of them are the same
/// process, the variance-exploding [`crate::Frame`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sde {
    /// Variance preserving: equation 11, with β(t) linear. DDPM's limit; usually (0.1, 20).
    Vp {
        /// β at t = 0.
        beta_min: f64,
        /// β at t = 1.
        beta_max: f64,
    },
    /// Sub-variance-preserving: appendix B, equation 28.
    SubVp {
        /// β at t = 0.
        beta_min: f64,
        /// β at t = 1.
        beta_max: f64,
    },
    /// Variance exploding with σ(t) = `sigma_min`·(`sigma_max`/`sigma_min`)^t: equation 9 and appendix C. x(0) is data with noise of
    /// `sigma_min`.
    Ve {
        /// σ at t = 0.
        sigma_min: f64,
        /// σ at t = 1.
        sigma_max: f64,
    },
    /// Variance exploding with σ(t) = t: Karras et al. 2022.
    Edm,
}

impl Sde {
    /// f(t): the drift is f(t)·x.
    pub fn drift(&self, t: f64) -> f64 {
        match *self {
            Self::Vp { beta_min, beta_max } | Self::SubVp { beta_min, beta_max } => -0.5 * beta(beta_min, beta_max, t),
            Self::Ve { .. } | Self::Edm => 0.0,
        }
    }

    /// g(t).
    pub fn diffusion(&self, t: f64) -> f64 {
        match *self {
            Self::Vp { beta_min, beta_max } => beta(beta_min, beta_max, t).sqrt(),
            Self::SubVp { beta_min, beta_max } => {
                let shrink = -(-2.0 * integral(beta_min, beta_max, t)).exp_m1();
                (beta(beta_min, beta_max, t) * shrink).sqrt()
            }
            Self::Ve { sigma_min, sigma_max } => self.marginal(t).1 * (2.0 * (sigma_max / sigma_min).ln()).sqrt(),
            Self::Edm => (2.0 * t).sqrt(),
        }
    }

    /// (α, std) of x(t) given x0: equation 29.
    pub fn marginal(&self, t: f64) -> (f64, f64) {
        match *self {
            Self::Vp { beta_min, beta_max } => {
                let b = integral(beta_min, beta_max, t);
                ((-0.5 * b).exp(), (-(-b).exp_m1()).sqrt())
            }
            Self::SubVp { beta_min, beta_max } => {
                let b = integral(beta_min, beta_max, t);
                ((-0.5 * b).exp(), -(-b).exp_m1())
            }
            Self::Ve { sigma_min, sigma_max } => (1.0, sigma_min * (sigma_max / sigma_min).powf(t)),
            Self::Edm => (1.0, t),
        }
    }

    /// Standard deviation of the distribution that the reverse process starts from, at t = 1. For EDM the caller
    /// chooses the end.
    pub fn prior_std(&self) -> f64 {
        match *self {
            Self::Vp { .. } | Self::SubVp { .. } | Self::Edm => 1.0,
            Self::Ve { sigma_max, .. } => sigma_max,
        }
    }

    /// σ(t) = std/α.
    pub fn sigma(&self, t: f64) -> f64 {
        let (alpha, std) = self.marginal(t);
        std / alpha
    }

    /// The t at which σ has this value.
    pub fn time(&self, sigma: f64) -> f64 {
        match *self {
            Self::Vp { beta_min, beta_max } => time_of_integral(beta_min, beta_max, (sigma * sigma).ln_1p()),
            // (1 - e^-B)·e^(B/2) = 2 sinh(B/2).
            Self::SubVp { beta_min, beta_max } => time_of_integral(beta_min, beta_max, 2.0 * (0.5 * sigma).asinh()),
            Self::Ve { sigma_min, sigma_max } => (sigma / sigma_min).ln() / (sigma_max / sigma_min).ln(),
            Self::Edm => sigma,
        }
    }

    /// ᾱ(t) = α², as diffusers tabulates it.
    pub fn alpha_bar(&self, t: f64) -> f64 {
        self.marginal(t).0.powi(2)
    }

    /// The t at which ᾱ has this value; none for the processes in which the image's share stays 1.
    pub fn time_of_alpha_bar(&self, alpha_bar: f64) -> Option<f64> {
        match *self {
            // ᾱ = e^-B, B being the integral of β.
            Self::Vp { beta_min, beta_max } | Self::SubVp { beta_min, beta_max } => {
                Some(time_of_integral(beta_min, beta_max, -alpha_bar.ln()))
            }
            Self::Ve { .. } | Self::Edm => None,
        }
    }

    /// The t at which ln(α²/std²) has this value.
    pub fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        self.time((-0.5 * log_snr).exp())
    }

    /// ln(α²/std²).
    pub fn log_snr(&self, t: f64) -> f64 {
        let (alpha, std) = self.marginal(t);
        2.0 * (alpha / std).ln()
    }

    /// Drift of the reverse SDE, f·x - g²·score: equation 6. Its diffusion is g.
    pub fn reverse_drift(&self, x: f64, score: f64, t: f64) -> f64 {
        self.drift(t) * x - self.diffusion(t).powi(2) * score
    }

    /// dx/dt of the probability-flow ODE, f·x - ½·g²·score: equation 13.
    pub fn probability_flow(&self, x: f64, score: f64, t: f64) -> f64 {
        self.drift(t) * x - 0.5 * self.diffusion(t).powi(2) * score
    }

    /// The score of p(x; t) that a denoised image D = E[x0 | x] means: (α·D - x)/std² (Vincent 2011; Tweedie's formula).
    pub fn score(&self, x: f64, denoised: f64, t: f64) -> f64 {
        let (alpha, std) = self.marginal(t);
        (alpha * denoised - x) / (std * std)
    }
}

fn beta(beta_min: f64, beta_max: f64, t: f64) -> f64 {
    beta_min + t * (beta_max - beta_min)
}

/// ∫ β from 0 to t.
fn integral(beta_min: f64, beta_max: f64, t: f64) -> f64 {
    beta_min * t + 0.5 * t * t * (beta_max - beta_min)
}

/// The root of `integral` = b, written so that it does not cancel for small b.
fn time_of_integral(beta_min: f64, beta_max: f64, b: f64) -> f64 {
    2.0 * b / (beta_min + (beta_min * beta_min + 2.0 * (beta_max - beta_min) * b).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Sde; 4] = [
        Sde::Vp { beta_min: 0.1, beta_max: 20.0 },
        Sde::SubVp { beta_min: 0.1, beta_max: 20.0 },
        Sde::Ve { sigma_min: 0.01, sigma_max: 50.0 },
        Sde::Edm,
    ];
    const TIMES: [f64; 5] = [0.01, 0.2, 0.5, 0.77, 1.0];

    /// dα/dt = f·α and d(std²)/dt = 2f·std² + g²: the moments of a linear SDE (Särkkä & Solin 2019, equation 5.50).
    #[test]
    fn marginals_follow_from_drift_and_diffusion() {
        for sde in ALL {
            for t in TIMES {
                let step = 1e-5 * t;
                let (before, after) = (sde.marginal(t - step), sde.marginal(t + step));
                let (alpha, std) = sde.marginal(t);
                let slope = |a: f64, b: f64| (b - a) / (2.0 * step);
                let (f, g) = (sde.drift(t), sde.diffusion(t));
                let variance = slope(before.1.powi(2), after.1.powi(2));
                let expected = 2.0 * f * std * std + g * g;
                assert!((slope(before.0, after.0) - f * alpha).abs() < 1e-6 * (1.0 + f.abs()), "{sde:?} {t}");
                assert!(
                    (variance - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                    "{sde:?} {t}: {variance} {expected}"
                );
            }
        }
    }

    #[test]
    fn time_and_sigma_invert() {
        for sde in ALL {
            for t in TIMES {
                assert!((sde.time(sde.sigma(t)) - t).abs() < 1e-10, "{sde:?} {t}");
                assert!((sde.log_snr(t) + 2.0 * sde.sigma(t).ln()).abs() < 1e-9, "{sde:?} {t}");
                assert!((sde.time_of_log_snr(sde.log_snr(t)) - t).abs() < 1e-9, "{sde:?} {t}");
                let back = sde.time_of_alpha_bar(sde.alpha_bar(t));
                assert!(back.is_none_or(|back| (back - t).abs() < 1e-9), "{sde:?} {t}");
            }
        }
        assert!((ALL[0].alpha_bar(1.0) - (-10.05_f64).exp()).abs() < 1e-15);
        assert_eq!(ALL[2].prior_std(), ALL[2].marginal(1.0).1);
    }

    /// On Gaussian data the probability flow keeps x's distance from the mean in standard deviations.
    #[test]
    fn probability_flow_keeps_the_marginals() {
        let (mean, spread) = (0.4, 0.7);
        for sde in ALL {
            for t in TIMES {
                let at = |t: f64| {
                    let (alpha, std) = sde.marginal(t);
                    alpha * mean + 1.5 * (alpha * spread).hypot(std)
                };
                let (alpha, std) = sde.marginal(t);
                let x = at(t);
                let gain = alpha * spread * spread / ((alpha * spread).powi(2) + std * std);
                let score = sde.score(x, mean + gain * (x - alpha * mean), t);
                let step = 1e-5 * t;
                let slope = (at(t + step) - at(t - step)) / (2.0 * step);
                let flow = sde.probability_flow(x, score, t);
                assert!((flow - slope).abs() < 1e-5 * (1.0 + slope.abs()), "{sde:?} {t}: {flow} {slope}");
                let half_noise = 0.5 * sde.diffusion(t).powi(2) * score;
                assert!((sde.reverse_drift(x, score, t) - (flow - half_noise)).abs() < 1e-9 * (1.0 + flow.abs()));
            }
        }
    }
}
