//! Tables over a discrete variance-preserving training schedule, by the rules of each diffusers class.

use super::fields::Reader;
use super::named::{self, Conversion, NamedSchedule};
use super::request::{Request, Steps};
use super::training::Training;
use crate::error::Error;
use crate::frame::Frame;
use crate::scaling::Prediction;
use crate::schedule::{Schedule, TimestepMap};
use crate::sigmas::linspace;

pub(super) fn prediction(reader: &Reader<'_>) -> Result<Prediction, Error> {
    match reader.text("prediction_type")?.as_str() {
        "epsilon" => Ok(Prediction::Epsilon),
        "v_prediction" => Ok(Prediction::VPrediction),
        "sample" | "original_sample" => Ok(Prediction::Sample),
        _ => Err(reader.unsupported("prediction_type", "it must be epsilon, v_prediction or sample")),
    }
}

/// How a class goes from timesteps to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// k-diffusion's: σ interpolated at the timesteps, then 0 (Euler, Heun, LMS, KDPM2 and all that diffusers lacks).
    Interpolated,
    /// DPMSolverMultistep, UniPC, DEIS, SASolver: whole timesteps: one more than asked for is computed, and the last is
    /// left out.
    Multistep,
    /// DDIM, DDPM, PNDM and RePaint: whole timesteps; all but DDPM go down by a whole number of them in each step.
    Ancestral,
    /// LCM and TCD: entries of the list of timesteps that the model was distilled at.
    Distilled,
}

fn rules(reader: &Reader<'_>) -> Rules {
    match reader.class().name {
        "DDIMScheduler"
        | "DDIMParallelScheduler"
        | "DDIMInverseScheduler"
        | "DDPMScheduler"
        | "DDPMParallelScheduler"
        | "RePaintScheduler"
        | "PNDMScheduler" => Rules::Ancestral,
        "LCMScheduler" | "TCDScheduler" => Rules::Distilled,
        "DPMSolverMultistepScheduler"
        | "DPMSolverSinglestepScheduler"
        | "UniPCMultistepScheduler"
        | "DEISMultistepScheduler"
        | "SASolverScheduler" => Rules::Multistep,
        _ => Rules::Interpolated,
    }
}

/// A table before the final sigma is settled. It has one sigma more than timesteps, or as many.
struct Table {
    sigmas: Vec<f64>,
    timesteps: Vec<f64>,
    last: f64,
    landings: Option<Vec<f64>>,
}

