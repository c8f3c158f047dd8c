//! A whole model in one `.safetensors` file, as latent diffusion's own code and its user interfaces write it. To the
//! rest of the crate it looks like a folder in diffusers' layout: its configurations are derived from names and shapes,
//! and its tensors have diffusers' names.

pub(super) mod clip_vocabulary;
pub(super) mod families;
pub(super) mod infer;
pub(super) mod renames;

use crate::checkpoint::contents::Contents;
use crate::checkpoint::lora;
use crate::checkpoint::path::is_inside;
use crate::checkpoint::safetensors_file::{TensorFile, TensorInfo};
use crate::checkpoint::tensor_names::{has_sign, is_harmless, is_quantization, newer_vae_name};
use crate::error::{GivenApart, ModelError};
use families::{Family, Marks, OTHERS, Sampling, UNETS, is_ignored};
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
const UNET: &str = "unet";

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
    /// Parts of the family that the file does not have.
    pub(crate) lacks: Vec<String>,
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
    /// Reads the header, recognises the family and assigns the tensors to its parts. Parts that the file does not have are in
    /// [`lacks`](Self::lacks). A network whose text no family reads is of the family of the model `beside` it.
    pub(crate) fn new(file: TensorFile, shown: String, beside: Option<&Family>) -> Result<Self, ModelError> {
        let all: BTreeMap<String, TensorInfo> = file.tensors().collect();
        let family = family(&shown, &all, beside)?;
        let marks = marks(&family, &file, &all);
        let Sampling { scheduler, mut index, sample_size } = family.sampling(&marks);
        let mut single = Self {
            shown,
            title: family.title.clone(),
            file: Arc::new(file),
            parts: BTreeMap::new(),
            lacks: Vec::new(),
            unread: BTreeSet::new(),
            left_over: Vec::new(),
            files: BTreeMap::new(),
            tokenizers: family.pad.clone(),
        };
        single.insert("scheduler/scheduler_config.json", &scheduler);
        family.files.iter().for_each(|(path, value)| single.insert(path, value));
        let mut rest = all.clone();
        rest.retain(|name, _| !is_harmless(name));
        if let Some(name) = rest.keys().find(|name| is_quantization(name)) {
            return Err(ModelError::new(single.shown, format!("is quantized, which is not supported: {name}")));
        }
        let ignored = rest.extract_if(.., |name, _| is_ignored(name)).map(|(name, _)| name);
        single.unread.extend(ignored);
        for (name, place) in &family.parts {
            if name != UNET && !any_begins(&all, &place.prefix) {
                single.lacks.push(name.clone());
                if name == VAE {
                    // Many files are meant to be used with an autoencoder given apart, for which the scale of the latents is kept.
                    let mut fields = family.fields(name, &marks);
                    fields.insert("_class_name".into(), "AutoencoderKL".into());
                    single.insert("vae/config.json", &fields.into());
                }
                continue;
            }
            let prefix = if name == UNET { unet_prefix(&all).unwrap_or(&place.prefix) } else { &place.prefix };
            let mut part = Found::of(name, &place.names, prefix, &all);
            if family.leaves_out_a_layer(name) {
                part.extents.layers -= usize::from(keeps_unused_layer(&part.shapes(&all), &part.extents));
            }
            let missing = |tensor: String| {
                let title = &family.title;
                let message = format!("looks like {title} and lacks {tensor}, so its {name} cannot be told");
                ModelError::new(&*single.shown, message)
            };
            let config = infer::config(name, &place.names, &part.shapes(&all), &part.extents, &family, &marks);
            let mut config = config.map_err(|tensor| missing(part.own_name(prefix, &tensor)))?;
            let [taken, made] = ["in_channels", "out_channels"].map(|field| config[field].as_u64().unwrap_or(0));
            if name == UNET && taken == 2 * made + 1 {
                // The input of inpainting models: the sample, a mask, and the latents of the masked picture.
                let class = index["_class_name"].as_str().unwrap_or_default().replace("Pipeline", "InpaintPipeline");
                index["_class_name"] = class.into();
            }
            if name == UNET && config.get("time_cond_proj_dim").is_some() {
                // A latent consistency model takes guidance as an input, and has a scheduler of its own.
                let scheduler = families::consistency_scheduler();
                index["scheduler"][1] = scheduler["_class_name"].clone();
                if index["_class_name"] == "StableDiffusionPipeline" {
                    index["_class_name"] = "LatentConsistencyModelPipeline".into();
                }
                single.insert("scheduler/scheduler_config.json", &scheduler);
            }
            if let (Some(size), UNET) = (sample_size, &**name) {
                config["sample_size"] = size.into();
            }
            single.files.insert(format!("{name}/config.json"), config.to_string().into_bytes());
            let layers = part.extents.layers;
            let mut part = part.take(prefix, &mut rest);
            if family.leaves_out_a_layer(name) {
                let unused = format!("{prefix}transformer.resblocks.{layers}.");
                single
                    .unread
                    .extend(rest.extract_if(.., |tensor, _| tensor.starts_with(&unused)).map(|(name, _)| name));
                // The projection is part of OpenCLIP, and Stable Diffusion 2 does not use it.
                single.unread.extend(part.tensors.remove("text_projection.weight").map(|located| located.own));
            }
            single.parts.insert(name.clone(), part);
        }
        single.insert("model_index.json", &index);
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
        let family = &Family::named("sdxl");
        let place = &family.parts[VAE];
        let prefix = if any_begins(&all, &place.prefix) { &*place.prefix } else { "" };
        let wanted = |name: &str| {
            ["encoder.", "decoder.", "quant_conv.", "post_quant_conv."].iter().any(|s| name.starts_with(s))
        };
        let mut own_names = all;
        own_names.retain(|name, _| name.strip_prefix(prefix).is_some_and(wanted));
        let part = Found::of(VAE, &place.names, prefix, &own_names);
        let config =
            infer::config(VAE, &place.names, &part.shapes(&own_names), &part.extents, family, &Marks::default());
        let config = config.map_err(|_| {
            let message = "holds no AutoencoderKL, in neither latent diffusion's nor diffusers' names";
            ModelError::new(&*shown, message)
        })?;
        let mut part = part.take(prefix, &mut own_names);
        for (own, info) in own_names {
            let name = own[prefix.len()..].to_owned();
            part.tensors.insert(name, Located { own, info, transposed: false });
        }
        let mut single = Self {
            shown,
            title: family.title.clone(),
            file: Arc::new(file),
            parts: BTreeMap::from([(VAE.to_owned(), part)]),
            lacks: Vec::new(),
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

    /// A sentence's end that says which parts the file lacks.
    pub(crate) fn lacking(&self) -> String {
        let mut named: Vec<&str> = Vec::new();
        for part in &self.lacks {
            let what = if part == VAE { "no autoencoder (VAE)" } else { "no text encoder" };
            if !named.contains(&what) {
                named.push(what);
            }
        }
        named.join(" and ")
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

    /// Whether there is such a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        let is_built_in =
            |(folder, name)| self.tokenizers.contains_key(folder) && clip_vocabulary::FILES.contains(&name);
        self.files.contains_key(path) || path.split_once('/').is_some_and(is_built_in)
    }

    /// Names of the files in a part of the model.
    pub(crate) fn list(&self, part: &str) -> Vec<String> {
        let start = if part.is_empty() { String::new() } else { format!("{part}/") };
        let own = self.files.range(start.clone()..).map_while(|(path, _)| path.strip_prefix(&*start));
        let own = own.filter(|name| !name.contains('/'));
        let tokenizer = self.tokenizers.get(part).map_or(&[][..], |_| clip_vocabulary::FILES);
        let all: BTreeSet<&str> = own.chain(tokenizer.iter().copied()).collect();
        all.into_iter().map(str::to_owned).collect()
    }
}

/// Names and shapes of one part's tensors, and how they are called in the other layout.
struct Found {
    extents: Extents,
    names: String,
    prefix: String,
    /// Shapes by latent diffusion's names, where the file has diffusers'.
    renamed: Option<BTreeMap<String, TensorInfo>>,
}

impl Found {
    /// Looks at a part's tensors under this prefix. The networks may have latent diffusion's names or diffusers'.
    fn of(part: &str, names: &str, prefix: &str, all: &BTreeMap<String, TensorInfo>) -> Self {
        let extents = infer::extents(names, &Under { tensors: all, prefix }).within(all.len());
        let mut found = Self { extents, names: names.to_owned(), prefix: prefix.to_owned(), renamed: None };
        if found.extents.levels > 0 || ![UNET, VAE].contains(&part) {
            return found;
        }
        let own = all.range(prefix.to_owned()..).map_while(|(name, info)| Some((name.strip_prefix(prefix)?, info)));
        let own: BTreeMap<String, TensorInfo> = own.map(|(name, info)| (name.to_owned(), info.clone())).collect();
        let extents = infer::diffusers_extents(names, &own).within(own.len());
        if extents.levels > 0 {
            let renames = Renames::new(names, &extents);
            let newer = |name: &str| if part == VAE { newer_vae_name(name) } else { name.to_owned() };
            let ldm = |name: &String| renames.ldm(&newer(name)).map(|renamed| renamed.name);
            let renamed = own.iter().filter_map(|(name, info)| Some((ldm(name)?, info.clone()))).collect();
            found = Self { extents, renamed: Some(renamed), ..found };
        }
        found
    }

    /// Shapes by latent diffusion's names.
    fn shapes<'a>(&'a self, all: &'a BTreeMap<String, TensorInfo>) -> Under<'a> {
        match &self.renamed {
            Some(tensors) => Under { tensors, prefix: "" },
            None => Under { tensors: all, prefix: &self.prefix },
        }
    }

    /// The file's name for a tensor with latent diffusion's.
    fn own_name(&self, prefix: &str, tensor: &str) -> String {
        let renames = self.renamed.as_ref().map(|_| Renames::new(&self.names, &self.extents));
        let diffusers = renames.and_then(|renames| renames.diffusers(tensor).into_iter().next());
        format!("{prefix}{}", diffusers.map_or_else(|| tensor.to_owned(), |renamed| renamed.name))
    }

    /// Moves the part's tensors out of `rest`.
    fn take(self, prefix: &str, rest: &mut BTreeMap<String, TensorInfo>) -> Part {
        let mut part = Part { prefix: prefix.to_owned(), renames: Renames::default(), tensors: BTreeMap::new() };
        if self.renamed.is_some() {
            let own = rest.extract_if(prefix.to_owned().., |name, _| name.starts_with(prefix));
            part.tensors = own
                .map(|(own, info)| (own[prefix.len()..].to_owned(), Located { own, info, transposed: false }))
                .collect();
        } else {
            part.renames = Renames::new(&self.names, &self.extents);
            part.take(rest);
        }
        part
    }
}

impl Part {
    /// Moves the tensors that have a name in diffusers from `rest` to this part.
    fn take(&mut self, rest: &mut BTreeMap<String, TensorInfo>) {
        let own = rest.range(self.prefix.clone()..).map(|(name, _)| name);
        let own: Vec<String> = own.take_while(|name| name.starts_with(&self.prefix)).cloned().collect();
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
                // A scale of each row is cut as the rows are.
                info.scale = info.scale.map(|scale| match &scale[..] {
                    all if all.len() == rows => all[index * (rows / of)..][..rows / of].into(),
                    _ => scale.clone(),
                });
            }
        }
    }
    Some(Located { own: own.to_owned(), info, transposed })
}

