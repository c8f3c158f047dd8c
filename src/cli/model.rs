//! What `--model` may name.

use super::error::CliError;
use super::hub;
use crate::bundled;
use models::{Checkpoint, Lora, ModelFiles};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What of a model is wanted besides its name.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// A folder whose configurations go before those told from a single file's shapes.
    pub(super) config: Option<&'a Path>,
    /// The variant of a folder's weights.
    pub(super) variant: Option<&'a str>,
    /// No progress of a download.
    pub(super) quiet: bool,
}

/// The files behind a model argument: a bundled name, a folder in diffusers' layout, a single file, or a hub's id.
pub(super) fn open(name: &str, wanted: Wanted<'_>) -> Result<ModelFiles, CliError> {
    if let Some(model) = bundled::find(name) {
        return Ok(model.files());
    }
    let downloaded = hub::locate(name, wanted.variant, wanted.quiet)?;
    let path = downloaded.as_deref().unwrap_or(Path::new(name));
    if path.is_dir() {
        return Ok(ModelFiles::folder(path)?.with_variant(wanted.variant));
    }
    if path.is_file() {
        return Ok(ModelFiles::single(path, wanted.config)?);
    }
    Err(CliError::Failed(format!(
        "there is no model {name}: neither a folder or file here nor a bundled model ({}) nor a hub's id (OWNER/REPO)",
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

/// `--lora FILE[:WEIGHT]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LoraArg {
    file: PathBuf,
    weight: f64,
}

impl FromStr for LoraArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A colon may be part of a path (C:\…), so only a number after the last one is a weight.
        let split = text.rsplit_once(':').and_then(|(file, weight)| Some((file, weight.parse::<f64>().ok()?)));
        let (file, weight) = split.unwrap_or((text, 1.0));
        if file.is_empty() || !weight.is_finite() {
            return Err("give a file, and after a colon how much of it is added: style.safetensors:0.8".into());
        }
        Ok(Self { file: file.into(), weight })
    }
}

/// The model with these adapters added, and this autoencoder in place of its own.
pub(super) fn with_parts(files: ModelFiles, loras: &[LoraArg], vae: Option<&Path>) -> Result<ModelFiles, CliError> {
    let loras = loras.iter().map(|lora| Lora::open(&lora.file, lora.weight)).collect::<Result<Vec<_>, _>>()?;
    let files = if loras.is_empty() { files } else { files.with_loras(&loras)? };
    Ok(match vae {
        Some(path) => files.with_vae(path)?,
        None => files,
    })
}

/// As an image's settings name them.
pub(super) fn loras_json(loras: &[LoraArg]) -> serde_json::Value {
    loras.iter().map(|lora| json!({ "file": lora.file, "weight": lora.weight })).collect()
}