pub(super) fn schedule(reader: &Reader<'_>, request: &Request, eta: f64) -> Result<Schedule, Error> {
    let training = Training::new(reader)?;
    let rules = rules(reader);
    let named = request.schedule;
    let quarter_log = reader.has("timestep_type")
        && reader.text("timestep_type")? == "continuous"
        && prediction(reader)? == Prediction::VPrediction;
    let map = if quarter_log {
        TimestepMap::QuarterLog
    } else {
        TimestepMap::Discrete { log_sigmas: training.log_sigmas.clone() }
    };

    let mut table = match &request.steps {
        Steps::Sigmas(sigmas) => {
            let (&last, body) =
                sigmas.split_last().ok_or_else(|| Error::Schedule("the list of sigmas is empty".to_owned()))?;
            let timesteps = body.iter().map(|&s| map.timestep(s)).collect();
            Table { sigmas: body.to_vec(), timesteps, last, landings: None }
        }
        Steps::Timesteps(timesteps) => {
            if Conversion::of(reader, named)? != Conversion::None || quarter_log {
                return Err(Error::Schedule(
                    "explicit timesteps and a schedule of sigmas (karras, exponential, beta) exclude each other"
                        .to_owned(),
                ));
            }
            let outside = |t: &&f64| !(0.0..training.len() as f64).contains(*t);
            if let Some(bad) = timesteps.iter().find(outside) {
                let last = training.len() - 1;
                return Err(Error::Schedule(format!("a timestep must lie between 0 and {last}, not {bad}")));
            }
            let sigmas = timesteps.iter().map(|&t| training.sigma_at(t)).collect();
            Table { sigmas, timesteps: timesteps.clone(), last: final_sigma(reader, &training)?, landings: None }
        }
        Steps::Count(n) => match (rules, named) {
            (_, Some(named)) if named.is_formula() => {
                let (sigmas, timesteps) = named::formula(named, *n, &training, &map)?;
                Table { sigmas, timesteps, last: final_sigma(reader, &training)?, landings: None }
            }
            (
                Rules::Ancestral,
                None | Some(NamedSchedule::Linspace | NamedSchedule::Leading | NamedSchedule::Trailing),
            ) => ancestral(reader, &training, *n, named)?,
            (Rules::Distilled, None) => distilled(reader, &training, *n)?,
            (Rules::Multistep, _) => multistep(reader, &training, *n, named, &map)?,
            (Rules::Interpolated | Rules::Ancestral | Rules::Distilled, _) => {
                interpolated(reader, &training, *n, named, &map)?
            }
        },
    };
    if reader.class().name == "TCDScheduler" {
        land_lower(&mut table, &training, eta)?;
    }
    if quarter_log {
        table.timesteps = table.sigmas.iter().take(table.timesteps.len()).map(|s| 0.25 * s.ln()).collect();
    }
    table.sigmas.push(table.last);
    let steps = table.timesteps.len();
    if table.sigmas.len() > steps + 1 {
        // interpolation_type log_linear: one sigma more than there are timesteps, so diffusers never reaches the last.
        table.sigmas.truncate(steps + 1);
    }
    let mut schedule = Schedule::with_timesteps(table.sigmas, table.timesteps, Frame::VarianceExploding, map)?;
    schedule.landings = table.landings;

    let largest = schedule.sigmas[0];
    let last = schedule.sigmas[steps];
    let exploding = rules == Rules::Interpolated;
    let spacing = spacing(reader, named)?;
    schedule.init_noise_sigma = if exploding && spacing != "leading" { largest } else { largest.hypot(1.0) };
    // Classes that step in the variance-preserving frame return its x.
    schedule.final_scale = if exploding { 1.0 } else { 1.0 / last.hypot(1.0) };
    Ok(schedule)
}

/// β of every training timestep, for RePaint's own schedule; none for other steps, which need not be whole numbers of timesteps.
pub(super) fn betas_to_undo(reader: &Reader<'_>, request: &Request) -> Result<Vec<f64>, Error> {
    let own = matches!(request.steps, Steps::Count(_)) && request.schedule.is_none();
    Ok(if own { Training::new(reader)?.betas } else { Vec::new() })
}

fn spacing(reader: &Reader<'_>, named: Option<NamedSchedule>) -> Result<String, Error> {
    let of_file = if reader.has("timestep_spacing") {
        reader.text("timestep_spacing")?
    } else if reader.class().name == "RePaintScheduler" {
        "leading".to_owned()
    } else {
        "linspace".to_owned()
    };
    let spacing = named.and_then(NamedSchedule::spacing).map_or(of_file, str::to_owned);
    match spacing.as_str() {
        "linspace" | "leading" | "trailing" => Ok(spacing),
        _ => Err(reader.unsupported("timestep_spacing", "it must be linspace, leading or trailing")),
    }
}

fn steps_offset(reader: &Reader<'_>) -> Result<f64, Error> {
    if reader.has("steps_offset") { reader.number("steps_offset") } else { Ok(0.0) }
}

