//! diffusers' `scheduler_config.json`, read as a schedule and a sampler.
//!
//! A checkpoint's file names a class and its fields. Asking for another sampler has the effect of `Class.from_config`
//! in diffusers: the file's fields, the other class's rules, and the other class's defaults for what the file does not
//! say.

mod classes;
mod consistency;
mod discrete;
mod edm;
mod fields;
mod flow;
mod gits;
mod named;
mod request;
mod score;
mod strength;
mod training;

use std::collections::BTreeMap;

use classes::{Class, Family};
pub use fields::Field;
use fields::Reader;
pub use named::{NamedSampler, NamedSchedule, SCHEDULES};
pub use request::{Request, Steps};

use crate::error::Error;
use crate::frame::Frame;
use crate::program::{Limit, Program};
use crate::samplers::{Sampler, Settings, SolverType, Variance, sampler};
use crate::scaling::Prediction;
use crate::schedule::Schedule;

/// A scheduler configuration: a class and its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    class: &'static Class,
    fields: BTreeMap<String, Field>,
}

/// All that a driver needs besides the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// How to step.
    pub sampler: &'static Sampler,
    /// Where to step.
    pub schedule: Schedule,
    /// What the model predicts.
    pub prediction: Prediction,
    /// The sampler's settings.
    pub settings: Settings,
    /// Whether the model's output has a second half of channels (a learned variance) to be dropped.
    pub learned_variance: bool,
}

impl Sampling {
    /// The sampler applied to the schedule.
    pub fn program(&self) -> Program {
        self.sampler.program(&self.schedule, &self.settings)
    }
}

impl SchedulerConfig {
    /// Reads the fields of a `scheduler_config.json`, `_class_name` among them. Other fields beginning with `_` are ignored.
    /// Python writes infinities as a bare `-Infinity`, which is not JSON: pass them as the text `"-Infinity"`.
    ///
    /// # Errors
    /// A class that is not known, or a field that no scheduler has.
    pub fn new(fields: impl IntoIterator<Item = (String, Field)>) -> Result<Self, Error> {
        let mut fields: BTreeMap<String, Field> = fields.into_iter().collect();
        let name = match fields.remove("_class_name") {
            Some(Field::Text(name)) => name,
            Some(other) => return Err(Error::UnknownClass { class: other.to_string() }),
            None => return Err(Error::UnknownClass { class: String::new() }),
        };
        let class = classes::find(&name)?;
        fields.retain(|field, _| !field.starts_with('_'));
        if let Some(field) = fields.keys().find(|field| !classes::is_known_field(field)) {
            return Err(Error::UnknownField { class: name, field: field.clone() });
        }
        // An older form of prediction_type.
        if fields.get("predict_epsilon") == Some(&Field::Bool(false)) && !fields.contains_key("prediction_type") {
            let (field, value) = ("predict_epsilon".to_owned(), "false".to_owned());
            let reason = "write prediction_type = sample in its place".to_owned();
            return Err(Error::Unsupported { class: name, field, value, reason });
        }
        Ok(Self { class, fields })
    }

