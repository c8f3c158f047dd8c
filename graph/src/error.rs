use thiserror::Error;

/// Why a graph could not be built: the first fault met, with the checkpoint path where it happened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{message}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct GraphError {
    /// Checkpoint path of the scope that failed, e.g. `transformer_blocks.3.attn1.to_q`; empty at the root.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
}