fn final_sigma(reader: &Reader<'_>, training: &Training) -> Result<f64, Error> {
    // These two take logarithms of their sigmas, so they end at the smallest sigma and not at 0.
    if matches!(reader.class().name, "DEISMultistepScheduler" | "SASolverScheduler") {
        return Ok(training.sigmas[0]);
    }
    if !reader.has("final_sigmas_type") {
        return Ok(0.0);
    }
    match reader.text("final_sigmas_type")?.as_str() {
        "zero" => Ok(0.0),
        "sigma_min" => Ok(training.sigmas[0]),
        _ => Err(reader.unsupported("final_sigmas_type", "it must be zero or sigma_min")),
    }
}

/// `set_timesteps` of EulerDiscrete, HeunDiscrete and similar classes.
fn interpolated(
    reader: &Reader<'_>,
    training: &Training,
    n: usize,
    named: Option<NamedSchedule>,
    map: &TimestepMap,
) -> Result<Table, Error> {
    let train = training.len();
    let timesteps: Vec<f64> = match spacing(reader, named)?.as_str() {
        // diffusers keeps these in f32.
        "linspace" => linspace(0.0, train as f64 - 1.0, n).iter().rev().map(|&t| f64::from(t as f32)).collect(),
        "leading" => leading(train, n, steps_offset(reader)?)?,
        _ => trailing(train, n, train),
    };
    let log_linear = reader.has("interpolation_type") && reader.text("interpolation_type")? == "log_linear";
    let sigmas: Vec<f64> = if log_linear {
        let (high, low) = (training.log_sigmas[train - 1], training.log_sigmas[0]);
        linspace(high, low, n + 1).iter().map(|s| s.exp()).collect()
    } else if !reader.has("interpolation_type") || reader.text("interpolation_type")? == "linear" {
        timesteps.iter().map(|&t| training.sigma_at(t)).collect()
    } else {
        return Err(reader.unsupported("interpolation_type", "it must be linear or log_linear"));
    };
    let last = final_sigma(reader, training)?;
    let conversion = Conversion::of(reader, named)?;
    if conversion == Conversion::None {
        return Ok(Table { sigmas, timesteps, last, landings: None });
    }
    let sigmas = conversion.apply(reader, n, sigmas[sigmas.len() - 1], sigmas[0])?;
    let rounds = conversion == Conversion::Karras && reader.class().name.starts_with("KDPM2");
    let timestep = |s: &f64| if rounds { map.timestep(*s).round_ties_even() } else { map.timestep(*s) };
    let timesteps = sigmas.iter().map(timestep).collect();
    Ok(Table { sigmas, timesteps, last, landings: None })
}

/// `set_timesteps` of DPMSolverMultistep and similar classes.
fn multistep(
    reader: &Reader<'_>,
    training: &Training,
    n: usize,
    named: Option<NamedSchedule>,
    map: &TimestepMap,
) -> Result<Table, Error> {
    let last = final_sigma(reader, training)?;
    let conversion = Conversion::of(reader, named)?;
    if conversion != Conversion::None {
        let (low, high) = (training.sigmas[0], training.sigmas[training.len() - 1]);
        let sigmas = conversion.apply(reader, n, low, high)?;
        let dpm = reader.class().name.starts_with("DPMSolver");
        let rounds = matches!(conversion, Conversion::Karras | Conversion::Lu)
            && !(reader.class().name == "DPMSolverMultistepScheduler"
                && reader.text("beta_schedule")? == "squaredcos_cap_v2");
        // The other classes end at the last of their own sigmas, not at the end of the training schedule.
        let last = if dpm || last == 0.0 { last } else { sigmas[sigmas.len() - 1] };
        // Where diffusers does not round, it truncates when it makes a tensor of integers. The small addition accounts
        // for diffusers' logarithms in f32, with which the largest sigma is timestep 999 and not 998.9999.
        let whole = |t: f64| if rounds { t.round_ties_even() } else { (t + 1e-4).trunc() };
        let timesteps = sigmas.iter().map(|&s| whole(map.timestep(s))).collect();
        return Ok(Table { sigmas, timesteps, last, landings: None });
    }
    let clip = if reader.has("lambda_min_clipped") { reader.number("lambda_min_clipped")? } else { f64::NEG_INFINITY };
    // λ = ln(α/σ) falls with the timestep; those below the clip are never visited.
    let clipped = training.log_sigmas.iter().filter(|&&log_sigma| -log_sigma < clip).count();
    let end = training.len() - clipped;
    let timesteps: Vec<f64> = match spacing(reader, named)?.as_str() {
        "linspace" => {
            let mut all: Vec<f64> =
                linspace(0.0, end as f64 - 1.0, n + 1).iter().map(|t| t.round_ties_even()).collect();
            all.reverse();
            all.truncate(n);
            all
        }
        "leading" => {
            let offset = steps_offset(reader)?;
            let ratio = end / (n + 1);
            (1..=n).rev().map(|i| (i * ratio) as f64 + offset).collect()
        }
        _ => trailing(training.len(), n, end),
    };
    let sigmas = timesteps.iter().map(|&t| training.sigma_at(t)).collect();
    Ok(Table { sigmas, timesteps, last, landings: None })
}

