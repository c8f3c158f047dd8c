//! What `--model` may name.

use super::error::CliError;
use super::hub;
use crate::bundled;
use models::{Checkpoint, ModelFiles};
use std::path::Path;

/// The files behind a model argument: a bundled name, a folder in diffusers' layout, or a hub's id.
pub(super) fn open(name: &str, quiet: bool) -> Result<ModelFiles, CliError> {
    if let Some(model) = bundled::find(name) {
        return Ok(model.files());
    }
    let downloaded = hub::locate(name, None, quiet)?;
    let path = downloaded.as_deref().unwrap_or(Path::new(name));
    if path.is_dir() {
        return Ok(ModelFiles::folder(path)?);
    }
    if path.is_file() {
        // Says of a pickle that it is refused and why; of anything else, what a model looks like.
        checkpoint(path)?;
        return Err(CliError::Failed(format!(
            "--model {name} is a single file; give a folder in diffusers' layout (with a model_index.json)"
        )));
    }
    Err(CliError::Failed(format!(
        "there is no model {name}: neither a folder here nor a bundled model ({}) nor a hub's id (OWNER/REPO)",
        bundled::BUNDLED.iter().map(|m| m.name).collect::<Vec<_>>().join(", ")
    )))
}

/// A single file of weights.
pub(super) fn checkpoint(path: &Path) -> Result<Checkpoint, CliError> {
    let shown = path.display().to_string();
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| CliError::Failed(format!("{shown} is not a file")))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Checkpoint::from_files(&ModelFiles::folder(folder)?, shown, &[name.to_owned()])?)
}
