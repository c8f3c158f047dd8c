//! log p(x) on data whose density is known at every noise level.

use scheduler::likelihood::{Field, Hutchinson, Settings, gaussian, jvp_by_differences, log_likelihood};
use std::convert::Infallible;

const TIGHT: Settings =
    Settings { sigma_min: 0.01, sigma_max: 30.0, absolute_tolerance: 1e-8, relative_tolerance: 1e-8 };

/// A mixture of isotropic normal distributions in the plane.
struct Mixture(&'static [(f64, [f64; 2], f64)]);

const ONE: Mixture = Mixture(&[(1.0, [0.4, -1.1], 0.7)]);
const THREE: Mixture = Mixture(&[(0.5, [-1.0, 0.3], 0.4), (0.3, [1.2, 1.0], 0.2), (0.2, [0.5, -1.5], 0.6)]);

impl Mixture {
    /// (weight·density, mean, variance) of every part with noise.
    fn parts(&self, x: &[f64], sigma: f64) -> Vec<(f64, [f64; 2], f64)> {
        let part = |&(weight, mean, std): &(f64, [f64; 2], f64)| {
            let variance = std * std + sigma * sigma;
            let square: f64 = x.iter().zip(mean).map(|(x, m)| (x - m).powi(2)).sum();
            (weight * (-0.5 * square / variance).exp() / (std::f64::consts::TAU * variance), mean, std * std)
        };
        self.0.iter().map(part).collect()
    }

    fn log_density(&self, x: &[f64], sigma: f64) -> f64 {
        self.parts(x, sigma).iter().map(|part| part.0).sum::<f64>().ln()
    }

    fn denoise(&self, x: &[f64], sigma: f64, out: &mut [f64]) {
        let parts = self.parts(x, sigma);
        let total: f64 = parts.iter().map(|part| part.0).sum();
        for (i, out) in out.iter_mut().enumerate() {
            let posterior = |(density, mean, variance): &(f64, [f64; 2], f64)| {
                density / total * (mean[i] + variance / (variance + sigma * sigma) * (x[i] - mean[i]))
            };
            *out = parts.iter().map(posterior).sum();
        }
    }

    /// tr ∂D/∂x is the trace of the posterior's covariance, over σ² (Tweedie's formula, differentiated).
    fn trace(&self, x: &[f64], sigma: f64) -> f64 {
        let parts = self.parts(x, sigma);
        let total: f64 = parts.iter().map(|part| part.0).sum();
        let mut mean = [0.0; 2];
        self.denoise(x, sigma, &mut mean);
        let spread: f64 = parts
            .iter()
            .map(|(density, centre, variance)| {
                let shrink = variance / (variance + sigma * sigma);
                let squares: f64 = (0..2).map(|i| (centre[i] + shrink * (x[i] - centre[i]) - mean[i]).powi(2)).sum();
                density / total * (2.0 * shrink * sigma * sigma + squares)
            })
            .sum();
        spread / (sigma * sigma)
    }
}

const POINTS: [[f64; 2]; 4] = [[0.0, 0.0], [-1.0, 0.5], [1.3, 0.9], [0.2, -2.5]];

fn check(mixture: &Mixture, field: &mut impl Field<Infallible>, tolerance: f64) {
    for x in POINTS {
        let prior = |x: &[f64]| mixture.log_density(x, TIGHT.sigma_max);
        let Ok(found) = log_likelihood(&x, field, prior, &TIGHT);
        let exact = mixture.log_density(&x, TIGHT.sigma_min);
        let error = (found.log_p - exact).abs();
        println!("{x:?}: log p {exact:.6}, off by {error:.1e} after {} evaluations", found.evaluations);
        assert!(error < tolerance, "{x:?}: {} is not {exact}", found.log_p);
    }
}

#[test]
fn with_the_exact_trace() {
    for mixture in [&ONE, &THREE] {
        let mut field = |x: &[f64], sigma: f64, out: &mut [f64]| -> Result<f64, Infallible> {
            mixture.denoise(x, sigma, out);
            Ok(mixture.trace(x, sigma))
        };
        check(mixture, &mut field, 1e-6);
    }
}

/// In the plane the four vectors of signs have unit covariance between them: their mean is the trace itself.
#[test]
fn with_hutchinsons_trace_by_differences() {
    for mixture in [&ONE, &THREE] {
        let denoise = |x: &[f64], sigma: f64, out: &mut [f64]| -> Result<(), Infallible> {
            mixture.denoise(x, sigma, out);
            Ok(())
        };
        let jvp = |x: &[f64], sigma: f64, v: &[f64], out: &mut [f64]| {
            jvp_by_differences(denoise, x, sigma, v, 1e-4 * sigma, out)
        };
        let probes = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]].map(Vec::from).to_vec();
        check(mixture, &mut Hutchinson::new(denoise, jvp, probes), 1e-6);
    }
}

