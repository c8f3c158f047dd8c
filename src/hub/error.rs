use thiserror::Error;

/// Why a model could not be had from a hub: one sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HubError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// The watcher asked to stop; what was received is kept.
    #[error("stopped")]
    Stopped,
}

/// An error before it is final: another try, or the cache, may still help.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another try may succeed, and a copy in the cache may do: a lost connection, a server in trouble.
    Transient(String),
    /// No other try will succeed soon, and a copy in the cache may do: there is no network.
    Unreachable(String),
    /// Another try cannot help.
    Fatal(HubError),
}

impl Fault {
    pub(super) fn fatal(message: impl Into<String>) -> Self {
        Fault::Fatal(HubError::Failed(message.into()))
    }
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        Fault::Fatal(error)
    }
}

impl From<Fault> for HubError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Transient(message) | Fault::Unreachable(message) => HubError::Failed(message),
            Fault::Fatal(error) => error,
        }
    }
}
