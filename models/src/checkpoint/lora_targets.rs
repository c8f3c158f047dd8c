//! Which weight of a model each layer of an adapter changes.

use crate::checkpoint::files::ModelFiles;
use crate::checkpoint::lora::{Addition, Additions, Lora, Overflow, Target, overflow};
use crate::checkpoint::single_file::ldm_unet_names;
use crate::checkpoint::weights::Checkpoint;
use crate::error::ModelError;
use graph::WeightSource;
use std::collections::{BTreeMap, HashMap};

/// The parts of a model that adapters may change.
const PARTS: &[&str] = &["unet", "transformer", "text_encoder", "text_encoder_2"];

/// Which of a module's tensors.
const TENSORS: [&str; 2] = [".weight", ".bias"];

/// Finds the weight of every layer of every adapter.
pub(crate) fn resolve(files: &ModelFiles, loras: &[Lora]) -> Result<Additions, ModelError> {
    let mut places = Places::default();
    for part in PARTS {
        if files.exists(&format!("{part}/config.json")) {
            places.add(part, Checkpoint::open(files, part, None)?);
        }
    }
    let mut additions = Additions::new();
    let mut names: BTreeMap<(&str, String), Vec<&Lora>> = BTreeMap::new();
    for lora in loras {
        let fault = |message: String| ModelError::new(&*lora.shown, message);
        let unknown: Vec<&String> = lora
            .layers
            .iter()
            .filter(|(_, layer)| places.find(&layer.target, ".weight").is_none())
            .map(|(name, _)| name)
            .collect();
        if let Some(first) = unknown.first() {
            let (count, all, model) = (unknown.len(), lora.layers.len(), files.describe(""));
            return Err(fault(format!(
                "is a LoRA for another model: {count} of its {all} layers, {first} first, are not in {model}"
            )));
        }
        for (module, layer) in &lora.layers {
            for (tensor, change) in TENSORS.into_iter().zip([&layer.weight, &layer.bias]) {
                let Some(change) = change else { continue };
                let Some((part, name, shape)) = places.find(&layer.target, tensor) else {
                    return Err(fault(format!(
                        "changes a bias of {module}, which has none in {}: it is for another model",
                        files.describe("")
                    )));
                };
                let addition = Addition::new(lora.file.clone(), change, lora.weight, shape).map_err(|given| {
                    fault(format!(
                        "is a LoRA for another model: {module} is {given}, and the {part}'s {name} is {shape:?}"
                    ))
                })?;
                additions.entry(part.to_owned()).or_default().entry(name.clone()).or_default().push(addition);
                names.entry((part, name.clone())).or_default().push(lora);
            }
        }
    }
    for ((part, name), loras) in names {
        let checkpoint = &places.checkpoints[part];
        let added = &additions[part][&name];
        let overflow = checkpoint.read(&name, false).and_then(|view| overflow(&view, added));
        checkpoint.release(&name);
        if let Some(Overflow { count, of_half }) = overflow {
            let lora = loras[count - 1];
            let what = if of_half { "numbers that half precision does not hold" } else { "infinities or NaN" };
            let weight = lora.weight;
            let weight = if (1e-3..1e6).contains(&weight.abs()) { weight.to_string() } else { format!("{weight:e}") };
            let message = format!("is too large to be added: at the weight {weight} the {part}'s {name} gets {what}");
            return Err(ModelError::new(&*lora.shown, message));
        }
    }
    Ok(additions)
}

/// The model's weights by part and by name with underscores for dots. kohya writes names in this form, and because
/// names contain underscores themselves, the dots cannot be restored.
#[derive(Default)]
struct Places {
    checkpoints: BTreeMap<&'static str, Checkpoint>,
    weights: HashMap<(&'static str, &'static str, String), (String, Vec<usize>)>,
}

impl Places {
    fn add(&mut self, part: &'static str, checkpoint: Checkpoint) {
        let shapes: BTreeMap<&str, &[usize]> = checkpoint.tensors().collect();
        // kohya and ComfyUI train under latent diffusion's names.
        let ldm = if part == "unet" { ldm_unet_names(&shapes) } else { HashMap::new() };
        for (name, shape) in shapes {
            let Some(tensor) = TENSORS.into_iter().find(|end| name.ends_with(end)) else { continue };
            let module = |name: &str| {
                let module = name.strip_suffix(tensor)?;
                Some(module.strip_prefix("text_model.").unwrap_or(module).replace('.', "_"))
            };
            let own = ldm.get(name).and_then(|own| module(own));
            for spelled in module(name).into_iter().chain(own) {
                self.weights.insert((part, tensor, spelled), (name.to_owned(), shape.to_vec()));
            }
        }
        self.checkpoints.insert(part, checkpoint);
    }

    fn find(&self, target: &Target, tensor: &'static str) -> Option<(&'static str, &String, &[usize])> {
        // A name without a prefix means the model's network, whichever of the two it has.
        let parts: &[&'static str] = match target.part {
            "unet" => &["unet", "transformer"],
            part => &[part],
        };
        parts.iter().find_map(|part| {
            let (name, shape) = self.weights.get(&(*part, tensor, target.flat.clone()))?;
            Some((*part, name, &**shape))
        })
    }
}
