//! Data whose denoised image and whose path have closed forms, so that the truth is exact and no checkpoint is needed.

use pipelines::noise::Philox;
use scheduler::{Draw, Frame, Outcome, Sampler, Schedule, Settings, TimestepMap, run};
use std::convert::Infallible;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

/// One-dimensional data, a distribution for each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Analytic {
    /// A mixture of three normal distributions: denoising is not linear, and a path keeps its quantile, because the flow keeps the order of points on a line.
    Mixture,
    /// Normal distributions: a path keeps its distance from the mean in standard deviations (Song et al. 2021, equation 13).
    Gaussian,
}

/// (weight, mean, standard deviation) of the mixture.
const PARTS: [(f64, f64, f64); 3] = [(0.5, -1.0, 0.4), (0.3, 0.8, 0.25), (0.2, 2.0, 0.6)];

/// (mean, standard deviation) of the normal distributions, which elements take in turn.
const NORMALS: [(f64, f64); 3] = [(0.3, 0.5), (-1.0, 1.2), (2.0, 0.2)];

/// Noise levels between which samplers run: wide enough that both ends are far from each other, and no further, so that orders show at few steps.
const ENDS: (f64, f64) = (12.0, 0.08);

/// Paths of each seed.
const PATHS: usize = 64;

impl FromStr for Analytic {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "analytic:mixture" => Ok(Self::Mixture),
            "analytic:gaussian" => Ok(Self::Gaussian),
            _ => Err(format!("there is no model {name}; there are analytic:mixture and analytic:gaussian")),
        }
    }
}

impl fmt::Display for Analytic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mixture => "analytic:mixture",
            Self::Gaussian => "analytic:gaussian",
        })
    }
}

/// Noise levels that crowd towards small ones (Karras et al. 2022, equation 5, ρ = 3), for a sampler of this order.
///
/// A multistep method of order 3 or more begins with steps of lower order, whose error would hide that of the later ones: for such methods the first
/// steps are short, (i/n)^order of the way.
fn schedule(steps: usize, order: u32) -> Result<Schedule, scheduler::Error> {
    let grading = if order < 3 { 1 } else { order.cast_signed() };
    let (high, low) = (ENDS.0.cbrt(), ENDS.1.cbrt());
    let level = |i: usize| {
        let t = (i as f64 / steps as f64).powi(grading);
        (high * (1.0 - t) + low * t).powi(3)
    };
    Schedule::new((0..=steps).map(level).collect(), Frame::VarianceExploding, TimestepMap::QuarterLog)
}

impl Analytic {
    /// E[x0 | x] of an element.
    fn denoise(self, element: usize, x: f64, sigma: f64) -> f64 {
        match self {
            Self::Gaussian => {
                let (mean, std) = NORMALS[element % NORMALS.len()];
                mean + std * std / (std * std + sigma * sigma) * (x - mean)
            }
            Self::Mixture => {
                let (mut total, mut sum) = (0.0, 0.0);
                for (weight, mean, std) in PARTS {
                    let variance = std * std + sigma * sigma;
                    let density = weight * (-0.5 * (x - mean).powi(2) / variance).exp() / variance.sqrt();
                    total += density;
                    sum += density * (mean + std * std / variance * (x - mean));
                }
                sum / total
            }
        }
    }

    /// Where the path that is at `x` at the level `from` is at the level `to`.
    fn exact(self, element: usize, x: f64, (from, to): (f64, f64)) -> f64 {
        match self {
            Self::Gaussian => {
                let (mean, std) = NORMALS[element % NORMALS.len()];
                mean + (x - mean) * std.hypot(to) / std.hypot(from)
            }
            Self::Mixture => {
                let above = tail(x, from, true) < 0.5;
                let wanted = tail(x, from, above);
                let (mut low, mut high) = (-100.0, 100.0);
                for _ in 0..200 {
                    let middle = 0.5 * (low + high);
                    if (tail(middle, to, above) > wanted) == above { low = middle } else { high = middle }
                }
                0.5 * (low + high)
            }
        }
    }