/// Latent diffusion's names for a UNet's weights, by diffusers' names.
pub(crate) fn ldm_unet_names(shapes: &BTreeMap<&str, &[usize]>) -> HashMap<String, String> {
    let own: BTreeMap<String, ()> = shapes.keys().map(|name| ((*name).to_owned(), ())).collect();
    let renames = Renames::new(UNET, &infer::diffusers_extents(UNET, &own).within(own.len()));
    shapes.keys().filter_map(|name| Some(((*name).to_owned(), renames.ldm(name)?.name))).collect()
}

fn any_begins(all: &BTreeMap<String, TensorInfo>, prefix: &str) -> bool {
    all.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
}

/// What is before the names of the file's UNet.
fn unet_prefix(all: &BTreeMap<String, TensorInfo>) -> Option<&'static str> {
    let first = |prefix: &str| ["input_blocks.", "down_blocks."].map(|name| format!("{prefix}{name}"));
    UNETS.iter().find(|prefix| first(prefix).iter().any(|start| any_begins(all, start))).copied()
}

/// Channels of the text that the UNet under this prefix reads.
fn text_channels(all: &BTreeMap<String, TensorInfo>, prefix: &str) -> Option<usize> {
    let mut own = all.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
    own.find(|(name, _)| name.ends_with(".attn2.to_k.weight"))?.1.shape.get(1).copied()
}

