//! A whole model in one `.safetensors` file, as latent diffusion's own code and its user interfaces write it. To the
//! rest of the crate it looks like a folder in diffusers' layout: its configurations are derived from names and shapes,
//! and its tensors have diffusers' names.

pub(super) mod clip_vocabulary;
pub(super) mod families;
pub(super) mod infer;
pub(super) mod renames;

use crate::checkpoint::path::is_inside;
use crate::checkpoint::safetensors_file::{TensorFile, TensorInfo};
use crate::checkpoint::tensor_names::{HARMLESS, is_quantization, newer_vae_name};
use crate::error::ModelError;
use families::{Family, IGNORED, Marks, OTHERS, Sampling};
use infer::Shapes;
use renames::{Extents, Form, Renames};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

/// Prefix of keys in the metadata. Files written here store configurations and tokenizers that cannot be derived under
/// this prefix and their path in diffusers' layout.
pub(crate) const CARRIED: &str = "headwater/";

/// The key under which Stability's ModelSpec keeps what the network predicts.
pub(crate) const PREDICTION: &str = "modelspec.prediction_type";

const VAE: &str = "vae";

/// Fields of an autoencoder's configuration that another one in its place has too, because the network is made for them.
const SCALE: [&str; 7] =
    ["scaling_factor", "shift_factor", "latents_mean", "latents_std", "norm_num_groups", "sample_size", "force_upcast"];

/// One open file.
#[derive(Debug)]
pub(crate) struct SingleFile {
    pub(crate) shown: String,
    /// The model family that was recognised, such as Stable Diffusion XL.
    pub(crate) title: String,
    pub(crate) file: Arc<TensorFile>,
    pub(crate) parts: BTreeMap<String, Part>,
    /// Tensors that no part reads: averages and schedules of training, and layers whose output is not used.
    pub(crate) unread: BTreeSet<String>,
    /// Those among them that are no part of training as it is known: what trainers and mergers left behind.
    pub(crate) left_over: Vec<String>,
    /// Configurations by their path in diffusers' layout.
    files: BTreeMap<String, Vec<u8>>,
    /// Folders of tokenizers that have CLIP's own vocabulary, and their padding tokens.
    tokenizers: BTreeMap<String, String>,
}

/// The tensors of one part under diffusers' names.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) prefix: String,
    renames: Renames,
    pub(crate) tensors: BTreeMap<String, Located>,
}

/// A tensor, or some rows of one.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// The file's name for it.
    pub(crate) own: String,
    pub(crate) info: TensorInfo,
    /// Whether the file stores the two axes in the other order. The shape in `info` is the one after transposing.
    pub(crate) transposed: bool,
}

impl Part {
    /// The file's name for a tensor with diffusers' name.
    pub(crate) fn own_name(&self, diffusers: &str) -> String {
        self.renames.ldm(diffusers).map_or_else(|| diffusers.to_owned(), |r| format!("{}{}", self.prefix, r.name))
    }
}

/// The file's tensors under one prefix, looked up by the rest of their names.
struct Under<'a> {
    tensors: &'a BTreeMap<String, TensorInfo>,
    prefix: &'a str,
}

impl Shapes for Under<'_> {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(&format!("{}{name}", self.prefix)).map(|info| &*info.shape)
    }
}

