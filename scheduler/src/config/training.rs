//! The noise schedule a variance-preserving model was trained with.

use super::fields::Reader;
use crate::error::Error;

/// β and σ = √((1-ᾱ)/ᾱ) of every training timestep.
///
/// Computed in f32, as diffusers does: near timestep 0 the rounding of 1-β changes the fourth digit of σ, and models
/// are trained and sampled with the rounded table.
#[derive(Debug, Clone)]
pub(super) struct Training {
    pub(super) betas: Vec<f64>,
    pub(super) sigmas: Vec<f64>,
    pub(super) log_sigmas: Vec<f64>,
}

impl Training {
    /// By the class's rules.
    pub(super) fn new(reader: &Reader<'_>) -> Result<Self, Error> {
        let mut betas = betas(reader)?;
        let zero_snr = reader.has("rescale_betas_zero_snr") && reader.flag("rescale_betas_zero_snr")?;
        if zero_snr {
            betas = rescale_zero_terminal_snr(&betas);
        }
        if let Some(bad) = betas.iter().find(|b| !(0.0..=1.0).contains(*b)) {
            return Err(Error::Schedule(format!(
                "the training schedule has a beta of {bad}, which is not between 0 and 1"
            )));
        }
        let mut alphas_cumprod = cumprod(betas.iter().map(|b| 1.0 - b));
        if zero_snr && let Some(last) = alphas_cumprod.last_mut() {
            *last = reader.class().zero_snr_floor;
        }
        if alphas_cumprod.iter().any(|a| *a <= 0.0) {
            return Err(Error::Schedule(
                "the training schedule leaves no signal at its end: its sigma is infinite".to_owned(),
            ));
        }
        let sigmas_f32: Vec<f32> = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        let log_sigmas = sigmas_f32.iter().map(|s| f64::from(s.ln())).collect();
        let sigmas = sigmas_f32.into_iter().map(f64::from).collect();
        let betas = betas.into_iter().map(f64::from).collect();
        Ok(Self { betas, sigmas, log_sigmas })
    }

    /// Number of training timesteps.
    pub(super) fn len(&self) -> usize {
        self.sigmas.len()
    }

    /// σ at a fractional timestep, linear between the table's entries and constant beyond its ends, like numpy's
    /// interp.
    pub(super) fn sigma_at(&self, timestep: f64) -> f64 {
        let last = self.len() - 1;
        let t = timestep.clamp(0.0, last as f64);
        let low = (t.floor() as usize).min(last);
        let high = (low + 1).min(last);
        self.sigmas[low] + (self.sigmas[high] - self.sigmas[low]) * (t - low as f64)
    }

    /// σ at a whole timestep; none if it lies outside the table.
    pub(super) fn sigma_of(&self, timestep: i64) -> Option<f64> {
        usize::try_from(timestep).ok().and_then(|t| self.sigmas.get(t)).copied()
    }
}

fn betas(reader: &Reader<'_>) -> Result<Vec<f32>, Error> {
    if let Some(trained) = reader.numbers("trained_betas")? {
        if trained.len() < 2 {
            return Err(reader.unsupported("trained_betas", "a training schedule has at least two steps"));
        }
        return Ok(trained.iter().map(|&b| b as f32).collect());
    }
    let n = reader.count("num_train_timesteps")?;
    if n < 2 {
        return Err(reader.unsupported("num_train_timesteps", "a training schedule has at least two steps"));
    }
    let (start, end) = (reader.number("beta_start")?, reader.number("beta_end")?);
    match reader.text("beta_schedule")?.as_str() {
        "linear" => Ok(linspace_f32(start as f32, end as f32, n)),
        "scaled_linear" => Ok(linspace_f32(start.sqrt() as f32, end.sqrt() as f32, n).iter().map(|b| b * b).collect()),
        "squaredcos_cap_v2" => {
            Ok(betas_for_alpha_bar(n, |t| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)))
        }
        "exp" if reader.class().name == "HeunDiscreteScheduler" => Ok(betas_for_alpha_bar(n, |t| (-12.0 * t).exp())),
        "sigmoid" if matches!(reader.class().name, "DDPMScheduler" | "DDPMParallelScheduler" | "RePaintScheduler") => {
            Ok(linspace_f32(-6.0, 6.0, n)
                .iter()
                .map(|&b| (1.0 / (1.0 + (-b).exp())) * (end - start) as f32 + start as f32)
                .collect())
        }
        _ => Err(reader.unsupported("beta_schedule", "it must be linear, scaled_linear or squaredcos_cap_v2")),
    }
}

/// Nichol & Dhariwal 2021, equation 17: β from ᾱ as a function of time, capped.
fn betas_for_alpha_bar(n: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let (t1, t2) = (i as f64 / n as f64, (i + 1) as f64 / n as f64);
            (1.0 - alpha_bar(t2) / alpha_bar(t1)).min(0.999) as f32
        })
        .collect()
}

/// Lin et al. 2024, algorithm 1: √ᾱ shifted and scaled so that the last is 0 and the first stays.
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let root: Vec<f32> = cumprod(betas.iter().map(|b| 1.0 - b)).iter().map(|a| a.sqrt()).collect();
    let (first, last) = (root[0], root[root.len() - 1]);
    let alpha_bar: Vec<f32> = root
        .iter()
        .map(|r| {
            let scaled = (r - last) * (first / (first - last));
            scaled * scaled
        })
        .collect();
    (0..betas.len()).map(|i| 1.0 - if i == 0 { alpha_bar[0] } else { alpha_bar[i] / alpha_bar[i - 1] }).collect()
}

/// torch's linspace in f32: counted from both ends, with fused multiply-adds.
fn linspace_f32(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n - 1) as f32;
    (0..n)
        .map(|i| if i < n / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((n - 1 - i) as f32, end) })
        .collect()
}

/// torch's cumprod on a CPU: the running product in f64, each entry rounded to f32.
fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    values
        .scan(1.0_f64, |product, value| {
            *product *= f64::from(value);
            Some(*product as f32)
        })
        .collect()
}