fn family(shown: &str, all: &BTreeMap<String, TensorInfo>, beside: Option<&Family>) -> Result<Family, ModelError> {
    let fault = |message: String| Err(ModelError::new(shown, message));
    let is_there = |sign: &str| all.range(sign.to_owned()..).next().is_some_and(|(name, _)| has_sign(name, sign));
    let known = || Family::all().iter().map(|family| family.title.clone()).collect::<Vec<_>>().join(", ");
    let is_other = |sign: &str| UNETS.iter().any(|prefix| is_there(&format!("{prefix}{sign}")));
    if let Some((_, what)) = OTHERS.iter().find(|(sign, _)| is_other(sign)) {
        return fault(format!("is {what}, not a checkpoint of a supported family ({})", known()));
    }
    // A name of a checkpoint's part is a tensor of that part, however it ends.
    let is_of_part = |name: &str| {
        Family::all().iter().flat_map(|family| family.parts.values()).any(|part| name.starts_with(&part.prefix))
    };
    if all.keys().filter(|name| lora::is_of_adapter(name)).any(|name| !is_of_part(name)) {
        return fault(format!("is {}, not a checkpoint of a supported family ({})", Contents::Adapter, known()));
    }
    let first = || all.keys().next().map_or("nothing", |name| name);
    if let Some(family) = Family::all().into_iter().find(|family| is_there(&family.sign)) {
        return Ok(family);
    }
    let Some(prefix) = unet_prefix(all) else {
        return fault(format!("is a single file of no known family ({}): its first tensor is {}", known(), first()));
    };
    // A UNet without a text encoder beside it: the text that it reads tells the family.
    let channels = text_channels(all, prefix);
    let upscales =
        ["label_emb.weight", "class_embedding.weight"].iter().any(|name| all.contains_key(&format!("{prefix}{name}")));
    let fits = |family: &Family| Some(family.text) == channels && (upscales == (family.name == "x4-upscaler"));
    Family::all().into_iter().find(fits).or_else(|| beside.cloned()).ok_or_else(|| {
        let read = channels.map_or("no text".to_owned(), |channels| format!("text of {channels} channels"));
        let message = format!(
            "holds a UNet and no text encoder: it is {}, and no whole model; it reads {read}, as no known family does ({}), so give with it \
             the folder in diffusers' layout of a model that has what is missing",
            Contents::Unet,
            known()
        );
        ModelError::new(shown, message).wants(GivenApart::Folder)
    })
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
