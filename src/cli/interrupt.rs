//! Ctrl-C stops between steps; a second one ends the program at once.

use super::error::CliError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The one that the handler sets.
static INSTALLED: OnceLock<Interrupted> = OnceLock::new();

/// Whether somebody pressed Ctrl-C.
#[derive(Debug, Clone)]
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn install() -> Result<Interrupted, CliError> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| CliError::Failed(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(INSTALLED.get_or_init(|| Interrupted(flag)).clone())
}

/// Whether somebody pressed Ctrl-C, for code that is not handed the flag; without a handler the system ends the program.
pub(super) fn pressed() -> bool {
    INSTALLED.get().is_some_and(Interrupted::get)
}
