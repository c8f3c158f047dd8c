//! Devices, with what the environment has to do with them.

use pipelines::{DeviceChoice, DeviceSettings, PipelineError, SharedDevice};

/// Opens what a request means. Some drivers write to standard error where there is no session; before any other thread runs, that is switched off.
///
/// # Errors
/// When no adapter fits, or its driver refuses; or when what is asked for was left out of this build.
pub fn open_device(choice: &DeviceChoice, settings: &DeviceSettings) -> Result<SharedDevice, PipelineError> {
    quiet_drivers();
    pipelines::open_device(choice, settings)
}

/// Everything that can compute here: all adapters, the best first, then the CPU. `gpu:N` is the Nth of this list, counted from 0.
///
/// ```
/// for device in headwater::devices(&Default::default())? {
///     println!("{} ({}, {})", device.name, device.kind, device.backend);
/// }
/// # Ok::<(), headwater::PipelineError>(())
/// ```
///
/// # Errors
/// When the settings name an unknown interface.
pub fn devices(settings: &DeviceSettings) -> Result<Vec<graph::DeviceInfo>, PipelineError> {
    quiet_drivers();
    pipelines::devices(settings)
}

/// Mesa's device-select layer looks for a Wayland display and complains on standard error where there is no session (in a container, say). It
/// only orders adapters, which Headwater does itself, so it is switched off there. A variable is all that it listens to, and variables may be
/// set only while no other thread can read them: a program with more threads hears the complaint once, unless it sets `NODEVICE_SELECT` itself.
#[allow(unsafe_code, reason = "setting a variable is safe while there is no other thread")]
pub(crate) fn quiet_drivers() {
    let is_set = |name| std::env::var_os(name).is_some();
    if !cfg!(target_os = "linux") || is_set("XDG_RUNTIME_DIR") || is_set("NODEVICE_SELECT") {
        return;
    }
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1) {
        // SAFETY: this is the only thread, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
