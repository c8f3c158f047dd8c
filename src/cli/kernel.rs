use super::error::CliError;
use graph::{Convolution, PlanOptions};

/// What `HEADWATER_KERNEL` asks for, to compare ways of computing the same: `auto`, `direct`, `winograd2` or `winograd4`.
pub(super) fn convolution() -> Result<Convolution, CliError> {
    let value = std::env::var("HEADWATER_KERNEL").unwrap_or_default();
    value.parse().map_err(|error| CliError::Usage(format!("HEADWATER_KERNEL: {error}")))
}

/// Plans as the environment has them, for commands without flags for the rest.
pub(super) fn plan_options() -> Result<PlanOptions, CliError> {
    Ok(PlanOptions { convolution: convolution()?, ..Default::default() })
}
