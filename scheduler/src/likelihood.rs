//! log p(x) of a diffusion model: Song et al. 2021, section 4.3 and appendix D.2.
//!
//! Along the probability-flow ODE a density changes by the divergence of the flow (the instantaneous change of variables, Chen et al.
//! 2018). In ln σ the flow is dx = x - D(x; σ), so for x of d elements
//!
//! log p(x; `sigma_min`) = log p(x'; `sigma_max`) + ∫ (d - tr ∂D/∂x) d ln σ,
//!
//! where x' is the point to which the flow carries x at `sigma_max`, and the integral is along that path. Everything is
//! in the variance-exploding frame, x = x0 + σ·n: of another SDE's x(t) with the image's share α, log p(x(t)) = log
//! p(x(t)/α) - d·ln α.
//!
//! ```
//! use scheduler::likelihood::{Settings, gaussian, log_likelihood};
//!
//! // Data N(0, 2²): D shrinks x by 4/(4 + σ²), which is also every entry of ∂D/∂x.
//! let mut field = |x: &[f64], sigma: f64, denoised: &mut [f64]| -> Result<f64, std::convert::Infallible> {
//!     let gain = 4.0 / (4.0 + sigma * sigma);
//!     denoised.iter_mut().zip(x).for_each(|(d, x)| *d = gain * x);
//!     Ok(gain * x.len() as f64)
//! };
//! let settings = Settings { absolute_tolerance: 1e-8, relative_tolerance: 1e-8, ..Settings::default() };
//! let found = log_likelihood(&[1.5, -0.5], &mut field, |x| gaussian(x, f64::hypot(2.0, 80.0)), &settings)?;
//! assert!((found.log_p - gaussian(&[1.5, -0.5], f64::hypot(2.0, 0.002))).abs() < 1e-6);
//! # Ok::<(), std::convert::Infallible>(())
//! ```

use crate::dormand_prince::{ERROR, NODES, STAGES, judge};

/// A denoiser with the trace of its Jacobian. Implemented for closures of this signature.
pub trait Field<E> {
    /// Writes D(x; σ) to `denoised` and returns tr ∂D/∂x, or an unbiased estimate. It must be the same function of x in
    /// every call.
    fn denoise(&mut self, x: &[f64], sigma: f64, denoised: &mut [f64]) -> Result<f64, E>;
}

impl<E, F> Field<E> for F
where
    F: FnMut(&[f64], f64, &mut [f64]) -> Result<f64, E>,
{
    fn denoise(&mut self, x: &[f64], sigma: f64, denoised: &mut [f64]) -> Result<f64, E> {
        self(x, sigma, denoised)
    }
}

/// A denoiser whose trace is estimated as the mean of vᵀ(∂D/∂x)v over some vectors v of mean 0 and unit covariance (Skilling 1989,
/// Hutchinson 1990), which stay the same for a whole run, as in score_sde.
#[derive(Debug)]
pub struct Hutchinson<D, J> {
    denoise: D,
    jvp: J,
    probes: Vec<Vec<f64>>,
    product: Vec<f64>,
}

impl<D, J> Hutchinson<D, J> {
    /// `denoise(x, σ, out)` writes D, `jvp(x, σ, v, out)` the product (∂D/∂x)·v. `probes` are the vectors, of x's length; signs drawn at
    /// random have the least variance.
    ///
    /// # Panics
    /// If there is no probe, and later if a probe has another length than x.
    pub fn new<E>(denoise: D, jvp: J, probes: Vec<Vec<f64>>) -> Self
    where
        D: FnMut(&[f64], f64, &mut [f64]) -> Result<(), E>,
        J: FnMut(&[f64], f64, &[f64], &mut [f64]) -> Result<(), E>,
    {
        assert!(!probes.is_empty(), "an estimate of the trace takes at least one probe");
        Self { denoise, jvp, probes, product: Vec::new() }
    }
}

impl<E, D, J> Field<E> for Hutchinson<D, J>
where
    D: FnMut(&[f64], f64, &mut [f64]) -> Result<(), E>,
    J: FnMut(&[f64], f64, &[f64], &mut [f64]) -> Result<(), E>,
{
    fn denoise(&mut self, x: &[f64], sigma: f64, denoised: &mut [f64]) -> Result<f64, E> {
        (self.denoise)(x, sigma, denoised)?;
        self.product.resize(x.len(), 0.0);
        let mut sum = 0.0;
        for probe in &self.probes {
            assert_eq!(probe.len(), x.len(), "a probe has as many elements as x");
            (self.jvp)(x, sigma, probe, &mut self.product)?;
            sum += probe.iter().zip(&self.product).map(|(v, jv)| v * jv).sum::<f64>();
        }
        Ok(sum / self.probes.len() as f64)
    }
}

/// (∂D/∂x)·v by a central difference, for denoisers that have no derivative: two evaluations. `step` is the change of x in units of v;
/// with D in f64 about 1e-5·σ, with D in f32 about 5e-3·σ.
///
/// # Errors
/// The denoiser's own.
pub fn jvp_by_differences<E>(
    mut denoise: impl FnMut(&[f64], f64, &mut [f64]) -> Result<(), E>,
    x: &[f64],
    sigma: f64,
    v: &[f64],
    step: f64,
    out: &mut [f64],
) -> Result<(), E> {
    let moved = |by: f64| x.iter().zip(v).map(|(x, v)| x + by * v).collect::<Vec<f64>>();
    let mut behind = vec![0.0; x.len()];
    denoise(&moved(-step), sigma, &mut behind)?;
    denoise(&moved(step), sigma, out)?;
    out.iter_mut().zip(behind).for_each(|(ahead, behind)| *ahead = (*ahead - behind) / (2.0 * step));
    Ok(())
}

