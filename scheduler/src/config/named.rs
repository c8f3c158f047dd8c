//! Noise schedules by name: what replaces a configuration's own choice of sigmas.

use super::fields::Reader;
use super::gits::gits;
use super::training::Training;
use crate::error::{Error, nearest_names, plain};
use crate::samplers::{Sampler, sampler};
use crate::schedule::TimestepMap;
use crate::sigmas::{
    beta_quantiles, exponential_ramp, interpolate_logarithms, karras_ramp, kl_optimal_ramp, laplace_ramp,
    linear_quadratic_ramp, linspace,
};

/// A named choice of sigmas over a checkpoint's range of noise levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedSchedule {
    /// Equally spaced timesteps from the largest sigma to the smallest (k-diffusion's and ComfyUI's normal).
    Normal,
    /// diffusers' `linspace` spacing.
    Linspace,
    /// diffusers' `leading` spacing.
    Leading,
    /// diffusers' `trailing` spacing.
    Trailing,
    /// Karras et al. 2022, equation 5, ρ = 7 (diffusers' `use_karras_sigmas`).
    Karras,
    /// Equally spaced in ln σ (`use_exponential_sigmas`).
    Exponential,
    /// k-diffusion's polyexponential with its default ρ = 1, which equals [`NamedSchedule::Exponential`].
    Polyexponential,
    /// Equally spaced in arctan σ (Sabour et al. 2024, theorem 3.1; ComfyUI's `kl_optimal`).
    KlOptimal,
    /// k-diffusion's continuous variance-preserving schedule with its own constants, independent of the model's range.
    Vp,
    /// Align Your Steps (Sabour et al. 2024) for Stable Diffusion 1.5, interpolated in ln σ for other numbers of steps than 10.
    Ays,
    /// Align Your Steps for Stable Diffusion XL.
    AysSdxl,
    /// GITS (Chen et al. 2024, On the Trajectory Regularity of ODE-based Diffusion Sampling) with the coefficient 1.2, for the sigmas of
    /// Stable Diffusion, interpolated in ln σ for more steps than 20.
    Gits,
    /// Laplace-distributed ln σ (Hang et al. 2024).
    Laplace,
    /// Half of the steps linear near the largest sigma, half quadratic (Mochi, LTX-Video).
    LinearQuadratic,
    /// Quantiles of Beta(0.6, 0.6) (`use_beta_sigmas`).
    Beta,
    /// `use_lu_lambdas` with its ρ = 1, which equals [`NamedSchedule::Exponential`].
    Lu,
    /// ComfyUI's: the first n of n+1 equally spaced timesteps.
    SgmUniform,
    /// ComfyUI's: entries of the training table at equal distances, counted from its end.
    Simple,
    /// ComfyUI's: entries of the training table at equal distances, counted from its second.
    DdimUniform,
}

/// Every named schedule and its names, the first being the canonical one.
pub static SCHEDULES: &[(NamedSchedule, &[&str])] = &[
    (NamedSchedule::Normal, &["normal", "discrete", "uniform"]),
    (NamedSchedule::Linspace, &["linspace"]),
    (NamedSchedule::Leading, &["leading"]),
    (NamedSchedule::Trailing, &["trailing"]),
    (NamedSchedule::Karras, &["karras"]),
    (NamedSchedule::Exponential, &["exponential"]),
    (NamedSchedule::Polyexponential, &["polyexponential"]),
    (NamedSchedule::KlOptimal, &["kl_optimal"]),
    (NamedSchedule::Vp, &["vp"]),
    (NamedSchedule::Ays, &["ays", "align_your_steps", "ays_sd1"]),
    (NamedSchedule::AysSdxl, &["ays_sdxl"]),
    (NamedSchedule::Gits, &["gits", "align_your_steps_gits"]),
    (NamedSchedule::Laplace, &["laplace"]),
    (NamedSchedule::LinearQuadratic, &["linear_quadratic"]),
    (NamedSchedule::Beta, &["beta"]),
    (NamedSchedule::Lu, &["lu"]),
    (NamedSchedule::SgmUniform, &["sgm_uniform"]),
    (NamedSchedule::Simple, &["simple"]),
    (NamedSchedule::DdimUniform, &["ddim_uniform", "ddim"]),
];

