//! Flow matching: diffusers' FlowMatch schedulers, and the multistep solvers' `use_flow_sigmas`.

use super::fields::Reader;
use super::named::{Conversion, NamedSchedule};
use super::request::{Request, Steps};
use crate::error::Error;
use crate::frame::Frame;
use crate::scaling::Prediction;
use crate::schedule::{Schedule, TimestepMap};
use crate::sigmas::linspace;

/// FlowMatchEulerDiscrete's and FlowMatchHeunDiscrete's `set_timesteps`.
pub(super) fn schedule(reader: &Reader<'_>, request: &Request) -> Result<Schedule, Error> {
    for field in ["invert_sigmas", "stochastic_sampling"] {
        if reader.has(field) && reader.flag(field)? {
            return Err(reader.unsupported(field, "it must be false"));
        }
    }
    let train = reader.number("num_train_timesteps")?;
    let shift = shift(reader, request)?;
    let base: Vec<f64> = match &request.steps {
        Steps::Count(n) => {
            // The range is that of the shifted training table, and is shifted again below, as in diffusers.
            let smallest = if shift.dynamic { 1.0 / train } else { shift.apply(1.0 / train) };
            linspace(1.0, smallest, *n)
        }
        Steps::Sigmas(sigmas) => sigmas.iter().copied().filter(|&s| s != 0.0).collect(),
        Steps::Timesteps(timesteps) => timesteps.iter().map(|t| t / train).collect(),
    };
    if let Some(bad) = base.iter().find(|s| !(**s > 0.0 && **s <= 1.0)) {
        return Err(Error::Schedule(format!("flow-matching sigmas lie between 0 and 1, but {bad} was asked for")));
    }
    let n = base.len();
    if n == 0 {
        return Err(Error::Schedule("a schedule needs at least one sigma above 0".to_owned()));
    }
    let mut sigmas: Vec<f64> = base.iter().map(|&s| shift.apply(s)).collect();
    if reader.has("shift_terminal")
        && let Some(terminal) = reader.hidden_number("shift_terminal")?.filter(|t| *t != 0.0)
    {
        // Stretched so that the last sigma is the terminal one.
        let scale = (1.0 - sigmas[n - 1]) / (1.0 - terminal);
        sigmas = sigmas.iter().map(|s| 1.0 - (1.0 - s) / scale).collect();
    }
    match request.schedule {
        None | Some(NamedSchedule::Normal | NamedSchedule::Linspace | NamedSchedule::Simple) => {}
        Some(
            NamedSchedule::Karras
            | NamedSchedule::Exponential
            | NamedSchedule::Polyexponential
            | NamedSchedule::KlOptimal
            | NamedSchedule::LinearQuadratic
            | NamedSchedule::Beta
            | NamedSchedule::Lu,
        ) => {}
        Some(other) => {
            let name = other.name();
            return Err(Error::Schedule(format!("the schedule {name} is not defined for flow matching")));
        }
    }
    let conversion = Conversion::of(reader, request.schedule)?;
    if conversion != Conversion::None {
        sigmas = conversion.apply(reader, n, sigmas[n - 1], sigmas[0])?;
    }
    let timesteps = match &request.steps {
        Steps::Timesteps(timesteps) => timesteps.clone(),
        _ => sigmas.iter().map(|s| s * train).collect(),
    };
    sigmas.push(0.0);
    Schedule::with_timesteps(sigmas, timesteps, Frame::Flow, TimestepMap::Proportional { factor: train })
}

/// Esser et al. 2024, equation 23: it puts more steps where there is much noise.
struct Shift {
    factor: f64,
    dynamic: bool,
}

impl Shift {
    fn apply(&self, sigma: f64) -> f64 {
        self.factor * sigma / (1.0 + (self.factor - 1.0) * sigma)
    }
}

