//! What a caller asks of a configuration.

use super::named::NamedSchedule;
use crate::samplers::Sampler;

/// Where to step.
#[derive(Debug, Clone, PartialEq)]
pub enum Steps {
    /// This many steps, spaced as the configuration says.
    Count(usize),
    /// At these training timesteps, descending.
    Timesteps(Vec<f64>),
    /// At these noise levels, descending. The run ends at the last (usually 0). A flow-matching configuration shifts
    /// them, as diffusers does, and adds the final 0.
    Sigmas(Vec<f64>),
}

/// What a caller asks of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Where to step.
    pub steps: Steps,
    /// The checkpoint's own sampler if `None`.
    pub sampler: Option<&'static Sampler>,
    /// Replaces the configuration's choice of sigmas.
    pub schedule: Option<NamedSchedule>,
    /// Share of fresh noise; the sampler's own default if `None`.
    pub eta: Option<f64>,
    /// Number of image tokens, which `use_dynamic_shifting` needs.
    pub image_seq_len: Option<usize>,
}

impl Request {
    /// A request for this many steps of the checkpoint's own sampler.
    pub fn steps(count: usize) -> Self {
        Self { steps: Steps::Count(count), sampler: None, schedule: None, eta: None, image_seq_len: None }
    }
}