    /// The error of a deterministic sampler, root mean square over the paths of a seed, and how often it ran the model.
    ///
    /// # Errors
    /// When the steps make no schedule.
    pub(super) fn path_error(
        self,
        sampler: &Sampler,
        steps: usize,
        seed: u64,
    ) -> Result<(f64, usize), scheduler::Error> {
        let schedule = schedule(steps, sampler.order)?;
        let program = sampler.program(&schedule, &Settings { eta: 0.0, ..sampler.settings() });
        let normals = (0..PATHS / 4).flat_map(|block| Philox::block(seed, 0, block as u64));
        let x: Vec<f64> = normals.map(|normal| ENDS.0 * f64::from(normal)).collect();
        let result = drive(self, &program, &x, |_, out| out.fill(0.0));
        let ends = (schedule.sigmas[0], schedule.sigmas[steps]);
        let squares =
            x.iter().zip(&result).enumerate().map(|(i, (x, found))| (found - self.exact(i, *x, ends)).powi(2));
        Ok(((squares.sum::<f64>() / PATHS as f64).sqrt(), program.evaluations()))
    }

    /// The error of a stochastic sampler's distribution on normal data: the largest of mean and variance, exactly and without a random number. On such
    /// data everything is linear, so the distribution follows from the response to the start and to each draw.
    ///
    /// # Errors
    /// When the steps make no schedule.
    pub(super) fn weak_error(sampler: &Sampler, steps: usize) -> Result<(f64, usize), scheduler::Error> {
        let schedule = schedule(steps, 1)?;
        // EDM's own factor adds a little too much noise, and leaves the smallest levels out.
        let program = sampler.program(&schedule, &Settings { s_noise: 1.0, s_tmin: 0.0, ..sampler.settings() });
        let (first, last) = (schedule.sigmas[0], schedule.sigmas[steps]);
        let width = NORMALS.len();
        // Rows: the mean's path, one standard deviation above it, and a row for each draw, which gets that draw as 1.
        let start = |row: usize, (mean, std): (f64, f64)| mean + if row == 1 { std.hypot(first) } else { 0.0 };
        let x: Vec<f64> = (0..2 + program.draws()).flat_map(|row| NORMALS.map(|normal| start(row, normal))).collect();
        let unit = |draw: Draw, out: &mut [f64]| {
            out.fill(0.0);
            out[(2 + draw.index) * width..(3 + draw.index) * width].fill(1.0);
        };
        let result = drive(Self::Gaussian, &program, &x, unit);
        let mut worst = 0.0_f64;
        for (i, (mean, std)) in NORMALS.into_iter().enumerate() {
            let found: f64 = result.chunks(width).skip(1).map(|row| (row[i] - result[i]).powi(2)).sum();
            worst = worst.max((result[i] - mean).abs()).max((found - std * std - last * last).abs());
        }
        Ok((worst, program.evaluations()))
    }
}

/// The share of the noisy mixture below x, or above it: whichever is the smaller is exact in both tails.
fn tail(x: f64, sigma: f64, above: bool) -> f64 {
    let sign = if above { 1.0 } else { -1.0 };
    let share = |(weight, mean, std): (f64, f64, f64)| {
        weight * 0.5 * libm::erfc(sign * (x - mean) / (2.0 * (std * std + sigma * sigma)).sqrt())
    };
    PARTS.into_iter().map(share).sum()
}

fn drive(data: Analytic, program: &scheduler::Program, x: &[f64], noise: impl FnMut(Draw, &mut [f64])) -> Vec<f64> {
    let mut denoiser = |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| -> Result<(), Infallible> {
        out.iter_mut().zip(x).enumerate().for_each(|(i, (out, x))| *out = data.denoise(i, *x, sigma));
        Ok(())
    };
    match run(program, x, &mut denoiser, noise, |_| ControlFlow::Continue(())) {
        Ok(Outcome::Finished(result)) => result,
        // Nothing stops it.
        Ok(Outcome::Stopped { .. }) => Vec::new(),
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flow's derivative, (x - D)/σ, by finite differences along the exact path.
    #[test]
    fn paths_solve_the_ode() {
        for data in [Analytic::Mixture, Analytic::Gaussian] {
            for (x, sigma) in [(3.0, 4.0), (-1.0, 1.0), (0.4, 0.3), (1.2, 0.1)] {
                let h = 1e-4 * sigma;
                let at = |to: f64| data.exact(1, x, (sigma, to));
                let slope = (at(sigma + h) - at(sigma - h)) / (2.0 * h);
                let expected = (x - data.denoise(1, x, sigma)) / sigma;
                assert!(
                    (slope - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                    "{data} {x} {sigma}: {slope} {expected}"
                );
            }
        }
    }

    #[test]
    fn names() {
        assert_eq!("analytic:mixture".parse(), Ok(Analytic::Mixture));
        assert_eq!(Analytic::Gaussian.to_string().parse(), Ok(Analytic::Gaussian));
        assert!("analytic:other".parse::<Analytic>().unwrap_err().contains("analytic:mixture"));
    }
}
