//! How plans compute, as the environment and earlier measurements have it.

use super::error::CliError;
use super::tuned;
use graph::{Activations, Convolution, DeviceInfo, PlanOptions, Winners};

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What `HEADWATER_KERNEL` asks for, to compare ways of computing the same: `auto`, `direct`, `winograd2` or `winograd4`.
fn convolution() -> Result<Convolution, CliError> {
    let value = variable("HEADWATER_KERNEL").unwrap_or_default();
    value.parse().map_err(|error| CliError::Usage(format!("HEADWATER_KERNEL: {error}")))
}

/// What `HEADWATER_ACTIVATIONS` asks for: `f32`, or `f16` on adapters that have it.
fn activations() -> Result<Activations, CliError> {
    match variable("HEADWATER_ACTIVATIONS").as_deref() {
        None | Some("f32") => Ok(Activations::F32),
        Some("f16") => Ok(Activations::F16),
        Some(other) => Err(CliError::Usage(format!("HEADWATER_ACTIVATIONS: {other} is neither f32 nor f16"))),
    }
}

/// What `headwater tune` kept of this device, unless `HEADWATER_KERNEL` decides.
fn winners(info: &DeviceInfo) -> Option<&'static Winners> {
    if variable("HEADWATER_KERNEL").is_some() {
        return None;
    }
    match tuned::read(&tuned::file(info)?, info) {
        // Plans' options last as long as the program, which opens a device or two.
        Ok(winners) => winners.map(|winners| &*Box::leak(Box::new(winners))),
        Err(sentence) => {
            note!("warning: {sentence}");
            None
        }
    }
}

/// Plans on a device as the environment and what was measured there have them; how weights are stored is left open.
pub(super) fn plan_options(info: &DeviceInfo) -> Result<PlanOptions, CliError> {
    Ok(PlanOptions {
        convolution: convolution()?,
        activations: activations()?,
        winners: winners(info),
        ..Default::default()
    })
}
