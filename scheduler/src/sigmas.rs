//! Noise levels by formula. Each returns n sigmas, descending, then a 0.

use crate::error::Error;

/// Karras et al. 2022, equation 5; k-diffusion `get_sigmas_karras`. EDM's own choice is (0.002, 80, 7).
///
/// # Errors
/// n = 0, or sigmas that are not 0 < `sigma_min` ≤ `sigma_max`.
pub fn karras(n: usize, sigma_min: f64, sigma_max: f64, rho: f64) -> Result<Vec<f64>, Error> {
    check(n, sigma_min, sigma_max)?;
    Ok(with_zero(karras_ramp(&linspace(0.0, 1.0, n), sigma_min, sigma_max, rho)))
}

/// Equally spaced in ln σ; k-diffusion `get_sigmas_exponential`.
///
/// # Errors
/// As [`karras`].
pub fn exponential(n: usize, sigma_min: f64, sigma_max: f64) -> Result<Vec<f64>, Error> {
    polyexponential(n, sigma_min, sigma_max, 1.0)
}

/// ln σ along a power of the ramp; k-diffusion `get_sigmas_polyexponential`.
///
/// # Errors
/// As [`karras`].
pub fn polyexponential(n: usize, sigma_min: f64, sigma_max: f64, rho: f64) -> Result<Vec<f64>, Error> {
    check(n, sigma_min, sigma_max)?;
    Ok(with_zero(exponential_ramp(&linspace(1.0, 0.0, n), sigma_min, sigma_max, rho)))
}

/// A continuous variance-preserving schedule (Song et al. 2021); k-diffusion `get_sigmas_vp` (its defaults: 19.9, 0.1, 1e-3).
///
/// # Errors
/// n = 0, or `eps_s` outside 0 < `eps_s` ≤ 1.
pub fn vp(n: usize, beta_d: f64, beta_min: f64, eps_s: f64) -> Result<Vec<f64>, Error> {
    check(n, eps_s, 1.0)?;
    let sigma = |t: &f64| (beta_d * t * t / 2.0 + beta_min * t).exp_m1().sqrt();
    Ok(with_zero(linspace(1.0, eps_s, n).iter().map(sigma).collect()))
}

/// σ at a ramp from 0 (largest) to 1 (smallest).
pub(crate) fn karras_ramp(ramp: &[f64], sigma_min: f64, sigma_max: f64, rho: f64) -> Vec<f64> {
    let (low, high) = (sigma_min.powf(1.0 / rho), sigma_max.powf(1.0 / rho));
    // Clamped, because rounding must not move the ends out of the range.
    ramp.iter().map(|r| (high + r * (low - high)).powf(rho).clamp(sigma_min, sigma_max)).collect()
}

/// ln σ along a ramp from 1 (largest) to 0 (smallest), raised to a power.
pub(crate) fn exponential_ramp(ramp: &[f64], sigma_min: f64, sigma_max: f64, rho: f64) -> Vec<f64> {
    let (low, high) = (sigma_min.ln(), sigma_max.ln());
    ramp.iter().map(|r| (r.powf(rho) * (high - low) + low).exp().clamp(sigma_min, sigma_max)).collect()
}

/// Equally spaced in arctan σ: Sabour et al. 2024, theorem 3.1.
pub(crate) fn kl_optimal_ramp(n: usize, sigma_min: f64, sigma_max: f64) -> Vec<f64> {
    let angles = linspace(sigma_max.atan(), sigma_min.atan(), n);
    angles.iter().map(|angle| angle.tan().clamp(sigma_min, sigma_max)).collect()
}

