//! Adapters: changes of weights that are added when a tensor is read. Low-rank ones (Hu et al. 2021) are
//! W + weight · alpha / rank · up · down; LyCORIS' and PEFT's further kinds are in `delta`.

mod delta;
mod merge;
mod settings;
mod spelling;

use crate::checkpoint::contents;
use crate::checkpoint::safetensors_file::{TensorFile, TensorInfo};
use crate::checkpoint::textual_inversion::TextualInversion;
use crate::error::ModelError;
use delta::{Delta, Magnitude, Pieces};
pub(crate) use merge::{Addition, Additions, Overflow, merge, overflow};
use safetensors::Dtype;
use settings::Settings;
use spelling::Role;
pub(super) use spelling::{Target, is_of_adapter};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// An adapter's file, in diffusers', PEFT's, kohya's, LyCORIS' or ComfyUI's spelling.
#[derive(Debug, Clone)]
pub struct Lora {
    pub(super) shown: String,
    pub(super) weight: f64,
    pub(super) file: Arc<TensorFile>,
    pub(super) layers: BTreeMap<String, Layer>,
    words: Vec<TextualInversion>,
    spelling: &'static str,
}

/// One adapted module, under the file's own name.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) target: Target,
    pub(super) weight: Option<Change>,
    pub(super) bias: Option<Change>,
    rank: Option<usize>,
}

/// What is added to one tensor.
#[derive(Debug, Clone)]
pub(super) struct Change {
    delta: Delta,
    magnitude: Option<Magnitude>,
    /// alpha / rank, before the adapter's weight.
    scale: f64,
}

impl Change {
    fn plain(delta: Delta, scale: f64) -> Self {
        Self { delta, magnitude: None, scale }
    }
}

impl Lora {
    /// Opens an adapter; `weight` is how much of it is added. Words that textual inversion learned may be in the same
    /// file, as AUTOMATIC1111's web UI reads them (`bundle_emb.NAME…`).
    ///
    /// # Errors
    /// When the file is damaged, a pickle, no adapter, or of a kind that is not supported.
    pub fn open(path: &Path, weight: f64) -> Result<Self, ModelError> {
        let file = TensorFile::at(path)?;
        let shown = path.display().to_string();
        let fault = |message: String| ModelError::new(&*shown, message);
        let all: BTreeMap<String, TensorInfo> = file.tensors().collect();
        let Some(first) = all.keys().next() else { return Err(fault("holds no tensor".into())) };
        if let Some(what) = contents::of_tensors(all.keys().map(|name| &**name)).filter(|what| !what.is_adapter()) {
            return Err(fault(format!("is {what}, and no LoRA: {}", what.advice())));
        }
        let settings = settings(&file, path, first).map_err(fault)?;
        let mut modules: BTreeMap<String, Pieces> = BTreeMap::new();
        let mut words: BTreeMap<String, Vec<(String, TensorInfo)>> = BTreeMap::new();
        let mut spelling = "";
        for (name, info) in all {
            if let Some((word, inner)) = spelling::bundled(&name) {
                words.entry(word.to_owned()).or_default().push((inner.to_owned(), info));
                continue;
            }
            if let Some(kind) = spelling::refused(&name) {
                return Err(fault(format!("is {kind} ({name}), which is not supported")));
            }
            let Some((module, role, kind)) = spelling::split(&name) else {
                return Err(fault(format!("is no LoRA: {name} is a name of no known spelling")));
            };
            if info.shape.contains(&0) {
                return Err(fault(format!("holds the empty tensor {name}, of shape {:?}", info.shape)));
            }
            if role != Role::Alpha {
                let values = file.to_f32(&info);
                let values = values
                    .ok_or_else(|| fault(format!("has the unsupported number type {} for {name}", info.dtype)))?;
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(fault(format!("has infinities or NaN in {name}")));
                }
                if ["", "LyCORIS"].contains(&spelling) {
                    spelling = kind;
                }
            }
            let pieces = modules.entry(module.to_owned()).or_default();
            if let Some((other, _)) = pieces.insert(role, (name.clone(), info)) {
                return Err(fault(format!("holds one part of an adapter twice, as {other} and as {name}")));
            }
        }
        let mut layers = BTreeMap::new();
        for (module, pieces) in modules {
            let layer = Layer::read(&file, &settings, &module, pieces).map_err(fault)?;
            layers.insert(module, layer);
        }
        let shown_word = |word: &str| format!("{shown} (bundle_emb.{word})");
        let words = words
            .into_iter()
            .map(|(word, tensors)| TextualInversion::bundled(&file, &shown_word(&word), &word, &tensors));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { words, shown, weight, file: Arc::new(file), layers, spelling })
    }

    /// The program whose spelling the file uses.
    #[must_use]
    pub fn spelling(&self) -> &'static str {
        self.spelling
    }

    /// Number of adapted modules in each part.
    #[must_use]
    pub fn parts(&self) -> BTreeMap<&'static str, usize> {
        let mut parts = BTreeMap::new();
        for layer in self.layers.values() {
            *parts.entry(layer.target.part).or_insert(0) += 1;
        }
        parts
    }

    /// Smallest and largest rank; zero where nothing is a product.
    #[must_use]
    pub fn ranks(&self) -> (usize, usize) {
        let ranks = || self.layers.values().filter_map(|layer| layer.rank);
        (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
    }

    /// Number of adapted modules.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The words that come with the adapter.
    #[must_use]
    pub fn words(&self) -> &[TextualInversion] {
        &self.words
    }
}

