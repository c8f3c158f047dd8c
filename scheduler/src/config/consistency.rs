//! diffusers' CMStochasticIterativeScheduler: steps at indices of a Karras table.

use super::fields::Reader;
use super::request::{Request, Steps};
use crate::error::Error;
use crate::frame::Frame;
use crate::scaling::Prediction;
use crate::schedule::{Schedule, TimestepMap};
use crate::sigmas::karras_ramp;

pub(super) fn prediction(reader: &Reader<'_>) -> Result<Prediction, Error> {
    let (sigma_data, sigma_min) = (reader.number("sigma_data")?, reader.number("sigma_min")?);
    Ok(Prediction::Consistency { sigma_data, sigma_min })
}

pub(super) fn schedule(reader: &Reader<'_>, request: &Request) -> Result<Schedule, Error> {
    let train = reader.count("num_train_timesteps")?;
    let (low, high, rho) = (reader.number("sigma_min")?, reader.number("sigma_max")?, reader.number("rho")?);
    if train < 2 || !(low > 0.0 && low <= high && high.is_finite()) {
        return Err(Error::Schedule(format!(
            "a consistency schedule needs 0 < sigma_min <= sigma_max, not {low} and {high}"
        )));
    }
    if let Some(named) = request.schedule {
        let name = named.name();
        return Err(Error::Schedule(format!("the schedule {name} is not defined for a consistency model")));
    }
    // Indices count from the smallest noise up; the table runs from the largest down.
    let ramp: Vec<f64> = match &request.steps {
        Steps::Count(n) if *n > train => {
            return Err(Error::Schedule(format!("{n} steps are more than the {train} of the consistency model")));
        }
        Steps::Count(n) => (0..*n).map(|i| (i * (train / n)) as f64).collect(),
        Steps::Timesteps(timesteps) => {
            let outside = |t: &&f64| !(0.0..train as f64).contains(*t);
            if let Some(bad) = timesteps.iter().find(outside) {
                let last = train - 1;
                return Err(Error::Schedule(format!("a timestep must lie between 0 and {last}, not {bad}")));
            }
            timesteps.iter().rev().copied().collect()
        }
        Steps::Sigmas(sigmas) => {
            let mut schedule =
                Schedule::new(sigmas.clone(), Frame::VarianceExploding, TimestepMap::ThousandQuarterLog)?;
            schedule.init_noise_sigma = schedule.sigmas[0];
            return Ok(schedule);
        }
    };
    let ramp: Vec<f64> = ramp.iter().map(|index| index / (train - 1) as f64).collect();
    let mut sigmas = karras_ramp(&ramp, low, high, rho);
    sigmas.push(low);
    let mut schedule = Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::ThousandQuarterLog)?;
    schedule.init_noise_sigma = high;
    Ok(schedule)
}
