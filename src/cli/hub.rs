//! Models that are not here yet: from a hub, with progress on standard error.

use super::error::{CliError, one_line};
use super::interrupt;
use super::model::Wanted;
use super::progress::Download;
use crate::hub::{Hub, HubError, HubId, Settings};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How soon Ctrl-C is heard.
const PATIENCE: Duration = Duration::from_millis(50);

/// The folder or file in the hub's cache that a name means, downloaded if need be; `None` where the name is no hub's id or
/// something here has it.
pub(super) fn locate(name: &Path, wanted: Wanted<'_>) -> Result<Option<PathBuf>, CliError> {
    let Wanted { variant, quiet, offline, .. } = wanted;
    let Some(name) = name.to_str().filter(|text| !name.exists() && is_meant(text)) else { return Ok(None) };
    check_is_no_path(name)?;
    let id: HubId = name.parse()?;
    let settings = Settings::from_env()?;
    let hub = Hub::new(Settings { offline: settings.offline || offline, ..settings })?;

    let variant = variant.map(str::to_owned);
    // On a thread of its own: a server that says nothing would keep us from hearing Ctrl-C.
    let (sender, receiver) = channel();
    let name = name.to_owned();
    std::thread::spawn(move || {
        let (mut bar, mut came) = (Download::new(&name, quiet), false);
        let result = hub.fetch(&id, variant.as_deref(), &mut |progress| {
            came |= !progress.file.is_empty();
            bar.show(&progress);
            if interrupt::pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish(result.is_ok());
        // Where no hub gave anything, a path may have been meant.
        let result = result.map_err(|error| match error {
            HubError::Failed(message) if !came => {
                HubError::Failed(format!("{message} (nor is {name} a file or folder here)"))
            }
            other => other,
        });
        // Nobody listens any more after Ctrl-C.
        let _ = sender.send(result);
    });
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(result) => return Ok(Some(result?)),
            // What was received is on disk already.
            Err(RecvTimeoutError::Timeout) if interrupt::pressed() => return Err(CliError::Interrupted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(CliError::Failed("the download ended without a result".into()));
            }
        }
    }
}

/// What people call the folders that they keep models in.
const FOLDERS: [&str; 10] =
    ["path", "models", "model", "checkpoints", "checkpoint", "ckpt", "weights", "loras", "downloads", "home"];

/// Refuses a path to nothing, before anything of it goes to a hub: one that begins with a folder that is here, or with what folders of models are
/// called. `@` says that a hub is meant after all.
fn check_is_no_path(name: &str) -> Result<(), CliError> {
    let Some((first, _)) = name.split_once('/').filter(|_| !name.contains(['@', ':'])) else { return Ok(()) };
    let is_here = Path::new(first).is_dir();
    if !is_here && !FOLDERS.contains(&first.to_lowercase().as_str()) {
        return Ok(());
    }
    let near = if is_here { near(name) } else { None };
    let near = near.map_or(String::new(), |path| format!("; did you mean {}?", path.display()));
    Err(CliError::Failed(format!(
        "there is no file or folder {name}{near} (a hub's model of that name is {name}@main)"
    )))
}

/// What lies in the folder of a path and is called nearly so.
fn near(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let wanted = path.file_name()?.to_str()?;
    let entries = std::fs::read_dir(path.parent()?).ok()?.flatten();
    let named = entries.filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)));
    let distances = named.map(|(path, name)| (strsim::damerau_levenshtein(&name, wanted), path));
    distances.min().filter(|(distance, _)| *distance <= 3).map(|(_, path)| path)
}

/// Whether a name may be a hub's: no file here has it, and it looks like no path.
#[cfg(feature = "serve")]
pub(super) fn is_id(name: &Path) -> bool {
    name.to_str().is_some_and(|text| !name.exists() && is_meant(text) && check_is_no_path(text).is_ok())
}

/// Whether a name is a hub's id rather than a path that is not there: two parts or a file, relative, and `@` or not.
fn is_meant(name: &str) -> bool {
    let path = name.split('@').next().unwrap_or(name);
    name.parse::<HubId>().is_ok() || (name.contains('@') && path.parse::<HubId>().is_ok())
}

impl From<HubError> for CliError {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Usage(message) => CliError::Usage(one_line(&message)),
            HubError::Failed(message) => CliError::Failed(one_line(&message)),
            HubError::Stopped => CliError::Interrupted,
        }
    }
}
