//! The `headwater` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_mesa();
    headwater::cli::main()
}

/// Mesa's device-select layer looks for a Wayland display and complains on standard error where there is no session (in a
/// container, say). It only orders adapters, which Headwater does itself, so it is switched off there.
#[allow(unsafe_code, reason = "setting a variable is safe before any other thread exists")]
fn quiet_mesa() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: nothing has started a thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
