//! What a comparison varies: axes, their values, and what they are called.

use pipelines::{GuidanceInterval, Request, StepCache};
use scheduler::{NamedSampler, NamedSchedule, Steps};
use std::fmt;

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AxisName {
    /// How to step.
    Sampler,
    /// How many steps, or how many evaluations of the model.
    Budget,
    /// Which noise levels to step over.
    Schedule,
    /// Weight of the prompt.
    Guidance,
    /// Noise levels at which guidance acts.
    GuidanceInterval,
    /// What is kept from one step for the next.
    StepCache,
    /// Share of fresh noise.
    Eta,
    /// Which checkpoint.
    Model,
    /// What the picture shows.
    Prompt,
    /// Which noise to start from.
    Seed,
}

impl AxisName {
    /// One word for a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sampler => "sampler",
            Self::Budget => "steps",
            Self::Schedule => "schedule",
            Self::Guidance => "guidance",
            Self::GuidanceInterval => "guidance interval",
            Self::StepCache => "step cache",
            Self::Eta => "eta",
            Self::Model => "model",
            Self::Prompt => "prompt",
            Self::Seed => "seed",
        }
    }
}

/// One place on an axis.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A sampler, maybe with a schedule in its name ("DPM++ 2M Karras").
    Sampler(NamedSampler),
    /// That many steps.
    Steps(usize),
    /// As many steps as that many evaluations of the model allow.
    Evaluations(usize),
    /// Noise levels.
    Schedule(NamedSchedule),
    /// Weight of the prompt.
    Guidance(f64),
    /// Noise levels at which guidance acts.
    GuidanceInterval(GuidanceInterval),
    /// What is kept from one step for the next, or nothing.
    StepCache(Option<StepCache>),
    /// Share of fresh noise.
    Eta(f64),
    /// A model, by the name that it has in the comparison.
    Model(String),
    /// What the picture shows.
    Prompt(String),
    /// Seed of the noise.
    Seed(u64),
}

impl Value {
    /// The axis that it lies on.
    #[must_use]
    pub fn axis(&self) -> AxisName {
        match self {
            Self::Sampler(_) => AxisName::Sampler,
            Self::Steps(_) | Self::Evaluations(_) => AxisName::Budget,
            Self::Schedule(_) => AxisName::Schedule,
            Self::Guidance(_) => AxisName::Guidance,
            Self::GuidanceInterval(_) => AxisName::GuidanceInterval,
            Self::StepCache(_) => AxisName::StepCache,
            Self::Eta(_) => AxisName::Eta,
            Self::Model(_) => AxisName::Model,
            Self::Prompt(_) => AxisName::Prompt,
            Self::Seed(_) => AxisName::Seed,
        }
    }