/// Where the flow runs, and how exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The noise level of x: what counts as clean.
    pub sigma_min: f64,
    /// The noise level at which the density is known.
    pub sigma_max: f64,
    /// Error allowed in the integral, and in x (where the prior is evaluated) as the root mean square over its elements. Above 0.
    pub absolute_tolerance: f64,
    /// The same error relative to the magnitude of the value. The larger of the two tolerances applies.
    pub relative_tolerance: f64,
}

impl Default for Settings {
    /// EDM's range. The tolerances give every step 1e-5, as in score_sde.
    fn default() -> Self {
        Self { sigma_min: 0.002, sigma_max: 80.0, absolute_tolerance: 1e-4, relative_tolerance: 1e-4 }
    }
}

/// The likelihood of an x, and what was computed with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// ln p(x; `sigma_min`), a density over all of x's elements.
    pub log_p: f64,
    /// The point to which the flow carries x at `sigma_max`: its noise, times `sigma_max`.
    pub noise: Vec<f64>,
    /// How often the field was evaluated.
    pub evaluations: usize,
}

impl Likelihood {
    /// Bits per element of data that was measured in `levels` per unit of x: 128 for 8-bit pictures in -1..1.
    pub fn bits_per_dimension(&self, levels: f64) -> f64 {
        levels.log2() - self.log_p / (self.noise.len() as f64 * std::f64::consts::LN_2)
    }
}

/// ln of the density of independent normal numbers of mean 0: the usual prior at `sigma_max`.
pub fn gaussian(x: &[f64], std: f64) -> f64 {
    let squares: f64 = x.iter().map(|x| (x / std).powi(2)).sum();
    -0.5 * squares - x.len() as f64 * (std * (2.0 * std::f64::consts::PI).sqrt()).ln()
}

/// log p(x), by Dormand & Prince's method. `prior` is ln p at `sigma_max`.
///
/// # Errors
/// The field's own.
///
/// # Panics
/// Unless `0 < sigma_min < sigma_max` and the tolerances are numbers, the absolute one above 0.
pub fn log_likelihood<E>(
    x: &[f64],
    field: &mut impl Field<E>,
    prior: impl Fn(&[f64]) -> f64,
    settings: &Settings,
) -> Result<Likelihood, E> {
    let Settings { sigma_min, sigma_max, absolute_tolerance, relative_tolerance } = *settings;
    assert!(0.0 < sigma_min && sigma_min < sigma_max && sigma_max.is_finite(), "{settings:?}");
    assert!(absolute_tolerance > 0.0 && relative_tolerance >= 0.0, "{settings:?}");
    let d = x.len();
    let (start, end) = (sigma_min.ln(), sigma_max.ln());
    let mut evaluations = 0;
    // The state is x, followed by the integral.
    let mut slope = |state: &[f64], log_sigma: f64| -> Result<Vec<f64>, E> {
        evaluations += 1;
        let mut out = vec![0.0; d + 1];
        let trace = field.denoise(&state[..d], log_sigma.exp(), &mut out[..d])?;
        out.iter_mut().zip(&state[..d]).for_each(|(denoised, x)| *denoised = x - *denoised);
        out[d] = d as f64 - trace;
        Ok(out)
    };
    let mut state = [x, &[0.0]].concat();
    let mut at = start;
    let mut h = (end - start) / 20.0;
    let mut k = vec![slope(&state, at)?];
    let mut rejected = false;
    while at < end {
        h = h.min(end - at);
        let last = at + h >= end;
        let mut stage = Vec::new();
        for i in 1..7 {
            stage = combination(&state, &k, &STAGES[i], h);
            let to = if last && i >= 5 { end } else { at + NODES[i] * h };
            k.push(slope(&stage, to)?);
        }
        let difference = combination(&vec![0.0; d + 1], &k, &ERROR, h);
        let scaled = |i: usize| {
            let largest = f64::max(state[i].abs(), stage[i].abs());
            difference[i] / absolute_tolerance.max(relative_tolerance * largest)
        };
        let of_x = ((0..d).map(|i| scaled(i).powi(2)).sum::<f64>() / d.max(1) as f64).sqrt();
        // `f64::max` would ignore a NaN, but `judge` must see it: with NaN no step is short enough.
        let of_integral = scaled(d).abs();
        let error = if of_x.is_nan() || of_integral.is_nan() { f64::NAN } else { of_x.max(of_integral) };
        let (accepted, factor) = judge(error, rejected, h <= 1e-9 * (end - start));
        if accepted {
            at = if last { end } else { at + h };
            state = stage;
            k.swap(0, 6);
        }
        k.truncate(1);
        h *= factor;
        rejected = !accepted;
    }
    let integral = state[d];
    state.truncate(d);
    Ok(Likelihood { log_p: prior(&state) + integral, noise: state, evaluations })
}

/// base + h·Σ weight·slope.
fn combination(base: &[f64], slopes: &[Vec<f64>], weights: &[f64], h: f64) -> Vec<f64> {
    let sum = |i: usize| slopes.iter().zip(weights).map(|(slope, weight)| weight * slope[i]).sum::<f64>();
    base.iter().enumerate().map(|(i, base)| base + h * sum(i)).collect()
}
