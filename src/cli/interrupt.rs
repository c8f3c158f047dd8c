//! Ctrl-C, a hangup and a request to end stop between steps; a second one ends the program at once.

use super::error::CliError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The one that the handler sets.
static INSTALLED: OnceLock<Interrupted> = OnceLock::new();

/// Whether somebody asked to stop.
#[derive(Debug, Clone)]
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn install() -> Result<Interrupted, CliError> {
    install_with(CODE)
}

/// The same with another exit code for who asks twice.
pub(super) fn install_with(code: i32) -> Result<Interrupted, CliError> {
    let flag = Arc::new(AtomicBool::new(false));
    listen(&flag, code).map_err(|error| CliError::Failed(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(INSTALLED.get_or_init(|| Interrupted(flag)).clone())
}

/// Whether somebody asked to stop, for code that is not handed the flag; without a handler the system ends the program.
pub(super) fn pressed() -> bool {
    INSTALLED.get().is_some_and(Interrupted::get)
}

/// The exit code of a program that was interrupted.
const CODE: i32 = 130;

#[cfg(unix)]
fn listen(flag: &Arc<AtomicBool>, code: i32) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let ignored = ignored_signals();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Whoever started us with a signal ignored (nohup, a shell's background job) wants it ignored still.
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        // In this order: the first signal finds the flag down and puts it up, the second finds it up and ends the program.
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(flag))?;
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// A bit for each signal that was ignored when the program started; none where the system does not say.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    field.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(not(unix))]
fn listen(flag: &Arc<AtomicBool>, code: i32) -> Result<(), ctrlc::Error> {
    let handler = Arc::clone(flag);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(code);
        }
    })
}
