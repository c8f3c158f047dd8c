//! Models that are not here yet: from a hub, with progress on standard error.

use super::error::{CliError, one_line};
use super::interrupt;
use super::progress::Download;
use crate::hub::{Hub, HubError, HubId};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How soon Ctrl-C is heard.
const PATIENCE: Duration = Duration::from_millis(50);

/// The folder or file in the hub's cache that a name means, downloaded if need be; `None` where the name is no hub's id or
/// something here has it.
pub(super) fn locate(name: &Path, variant: Option<&str>, quiet: bool) -> Result<Option<PathBuf>, CliError> {
    let Some(name) = name.to_str().filter(|text| !name.exists() && is_meant(text)) else { return Ok(None) };
    let id: HubId = name.parse()?;
    let hub = Hub::from_env()?;
    let variant = variant.map(str::to_owned);
    // On a thread of its own: a server that says nothing would keep us from hearing Ctrl-C.
    let (sender, receiver) = channel();
    let name = name.to_owned();
    std::thread::spawn(move || {
        let mut bar = Download::new(&name, quiet);
        let result = hub.fetch(&id, variant.as_deref(), &mut |progress| {
            bar.show(&progress);
            if interrupt::pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish(result.is_ok());
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
