//! Writes a model as a folder in diffusers' layout or as a single file in latent diffusion's. The number type may
//! change, and adapters are merged.

pub(super) mod layout;

use crate::checkpoint::files::ModelFiles;
use crate::checkpoint::index::{Component, ModelIndex};
use crate::checkpoint::path::join;
use crate::checkpoint::single_file::{CARRIED, PREDICTION};
use crate::checkpoint::tensor_names::{is_harmless, is_position_ids};
use crate::checkpoint::weight_files;
use crate::checkpoint::weights::Checkpoint;
use crate::error::ModelError;
use graph::{StorageType, WeightView};
use layout::{Layout, Named, Piece};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// A model to be written: its tensors go through memory one at a time.
#[derive(Debug)]
pub struct Conversion<'a> {
    files: &'a ModelFiles,
    index: ModelIndex,
    storage: Option<StorageType>,
}

/// A path in diffusers' layout, and what lies there.
pub type SmallFile = (String, Cow<'static, [u8]>);

/// Why a conversion stopped.
#[derive(Debug)]
pub enum ConvertError {
    /// The model cannot be written in this form.
    Model(ModelError),
    /// Reading or writing failed.
    Io(io::Error),
}

impl From<ModelError> for ConvertError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl From<io::Error> for ConvertError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A tensor to be written.
struct Entry {
    name: String,
    storage: StorageType,
    shape: Vec<usize>,
    /// Number of the checkpoint that holds the pieces.
    part: usize,
    /// The tensors to write, one after the other.
    pieces: Vec<Piece>,
}

impl<'a> Conversion<'a> {
    /// Reads a model's index. `storage` is the number type of every tensor; without it each keeps its own.
    ///
    /// # Errors
    /// When there is no model_index.json.
    pub fn new(files: &'a ModelFiles, storage: Option<StorageType>) -> Result<Self, ModelError> {
        Ok(Self { files, index: ModelIndex::read(files)?, storage })
    }

    /// The files of a folder in diffusers' layout: configurations and tokenizers, with their bytes.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn small_files(&self) -> Result<Vec<SmallFile>, ModelError> {
        self.small_files_without(&self.dropped(None))
    }

    fn small_files_without(&self, parts: &[&str]) -> Result<Vec<SmallFile>, ModelError> {
        let mut found = vec![("model_index.json".to_owned(), self.index_json(parts)?)];
        for component in self.index.components.iter().filter(|component| !parts.contains(&&*component.name)) {
            let (folder, names) = self.files.place(&component.name);
            for name in names.iter().filter(|name| !weight_files::is_weights(name)) {
                let bytes = self.files.read(&join(&folder, name))?;
                found.push((join(&component.name, name), bytes));
            }
        }
        Ok(found)
    }

    /// The index without these parts. If the autoencoder was replaced, the index names the class of the replacement.
    fn index_json(&self, without: &[&str]) -> Result<Cow<'static, [u8]>, ModelError> {
        let bytes = self.files.read("model_index.json")?;
        if self.files.given_apart().next().is_none() && without.is_empty() {
            return Ok(bytes);
        }
        let mut fields: Map<String, Value> = crate::config::parse(&self.index.path, &bytes)?;
        for component in self.files.given_apart().filter_map(|part| self.index.component(part)) {
            fields.insert(component.name.clone(), json!([component.library, component.class_name]));
        }
        // diffusers marks an absent part in this way.
        without.iter().for_each(|part| drop(fields.insert((*part).to_owned(), json!([null, null]))));
        Ok(Cow::Owned(format!("{:#}\n", Value::from(fields)).into_bytes()))
    }

    /// The parts that have weights, and the file that diffusers or transformers looks for.
    #[must_use]
    pub fn weight_files(&self) -> Vec<(String, String)> {
        let dropped = self.dropped(None);
        let is_written = |component: &&Component| {
            !dropped.contains(&&*component.name)
                && (self.is_model(component) || self.files.has_weights(&component.name))
        };
        let parts = self.index.components.iter().filter(is_written);
        let file = |component: &Component| join(&component.name, &weight_files::name_for(&component.library));
        parts.map(|component| (component.name.clone(), file(component))).collect()
    }

    /// Whether a part should have weights. The configurations of tokenizers and schedulers have other names.
    fn is_model(&self, component: &Component) -> bool {
        let (_, names) = self.files.place(&component.name);
        names.iter().any(|name| name == "config.json") && !component.class_name.contains("Tokenizer")
    }

    /// What is lost in the conversion, each item in a few words: weights of other variants and formats, tensors and
    /// metadata that no part reads, and parts for which a `single` file has no names.
    ///
    /// # Errors
    /// When there is no single-file layout for the model, or an index of shards cannot be read.
    pub fn left_out(&self, single: bool) -> Result<Vec<String>, ModelError> {
        let mut out = Vec::new();
        let dropped = if single { self.dropped(Some(&self.layout()?)) } else { self.dropped(None) };
        for part in self.index.components.iter().map(|component| &*component.name) {
            if dropped.contains(&part) {
                out.push(part.to_owned());
                continue;
            }
            let (folder, names) = self.files.place(part);
            let mut read = BTreeSet::new();
            if let Some(name) = weight_files::choose(&names, self.files.variant()) {
                let path = join(&folder, &name);
                if weight_files::is_index(&name) {
                    let shards = weight_files::shards(&path, &self.files.read(&path)?);
                    read.extend(shards.map_err(|why| ModelError::new(self.files.describe(&path), why))?);
                }
                read.insert(path);
            }
            let others = names.iter().filter(|name| weight_files::is_weights(name)).map(|name| join(&folder, name));
            out.extend(others.filter(|path| !read.contains(path)));
        }
        if let Some(file) = self.files.as_single() {
            out.extend(file.unread.iter().cloned());
            let plain = |key: &str| !["format", PREDICTION].contains(&key) && !key.starts_with(CARRIED);
            let keys = file.file.all_metadata().map(|(key, _)| &**key).filter(|key| plain(key));
            out.extend(keys.map(|key| format!("the metadata {key}")));
        }
        out.sort();
        out.dedup();
        Ok(out)
    }

    fn layout(&self) -> Result<Layout, ModelError> {
        Layout::of(self.files, &self.index).map_err(|message| ModelError::new(self.files.describe(""), message))
    }

    /// The parts that are not written: those whose weights have no names in the layout, and those that no pipeline
    /// reads and whose weights are already absent, as after a download.
    fn dropped(&self, layout: Option<&Layout>) -> Vec<&str> {
        let is_dropped = |component: &&Component| {
            let name = &*component.name;
            match layout {
                Some(layout) if self.files.has_weights(name) => !layout.parts().any(|known| known == name),
                _ => {
                    let unread = weight_files::UNREAD_PARTS.contains(&name) && self.is_model(component);
                    unread && !self.files.has_weights(name)
                }
            }
        };
        self.index.components.iter().filter(is_dropped).map(|component| &*component.name).collect()
    }

    /// Writes one part's weights under the names of a folder.
    ///
    /// # Errors
    /// When they are missing or damaged, a number does not fit the type asked for, or `out` fails.
    pub fn write_part(&self, part: &str, out: &mut dyn Write) -> Result<(), ConvertError> {
        let checkpoint = Checkpoint::open(self.files, part, None)?;
        // Published folders have this prefix, which every version of transformers reads.
        let prefixed = self.files.as_single().is_some() && part.starts_with("text_encoder");
        let mut entries = Vec::new();
        // Older files hold the positions' numbers as whole ones, which no reader takes.
        for (name, shape) in checkpoint.tensors().filter(|(name, _)| !is_position_ids(name)) {
            let shown = if prefixed && !name.starts_with("text_projection.") {
                format!("text_model.{name}")
            } else {
                name.into()
            };
            let piece = Piece { name: name.to_owned(), transposed: false };
            let storage = self.storage(&checkpoint, name)?;
            entries.push(Entry { name: shown, storage, shape: shape.to_vec(), part: 0, pieces: vec![piece] });
        }
        let metadata = json!({ "format": "pt" });
        write(&[checkpoint], &entries, metadata, out)
    }

    /// Writes the whole model as a single file, its configurations and other tokenizers in the metadata.
    ///
    /// # Errors
    /// When there is no such layout for the model, a tensor has no name in it, or as [`write_part`](Self::write_part).
    pub fn write_single(&self, out: &mut dyn Write) -> Result<(), ConvertError> {
        let fault = |message: String| ModelError::new(self.files.describe(""), message);
        let layout = self.layout()?;
        let mut checkpoints = Vec::new();
        let mut entries = Vec::new();
        for part in layout.parts() {
            let checkpoint = Checkpoint::open(self.files, part, None)?;
            let shapes = checkpoint.tensors().filter(|(name, _)| !is_harmless(name)).collect();
            for Named { name, shape, pieces } in layout.tensors(part, &shapes).map_err(fault)? {
                let storage = self.storage(&checkpoint, &pieces[0].name)?;
                entries.push(Entry { name, storage, shape, part: checkpoints.len(), pieces });
            }
            checkpoints.push(checkpoint);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut metadata = Map::from_iter([("format".to_owned(), json!("pt"))]);
        for (path, bytes) in self.small_files_without(&self.dropped(Some(&layout)))? {
            if layout::is_built_in(self.files, &path)? {
                continue;
            }
            let text = std::str::from_utf8(&bytes);
            let text =
                text.map_err(|_| fault(format!("has {path}, which is no text, so a single file cannot carry it")))?;
            if path == "scheduler/scheduler_config.json" && text.contains("\"v_prediction\"") {
                metadata.insert(PREDICTION.into(), json!("v"));
            }
            metadata.insert(format!("{CARRIED}{path}"), json!(text));
        }
        write(&checkpoints, &entries, metadata.into(), out)
    }

    fn storage(&self, checkpoint: &Checkpoint, name: &str) -> Result<StorageType, ModelError> {
        self.storage.or_else(|| checkpoint.storage(name)).ok_or_else(|| {
            let dtype = checkpoint.dtype(name).unwrap_or_default();
            ModelError::new(self.files.describe(""), format!("has an unsupported number type for {name} ({dtype})"))
        })
    }
}

