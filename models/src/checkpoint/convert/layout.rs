//! Translates diffusers' names to those of a single file.

use crate::checkpoint::files::ModelFiles;
use crate::checkpoint::index::ModelIndex;
use crate::checkpoint::single_file::clip_vocabulary;
use crate::checkpoint::single_file::families::Family;
use crate::checkpoint::single_file::infer::diffusers_extents;
use crate::checkpoint::single_file::renames::{Form, Renames};
use crate::checkpoint::tensor_names::newer_vae_name;
use crate::error::ModelError;
use serde_json::Value;
use std::collections::BTreeMap;

/// The layout that fits a model.
pub(crate) struct Layout {
    family: Family,
}

/// A tensor under diffusers' name, and whether it is transposed when written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) transposed: bool,
}

/// A tensor of the file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// The tensors it is made of, one after the other.
    pub(crate) pieces: Vec<Piece>,
}

impl Layout {
    pub(crate) fn of(files: &ModelFiles, index: &ModelIndex) -> Result<Self, String> {
        let class = &index.class_name;
        let read = |path: &str| files.read(path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        // OpenCLIP, which Stable Diffusion 2 has, computes GELU as it is defined; OpenAI's CLIP does not.
        let open = read("text_encoder/config.json").is_some_and(|config| config["hidden_act"] == "gelu");
        let name = match &**class {
            name if name.starts_with("StableDiffusionXL") && index.component("text_encoder").is_none() => {
                "sdxl-refiner"
            }
            name if name.starts_with("StableDiffusionXL") => "sdxl",
            "StableDiffusionUpscalePipeline" if open => "x4-upscaler",
            "StableDiffusionUpscalePipeline" => {
                return Err(
                    "has another text encoder than OpenCLIP, the only one that a single file of an upscaler may have"
                        .into(),
                );
            }
            name if name.starts_with("StableDiffusion") && open => "sd2",
            name if name.starts_with("StableDiffusion") => "sd1",
            _ => {
                return Err(format!(
                    "is a {class}, for which there is no single-file layout (Stable Diffusion 1, 2 and XL have one)"
                ));
            }
        };
        let family = Family::named(name);
        match family.parts.keys().find(|part| index.component(part).is_none()) {
            Some(part) => Err(format!("has no {part}, which a single file needs")),
            None => Ok(Self { family }),
        }
    }

    pub(crate) fn into_family(self) -> Family {
        self.family
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        self.family.parts.keys().map(|part| &**part)
    }

    /// The file's tensors of one part.
    pub(crate) fn tensors(&self, part: &str, shapes: &BTreeMap<&str, &[usize]>) -> Result<Vec<Named>, String> {
        let place = &self.family.parts[part];
        let plain = |name: &str| match part {
            "vae" => newer_vae_name(name),
            _ => name.strip_prefix("text_model.").unwrap_or(name).to_owned(),
        };
        let own: BTreeMap<String, &str> = shapes.keys().map(|name| (plain(name), *name)).collect();
        let renames = Renames::new(&place.names, &diffusers_extents(&place.names, &own));
        let mut found: BTreeMap<String, Named> = BTreeMap::new();
        // The pieces of one tensor must be in the file's order (query, key, value for attention), so they are sorted by
        // row.
        let mut renamed = Vec::new();
        for (name, own) in &own {
            let other = renames.ldm(name);
            let other = other.ok_or_else(|| format!("has in its {part} {own}, for which a single file has no name"))?;
            let row = if let Form::Rows { index, .. } = other.form { index } else { 0 };
            renamed.push((row, *own, other));
        }
        renamed.sort_by_key(|(row, ..)| *row);
        for (_, own, other) in renamed {
            let mut shape = shapes[own].to_vec();
            let transposed = other.form == Form::Transposed;
            match other.form {
                Form::Pointwise if shape.len() == 2 => shape.extend([1, 1]),
                Form::Transposed => shape.reverse(),
                Form::Rows { of, .. } => shape[0] *= of,
                Form::Same | Form::Pointwise => {}
            }
            let name = format!("{}{}", place.prefix, other.name);
            let entry = found.entry(name.clone()).or_insert(Named { name, shape, pieces: Vec::new() });
            entry.pieces.push(Piece { name: own.to_owned(), transposed });
        }
        Ok(found.into_values().collect())
    }
}

/// Whether a tokenizer's file equals the one built into the program. A single file then need not carry it.
pub(crate) fn is_built_in(files: &ModelFiles, path: &str) -> Result<bool, ModelError> {
    let Some((folder, name @ ("vocab.json" | "merges.txt"))) = path.split_once('/') else { return Ok(false) };
    if !files.exists(&format!("{folder}/vocab.json")) || files.exists(&format!("{folder}/tokenizer.json")) {
        return Ok(false);
    }
    let (own, theirs) = (clip_vocabulary::file(name, "").unwrap_or_default(), files.read(path)?);
    let json = |text: &[u8]| serde_json::from_slice::<BTreeMap<String, u32>>(text).ok();
    let lines = |text: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(text);
        text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).map(str::to_owned).collect()
    };
    Ok(if name == "vocab.json" { json(&own) == json(&theirs) } else { lines(&own) == lines(&theirs) })
}
