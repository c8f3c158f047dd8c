//! Where a sampler steps: noise levels and the model's timesteps.

use crate::error::Error;
use crate::frame::Frame;

/// How a model's timestep follows from a noise level that is not in the table.
#[derive(Debug, Clone, PartialEq)]
pub enum TimestepMap {
    /// A discrete training schedule: linear in ln σ between the sigmas of timesteps 0, 1, 2, …
    Discrete {
        /// ln σ of every training timestep, ascending.
        log_sigmas: Vec<f64>,
    },
    /// ln(σ)/4 (EDM).
    QuarterLog,
    /// `factor`·σ (flow matching; diffusers' factor is the number of training timesteps).
    Proportional {
        /// Usually 1000.
        factor: f64,
    },
    /// 1000·ln(σ + 1e-44)/4: OpenAI's consistency models.
    ThousandQuarterLog,
}

impl TimestepMap {
    /// The timestep of a noise level.
    pub fn timestep(&self, sigma: f64) -> f64 {
        match self {
            Self::Discrete { log_sigmas } => interpolate_log_sigma(sigma, log_sigmas),
            Self::QuarterLog => 0.25 * sigma.ln(),
            Self::Proportional { factor } => factor * sigma,
            Self::ThousandQuarterLog => 1000.0 * 0.25 * (sigma + 1e-44).ln(),
        }
    }
}

/// k-diffusion's and diffusers' `sigma_to_t`: the fractional index at which the table has this ln σ, clamped to the
/// table.
fn interpolate_log_sigma(sigma: f64, log_sigmas: &[f64]) -> f64 {
    let Some(last) = log_sigmas.len().checked_sub(1) else { return 0.0 };
    let log_sigma = sigma.max(1e-10).ln();
    let low = log_sigmas.iter().rposition(|&s| log_sigma >= s).unwrap_or(0).min(last.saturating_sub(1));
    let high = (low + 1).min(last);
    if high == low {
        return low as f64;
    }
    let w = ((log_sigmas[low] - log_sigma) / (log_sigmas[low] - log_sigmas[high])).clamp(0.0, 1.0);
    (1.0 - w) * low as f64 + w * high as f64
}

/// Noise levels for a run: n steps have n+1 sigmas and n timesteps.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Descending; step i goes from `sigmas[i]` to `sigmas[i+1]`. The last is usually 0.
    pub sigmas: Vec<f64>,
    /// The model's time at `sigmas[i]`.
    pub timesteps: Vec<f64>,
    /// Timesteps of noise levels between the table's.
    pub map: TimestepMap,
    /// How x is mixed at a given sigma.
    pub frame: Frame,
    /// The starting x is standard normal noise times this. (A sampler that leads from an image to noise starts from the
    /// image.)
    pub init_noise_sigma: f64,
    /// Factor from the final x to what diffusers' scheduler returns: its α where a variance-preserving scheduler ends
    /// above sigma 0, else 1. For an inversion it is the factor that makes the noise standard normal.
    pub final_scale: f64,
    /// Where each step of diffusers' DDIM and DDPM lands, if that is not `sigmas[i+1]`: they step by a whole number of
    /// training timesteps, and the next step uses the same variance-preserving x at its own timestep.
    pub landings: Option<Vec<f64>>,
    /// Number of steps of the whole schedule, where this one is a tail ([`Schedule::from_step`]).
    pub full_steps: usize,
    /// The sigmas of the steps before the tail.
    pub before: Vec<f64>,
}

impl Schedule {
    /// A schedule in the given frame. `init_noise_sigma` is the first sigma.
    ///
    /// # Errors
    /// Fewer than two sigmas, or sigmas that are negative, not finite, or increasing.
    pub fn new(sigmas: Vec<f64>, frame: Frame, map: TimestepMap) -> Result<Self, Error> {
        let timesteps = sigmas.iter().take(sigmas.len().saturating_sub(1)).map(|&s| map.timestep(s)).collect();
        Self::with_timesteps(sigmas, timesteps, frame, map)
    }