/// Two vectors with unit covariance together give the right mean, although each alone is wrong.
#[test]
fn hutchinsons_estimate_is_unbiased() {
    let mixture = &THREE;
    let denoise = |x: &[f64], sigma: f64, out: &mut [f64]| -> Result<(), Infallible> {
        mixture.denoise(x, sigma, out);
        Ok(())
    };
    let jvp =
        |x: &[f64], sigma: f64, v: &[f64], out: &mut [f64]| jvp_by_differences(denoise, x, sigma, v, 1e-4 * sigma, out);
    let x = [0.3, -0.4];
    let prior = |x: &[f64]| mixture.log_density(x, TIGHT.sigma_max);
    // Vectors along the axes, √2 long: together they have unit covariance, but neither alone gives the right trace.
    let axes = [vec![2.0_f64.sqrt(), 0.0], vec![0.0, 2.0_f64.sqrt()]];
    let estimates = axes.map(|probe| {
        let Ok(found) = log_likelihood(&x, &mut Hutchinson::new(denoise, jvp, vec![probe]), prior, &TIGHT);
        found.log_p
    });
    let exact = mixture.log_density(&x, TIGHT.sigma_min);
    assert!((estimates[0] - exact).abs() > 1e-2 && (estimates[1] - exact).abs() > 1e-2, "{estimates:?} {exact}");
    assert!((0.5 * (estimates[0] + estimates[1]) - exact).abs() < 1e-6, "{estimates:?} {exact}");
}

#[test]
fn bits_per_dimension() {
    // Uniform data over 256 levels in -1..1 has a density of ½ per element: 8 bits.
    let uniform = scheduler::likelihood::Likelihood { log_p: 3.0 * 0.5_f64.ln(), noise: vec![0.0; 3], evaluations: 0 };
    assert!((uniform.bits_per_dimension(128.0) - 8.0).abs() < 1e-12);
}

/// The error of the integral grows with the number of elements, and must be controlled apart from theirs.
#[test]
fn many_elements_keep_the_tolerance() {
    let x: Vec<f64> = (0..1000).map(|i| (f64::from(i) * 0.7).sin() * 2.0).collect();
    // Data N(0, 2²).
    let mut field = |x: &[f64], sigma: f64, denoised: &mut [f64]| -> Result<f64, Infallible> {
        let gain = 4.0 / (4.0 + sigma * sigma);
        denoised.iter_mut().zip(x).for_each(|(d, x)| *d = gain * x);
        Ok(gain * x.len() as f64)
    };
    let settings = Settings { absolute_tolerance: 1e-3, relative_tolerance: 0.0, ..Settings::default() };
    let prior = |x: &[f64]| gaussian(x, f64::hypot(2.0, settings.sigma_max));
    let Ok(found) = log_likelihood(&x, &mut field, prior, &settings);
    // The flow scales x as the standard deviation grows.
    let noise: Vec<f64> =
        x.iter().map(|x| x * f64::hypot(2.0, settings.sigma_max) / f64::hypot(2.0, settings.sigma_min)).collect();
    let integral = gaussian(&x, f64::hypot(2.0, settings.sigma_min)) - prior(&noise);
    let error = (found.log_p - prior(&found.noise) - integral).abs();
    assert!(error < 1e-3, "{error}");
}

#[test]
#[should_panic(expected = "sigma_min: 0")]
fn a_range_without_a_start_is_a_mistake() {
    let mut field = |_: &[f64], _: f64, _: &mut [f64]| -> Result<f64, Infallible> { Ok(0.0) };
    let settings = Settings { sigma_min: 0.0, ..Settings::default() };
    let _ = log_likelihood(&[1.0], &mut field, |_| 0.0, &settings);
}