impl SingleFile {
    /// Reads the header, recognises the family and assigns the tensors to its parts.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let shown = path.display().to_string();
        let file = TensorFile::at(path)?;
        let all: BTreeMap<String, TensorInfo> = file.tensors().collect();
        let family = family(&shown, &all)?;
        let marks = marks(&family, &file, &all);
        let Sampling { scheduler, mut index, sample_size } = family.sampling(&marks);
        let mut single = Self {
            shown,
            title: family.title.clone(),
            file: Arc::new(file),
            parts: BTreeMap::new(),
            unread: BTreeSet::new(),
            left_over: Vec::new(),
            files: BTreeMap::new(),
            tokenizers: family.pad.clone(),
        };
        single.insert("scheduler/scheduler_config.json", &scheduler);
        single.insert("model_index.json", &index);
        let mut rest = all.clone();
        rest.retain(|name, _| !HARMLESS.iter().any(|end| name.ends_with(end)));
        if let Some(name) = rest.keys().find(|name| is_quantization(name)) {
            return Err(ModelError::new(single.shown, format!("is quantized, which is not supported: {name}")));
        }
        let is_ignored = |name: &str| IGNORED.iter().any(|ignored| name.starts_with(ignored));
        let ignored = rest.extract_if(.., |name, _| is_ignored(name)).map(|(name, _)| name);
        single.unread.extend(ignored);
        for (name, place) in &family.parts {
            if name == VAE && !all.keys().any(|tensor| tensor.starts_with(&place.prefix)) {
                // Many files are meant to be used with an autoencoder given apart, for which the scale of the latents is kept.
                let mut fields = family.fields(name, &marks);
                fields.insert("_class_name".into(), "AutoencoderKL".into());
                single.insert("vae/config.json", &fields.into());
                continue;
            }
            let under = Under { tensors: &all, prefix: &place.prefix };
            let mut extents = infer::extents(&place.names, &under);
            if family.name == "sd2" && name == "text_encoder" {
                extents.layers -= usize::from(keeps_unused_layer(&under, &extents));
            }
            let missing = |tensor: String| {
                let title = &family.title;
                let message =
                    format!("looks like {title} and lacks {}{tensor}, so its {name} cannot be told", place.prefix);
                ModelError::new(&*single.shown, message)
            };
            let mut config = infer::config(name, &place.names, &under, &extents, &family, &marks).map_err(missing)?;
            let [taken, made] = ["in_channels", "out_channels"].map(|field| config[field].as_u64().unwrap_or(0));
            if name == "unet" && taken == 2 * made + 1 {
                // The input of inpainting models: the sample, a mask, and the latents of the masked picture.
                let class = index["_class_name"].as_str().unwrap_or_default().replace("Pipeline", "InpaintPipeline");
                index["_class_name"] = class.into();
                single.insert("model_index.json", &index);
            }
            if let (Some(size), "unet") = (sample_size, &**name) {
                config["sample_size"] = size.into();
            }
            single.files.insert(format!("{name}/config.json"), config.to_string().into_bytes());
            let renames = Renames::new(&place.names, &extents);
            let mut part = Part { prefix: place.prefix.clone(), renames, tensors: BTreeMap::new() };
            part.take(&mut rest);
            if family.name == "sd2" && name == "text_encoder" {
                let unused = format!("{}transformer.resblocks.{}.", place.prefix, extents.layers);
                single
                    .unread
                    .extend(rest.extract_if(.., |tensor, _| tensor.starts_with(&unused)).map(|(name, _)| name));
                // The projection is part of OpenCLIP, and Stable Diffusion 2 does not use it.
                single.unread.extend(part.tensors.remove("text_projection.weight").map(|located| located.own));
            }
            single.parts.insert(name.clone(), part);
        }
        single.carried();
        single.left_over = rest.into_keys().collect();
        single.unread.extend(single.left_over.iter().cloned());
        Ok(single)
    }

    /// Opens an autoencoder alone, or the autoencoder of a whole checkpoint. Fields that shapes do not determine are
    /// taken from `own`, the configuration of the autoencoder that is replaced.
    pub(crate) fn open_vae(path: &Path, own: &Map<String, Value>) -> Result<Self, ModelError> {
        let shown = path.display().to_string();
        let file = TensorFile::at(path)?;
        let all: BTreeMap<String, TensorInfo> = file.tensors().collect();
        let family = &Family::all()[0];
        let place = &family.parts["vae"];
        let prefix = if all.keys().any(|name| name.starts_with(&place.prefix)) { &*place.prefix } else { "" };
        let under = |name: &String| name.starts_with(prefix) && !name.starts_with("model_ema.");
        let mut own_names: BTreeMap<String, TensorInfo> = all.into_iter().filter(|(name, _)| under(name)).collect();
        let wanted = |name: &str| {
            ["encoder.", "decoder.", "quant_conv.", "post_quant_conv."].iter().any(|s| name.starts_with(s))
        };
        own_names.retain(|name, _| wanted(&name[prefix.len()..]));
        let mut extents = infer::extents("vae", &Under { tensors: &own_names, prefix });
        let mut part = Part { prefix: prefix.to_owned(), renames: Renames::default(), tensors: BTreeMap::new() };
        let config = if extents.levels > 0 {
            part.renames = Renames::new("vae", &extents);
            infer::config("vae", "vae", &Under { tensors: &own_names, prefix }, &extents, family, &Marks::default())
        } else {
            extents = infer::diffusers_extents("vae", &own_names);
            let renames = Renames::new("vae", &extents);
            let ldm = |name: &String| renames.ldm(&newer_vae_name(name)).map(|renamed| renamed.name);
            let shapes = own_names.iter().filter_map(|(name, info)| Some((ldm(name)?, info.clone()))).collect();
            infer::config("vae", "vae", &Under { tensors: &shapes, prefix }, &extents, family, &Marks::default())
        };
        let config = config.map_err(|_| {
            let message = "holds no AutoencoderKL, in neither latent diffusion's nor diffusers' names";
            ModelError::new(&*shown, message)
        })?;
        part.take(&mut own_names);
        for (name, info) in own_names {
            let own = format!("{prefix}{name}");
            part.tensors.insert(name, Located { own, info, transposed: false });
        }
        let mut single = Self {
            shown,
            title: family.title.clone(),
            file: Arc::new(file),
            parts: BTreeMap::from([("vae".to_owned(), part)]),
            unread: BTreeSet::new(),
            left_over: Vec::new(),
            files: BTreeMap::new(),
            tokenizers: BTreeMap::new(),
        };
        let Value::Object(mut config) = config else { unreachable!("a configuration is an object") };
        // The value of Stable Diffusion 1 and 2.
        config.insert("scaling_factor".into(), 0.18215.into());
        if own.get("_class_name") == config.get("_class_name") {
            for field in SCALE {
                if let Some(value) = own.get(field) {
                    config.insert(field.into(), value.clone());
                }
            }
        }
        single.insert("vae/config.json", &config.into());
        Ok(single)
    }

    fn insert(&mut self, path: &str, value: &Value) {
        self.files.insert(path.to_owned(), value.to_string().into_bytes());
    }

    /// Reads the configurations and tokenizers in the metadata.
    fn carried(&mut self) {
        for (key, text) in self.file.all_metadata() {
            let Some(path) = key.strip_prefix(CARRIED).filter(|path| is_inside(path)) else { continue };
            if let Some(folder) = path.strip_suffix("/vocab.json").or_else(|| path.strip_suffix("/tokenizer.json")) {
                self.tokenizers.remove(folder);
            }
            self.files.insert(path.to_owned(), text.clone().into_bytes());
        }
    }

    /// A configuration or a tokenizer's file.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        if let Some(bytes) = self.files.get(path) {
            return Some(bytes.clone());
        }
        let (folder, name) = path.split_once('/')?;
        clip_vocabulary::file(name, self.tokenizers.get(folder)?)
    }

    /// Names of the files in a part of the model.
    pub(crate) fn list(&self, part: &str) -> Vec<String> {
        let own = self.files.keys().filter_map(|path| {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            (folder == part).then(|| name.to_owned())
        });
        let tokenizer = self.tokenizers.get(part).map_or(&[][..], |_| clip_vocabulary::FILES);
        let all: BTreeSet<String> = own.chain(tokenizer.iter().map(|name| (*name).to_owned())).collect();
        all.into_iter().collect()
    }
}

