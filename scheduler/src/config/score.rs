//! diffusers' ScoreSdeVeScheduler: score_sde's variance-exploding models, which output the score and are told σ itself.

use super::fields::Reader;
use super::named::Conversion;
use super::request::{Request, Steps};
use crate::error::Error;
use crate::frame::Frame;
use crate::schedule::{Schedule, TimestepMap};
use crate::sigmas::{exponential_ramp, linspace};

pub(super) fn schedule(reader: &Reader<'_>, request: &Request) -> Result<Schedule, Error> {
    let (low, high) = (reader.number("sigma_min")?, reader.number("sigma_max")?);
    let eps = reader.number("sampling_eps")?;
    if !(low > 0.0 && low <= high && high.is_finite() && (0.0..1.0).contains(&eps)) {
        return Err(Error::Schedule(format!(
            "a score model needs 0 < sigma_min <= sigma_max and 0 <= sampling_eps < 1, not {low}, {high} and {eps}"
        )));
    }
    let (frame, map) = (Frame::VarianceExploding, TimestepMap::Proportional { factor: 1.0 });
    let n = match &request.steps {
        Steps::Count(n) => *n,
        Steps::Sigmas(sigmas) => return Schedule::new(sigmas.clone(), frame, map),
        Steps::Timesteps(_) => {
            return Err(Error::Schedule("a score model has no discrete timesteps: give sigmas instead".to_owned()));
        }
    };
    let mut sigmas = match request.schedule {
        None => exponential_ramp(&linspace(1.0, 0.0, n), low, high, 1.0),
        Some(named) => match Conversion::of(reader, Some(named))? {
            Conversion::None => {
                let name = named.name();
                return Err(Error::Schedule(format!(
                    "the schedule {name} needs a model trained on discrete timesteps"
                )));
            }
            conversion => conversion.apply(reader, n, low, high)?,
        },
    };
    // The noise levels that the model is told end at the time `sampling_eps`; the steps themselves end at 0.
    let told = |t: f64| low * (high / low).powf(t);
    let timesteps = match request.schedule {
        None => linspace(1.0, eps, n).into_iter().map(told).collect(),
        Some(_) => sigmas.clone(),
    };
    sigmas.push(0.0);
    Schedule::with_timesteps(sigmas, timesteps, frame, map)
}