    /// A schedule with its own table of timesteps, one fewer than sigmas.
    ///
    /// # Errors
    /// As [`Schedule::new`], or a wrong number of timesteps.
    pub fn with_timesteps(
        sigmas: Vec<f64>,
        timesteps: Vec<f64>,
        frame: Frame,
        map: TimestepMap,
    ) -> Result<Self, Error> {
        if sigmas.len() < 2 {
            return Err(Error::Schedule("a schedule needs at least one step (two sigmas)".to_owned()));
        }
        if timesteps.len() + 1 != sigmas.len() {
            let (s, t) = (sigmas.len(), timesteps.len());
            return Err(Error::Schedule(format!("{s} sigmas need {} timesteps, not {t}", s - 1)));
        }
        if let Some(bad) = sigmas.iter().find(|s| !s.is_finite() || **s < 0.0) {
            return Err(Error::Schedule(format!("a sigma must be a finite number from 0 up, not {bad}")));
        }
        if let Some(pair) = sigmas.windows(2).find(|pair| pair[1] > pair[0]) {
            let (a, b) = (pair[0], pair[1]);
            return Err(Error::Schedule(format!("sigmas must not increase, but {b} follows {a}")));
        }
        if let Some(zero) = sigmas[..sigmas.len() - 1].iter().position(|&s| s == 0.0) {
            return Err(Error::Schedule(format!("only the last sigma may be 0, but number {} is", zero + 1)));
        }
        if frame == Frame::Flow && sigmas[0] > 1.0 {
            let first = sigmas[0];
            return Err(Error::Schedule(format!("flow-matching sigmas lie between 0 and 1, but {first} was given")));
        }
        let full_steps = timesteps.len();
        let init_noise_sigma = sigmas[0];
        let (landings, before) = (None, Vec::new());
        Ok(Self { sigmas, timesteps, map, frame, init_noise_sigma, final_scale: 1.0, landings, full_steps, before })
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// (sigma, next sigma) of every step.
    pub fn pairs(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.sigmas.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// The table's timestep if sigma is one of its entries, else interpolated.
    pub fn timestep_at(&self, sigma: f64) -> f64 {
        match self.sigmas.iter().zip(&self.timesteps).find(|&(&s, _)| s == sigma) {
            Some((_, &timestep)) => timestep,
            None => self.map.timestep(sigma),
        }
    }

    /// The tail that starts at step `first`: an image is noised to `sigmas[0]` of the result and denoised from there.
    ///
    /// # Errors
    /// If no step would be left.
    pub fn from_step(&self, first: usize) -> Result<Self, Error> {
        if first >= self.steps() {
            let steps = self.steps();
            return Err(Error::Schedule(format!("step {first} of {steps} leaves no steps to run")));
        }
        let mut tail = self.clone();
        tail.before.extend(tail.sigmas.drain(..first));
        tail.timesteps.drain(..first);
        if let Some(landings) = &mut tail.landings {
            landings.drain(..first);
        }
        Ok(tail)
    }

    /// The tail that diffusers' image-to-image pipelines run for a strength in 0..=1: min(⌊n·strength⌋, n) steps.
    ///
    /// # Errors
    /// A strength outside 0..=1, or one so small that no step is left.
    pub fn for_strength(&self, strength: f64) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::Schedule(format!("strength must lie between 0 and 1, not {strength}")));
        }
        let steps = self.steps();
        let kept = ((steps as f64 * strength) as usize).min(steps);
        if kept == 0 {
            return Err(Error::Schedule(format!("strength {strength} of {steps} steps leaves no steps to run")));
        }
        self.from_step(steps - kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sigma_interpolation() {
        let log_sigmas = vec![-1.0, 0.0, 2.0];
        let map = TimestepMap::Discrete { log_sigmas };
        for (log_sigma, t) in [(-5.0, 0.0), (-1.0, 0.0), (-0.5, 0.5), (0.0, 1.0), (1.0, 1.5), (2.0, 2.0), (9.0, 2.0)] {
            assert!((map.timestep(f64::exp(log_sigma)) - t).abs() < 1e-12, "{log_sigma}");
        }
    }

    #[test]
    fn bad_sigmas_are_refused() {
        let cases: [(&[f64], &str); 6] = [
            (&[1.0], "at least one step"),
            (&[], "at least one step"),
            (&[1.0, 2.0], "increase"),
            (&[1.0, f64::NAN], "finite"),
            (&[1.0, -1.0], "from 0 up"),
            (&[1.0, 0.0, 0.0], "only the last"),
        ];
        for (sigmas, expected) in cases {
            let error = Schedule::new(sigmas.to_vec(), Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap_err();
            assert!(error.to_string().contains(expected), "{sigmas:?}: {error}");
        }
    }

    #[test]
    fn strength_keeps_the_tail() {
        let sigmas = vec![5.0, 4.0, 3.0, 2.0, 0.0];
        let schedule = Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
        assert_eq!(schedule.for_strength(0.5).unwrap().sigmas, [3.0, 2.0, 0.0]);
        assert_eq!(schedule.for_strength(1.0).unwrap().sigmas.len(), 5);
        assert!(schedule.for_strength(0.1).is_err() && schedule.for_strength(1.5).is_err());
        assert_eq!(schedule.for_strength(0.5).unwrap().full_steps, 4);
    }
}