impl Part {
    /// Moves the tensors that have a name in diffusers from `rest` to this part.
    fn take(&mut self, rest: &mut BTreeMap<String, TensorInfo>) {
        let own: Vec<String> = rest.keys().filter(|name| name.starts_with(&self.prefix)).cloned().collect();
        for own in own {
            let plain = &own[self.prefix.len()..];
            // Some files leave out the prefix that version 4 of transformers wrote.
            let mut found = self.renames.diffusers(plain);
            if found.is_empty() {
                found = self.renames.diffusers(&format!("text_model.{plain}"));
            }
            if found.is_empty() {
                continue;
            }
            let info = rest.remove(&own).expect("listed above");
            for renamed in found {
                if let Some(located) = locate(&own, &info, renamed.form) {
                    self.tensors.insert(renamed.name, located);
                }
            }
        }
    }
}

/// Converts a stored tensor to its form in diffusers. A tensor that does not fit the form keeps its shape, and the
/// check of shapes reports it.
fn locate(own: &str, info: &TensorInfo, form: Form) -> Option<Located> {
    let mut info = info.clone();
    let mut transposed = false;
    match form {
        Form::Same => {}
        Form::Pointwise => {
            if let [rows, columns, 1, 1] = info.shape[..] {
                info.shape = vec![rows, columns];
            }
        }
        Form::Transposed => {
            if let [rows, columns] = info.shape[..] {
                info.shape = vec![columns, rows];
                transposed = true;
            }
        }
        Form::Rows { index, of } => {
            let rows = info.shape.first().copied()?;
            if rows.is_multiple_of(of) {
                info.shape[0] = rows / of;
                let bytes = info.bytes.len() / of;
                let start = info.bytes.start + index * bytes;
                info.bytes = start..start + bytes;
            }
        }
    }
    Some(Located { own: own.to_owned(), info, transposed })
}

