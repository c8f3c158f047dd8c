//! Low-rank adapters (Hu et al. 2021): W + weight · alpha / rank · up · down, added when a tensor is read.

mod spelling;

use crate::checkpoint::safetensors_file::{TensorFile, TensorInfo, finite, storage};
use crate::error::ModelError;
use graph::{StorageType, WeightView};
use spelling::Role;
pub(super) use spelling::Target;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// An adapter's file, in diffusers', PEFT's or kohya's spelling.
#[derive(Debug, Clone)]
pub struct Lora {
    pub(super) shown: String,
    pub(super) weight: f64,
    pub(super) file: Arc<TensorFile>,
    pub(super) layers: BTreeMap<String, Layer>,
    spelling: &'static str,
}

/// One adapted weight, under the file's own name.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) target: Target,
    pub(super) down: TensorInfo,
    pub(super) up: TensorInfo,
    /// alpha / rank, before the weight.
    pub(super) scale: f64,
}

/// What adapters add, by part and by the name of the checkpoint's tensor.
pub(crate) type Additions = BTreeMap<String, BTreeMap<String, Vec<Addition>>>;

/// One product to add to a weight.
#[derive(Debug, Clone)]
pub(crate) struct Addition {
    pub(super) file: Arc<TensorFile>,
    pub(super) down: TensorInfo,
    pub(super) up: TensorInfo,
    pub(super) scale: f32,
}

impl Lora {
    /// Opens an adapter; `weight` is how much of it is added.
    ///
    /// # Errors
    /// When the file is damaged, a pickle, no such adapter, or of a kind that is not a product of two matrices.
    pub fn open(path: &Path, weight: f64) -> Result<Self, ModelError> {
        let file = TensorFile::at(path)?;
        let shown = path.display().to_string();
        let fault = |message: String| ModelError::new(&*shown, message);
        let mut pieces: BTreeMap<String, BTreeMap<Role, (String, TensorInfo)>> = BTreeMap::new();
        let mut spelling = "";
        for (name, info) in file.tensors() {
            if let Some(kind) = spelling::refused(&name) {
                return Err(fault(format!(
                    "is {kind} ({name}), which is not supported (only products of two matrices are)"
                )));
            }
            let Some((module, role, kind)) = spelling::split(&name) else {
                return Err(fault(format!("is no LoRA: {name} is a name of no known spelling")));
            };
            match storage(info.dtype) {
                None => return Err(fault(format!("has the unsupported number type {} for {name}", info.dtype))),
                Some(kind) if !finite(kind, file.bytes(&info.bytes)) => {
                    return Err(fault(format!("has infinities or NaN in {name}")));
                }
                Some(_) => {}
            }
            if role != Role::Alpha {
                spelling = kind;
            }
            pieces.entry(module.to_owned()).or_default().insert(role, (name, info));
        }
        let settings = spelling::Settings::read(file.metadata("lora_adapter_metadata")).map_err(fault)?;
        let mut layers = BTreeMap::new();
        for (module, mut pieces) in pieces {
            let alpha = pieces.remove(&Role::Alpha).and_then(|(_, info)| file.to_f32(&info)?.first().copied());
            let (Some((_, down)), Some((name, up))) = (pieces.remove(&Role::Down), pieces.remove(&Role::Up)) else {
                return Err(fault(format!("has only one of the two matrices of {module}")));
            };
            let rank = down.shape.first().copied().unwrap_or(0);
            if rank == 0 || up.shape.get(1) != Some(&rank) || down.shape.len() < 2 {
                let (up, down) = (&up.shape, &down.shape);
                return Err(fault(format!("has matrices that do not fit each other at {name}: {up:?} and {down:?}")));
            }
            let target = spelling::target(&module);
            let scale = alpha.map_or_else(|| settings.scale(&target, rank), |alpha| f64::from(alpha) / rank as f64);
            layers.insert(module, Layer { target, down, up, scale });
        }
        if layers.is_empty() {
            return Err(fault("holds no adapted weight".into()));
        }
        Ok(Self { shown, weight, file: Arc::new(file), layers, spelling })
    }

    /// The program whose spelling the file uses.
    #[must_use]
    pub fn spelling(&self) -> &'static str {
        self.spelling
    }

    /// Number of adapted weights in each part.
    #[must_use]
    pub fn parts(&self) -> BTreeMap<&'static str, usize> {
        let mut parts = BTreeMap::new();
        for layer in self.layers.values() {
            *parts.entry(layer.target.part).or_insert(0) += 1;
        }
        parts
    }

    /// Smallest and largest rank.
    #[must_use]
    pub fn ranks(&self) -> (usize, usize) {
        let ranks = || self.layers.values().map(|layer| layer.down.shape[0]);
        (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
    }

    /// Number of adapted weights.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }
}

/// A weight with everything added, summed in f32. A half-precision weight is rounded to half precision again, so that
/// adapters do not increase the memory that a model takes. With `widen` the result stays in f32.
pub(crate) fn merge<'a>(view: &WeightView<'a>, additions: &[Addition], widen: bool) -> WeightView<'a> {
    let mut sum = view.to_f32();
    let rows = view.shape[0];
    let columns = sum.len() / rows.max(1);
    for addition in additions {
        let [down, up] = [&addition.down, &addition.up].map(|info| addition.file.to_f32(info).unwrap_or_default());
        let rank = addition.down.shape[0];
        for (row, up) in sum.chunks_exact_mut(columns).zip(up.chunks_exact(rank)) {
            for (factor, down) in up.iter().zip(down.chunks_exact(columns)) {
                let factor = factor * addition.scale;
                row.iter_mut().zip(down).for_each(|(w, d)| *w += factor * d);
            }
        }
    }
    let bytes: Vec<u8> = sum.iter().flat_map(|v| v.to_le_bytes()).collect();
    let merged = WeightView { storage: StorageType::F32, shape: view.shape.clone(), bytes: Cow::Owned(bytes) };
    if view.storage != StorageType::F16 || widen {
        return merged;
    }
    let bytes: Vec<u8> = merged.to_f16().iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
    WeightView { storage: StorageType::F16, shape: merged.shape, bytes: Cow::Owned(bytes) }
}
