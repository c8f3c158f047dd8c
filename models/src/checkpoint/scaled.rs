//! Weights of eight bits with a scale beside them, as ComfyUI writes them: `X.weight` is to be multiplied by `X.scale_weight`, or
//! `X.weight_scale` in newer files. What such files hold besides says how a layer's input may be rounded to eight bits as well, for
//! hardware that multiplies those; in single precision nothing is lost that way.

use crate::checkpoint::number_types::{Numbers, finite, storage};
use crate::checkpoint::safetensors_file::TensorInfo;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What a weight's numbers are multiplied by: one number for all, or one for each row.
pub(crate) type Scale = Arc<[f32]>;

/// The scales of a file.
#[derive(Debug, Default)]
pub(crate) struct Scales {
    /// By the weight's name.
    of: HashMap<String, Scale>,
    /// Tensors that say nothing more once these are known.
    told: BTreeSet<String>,
}

/// The last part of a scale's name.
const SCALES: &[&str] = &["scale_weight", "weight_scale"];

/// The last parts of the names of what a layer says besides.
const BESIDE: &[&str] = &["scale_input", "input_scale"];

/// The last part of the name of a layer's description, JSON in bytes.
const DESCRIPTION: &str = "comfy_quant";

/// The last part of the name of a mark that some weights of a file have scales.
const MARK: &str = "scaled_fp8";

/// The key of the descriptions of all layers in a file's metadata.
pub(crate) const DESCRIPTIONS: &str = "_quantization_metadata";

/// Weights in these forms are their numbers times the scale. Whatever other field a description has may mean more.
fn is_plain(description: &Map<String, Value>) -> bool {
    description.iter().all(|(field, value)| match &**field {
        "format" => ["float8_e4m3fn", "float8_e5m2"].iter().any(|format| value == format),
        // How layers are computed where the hardware multiplies eight bits.
        "full_precision_matrix_mult" => value.is_boolean(),
        _ => false,
    })
}

impl Scales {
    /// Finds the scales among a file's tensors. What is not understood stays as it is: a tensor of a quantized model, which is refused by
    /// its name.
    pub(crate) fn find<'a>(
        tensors: &HashMap<String, TensorInfo>,
        descriptions: Option<&str>,
        bytes: impl Fn(&TensorInfo) -> Option<Cow<'a, [u8]>>,
    ) -> Self {
        let mut scales = Self::default();
        let descriptions: Map<String, Value> =
            descriptions.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let layers = descriptions.get("layers").and_then(Value::as_object);
        for (name, info) in tensors {
            let Some((layer, end)) = name.rsplit_once('.').filter(|(_, end)| SCALES.contains(end)) else { continue };
            let weight = format!("{layer}.weight");
            let Some(own) = tensors.get(&weight).filter(|own| matches!(storage(own), Some(Numbers::Eight(_)))) else {
                continue;
            };
            let description = format!("{layer}.{DESCRIPTION}");
            let described = tensors.get(&description).map(|info| {
                let fields = bytes(info).and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok());
                fields.is_some_and(|fields| is_plain(&fields))
            });
            let listed = layers.and_then(|layers| layers.get(layer)).map(|own| own.as_object().is_some_and(is_plain));
            if described == Some(false) || listed == Some(false) {
                continue;
            }
            let Some(scale) = numbers(info, &bytes).filter(|scale| scale.len() == 1 || fits_rows(info, own)) else {
                continue;
            };
            scales.told.insert(name.clone());
            let beside = BESIDE.iter().map(|beside| format!("{layer}.{beside}")).chain([description]);
            scales.told.extend(beside.filter(|beside| tensors.contains_key(beside)));
            // A file with scales in both spellings says one thing twice, and which of them is meant cannot be told.
            let other = SCALES.iter().find(|other| **other != end).map(|other| format!("{layer}.{other}"));
            if other.is_some_and(|other| tensors.contains_key(&other)) {
                scales.told.remove(name);
                continue;
            }
            scales.of.insert(weight, scale);
        }
        if !scales.of.is_empty() {
            let marks = tensors.keys().filter(|name| name.rsplit('.').next() == Some(MARK));
            scales.told.extend(marks.cloned());
        }
        scales
    }

    /// The scale of a weight.
    pub(crate) fn of(&self, weight: &str) -> Option<Scale> {
        self.of.get(weight).cloned()
    }

    /// Whether a tensor says nothing that is not known.
    pub(crate) fn tell(&self, name: &str) -> bool {
        self.told.contains(name)
    }
}

/// Numbers of a scale, if they are floating point and of a sensible size.
fn numbers<'a>(info: &TensorInfo, bytes: &impl Fn(&TensorInfo) -> Option<Cow<'a, [u8]>>) -> Option<Scale> {
    let kind = storage(info).filter(|kind| matches!(kind, Numbers::Stored(_) | Numbers::Double))?;
    let bytes = bytes(info)?;
    let numbers = finite(kind, &bytes).then(|| kind.view(info.shape.clone(), bytes).to_f32())?;
    // Times the largest number of eight bits it is still far from infinity.
    numbers.iter().all(|scale| scale.abs() < 1e30).then(|| numbers.into())
}

/// Whether a scale has one number for each row of a weight.
fn fits_rows(scale: &TensorInfo, weight: &TensorInfo) -> bool {
    let rows = weight.shape.first().copied().unwrap_or(0);
    scale.shape.first() == Some(&rows) && scale.shape.iter().skip(1).all(|extent| *extent == 1)
}
