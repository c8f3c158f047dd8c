//! diffusers' EDM schedulers: Karras et al. 2022's own sigmas and preconditioning.

use super::fields::Reader;
use super::named::NamedSchedule;
use super::request::{Request, Steps};
use crate::error::Error;
use crate::frame::Frame;
use crate::scaling::Prediction;
use crate::schedule::{Schedule, TimestepMap};
use crate::sigmas::{
    beta_quantiles, exponential_ramp, karras_ramp, kl_optimal_ramp, laplace_ramp, linear_quadratic_ramp, linspace,
};

pub(super) fn prediction(reader: &Reader<'_>) -> Result<Prediction, Error> {
    let sigma_data = reader.number("sigma_data")?;
    match reader.text("prediction_type")?.as_str() {
        "epsilon" => Ok(Prediction::Edm { sigma_data, v: false }),
        "v_prediction" => Ok(Prediction::Edm { sigma_data, v: true }),
        _ => Err(reader.unsupported("prediction_type", "it must be epsilon or v_prediction")),
    }
}

pub(super) fn schedule(reader: &Reader<'_>, request: &Request) -> Result<Schedule, Error> {
    let (low, high, rho) = (reader.number("sigma_min")?, reader.number("sigma_max")?, reader.number("rho")?);
    if !(low > 0.0 && low <= high && high.is_finite()) {
        return Err(Error::Schedule(format!(
            "sigma_min and sigma_max must satisfy 0 < sigma_min <= sigma_max, not {low} and {high}"
        )));
    }
    let karras = match request.schedule {
        Some(NamedSchedule::Karras) => true,
        Some(NamedSchedule::Exponential | NamedSchedule::Polyexponential | NamedSchedule::Lu) => false,
        Some(
            NamedSchedule::Beta | NamedSchedule::KlOptimal | NamedSchedule::Laplace | NamedSchedule::LinearQuadratic,
        )
        | None => match reader.text("sigma_schedule")?.as_str() {
            "karras" => true,
            "exponential" => false,
            _ => return Err(reader.unsupported("sigma_schedule", "it must be karras or exponential")),
        },
        Some(other) => {
            let name = other.name();
            return Err(Error::Schedule(format!("the schedule {name} needs a model trained on discrete timesteps")));
        }
    };
    let mut sigmas = match &request.steps {
        Steps::Count(n) if request.schedule == Some(NamedSchedule::Beta) => beta_quantiles(*n, low, high, 0.6, 0.6),
        Steps::Count(n) if request.schedule == Some(NamedSchedule::KlOptimal) => kl_optimal_ramp(*n, low, high),
        Steps::Count(n) if request.schedule == Some(NamedSchedule::Laplace) => laplace_ramp(*n, low, high),
        Steps::Count(n) if request.schedule == Some(NamedSchedule::LinearQuadratic) => linear_quadratic_ramp(*n, high),
        Steps::Count(n) if karras => karras_ramp(&linspace(0.0, 1.0, *n), low, high, rho),
        Steps::Count(n) => {
            // Built from the small end, so a single step sits at sigma_min, as in diffusers.
            let mut sigmas = exponential_ramp(&linspace(0.0, 1.0, *n), low, high, 1.0);
            sigmas.reverse();
            sigmas
        }
        Steps::Sigmas(sigmas) => sigmas.clone(),
        Steps::Timesteps(_) => {
            return Err(Error::Schedule("an EDM model has no discrete timesteps: give sigmas instead".to_owned()));
        }
    };
    if !matches!(request.steps, Steps::Sigmas(_)) {
        let last = match reader.text("final_sigmas_type")?.as_str() {
            "zero" => 0.0,
            "sigma_min" => sigmas[sigmas.len() - 1],
            _ => return Err(reader.unsupported("final_sigmas_type", "it must be zero or sigma_min")),
        };
        sigmas.push(last);
    }
    let mut schedule = Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::QuarterLog)?;
    schedule.init_noise_sigma = match request.steps {
        Steps::Sigmas(_) => schedule.sigmas[0].hypot(1.0),
        _ => high.hypot(1.0),
    };
    Ok(schedule)
}