impl NamedSchedule {
    /// What AUTOMATIC1111's web UI and Forge call it ("Schedule type"), where they have it.
    pub fn a1111(self) -> Option<&'static str> {
        Some(match self {
            Self::Normal => "Normal",
            Self::Karras => "Karras",
            Self::Exponential => "Exponential",
            Self::Polyexponential => "Polyexponential",
            Self::KlOptimal => "KL Optimal",
            Self::Ays | Self::AysSdxl => "Align Your Steps",
            Self::Gits => "Align Your Steps GITS",
            Self::SgmUniform => "SGM Uniform",
            Self::Simple => "Simple",
            Self::DdimUniform => "DDIM",
            Self::Beta => "Beta",
            _ => return None,
        })
    }
}

impl std::str::FromStr for NamedSchedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let wanted = plain(name);
        let names =
            || SCHEDULES.iter().flat_map(|(schedule, names)| names.iter().map(move |&n| (*schedule, n, names[0])));
        names().find(|(_, n, _)| plain(n) == wanted).map(|(schedule, ..)| schedule).ok_or_else(|| {
            let nearest = nearest_names(name, names().map(|(_, n, canonical)| (n, canonical)));
            Error::UnknownSchedule { name: name.to_owned(), nearest }
        })
    }
}

impl NamedSchedule {
    /// The canonical name.
    pub fn name(self) -> &'static str {
        SCHEDULES.iter().find(|(schedule, _)| *schedule == self).map_or("", |(_, names)| names[0])
    }

    /// The timestep spacing this name stands for, if it is one.
    pub(super) fn spacing(self) -> Option<&'static str> {
        match self {
            Self::Linspace | Self::Normal => Some("linspace"),
            Self::Leading => Some("leading"),
            Self::Trailing => Some("trailing"),
            _ => None,
        }
    }

    /// Whether it has a formula of its own, which does not depend on a class's rules.
    pub(super) fn is_formula(self) -> bool {
        matches!(
            self,
            Self::Normal
                | Self::SgmUniform
                | Self::Simple
                | Self::DdimUniform
                | Self::Vp
                | Self::Ays
                | Self::AysSdxl
                | Self::Gits
        )
    }
}

/// How a class's sigmas are replaced by others over the same range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    None,
    Karras,
    Exponential,
    Beta,
    Lu,
    KlOptimal,
    Laplace,
    LinearQuadratic,
}

impl Conversion {
    /// The conversion that the name stands for, else the file's. The name of a spacing turns the file's conversion off.
    pub(super) fn of(reader: &Reader<'_>, named: Option<NamedSchedule>) -> Result<Self, Error> {
        match named {
            Some(NamedSchedule::Karras) => return Ok(Self::Karras),
            Some(NamedSchedule::KlOptimal) => return Ok(Self::KlOptimal),
            Some(NamedSchedule::Exponential | NamedSchedule::Polyexponential) => return Ok(Self::Exponential),
            Some(NamedSchedule::Beta) => return Ok(Self::Beta),
            Some(NamedSchedule::Lu) => return Ok(Self::Lu),
            Some(NamedSchedule::Laplace) => return Ok(Self::Laplace),
            Some(NamedSchedule::LinearQuadratic) => return Ok(Self::LinearQuadratic),
            Some(_) => return Ok(Self::None),
            None => {}
        }
        let mut chosen = Self::None;
        for (field, conversion) in [
            ("use_karras_sigmas", Self::Karras),
            ("use_exponential_sigmas", Self::Exponential),
            ("use_beta_sigmas", Self::Beta),
            ("use_lu_lambdas", Self::Lu),
        ] {
            if reader.has(field) && reader.flag(field)? {
                if chosen != Self::None {
                    return Err(reader.unsupported(field, "another schedule of sigmas is on as well"));
                }
                chosen = conversion;
            }
        }
        Ok(chosen)
    }

    /// n sigmas between these two, or between the file's own sigma_min and sigma_max.
    pub(super) fn apply(self, reader: &Reader<'_>, n: usize, low: f64, high: f64) -> Result<Vec<f64>, Error> {
        let low = reader.hidden_number("sigma_min")?.filter(|_| self != Self::Lu).unwrap_or(low);
        let high = reader.hidden_number("sigma_max")?.filter(|_| self != Self::Lu).unwrap_or(high);
        if !(low > 0.0 && low <= high) {
            return Err(Error::Schedule(format!("sigmas cannot be spread between {low} and {high}")));
        }
        Ok(match self {
            Self::None => Vec::new(),
            Self::Karras => karras_ramp(&linspace(0.0, 1.0, n), low, high, 7.0),
            Self::Exponential | Self::Lu => exponential_ramp(&linspace(1.0, 0.0, n), low, high, 1.0),
            Self::KlOptimal => kl_optimal_ramp(n, low, high),
            Self::Laplace => laplace_ramp(n, low, high),
            Self::LinearQuadratic => linear_quadratic_ramp(n, high),
            Self::Beta => beta_quantiles(n, low, high, 0.6, 0.6),
        })
    }
}