/// DDIM's and DDPM's timesteps, and where each of their steps lands: `timestep - num_train_timesteps // n`.
fn ancestral(reader: &Reader<'_>, training: &Training, n: usize, named: Option<NamedSchedule>) -> Result<Table, Error> {
    let train = training.len();
    if n > train {
        return Err(Error::Schedule(format!("{n} steps are more than the {train} timesteps of the training schedule")));
    }
    let timesteps: Vec<f64> = match spacing(reader, named)?.as_str() {
        "linspace" => linspace(0.0, train as f64 - 1.0, n).iter().rev().map(|t| t.round_ties_even()).collect(),
        "leading" => leading(train, n, steps_offset(reader)?)?,
        _ => trailing(train, n, train),
    };
    let last =
        if reader.has("set_alpha_to_one") && !reader.flag("set_alpha_to_one")? { training.sigmas[0] } else { 0.0 };
    let ratio = (train / n) as i64;
    let mut sigmas = Vec::with_capacity(n);
    let mut landings = Vec::with_capacity(n);
    for &t in &timesteps {
        let t = t as i64;
        let sigma = training.sigma_of(t).ok_or_else(|| {
            Error::Schedule(format!("{n} steps with this steps_offset ask for timestep {t} of {train}"))
        })?;
        sigmas.push(sigma);
        landings.push(training.sigma_of(t - ratio).unwrap_or(last));
    }
    if reader.class().sampler == "ddpm" {
        return Ok(Table { sigmas, timesteps, last: 0.0, landings: None });
    }
    let last = landings[landings.len() - 1];
    let next = sigmas.iter().skip(1).chain([&last]);
    let landings = if landings.iter().eq(next) { None } else { Some(landings) };
    if landings.is_some() && matches!(reader.class().sampler, "pndm" | "ddim_inverse") {
        return Err(reader.unsupported("timestep_spacing", "it needs timesteps that are its own steps apart: leading"));
    }
    Ok(Table { sigmas, timesteps, last, landings })
}

/// The levels between PNDM's first four timesteps at which its Runge-Kutta steps evaluate the model: the level where
/// the first half-step lands, and the level that the model is told there. The two differ by a timestep where a step is
/// an odd number of timesteps. For sigmas other than the file's, the middle is taken in their logarithms.
pub(super) fn runge_kutta_middles(
    reader: &Reader<'_>,
    request: &Request,
    schedule: &Schedule,
) -> Result<Vec<(f64, f64)>, Error> {
    let steps = schedule.full_steps;
    if steps < 4 {
        return Err(Error::Schedule(format!("pndm starts by Runge-Kutta, which takes at least 4 steps, not {steps}")));
    }
    let own = request.schedule.is_none() && schedule.frame == Frame::VarianceExploding;
    if !own || !matches!(request.steps, Steps::Count(_)) {
        let middle = |(high, low): (f64, f64)| (high * low).sqrt();
        return Ok(schedule.pairs().take(3).map(middle).map(|sigma| (sigma, sigma)).collect());
    }
    let training = Training::new(reader)?;
    let half = (training.len() / steps / 2) as f64;
    let starts = schedule.timesteps.windows(2).take(3);
    Ok(starts.map(|pair| (training.sigma_at(pair[0] - half), training.sigma_at(pair[1] + half))).collect())
}

