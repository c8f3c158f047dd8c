use thiserror::Error;

/// Why a model cannot be used: one sentence that begins with the file it is about.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {message}")]
pub struct ModelError {
    /// The file or folder, as a user would look for it.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl ModelError {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}