/// Published for 10 steps; the eleventh sigma is the training schedule's smallest.
const AYS_SD: [f64; 10] = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152];
const AYS_SDXL: [f64; 10] = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113];

/// The schedules that other tools define over a training table: (sigmas, timesteps), without the final sigma.
pub(super) fn formula(
    named: NamedSchedule,
    n: usize,
    training: &Training,
    map: &TimestepMap,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let train = training.len();
    let at = |timesteps: Vec<f64>| {
        // ComfyUI and k-diffusion interpolate ln σ between timesteps.
        let sigma = |t: &f64| {
            let low = (t.floor() as usize).min(train - 1);
            let high = (low + 1).min(train - 1);
            let w = t - low as f64;
            ((1.0 - w) * training.log_sigmas[low] + w * training.log_sigmas[high]).exp()
        };
        (timesteps.iter().map(sigma).collect::<Vec<f64>>(), timesteps)
    };
    let end = train as f64 - 1.0;
    let entries = |indices: Vec<usize>| {
        let sigmas: Vec<f64> = indices.iter().map(|&i| training.sigmas[i]).collect();
        let timesteps = sigmas.iter().map(|&s| map.timestep(s)).collect();
        (sigmas, timesteps)
    };
    let of_sigmas = |sigmas: Vec<f64>| {
        let timesteps = sigmas.iter().map(|&s| map.timestep(s)).collect();
        (sigmas, timesteps)
    };
    match named {
        NamedSchedule::Vp => {
            let mut sigmas = crate::sigmas::vp(n, 19.9, 0.1, 1e-3)?;
            sigmas.truncate(n);
            return Ok(of_sigmas(sigmas));
        }
        NamedSchedule::Ays | NamedSchedule::AysSdxl => {
            let table = if named == NamedSchedule::Ays { AYS_SD } else { AYS_SDXL };
            let table: Vec<f64> = table.iter().chain([&training.sigmas[0]]).copied().collect();
            return Ok(of_sigmas(interpolate_logarithms(&table, n)));
        }
        NamedSchedule::Gits => return Ok(of_sigmas(gits(n))),
        _ => {}
    }
    if n > train {
        return Err(Error::Schedule(format!("{n} steps are more than the {train} timesteps of the training schedule")));
    }
    Ok(match named {
        NamedSchedule::SgmUniform => {
            let mut timesteps = linspace(end, 0.0, n + 1);
            timesteps.truncate(n);
            at(timesteps)
        }
        NamedSchedule::Simple => {
            let stride = train as f64 / n as f64;
            entries((0..n).map(|i| train - 1 - (i as f64 * stride) as usize).collect())
        }
        NamedSchedule::DdimUniform => {
            let stride = (train / n).max(1);
            entries((1..train).step_by(stride).collect::<Vec<_>>().into_iter().rev().collect())
        }
        _ => at(linspace(end, 0.0, n)),
    })
}

/// A sampler asked for by name, with the schedule that its name may end in, as AUTOMATIC1111 writes them: "DPM++ 2M Karras".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NamedSampler {
    /// Which sampler.
    pub sampler: &'static Sampler,
    /// The schedule after its name.
    pub schedule: Option<NamedSchedule>,
}

impl From<&'static Sampler> for NamedSampler {
    fn from(sampler: &'static Sampler) -> Self {
        Self { sampler, schedule: None }
    }
}

impl std::str::FromStr for NamedSampler {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownSampler`], with the nearest names.
    fn from_str(name: &str) -> Result<Self, Error> {
        let unknown = match sampler(name) {
            Ok(sampler) => return Ok(sampler.into()),
            Err(error) => error,
        };
        let wanted = plain(name);
        SCHEDULES
            .iter()
            .flat_map(|(schedule, names)| names.iter().map(move |name| (*schedule, plain(name))))
            .find_map(|(schedule, suffix)| {
                let sampler = sampler(wanted.strip_suffix(&suffix)?).ok()?;
                Some(Self { sampler, schedule: Some(schedule) })
            })
            .ok_or(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_with_schedules() {
        let NamedSampler { sampler: dpmpp, schedule: karras } = "DPM++ 2M Karras".parse().unwrap();
        assert_eq!((dpmpp.name, karras), ("dpmpp_2m", Some(NamedSchedule::Karras)));
        let NamedSampler { sampler: heun, schedule: none } = "Heun".parse().unwrap();
        assert_eq!((heun.name, none), ("heun", None));
        assert!("Karras".parse::<NamedSampler>().is_err());
    }
}