    /// The diffusers class in the file.
    pub fn class(&self) -> &'static str {
        self.class.name
    }

    /// The sampler of the class in the file.
    ///
    /// # Errors
    /// [`Error::NoSampler`] if it is not in the list; any other sampler can still be asked for.
    pub fn default_sampler(&self) -> Result<&'static Sampler, Error> {
        let reader = Reader::new(self.class, &self.fields);
        let mut name = self.class.sampler;
        if name == "dpmpp_2s" && reader.text("algorithm_type")? != "dpmsolver++" {
            return Err(reader.unsupported("algorithm_type", "it must be dpmsolver++"));
        }
        if name == "dpmpp_2m" {
            match reader.text("algorithm_type")?.as_str() {
                "dpmsolver++" | "deis" => {}
                "sde-dpmsolver++" => name = "dpmpp_2m_sde",
                _ => return Err(reader.unsupported("algorithm_type", "it must be dpmsolver++ or sde-dpmsolver++")),
            }
        }
        sampler(name).map_err(|_| Error::NoSampler { class: self.class.name.to_owned() })
    }

    /// The number of training timesteps.
    ///
    /// # Errors
    /// If the field is no whole number.
    pub fn num_train_timesteps(&self) -> Result<usize, Error> {
        Reader::new(self.class, &self.fields).count("num_train_timesteps")
    }

    /// Everything for a run.
    ///
    /// # Errors
    /// A field or combination that is not supported, or steps that make no schedule.
    pub fn plan(&self, request: &Request) -> Result<Sampling, Error> {
        let count = match &request.steps {
            Steps::Count(n) => *n,
            Steps::Timesteps(list) | Steps::Sigmas(list) => list.len(),
        };
        if count == 0 {
            return Err(Error::Schedule("the number of steps must be at least 1".to_owned()));
        }
        if count > MOST_STEPS {
            return Err(Error::Schedule(format!("{count} steps are too many: at most {MOST_STEPS} are planned")));
        }
        let sampler = match request.sampler {
            Some(sampler) => sampler,
            None => self.default_sampler()?,
        };
        if let (Some(named), Steps::Sigmas(_)) = (request.schedule, &request.steps) {
            let reason = format!("explicit sigmas are a schedule: they leave no room for {}", named.name());
            return Err(Error::Schedule(reason));
        }
        let target = self.target(sampler)?;
        let reader = Reader::new(target, &self.fields);
        let mut settings = settings(&reader, sampler, request.eta)?;
        let (mut schedule, prediction) = match self.class.family {
            Family::Discrete if reader.hidden_flag("use_flow_sigmas")? => {
                (flow::from_flow_sigmas(&reader, request)?, flow::prediction(&reader)?)
            }
            Family::Discrete => (discrete::schedule(&reader, request, settings.eta)?, discrete::prediction(&reader)?),
            Family::Edm => (edm::schedule(&reader, request)?, edm::prediction(&reader)?),
            Family::Flow => (flow::schedule(&reader, request)?, Prediction::Flow),
            Family::Consistency => (consistency::schedule(&reader, request)?, consistency::prediction(&reader)?),
            Family::Score => (score::schedule(&reader, request)?, Prediction::Score),
        };
        if sampler.inverts {
            // An inversion runs from the scale of a sampler's result to the scale of its start.
            let Schedule { init_noise_sigma, final_scale, .. } = schedule;
            (schedule.init_noise_sigma, schedule.final_scale) = (1.0 / final_scale, 1.0 / init_noise_sigma);
            if sampler.name == "heun_inverse" && schedule.frame == Frame::Flow && schedule.sigmas == [1.0, 0.0] {
                let reason = "heun_inverse needs a level between the image and pure noise: at least 2 steps";
                return Err(Error::Schedule(reason.to_owned()));
            }
        }
        if matches!(sampler.name, "pndm" | "ddim_inverse") {
            settings.velocity = prediction == Prediction::VPrediction;
        }
        if reader.class().name == "PNDMScheduler" && sampler.name == "pndm" {
            if prediction == Prediction::Sample {
                return Err(reader.unsupported("prediction_type", "pndm needs epsilon or v_prediction"));
            }
            if !reader.flag("skip_prk_steps")? {
                settings.runge_kutta = discrete::runge_kutta_middles(&reader, request, &schedule)?;
            }
        }
        if reader.class().name == "RePaintScheduler" && sampler.name == "repaint" {
            settings.betas = discrete::betas_to_undo(&reader, request)?;
        }
        let learned_variance = matches!(
            Reader::new(self.class, &self.fields).hidden_text("variance_type")?.as_deref(),
            Some("learned" | "learned_range")
        );
        Ok(Sampling { sampler, schedule, prediction, settings, learned_variance })
    }

    /// The class whose rules apply when this sampler runs on this configuration.
    fn target(&self, sampler: &Sampler) -> Result<&'static Class, Error> {
        if self.class.sampler == sampler.name {
            return Ok(self.class);
        }
        match self.class.family {
            // Samplers that diffusers lacks use the table of k-diffusion, which is EulerDiscrete's.
            Family::Discrete => match sampler.class.map(classes::find) {
                Some(Ok(class)) if class.family == Family::Discrete => Ok(class),
                _ => classes::find("EulerDiscreteScheduler"),
            },
            Family::Edm if sampler.name.starts_with("dpmpp_2m") => classes::find("EDMDPMSolverMultistepScheduler"),
            Family::Edm => classes::find("EDMEulerScheduler"),
            Family::Flow if sampler.name == "heun" => classes::find("FlowMatchHeunDiscreteScheduler"),
            Family::Flow if sampler.name == "lcm" => classes::find("FlowMatchLCMScheduler"),
            Family::Score => Ok(self.class),
            Family::Flow => classes::find("FlowMatchEulerDiscreteScheduler"),
            // A consistency model maps noise to images directly. It gives no path that a solver of the differential
            // equation could follow.
            Family::Consistency if matches!(sampler.name, "lcm" | "one_step") => Ok(self.class),
            Family::Consistency => Err(Error::Schedule(format!(
                "a consistency model is sampled with consistency, one_step or lcm, not with {}",
                sampler.name
            ))),
        }
    }
}

/// The most steps of a run: each is planned before the first is taken.
const MOST_STEPS: usize = 100_000;

