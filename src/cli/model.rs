//! What `--model` may name.

use super::error::CliError;
use crate::bundled;
use models::{Checkpoint, ModelFiles};
use std::path::Path;

/// The files behind a model argument: a bundled name, a folder in diffusers' layout, or a single file.
pub(super) fn open(name: &str) -> Result<ModelFiles, CliError> {
    open_with(name, None)
}

/// The same; `config` is a folder whose configurations go before those told from a single file's shapes.
pub(super) fn open_with(name: &str, config: Option<&Path>) -> Result<ModelFiles, CliError> {
    if let Some(model) = bundled::find(name) {
        return Ok(model.files());
    }
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(ModelFiles::folder(path)?);
    }
    if path.is_file() {
        return Ok(ModelFiles::single(path, config)?);
    }
    Err(CliError::Failed(format!(
        "there is no model {name}: neither a folder or file here nor a bundled model ({})",
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
