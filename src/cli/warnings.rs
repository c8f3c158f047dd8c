//! Warnings: one line each on standard error, and errors with `--strict`.

use super::error::CliError;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the command line says `--strict`. It holds for the whole program, since warnings come from everywhere.
static STRICT: AtomicBool = AtomicBool::new(false);

/// From now on every warning is an error.
pub(super) fn be_strict() {
    STRICT.store(true, Ordering::Relaxed);
}

/// Says something that is possible, but hardly what was meant.
pub(super) fn warn(quiet: bool, text: &str) -> Result<(), CliError> {
    if STRICT.load(Ordering::Relaxed) {
        return Err(CliError::Usage(format!("{text} (--strict makes an error of this)")));
    }
    if !quiet {
        note!("warning: {text}");
    }
    Ok(())
}
