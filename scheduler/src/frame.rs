//! The two ways in which noise is mixed into an image.

/// How x at noise level sigma is composed of a clean image x0 and standard normal noise n.
///
/// Samplers know only these two. Models trained in the variance-preserving way (DDPM) are driven in the
/// variance-exploding frame, as in k-diffusion: their own x is x / √(σ²+1), which is what [`crate::Scalings::c_in`]
/// does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// x = x0 + σ·n, σ from large to 0 (Karras et al. 2022).
    VarianceExploding,
    /// x = (1-σ)·x0 + σ·n, σ from 1 to 0 (Lipman et al. 2023, rectified flow).
    Flow,
}

impl Frame {
    /// The clean image's share α: x = α·x0 + σ·n.
    pub fn alpha(self, sigma: f64) -> f64 {
        match self {
            Self::VarianceExploding => 1.0,
            Self::Flow => 1.0 - sigma,
        }
    }

    /// λ = ln(α/σ), half the log signal-to-noise ratio (Lu et al. 2022): +∞ at σ = 0, -∞ where no image is left.
    pub fn lambda(self, sigma: f64) -> f64 {
        (self.alpha(sigma) / sigma).ln()
    }

    /// The σ at which λ has this value.
    pub fn sigma_at_lambda(self, lambda: f64) -> f64 {
        match self {
            Self::VarianceExploding => (-lambda).exp(),
            Self::Flow => 1.0 / (1.0 + lambda.exp()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_inverts() {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            for sigma in [0.999, 0.5, 0.1, 1e-3] {
                let back = frame.sigma_at_lambda(frame.lambda(sigma));
                assert!((back / sigma - 1.0).abs() < 1e-12, "{frame:?} {sigma} {back}");
            }
            assert_eq!(frame.lambda(0.0), f64::INFINITY);
            assert_eq!(frame.sigma_at_lambda(f64::INFINITY), 0.0);
        }
        assert_eq!(Frame::Flow.lambda(1.0), f64::NEG_INFINITY);
    }
}
