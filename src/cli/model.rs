//! What `--model` may name.

use super::error::CliError;
use super::hub;
use crate::bundled;
use models::{Lora, ModelFiles, TextualInversion};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How a model is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// A folder whose configurations go before those told from a single file's shapes.
    pub(super) config: Option<&'a Path>,
    /// The variant of a folder's weights.
    pub(super) variant: Option<&'a str>,
    /// No progress of a download.
    pub(super) quiet: bool,
    /// No download, whatever the environment says.
    pub(super) offline: bool,
}

/// The files behind a model argument: a bundled name, a folder in diffusers' layout, a single file, or a hub's id.
pub(super) fn open(name: &Path, wanted: Wanted<'_>) -> Result<ModelFiles, CliError> {
    let shown = name.display();
    let files = if let Some(model) = name.to_str().and_then(bundled::find) {
        model.files()
    } else {
        let downloaded = hub::locate(name, wanted)?;
        let path = downloaded.as_deref().unwrap_or(name);
        if path.is_dir() {
            ModelFiles::folder(path)?
        } else if path.exists() {
            ModelFiles::single(path, wanted.config)?
        } else {
            return Err(CliError::Failed(format!(
                "there is no model {shown}: neither a folder or file here nor a bundled model ({}) nor a hub's id (OWNER/REPO){}",
                bundled::BUNDLED.iter().map(|m| m.name).collect::<Vec<_>>().join(", "),
                near(&shown.to_string()).map_or(String::new(), |name| format!("; did you mean {name}?"))
            )));
        }
    };
    if wanted.config.is_some() && files.family().is_none() {
        let message = format!("--config is for single files, and {shown} is none: its configurations are its own");
        return Err(CliError::Usage(message));
    }
    Ok(match wanted.variant {
        Some(variant) => files.with_variant(variant)?,
        None => files,
    })
}

/// The bundled model whose name was nearly typed.
fn near(name: &str) -> Option<&'static str> {
    let names = bundled::BUNDLED.iter().map(|model| (strsim::damerau_levenshtein(name, model.name), model.name));
    names.min().filter(|(distance, _)| *distance <= 3).map(|(_, name)| name)
}

/// `--lora FILE[:WEIGHT]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LoraArg {
    file: PathBuf,
    weight: f64,
}

impl LoraArg {
    pub(super) fn new(file: PathBuf, weight: f64) -> Self {
        Self { file, weight }
    }

    /// The same by its file's name alone, for whoever should not know where it lies.
    #[cfg(feature = "serve")]
    pub(super) fn named(&self) -> Self {
        Self { file: self.file.file_name().unwrap_or_default().into(), weight: self.weight }
    }

    /// A message in which the file has its name alone.
    #[cfg(feature = "serve")]
    pub(super) fn without_folder(&self, message: &str) -> String {
        message.replace(&self.file.display().to_string(), &self.named().file.display().to_string())
    }
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

/// `--embedding FILE[:TOKEN]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EmbeddingArg {
    file: PathBuf,
    token: Option<String>,
}

impl FromStr for EmbeddingArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Colons may be part of a path (C:\…) and of a word (:smile:), so the file ends at a known ending if it has one.
        let known = [".safetensors:", ".pt:", ".bin:", ".ckpt:"];
        let at = known.iter().filter_map(|end| Some(text.find(end)? + end.len() - 1)).min();
        let ended = [".safetensors", ".pt", ".bin", ".ckpt"].iter().any(|end| text.ends_with(end));
        let at = at.or_else(|| text.rfind(':').filter(|at| *at != 1 && !ended && !text[*at..].contains(['/', '\\'])));
        let (file, token) = at.map_or((text, None), |at| (&text[..at], Some(text[at + 1..].to_owned())));
        if file.is_empty() || token.as_ref().is_some_and(|token| token.trim().is_empty()) {
            return Err("give a file, and after a colon the word that stands for it: toy.safetensors:<toy>".into());
        }
        Ok(Self { file: file.into(), token })
    }
}

/// The model with these words learned.
pub(super) fn with_embeddings(files: ModelFiles, embeddings: &[EmbeddingArg]) -> Result<ModelFiles, CliError> {
    let open = |arg: &EmbeddingArg| TextualInversion::open(&arg.file, arg.token.as_deref());
    Ok(files.with_embeddings(embeddings.iter().map(open).collect::<Result<_, _>>()?))
}

/// As an image's settings name them.
pub(super) fn embeddings_json(embeddings: &[EmbeddingArg]) -> serde_json::Value {
    let one = |arg: &EmbeddingArg| match &arg.token {
        Some(token) => json!({ "file": arg.file, "token": token }),
        None => json!({ "file": arg.file }),
    };
    embeddings.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_ends_the_file_or_is_part_of_it() {
        for (text, file, token) in [
            ("toy.safetensors", "toy.safetensors", None),
            ("toy.safetensors:<toy>", "toy.safetensors", Some("<toy>")),
            ("a/toy.safetensors::smile:", "a/toy.safetensors", Some(":smile:")),
            (r"C:\toy.safetensors", r"C:\toy.safetensors", None),
            (r"C:\toy.safetensors:x", r"C:\toy.safetensors", Some("x")),
            ("toy:x", "toy", Some("x")),
            ("a:b/toy", "a:b/toy", None),
            ("style.v1.pt:x", "style.v1.pt", Some("x")),
        ] {
            let wanted = EmbeddingArg { file: file.into(), token: token.map(str::to_owned) };
            assert_eq!(text.parse::<EmbeddingArg>(), Ok(wanted), "{text}");
        }
        for text in ["", ":x", "toy.safetensors:", "toy.safetensors: "] {
            assert!(text.parse::<EmbeddingArg>().is_err(), "{text}");
        }
    }
}
