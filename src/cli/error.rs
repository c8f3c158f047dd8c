use graph::DeviceError;
use models::GivenApart;
use pipelines::PipelineError;
use thiserror::Error;

/// How a command ends when it does not succeed. Each message is one sentence: what, where, what to do.
#[derive(Debug, Error)]
pub(super) enum CliError {
    /// Asked for something that makes no sense: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Could not do it: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Is given something that is larger than it takes: exit code 1.
    #[error("{0}")]
    TooLarge(String),
    /// The device failed, and not what was asked of it: exit code 1.
    #[error("{0}")]
    Device(String, Trouble),
    /// Is not at its end, and goes on when it is run again: exit code 75, which is EX_TEMPFAIL of sysexits.h.
    #[cfg(feature = "serve")]
    #[error("{0}")]
    TryAgain(String),
    /// Ctrl-C: exit code 130.
    #[error("stopped")]
    Interrupted,
    /// The reader of standard output has gone away.
    #[error("standard output was closed")]
    Pipe,
}

impl CliError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Failed(_) | CliError::TooLarge(_) | CliError::Device(..) | CliError::Pipe => 1,
            #[cfg(feature = "serve")]
            CliError::TryAgain(_) => 75,
            CliError::Interrupted => 130,
        }
    }

    /// How the device failed, if it did: another try may succeed.
    #[cfg(feature = "serve")]
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match self {
            CliError::Device(_, trouble) => Some(*trouble),
            _ => None,
        }
    }
}

/// How a device failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It had no room for this.
    Memory,
    /// It, or its driver, is in no state for other work.
    Broken,
}

impl From<PipelineError> for CliError {
    fn from(error: PipelineError) -> Self {
        // Some messages come from libraries and drivers, which like several lines; ours is one.
        let message = one_line(&error.to_string());
        let message = match error {
            PipelineError::OtherTask { task, .. } => format!("{message} (headwater {task})"),
            PipelineError::Model(models::ModelError { wanted: Some(wanted), .. }) => match wanted {
                GivenApart::Folder => format!("{message} (--config DIR)"),
                GivenApart::Autoencoder => format!("{message} (--vae DIR or FILE)"),
            },
            _ if error.is_precision() => format!("{message}; try --dtype f32"),
            _ => message,
        };
        match &error {
            PipelineError::Device(DeviceError::Lost { .. } | DeviceError::Failed { .. }) => {
                CliError::Device(message, Trouble::Broken)
            }
            PipelineError::Device(DeviceError::OutOfMemory { .. }) => CliError::Device(message, Trouble::Memory),
            _ if error.is_usage() => CliError::Usage(message),
            _ => CliError::Failed(message),
        }
    }
}

impl From<crate::PictureError> for CliError {
    fn from(error: crate::PictureError) -> Self {
        let message = error.to_string();
        if error.is_too_large() { CliError::TooLarge(message) } else { CliError::Failed(message) }
    }
}

impl From<models::ModelError> for CliError {
    fn from(error: models::ModelError) -> Self {
        PipelineError::from(error).into()
    }
}

impl From<graph::DeviceError> for CliError {
    fn from(error: graph::DeviceError) -> Self {
        PipelineError::from(error).into()
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            CliError::Pipe
        } else {
            CliError::Failed(format!("cannot write to standard output: {error}"))
        }
    }
}

/// A message in one line, in which nothing can act on a terminal.
pub(super) fn one_line(message: &str) -> String {
    printable(&message.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The same text with control characters spelled out: those that a file holds could move a terminal's cursor, or more. Line ends and tabs stay.
pub(super) fn printable(text: &str) -> String {
    let is_safe = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(is_safe) {
        return text.to_owned();
    }
    text.chars().map(|c| if is_safe(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(printable("a\tb\n\u{1b}[2J\u{9b}red\u{7}"), "a\tb\n\\u{1b}[2J\\u{9b}red\\u{7}");
        assert_eq!(one_line("a\n  b\u{1b}"), "a b\\u{1b}");
    }
}