/// LCM's and TCD's `set_timesteps`: n of the `original_inference_steps` timesteps of the distillation, equally spaced from the last.
fn distilled(reader: &Reader<'_>, training: &Training, n: usize) -> Result<Table, Error> {
    let original = reader.count("original_inference_steps")?;
    if original == 0 || original > training.len() {
        return Err(reader.unsupported("original_inference_steps", "it must lie between 1 and num_train_timesteps"));
    }
    if n > original {
        return Err(Error::Schedule(format!("{n} steps are more than the {original} that the model was distilled at")));
    }
    let timesteps = spread(training.len() / original, original, n);
    let sigmas = timesteps.iter().map(|&t| training.sigma_at(t)).collect();
    Ok(Table { sigmas, timesteps, last: 0.0, landings: None })
}

/// n of the `entries` timesteps of the distillation, which are `ratio` timesteps apart.
fn spread(ratio: usize, entries: usize, n: usize) -> Vec<f64> {
    let index = |i: usize| (i as f64 * (entries as f64 / n as f64)).floor() as usize;
    (0..n).map(|i| ((entries - index(i)) * ratio - 1) as f64).collect()
}

/// LCM's `set_timesteps` with a strength: n timesteps of this share of the distillation's list, counted from its end
/// without noise.
pub(super) fn distilled_share(reader: &Reader<'_>, n: usize, strength: f64) -> Result<Vec<f64>, Error> {
    let (train, original) = (reader.count("num_train_timesteps")?, reader.count("original_inference_steps")?);
    if original == 0 || original > train {
        return Err(reader.unsupported("original_inference_steps", "it must lie between 1 and num_train_timesteps"));
    }
    let entries = (original as f64 * strength) as usize;
    if n > entries {
        return Err(Error::Schedule(format!(
            "strength {strength} leaves {entries} of the {original} steps that the model was distilled at, fewer than {n}"
        )));
    }
    Ok(spread(train / original, entries, n))
}

/// TCD lands at the timestep (1-η)·t', where t' is the next timestep. The last step lands at timestep 0.
fn land_lower(table: &mut Table, training: &Training, eta: f64) -> Result<(), Error> {
    if eta > 1.0 {
        return Err(Error::Schedule(format!("the eta of tcd must lie between 0 and 1, not {eta}")));
    }
    let next = table.timesteps.iter().skip(1).copied().chain([0.0]);
    let landings: Vec<f64> = next.map(|t| training.sigma_at(((1.0 - eta) * t).floor())).collect();
    table.last = landings[landings.len() - 1];
    table.landings = Some(landings);
    Ok(())
}

/// 0, r, 2r, … with r = ⌊train/n⌋, plus the offset, largest first.
fn leading(train: usize, n: usize, offset: f64) -> Result<Vec<f64>, Error> {
    if n > train {
        return Err(Error::Schedule(format!("{n} steps are more than the {train} timesteps of the training schedule")));
    }
    let ratio = train / n;
    Ok((0..n).rev().map(|i| (i * ratio) as f64 + offset).collect())
}

/// From the end down in steps of train/n, rounded, less 1: numpy's arange with its own rounding.
fn trailing(train: usize, n: usize, end: usize) -> Vec<f64> {
    let step = -(train as f64 / n as f64);
    let end = end as f64;
    let length = (-end / step).ceil().max(0.0) as usize;
    let delta = (end + step) - end;
    (0..length).map(|i| (end + i as f64 * delta).round_ties_even() - 1.0).collect()
}