/// ln σ at equally spaced quantiles of a Laplace distribution of mean 0 and scale ½, held between the ends: Hang et al. 2024, Improved
/// Noise Schedule for Diffusion Training; ComfyUI's `get_sigmas_laplace` with its own constants.
pub(crate) fn laplace_ramp(n: usize, sigma_min: f64, sigma_max: f64) -> Vec<f64> {
    let sigma = |u: &f64| {
        let from_middle = 0.5 - u;
        // The small addition avoids the logarithm of 0 at the ends.
        let log_sigma = -0.5 * (1.0 - 2.0 * from_middle.abs() + 1e-5).ln();
        log_sigma.max(0.0).copysign(from_middle).exp().clamp(sigma_min, sigma_max)
    };
    linspace(0.0, 1.0, n).iter().map(sigma).collect()
}

/// n sigmas that leave `sigma_max` linearly, by 2.5% over the first half of the steps, and go on to 0 along a parabola that joins
/// smoothly: the schedule of Mochi and LTX-Video; ComfyUI's `linear_quadratic`.
pub(crate) fn linear_quadratic_ramp(n: usize, sigma_max: f64) -> Vec<f64> {
    const THRESHOLD: f64 = 0.025;
    let linear = n / 2;
    if linear == 0 {
        return vec![sigma_max; n];
    }
    let (steps, linear_steps, quadratic_steps) = (n as f64, linear as f64, (n - linear) as f64);
    let slope = THRESHOLD / linear_steps;
    let excess = linear_steps - THRESHOLD * steps;
    let quadratic = excess / (linear_steps * quadratic_steps * quadratic_steps);
    let slope_2 = slope - 2.0 * excess / (quadratic_steps * quadratic_steps);
    (0..n)
        .map(|i| {
            let t = i as f64;
            let gone =
                if i < linear { slope * t } else { quadratic * (t * t + linear_steps * linear_steps) + slope_2 * t };
            sigma_max * (1.0 - gone)
        })
        .collect()
}

/// n sigmas of a table, without its last entry, interpolated linearly in ln σ.
pub(crate) fn interpolate_logarithms(table: &[f64], n: usize) -> Vec<f64> {
    let last = table.len() - 1;
    let mut positions = linspace(0.0, last as f64, n + 1);
    positions.truncate(n);
    positions
        .into_iter()
        .map(|position| {
            let low = (position.floor() as usize).min(last - 1);
            let (from, to) = (table[low].ln(), table[low + 1].ln());
            (from + (to - from) * (position - low as f64)).exp()
        })
        .collect()
}

/// numpy's linspace: n numbers from `start` to `stop`, `start` alone if n = 1.
pub(crate) fn linspace(start: f64, stop: f64, n: usize) -> Vec<f64> {
    if n < 2 {
        return vec![start; n];
    }
    let step = (stop - start) / (n - 1) as f64;
    (0..n).map(|i| if i == n - 1 { stop } else { start + i as f64 * step }).collect()
}

/// Quantiles of the Beta(α, β) distribution between sigma_min and sigma_max (Lee et al. 2024), as diffusers'
/// `use_beta_sigmas` with α = β = 0.6. Returns n sigmas without the 0.
pub(crate) fn beta_quantiles(n: usize, sigma_min: f64, sigma_max: f64, alpha: f64, beta: f64) -> Vec<f64> {
    let quantile = |r: &f64| sigma_min + crate::special::beta_quantile(1.0 - r, alpha, beta) * (sigma_max - sigma_min);
    linspace(0.0, 1.0, n).iter().map(quantile).collect()
}

fn check(n: usize, sigma_min: f64, sigma_max: f64) -> Result<(), Error> {
    if n == 0 {
        return Err(Error::Schedule("the number of steps must be at least 1".to_owned()));
    }
    if !(sigma_min > 0.0 && sigma_min <= sigma_max && sigma_max.is_finite()) {
        return Err(Error::Schedule(format!(
            "sigma_min and sigma_max must satisfy 0 < sigma_min <= sigma_max, not {sigma_min} and {sigma_max}"
        )));
    }
    Ok(())
}

fn with_zero(mut sigmas: Vec<f64>) -> Vec<f64> {
    sigmas.push(0.0);
    sigmas
}