/// What the configuration tells the sampler, beyond where to step.
fn settings(reader: &Reader<'_>, sampler: &Sampler, eta: Option<f64>) -> Result<Settings, Error> {
    if eta.is_some() && sampler.eta.is_none() {
        let reason = format!("the sampler {} has no eta: its share of fresh noise is fixed", sampler.name);
        return Err(Error::Schedule(reason));
    }
    let own = sampler.settings();
    let of_file = if reader.has("eta") { reader.number("eta")? } else { own.eta };
    let mut settings = Settings { eta: eta.unwrap_or(of_file), ..own };
    if settings.eta < 0.0 || !settings.eta.is_finite() {
        return Err(Error::Schedule(format!("eta must be a number from 0 up, not {}", settings.eta)));
    }
    if reader.has("solver_order") {
        settings.solver_order = reader.count("solver_order")?;
        if !(1..=3).contains(&settings.solver_order) {
            return Err(reader.unsupported("solver_order", "it must be 1, 2 or 3"));
        }
    }
    if reader.has("lower_order_final") {
        settings.lower_order_final = reader.flag("lower_order_final")?;
    }
    if reader.has("euler_at_final") {
        settings.euler_at_final = reader.flag("euler_at_final")?;
    }
    if reader.has("solver_type") {
        settings.solver_type = match reader.text("solver_type")?.as_str() {
            // diffusers converts the values of other solvers in this way when a configuration is used for another
            // class.
            "bh1" if sampler.name == "unipc" => SolverType::Bh1,
            "midpoint" | "heun" | "logrho" | "bh2" if sampler.name == "unipc" => SolverType::Bh2,
            "midpoint" | "logrho" | "bh1" | "bh2" => SolverType::Midpoint,
            "heun" => SolverType::Heun,
            _ => return Err(reader.unsupported("solver_type", "it must be midpoint, heun, bh1, bh2 or logrho")),
        };
    }
    class_settings(reader, sampler, &mut settings)?;
    if reader.has("thresholding") && reader.flag("thresholding")? {
        let (ratio, max) = (reader.number("dynamic_thresholding_ratio")?, reader.number("sample_max_value")?);
        if !(0.0..=1.0).contains(&ratio) {
            return Err(reader.unsupported("dynamic_thresholding_ratio", "it must lie between 0 and 1"));
        }
        if max.is_nan() {
            return Err(reader.unsupported("sample_max_value", "it must be a number"));
        }
        settings.limit = Some(Limit::Dynamic { ratio, max });
    } else if reader.has("clip_sample") && reader.flag("clip_sample")? {
        let range = if reader.has("clip_sample_range") { reader.number("clip_sample_range")? } else { 1.0 };
        if range.is_nan() || range <= 0.0 {
            return Err(reader.unsupported("clip_sample_range", "it must be above 0"));
        }
        settings.limit = Some(Limit::Clamp { range });
    }
    Ok(settings)
}

/// Settings that only one class has.
fn class_settings(reader: &Reader<'_>, sampler: &Sampler, settings: &mut Settings) -> Result<(), Error> {
    match reader.class().name {
        "UniPCMultistepScheduler" => {
            if !reader.flag("predict_x0")? {
                return Err(reader.unsupported("predict_x0", "it must be true"));
            }
            if !reader.is_null("solver_p") {
                return Err(reader.unsupported("solver_p", "it must be null"));
            }
            let steps = reader.numbers("disable_corrector")?.unwrap_or_default();
            settings.disable_corrector = steps.iter().map(|&step| step as usize).collect();
        }
        "DDPMScheduler" | "DDPMParallelScheduler" => {
            settings.variance = match reader.optional_text("variance_type")?.as_deref() {
                // Files of other solvers have no variance_type.
                None | Some("fixed_small" | "fixed_small_log") => Variance::Posterior,
                Some("fixed_large") => Variance::Step,
                _ => {
                    return Err(reader
                        .unsupported("variance_type", "it must be fixed_small or fixed_large; ddim does without it"));
                }
            };
        }
        "SASolverScheduler" => {
            settings.solver_order = reader.count("predictor_order")?;
            settings.corrector_order = reader.count("corrector_order")?;
            if !(1..=3).contains(&settings.solver_order) {
                return Err(reader.unsupported("predictor_order", "it must be 1, 2 or 3"));
            }
            if !(1..=3).contains(&settings.corrector_order) {
                return Err(reader.unsupported("corrector_order", "it must be 1, 2 or 3"));
            }
            if reader.text("algorithm_type")? == "noise_prediction" {
                return Err(reader.unsupported("algorithm_type", "it must be data_prediction"));
            }
        }
        "LCMScheduler" => settings.timestep_scaling = Some(reader.number("timestep_scaling")?),
        "FlowMatchLCMScheduler" if !reader.is_null("scale_factors") => {
            return Err(reader.unsupported("scale_factors", "it must be null"));
        }
        "ScoreSdeVeScheduler" => {
            settings.snr = reader.number("snr")?;
            settings.correct_steps = reader.count("correct_steps")?;
        }
        "CMStochasticIterativeScheduler" => {
            settings.sigma_min = reader.number("sigma_min")?;
            settings.s_noise = reader.number("s_noise")?;
            if reader.flag("clip_denoised")? {
                settings.limit = Some(Limit::Clamp { range: 1.0 });
            }
        }
        "DPMSolverMultistepScheduler" | "EDMDPMSolverMultistepScheduler"
            if sampler.name == "dpmpp_2m_sde" && settings.solver_order > 2 =>
        {
            // diffusers' third-order stochastic update has a wrong sign, and it is not copied here.
            return Err(reader
                .unsupported("solver_order", "of the reverse SDE it must be 1 or 2; dpmpp_3m_sde is another sampler"));
        }
        _ => {}
    }
    Ok(())
}