/// A safetensors file: a header, then every tensor as soon as it is made.
fn write(
    checkpoints: &[Checkpoint],
    entries: &[Entry],
    metadata: Value,
    out: &mut dyn Write,
) -> Result<(), ConvertError> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut end = 0;
    for entry in entries {
        let start = end;
        end += entry.shape.iter().product::<usize>() * entry.storage.size();
        let dtype = match entry.storage {
            StorageType::F32 => "F32",
            StorageType::F16 => "F16",
            StorageType::Bf16 => "BF16",
        };
        let place = json!({ "dtype": dtype, "shape": entry.shape, "data_offsets": [start, end] });
        header.insert(entry.name.clone(), place);
    }
    let mut header = Value::Object(header).to_string();
    // Readers map tensors best when they begin at a multiple of eight bytes.
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for entry in entries {
        let checkpoint = &checkpoints[entry.part];
        for piece in &entry.pieces {
            // Sums with adapters stay in f32 here, so that they are rounded only once, to the type that is written.
            let view = checkpoint.read(&piece.name, true);
            let mut view = view.ok_or_else(|| {
                ModelError::new(checkpoint.place(), format!("has an unsupported number type for {}", piece.name))
            })?;
            if piece.transposed {
                view = view.permuted(&[1, 0]);
            }
            out.write_all(&stored(view, entry.storage).ok_or_else(|| {
                ModelError::new(
                    checkpoint.place(),
                    format!("has numbers in {} that half precision does not hold", piece.name),
                )
            })?)?;
        }
    }
    Ok(())
}

/// The bytes of a tensor in another type; `None` when a finite number would become infinite.
fn stored(view: WeightView<'_>, storage: StorageType) -> Option<Cow<'_, [u8]>> {
    if view.storage == storage {
        return Some(view.bytes);
    }
    Some(Cow::Owned(match storage {
        StorageType::F32 => view.to_f32().iter().flat_map(|v| v.to_le_bytes()).collect(),
        StorageType::F16 => {
            let halves = view.to_f16();
            if halves.iter().zip(view.to_f32()).any(|(half, v)| half.is_infinite() && v.is_finite()) {
                return None;
            }
            halves.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect()
        }
        StorageType::Bf16 => view.to_f32().iter().flat_map(|v| bf16(*v).to_le_bytes()).collect(),
    }))
}

/// The upper half of an `f32`, rounded to nearest even.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}