    /// The value, as a label beside the axis' name or alone.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Sampler(NamedSampler { sampler, schedule: None }) => sampler.name.into(),
            Self::Sampler(NamedSampler { sampler, schedule: Some(schedule) }) => {
                format!("{} {}", sampler.name, schedule.name())
            }
            Self::Steps(count) => count.to_string(),
            Self::Evaluations(count) => format!("nfe {count}"),
            Self::Schedule(schedule) => schedule.name().into(),
            Self::Guidance(value) | Self::Eta(value) => value.to_string(),
            Self::GuidanceInterval(interval) => interval.to_string(),
            Self::StepCache(cache) => cache.map_or("off".into(), |cache| cache.to_string()),
            Self::Model(name) | Self::Prompt(name) => name.clone(),
            Self::Seed(seed) => seed.to_string(),
        }
    }

    /// The label as a heading that needs no axis beside it.
    #[must_use]
    pub fn heading(&self) -> String {
        let label = self.label();
        match self {
            Self::Steps(1) => "1 step".into(),
            Self::Steps(_) => format!("{label} steps"),
            Self::Guidance(_) => format!("guidance {label}"),
            Self::GuidanceInterval(_) => format!("guided in {label}"),
            Self::StepCache(None) => "no step cache".into(),
            Self::Eta(_) => format!("eta {label}"),
            Self::Seed(_) => format!("seed {label}"),
            Self::Prompt(_) => format!("\u{201c}{label}\u{201d}"),
            _ => label,
        }
    }

    /// Sets it in a request. A model is no part of a request, and a number of evaluations means steps only for a sampler.
    pub(super) fn apply(&self, request: &mut Request) {
        match self {
            Self::Sampler(named) => request.sampler = Some(*named),
            Self::Steps(count) => request.steps = Some(Steps::Count(*count)),
            Self::Schedule(schedule) => request.schedule = Some(*schedule),
            Self::Guidance(scale) => request.guidance_scale = Some(*scale),
            Self::GuidanceInterval(interval) => request.guidance_interval = Some(*interval),
            Self::StepCache(cache) => request.step_cache = *cache,
            Self::Eta(eta) => request.eta = Some(*eta),
            Self::Prompt(prompt) => request.prompt.clone_from(prompt),
            Self::Seed(seed) => request.seed = *seed,
            Self::Evaluations(_) | Self::Model(_) => {}
        }
    }
}

/// The values of one axis, all different.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    name: AxisName,
    values: Vec<Value>,
}

impl Axis {
    /// An axis of these values.
    ///
    /// # Errors
    /// Where there are none, where they lie on different axes, and where two are the same.
    pub fn new(values: Vec<Value>) -> Result<Self, AxisError> {
        let name = values.first().ok_or(AxisError::Empty)?.axis();
        for (i, value) in values.iter().enumerate() {
            if value.axis() != name {
                return Err(AxisError::Mixed { first: name.name(), other: value.axis().name() });
            }
            if values[..i].contains(value) {
                return Err(AxisError::Twice { axis: name.name(), value: value.label() });
            }
        }
        Ok(Self { name, values })
    }

    /// What is varied.
    #[must_use]
    pub fn name(&self) -> AxisName {
        self.name
    }

    /// In the order that they were given in.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// Why values make no axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AxisError {
    /// There are no values.
    Empty,
    /// They lie on two axes.
    Mixed {
        /// The axis of the first.
        first: &'static str,
        /// Another's.
        other: &'static str,
    },
    /// One was given twice, maybe under two names.
    Twice {
        /// The axis.
        axis: &'static str,
        /// The value.
        value: String,
    },
    /// An axis was given twice.
    AxisTwice(&'static str),
}

impl fmt::Display for AxisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "an axis of a comparison needs at least one value"),
            Self::Mixed { first, other } => write!(f, "one axis cannot vary {first} and {other}"),
            Self::Twice { axis, value } => {
                write!(f, "the {axis} {value} is there twice (names of other tools count): name each once")
            }
            Self::AxisTwice(axis) => write!(f, "the axis {axis} is there twice: give all its values at once"),
        }
    }
}

impl std::error::Error for AxisError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_values_of_one_kind_and_none_twice() {
        let sampler = |name: &str| Value::Sampler(name.parse().expect("a sampler"));
        assert!(Axis::new(vec![sampler("euler"), sampler("heun"), sampler("euler karras")]).is_ok());
        let twice = Axis::new(vec![sampler("euler"), sampler("k_euler")]).expect_err("one sampler under two names");
        assert_eq!(twice.to_string(), "the sampler euler is there twice (names of other tools count): name each once");
        let mixed = Axis::new(vec![Value::Seed(1), Value::Steps(1)]);
        assert_eq!(mixed, Err(AxisError::Mixed { first: "seed", other: "steps" }));
        assert_eq!(Axis::new(Vec::new()), Err(AxisError::Empty));
        // Steps and evaluations are one axis: budgets.
        assert!(Axis::new(vec![Value::Steps(4), Value::Evaluations(4)]).is_ok());
    }
}