/// Latent diffusion's names for a UNet's weights, by diffusers' names.
pub(crate) fn ldm_unet_names(shapes: &BTreeMap<&str, &[usize]>) -> HashMap<String, String> {
    let own: BTreeMap<String, ()> = shapes.keys().map(|name| ((*name).to_owned(), ())).collect();
    let renames = Renames::new("unet", &infer::diffusers_extents("unet", &own));
    shapes.keys().filter_map(|name| Some(((*name).to_owned(), renames.ldm(name)?.name))).collect()
}

fn family(shown: &str, all: &BTreeMap<String, TensorInfo>) -> Result<Family, ModelError> {
    let fault = |message: String| Err(ModelError::new(shown, message));
    let starts = |prefix: &str| all.keys().any(|name| name.starts_with(prefix));
    let known = || Family::all().iter().map(|family| family.title.clone()).collect::<Vec<_>>().join(", ");
    if let Some((_, what)) = OTHERS.iter().find(|(sign, _)| all.keys().any(|name| name.contains(sign))) {
        return fault(format!("is {what}, not a checkpoint of a supported family ({})", known()));
    }
    match Family::all().into_iter().find(|family| starts(&family.sign)) {
        Some(family) => Ok(family),
        None if starts("model.diffusion_model.") => fault(
            "holds a UNet and no text encoder; give a complete checkpoint or a folder in diffusers' layout".into(),
        ),
        None => {
            let first = all.keys().next().map_or("nothing", |name| name);
            fault(format!("is a single file of no known family ({}): its first tensor is {first}", known()))
        }
    }
}

/// Whether a file of Stable Diffusion 2 contains OpenCLIP's last layer, whose output is not read. Files made from
/// diffusers' folders contain neither this layer nor the projection.
fn keeps_unused_layer(file: &impl Shapes, extents: &Extents) -> bool {
    extents.layers > 1 && (file.has("text_projection") || extents.layers == 24)
}

/// What a file says about its training; each mark says one thing.
fn marks(family: &Family, file: &TensorFile, all: &BTreeMap<String, TensorInfo>) -> Marks {
    let numbers = |name: &str| all.get(name).and_then(|info| file.to_f32(info)).filter(|numbers| !numbers.is_empty());
    let cos = numbers("edm_vpred.sigma_max").map(|largest| {
        // The smallest level of EDM, where the file does not say.
        [numbers("edm_vpred.sigma_min").map_or(0.002, |smallest| smallest[0]), largest[0]]
    });
    Marks {
        velocity: predicts_velocity(family, file, all),
        zero_snr: all.contains_key("ztsnr"),
        cos,
        latents: numbers("edm_mean").zip(numbers("edm_std")).map(|(mean, std)| [mean, std]),
    }
}

/// Whether the model predicts v and not epsilon. The metadata may say so (Stability's ModelSpec), or a mark that
/// trainers put into the file. Otherwise, for Stable Diffusion 2, the spread of one norm's bias decides, as in ComfyUI.
fn predicts_velocity(family: &Family, file: &TensorFile, all: &BTreeMap<String, TensorInfo>) -> bool {
    const NORM: &str = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
    if let Some(kind) = file.metadata(PREDICTION) {
        return kind == "v";
    }
    if all.contains_key("v_pred") {
        return true;
    }
    let Some(bias) = all.get(NORM).filter(|_| family.name == "sd2").and_then(|info| file.to_f32(info)) else {
        return false;
    };
    let mean = bias.iter().sum::<f32>() / bias.len() as f32;
    let variance = bias.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / bias.len() as f32;
    variance.sqrt() > 0.09
}
