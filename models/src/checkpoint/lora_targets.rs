//! Which weight of a model each layer of an adapter changes.

use crate::checkpoint::files::ModelFiles;
use crate::checkpoint::lora::{Addition, Additions, Lora, Target};
use crate::checkpoint::safetensors_file::TensorInfo;
use crate::checkpoint::single_file::ldm_unet_names;
use crate::checkpoint::weights::Checkpoint;
use crate::error::ModelError;
use std::collections::{BTreeMap, HashMap};

/// The parts of a model that adapters may change.
const PARTS: &[&str] = &["unet", "transformer", "text_encoder", "text_encoder_2"];

/// Finds the weight of every layer of every adapter.
pub(crate) fn resolve(files: &ModelFiles, loras: &[Lora]) -> Result<Additions, ModelError> {
    let mut places = Places::default();
    for part in PARTS {
        if files.exists(&format!("{part}/config.json")) {
            places.add(part, &Checkpoint::open(files, part, None)?);
        }
    }
    let mut additions = Additions::new();
    for lora in loras {
        let fault = |message: String| Err(ModelError::new(&*lora.shown, message));
        let unknown: Vec<&String> = lora
            .layers
            .iter()
            .filter(|(_, layer)| places.find(&layer.target).is_none())
            .map(|(name, _)| name)
            .collect();
        if let Some(first) = unknown.first() {
            let (count, all, model) = (unknown.len(), lora.layers.len(), files.describe(""));
            return fault(format!(
                "is a LoRA for another model: {count} of its {all} layers, {first} first, are not in {model}"
            ));
        }
        for (module, layer) in &lora.layers {
            let (part, name, shape) = places.find(&layer.target).expect("known, as found above");
            let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
            let rank = layer.down.shape[0];
            let numel = |info: &TensorInfo| info.shape.iter().product::<usize>();
            if layer.up.shape[0] != rows || numel(&layer.up) != rows * rank || numel(&layer.down) != rank * columns {
                let (up, down) = (&layer.up.shape, &layer.down.shape);
                return fault(format!(
                    "is a LoRA for another model: {module} is {up:?} times {down:?}, and the {part}'s {name} is {shape:?}"
                ));
            }
            #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
            let scale = (lora.weight * layer.scale) as f32;
            let addition = Addition { file: lora.file.clone(), down: layer.down.clone(), up: layer.up.clone(), scale };
            additions.entry(part.to_owned()).or_default().entry(name.clone()).or_default().push(addition);
        }
    }
    Ok(additions)
}

/// The model's weights by part and by name with underscores for dots. kohya writes names in this form, and because
/// names contain underscores themselves, the dots cannot be restored.
#[derive(Default)]
struct Places {
    weights: HashMap<(&'static str, String), (String, Vec<usize>)>,
}

impl Places {
    fn add(&mut self, part: &'static str, checkpoint: &Checkpoint) {
        let shapes: BTreeMap<&str, &[usize]> = checkpoint.tensors().collect();
        // kohya trains the XL models under latent diffusion's names.
        let ldm = if part == "unet" { ldm_unet_names(&shapes) } else { HashMap::new() };
        for (name, shape) in shapes {
            let Some(module) = name.strip_suffix(".weight").filter(|_| shape.len() >= 2) else { continue };
            let plain = module.strip_prefix("text_model.").unwrap_or(module);
            let own = ldm.get(name).and_then(|own| own.strip_suffix(".weight"));
            for spelled in [plain].into_iter().chain(own) {
                self.weights.insert((part, spelled.replace('.', "_")), (name.to_owned(), shape.to_vec()));
            }
        }
    }

    fn find(&self, target: &Target) -> Option<(&'static str, &String, &[usize])> {
        // A name without a prefix means the model's network, whichever of the two it has.
        let parts: &[&str] = if target.part == "unet" { &["unet", "transformer"] } else { &[target.part] };
        parts.iter().find_map(|part| {
            let part = PARTS.iter().find(|known| *known == part)?;
            let (name, shape) = self.weights.get(&(*part, target.flat.clone()))?;
            Some((*part, name, &**shape))
        })
    }
}