impl Layer {
    fn read(file: &TensorFile, settings: &Settings, module: &str, mut pieces: Pieces) -> Result<Self, String> {
        let alpha = match pieces.remove(&Role::Alpha) {
            Some((name, info)) => Some(number(file, &name, &info)?),
            None => None,
        };
        let own = pieces.clone();
        let magnitude = [(Role::Magnitude, false), (Role::RowMagnitude, true)]
            .into_iter()
            .find_map(|(role, of_rows)| pieces.remove(&role).map(|(_, lengths)| Magnitude { lengths, of_rows }));
        let bias =
            [Role::UpBias, Role::BiasDifference].into_iter().find_map(|role| Some((role, pieces.remove(&role)?)));
        let taken = Delta::take(&mut pieces).map_err(|why| format!("{why} ({module})"))?;
        if let Some((name, _)) = pieces.values().next() {
            return Err(format!("has {name}, which does not belong to the rest of its layer"));
        }
        let (delta, rank) = taken.map_or((None, None), |(delta, rank)| (Some(delta), rank));
        // As in LyCORIS, an alpha of zero stands for the rank.
        let scale = rank.map_or(1.0, |rank| match alpha {
            Some(alpha) if alpha != 0.0 => alpha / rank as f64,
            Some(_) => 1.0,
            None => settings.scale(module, rank),
        });
        let bias = match bias {
            Some((Role::UpBias, (name, _))) if rank.is_none() => {
                return Err(format!("has {name} without its matrices"));
            }
            Some((role, (_, info))) => {
                Some(Change::plain(Delta::whole(info), if role == Role::UpBias { scale } else { 1.0 }))
            }
            None => None,
        };
        if delta.is_none() && (bias.is_none() || magnitude.is_some()) {
            let first = own.values().next().map_or_else(|| format!("{module}.alpha"), |(name, _)| name.clone());
            return Err(format!("has {first} and nothing that it belongs to"));
        }
        let weight = delta.map(|delta| Change { delta, magnitude, scale });
        Ok(Self { target: spelling::target(module), weight, bias, rank })
    }
}

/// PEFT's settings: in the metadata, or in the file that PEFT itself writes beside its adapters.
fn settings(file: &TensorFile, path: &Path, first: &str) -> Result<Settings, String> {
    const METADATA: &str = "lora_adapter_metadata";
    const BESIDE: &str = "adapter_config.json";
    if let Some(text) = file.metadata(METADATA) {
        return Settings::read(METADATA, Some(text));
    }
    let beside = path.with_file_name(BESIDE);
    let text = (first.starts_with("base_model.model.") && beside.is_file()).then(|| std::fs::read_to_string(beside));
    match text.transpose() {
        Ok(text) => Settings::read(BESIDE, text.as_deref()),
        Err(_) => Err(format!("has an {BESIDE} beside it that cannot be read")),
    }
}

/// The one number of a tensor. Trainers also write whole numbers.
fn number(file: &TensorFile, name: &str, info: &TensorInfo) -> Result<f64, String> {
    if info.shape.iter().product::<usize>() != 1 {
        return Err(format!("has {name} of shape {:?}, not one number", info.shape));
    }
    let bytes = file.bytes(&info.bytes)?;
    let eight = bytes.first_chunk().copied();
    let value = match info.dtype {
        Dtype::F64 => eight.map(f64::from_le_bytes),
        Dtype::I64 => eight.map(|bytes| i64::from_le_bytes(bytes) as f64),
        Dtype::I32 => bytes.first_chunk().map(|bytes| f64::from(i32::from_le_bytes(*bytes))),
        _ => file.to_f32(info).and_then(|values| values.first().copied().map(f64::from)),
    };
    match value {
        None => Err(format!("has the unsupported number type {} for {name}", info.dtype)),
        Some(value) if !value.is_finite() => Err(format!("has infinities or NaN in {name}")),
        Some(value) => Ok(value),
    }
}