fn shift(reader: &Reader<'_>, request: &Request) -> Result<Shift, Error> {
    if !(reader.has("use_dynamic_shifting") && reader.flag("use_dynamic_shifting")?) {
        return Ok(Shift { factor: positive(reader, "shift")?, dynamic: false });
    }
    let Some(length) = request.image_seq_len else {
        return Err(reader.unsupported("use_dynamic_shifting", "the number of image tokens is not known here"));
    };
    let (low, high) = (reader.number("base_image_seq_len")?, reader.number("max_image_seq_len")?);
    let (base, max) = (reader.number("base_shift")?, reader.number("max_shift")?);
    let mu = base + (max - base) / (high - low) * (length as f64 - low);
    let factor = match reader.text("time_shift_type")?.as_str() {
        "exponential" => mu.exp(),
        "linear" => mu,
        _ => return Err(reader.unsupported("time_shift_type", "it must be exponential or linear")),
    };
    Ok(Shift { factor, dynamic: true })
}

fn positive(reader: &Reader<'_>, field: &str) -> Result<f64, Error> {
    let value = reader.number(field)?;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err(reader.unsupported(field, "it must be above 0")) }
}

/// The prediction of a model driven with `use_flow_sigmas`.
pub(super) fn prediction(reader: &Reader<'_>) -> Result<Prediction, Error> {
    match reader.text("prediction_type")?.as_str() {
        "flow_prediction" => Ok(Prediction::Flow),
        _ => Err(reader.unsupported("prediction_type", "with use_flow_sigmas it must be flow_prediction")),
    }
}

/// DPMSolverMultistep's, UniPC's and DEIS's `use_flow_sigmas`.
pub(super) fn from_flow_sigmas(reader: &Reader<'_>, request: &Request) -> Result<Schedule, Error> {
    let train = reader.number("num_train_timesteps")?;
    if reader.hidden_flag("use_dynamic_shifting")? {
        return Err(reader.unsupported("use_dynamic_shifting", "it must be false"));
    }
    let ends_above_zero = match reader.class().name {
        "DEISMultistepScheduler" | "SASolverScheduler" => true,
        "UniPCMultistepScheduler" => reader.text("final_sigmas_type")? == "sigma_min",
        // DPMSolverMultistep would end at a sigma of its unused training schedule, which lies above the flow's.
        _ if reader.hidden_text("final_sigmas_type")?.is_some_and(|text| text != "zero") => {
            return Err(reader.unsupported("final_sigmas_type", "with use_flow_sigmas it must be zero"));
        }
        _ => false,
    };
    let factor = reader.hidden_number("flow_shift")?.unwrap_or(1.0);
    if !(factor > 0.0 && factor.is_finite()) {
        return Err(reader.unsupported("flow_shift", "it must be above 0"));
    }
    let shift = Shift { factor, dynamic: false };
    let (mut sigmas, whole): (Vec<f64>, bool) = match &request.steps {
        Steps::Count(n) if reader.class().name == "UniPCMultistepScheduler" => {
            let base = linspace(1.0, 1.0 / train, n + 1);
            // Just below 1, where λ is finite.
            (base[..*n].iter().map(|&s| shift.apply(s).min(1.0 - 1e-6)).collect(), true)
        }
        Steps::Count(n) => {
            let mut sigmas: Vec<f64> =
                linspace(1.0, 1.0 / train, n + 1).iter().map(|alpha| shift.apply(1.0 - alpha)).collect();
            sigmas.reverse();
            sigmas.truncate(*n);
            (sigmas, true)
        }
        Steps::Sigmas(sigmas) => (sigmas.iter().copied().filter(|&s| s != 0.0).collect(), false),
        Steps::Timesteps(timesteps) => (timesteps.iter().map(|t| t / train).collect(), false),
    };
    let Some(&smallest) = sigmas.last() else {
        return Err(Error::Schedule("a schedule needs at least one sigma above 0".to_owned()));
    };
    if request.schedule.is_some_and(|named| named != NamedSchedule::Normal) {
        return Err(Error::Schedule("a configuration with use_flow_sigmas has its own sigmas".to_owned()));
    }
    // The solvers keep their timesteps as integers.
    let timestep = |s: &f64| if whole { (s * train).trunc() } else { s * train };
    let timesteps = sigmas.iter().map(timestep).collect();
    sigmas.push(if ends_above_zero { smallest } else { 0.0 });
    let mut schedule =
        Schedule::with_timesteps(sigmas, timesteps, Frame::Flow, TimestepMap::Proportional { factor: train })?;
    // These classes start from unit noise, whatever the first sigma is.
    schedule.init_noise_sigma = 1.0;
    Ok(schedule)
}
