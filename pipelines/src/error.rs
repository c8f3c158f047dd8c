use graph::{DeviceError, GraphError};
use thiserror::Error;

/// Why a task could not be done. Every message is one sentence for the person who asked.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The request itself makes no sense: a size, a number of steps, a name.
    #[error("{0}")]
    Request(String),
    /// The model was trained for one task alone, and another was asked of it.
    #[error("{message}")]
    OtherTask {
        /// What it needs, in one sentence.
        message: &'static str,
        /// The name of its task: `inpaint` or `upscale`.
        task: &'static str,
    },
    /// The checkpoint's parts do not fit together, or its scheduler's configuration cannot be honoured.
    #[error("{0}")]
    Checkpoint(String),
    /// The checkpoint's files cannot be used.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The scheduler refuses the configuration or the request.
    #[error(transparent)]
    Scheduler(#[from] scheduler::Error),
    /// The model cannot be built at these shapes.
    #[error("the model cannot be built: {0}")]
    Graph(#[from] GraphError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The result is not a picture.
    #[error(
        "step {step} gave values that are not finite numbers; the checkpoint, or the precision that its weights are kept in, is unsuitable"
    )]
    NotFinite {
        /// Counts from 1.
        step: usize,
    },
    /// A sampler that chooses its own steps did not come to an end.
    #[error(
        "the sampler chose steps so short that {evaluations} evaluations were not enough: take one with a fixed number of steps"
    )]
    TooManyEvaluations {
        /// How often the model ran.
        evaluations: usize,
    },
    /// The autoencoder overflowed.
    #[error("the autoencoder gave values that are not finite numbers; its weights may need single precision")]
    NotDecoded,
    /// The autoencoder overflowed on a picture.
    #[error(
        "the autoencoder made values that are not finite numbers of the picture; its weights may need single precision"
    )]
    NotEncoded,
}

impl PipelineError {
    /// Whether the person who asked can mend it by asking differently.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, PipelineError::Request(_) | PipelineError::OtherTask { .. } | PipelineError::Scheduler(_))
            || matches!(self, PipelineError::Device(DeviceError::NoAdapter(_)))
    }

    /// Whether weights kept in single precision may mend it.
    #[must_use]
    pub fn is_precision(&self) -> bool {
        matches!(self, PipelineError::NotFinite { .. } | PipelineError::NotDecoded | PipelineError::NotEncoded)
    }
}
