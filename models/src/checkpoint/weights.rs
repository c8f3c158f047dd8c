use crate::checkpoint::contents::{self, Contents};
use crate::checkpoint::files::ModelFiles;
use crate::checkpoint::lora::{self, Addition};
use crate::checkpoint::number_types::{Numbers, finite, storage};
use crate::checkpoint::path::join;
use crate::checkpoint::safetensors_file::{PICKLE, TensorFile, TensorInfo};
use crate::checkpoint::single_file::Located;
use crate::checkpoint::tensor_names::{is_harmless, is_quantization, older_names};
use crate::checkpoint::weight_files;
use crate::error::{GivenApart, ModelError, first_few};
use graph::{Shape, StorageType, WeightSource, WeightSpec, WeightView};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Weights of one component, borrowed from mapped `.safetensors` files.
#[derive(Debug)]
pub struct Checkpoint {
    place: String,
    files: Vec<Arc<TensorFile>>,
    tensors: BTreeMap<String, Tensor>,
    /// The single file and the part in it, to report missing weights under the file's own names.
    single: Option<(ModelFiles, String)>,
    /// What adapters add to these tensors.
    additions: BTreeMap<String, Vec<Addition>>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Tensor {
    file: usize,
    info: TensorInfo,
    transposed: bool,
    /// The file's own name, where it differs.
    own: Option<String>,
}

/// Prefixes that a checkpoint may put before the names of a model: transformers wrote `text_model.` before version 5.
const PREFIXES: &[&str] = &["", "text_model."];

impl Checkpoint {
    /// Opens the weights of a component such as `transformer`: one file, or shards with an index. With a `variant`
    /// (such as `fp16`), only its files are accepted. Otherwise the [model's variant](ModelFiles::with_variant) comes
    /// first, then files without a variant, then files of another variant if there is only one.
    ///
    /// # Errors
    /// When there are no weights, only pickles, or a file is damaged.
    pub fn open(files: &ModelFiles, component: &str, variant: Option<&str>) -> Result<Self, ModelError> {
        let additions = files.additions(component);
        let (files, component) = files.route(component);
        let component = &*component;
        let place = files.describe(component);
        if let Some(single) = files.as_single() {
            let Some(part) = single.parts.get(component) else {
                let error = ModelError::new(place, "has no weights in this file, so it must be given apart");
                let wanted = if component == "vae" { GivenApart::Autoencoder } else { GivenApart::Folder };
                return Err(error.wants(wanted));
            };
            let tensor = |located: &Located| Tensor {
                file: 0,
                info: located.info.clone(),
                transposed: located.transposed,
                own: Some(located.own.clone()),
            };
            let tensors = part.tensors.iter().map(|(name, located)| (name.clone(), tensor(located))).collect();
            let single_file = Some((files.clone(), component.to_owned()));
            return Ok(Self { place, files: vec![single.file.clone()], tensors, single: single_file, additions });
        }
        let (folder, names) = files.place(component);
        let found = match variant {
            Some(_) => weight_files::exactly(&names, variant),
            None => weight_files::choose(&names, files.variant()),
        };
        let Some(name) = found else {
            return Err(ModelError::new(place, none_found(&names, variant)));
        };
        let path = join(&folder, &name);
        let paths = if weight_files::is_index(&path) {
            let shards = weight_files::shards(&path, &files.read(&path)?);
            shards.map_err(|why| ModelError::new(files.describe(&path), why))?
        } else {
            vec![path]
        };
        Ok(Self { additions, ..Self::from_files(files, place, &paths)? })
    }

    /// Opens exactly these files of a model; `place` stands for them together in errors.
    ///
    /// # Errors
    /// When a file is missing or damaged, or two of them hold a tensor of the same name.
    pub fn from_files(files: &ModelFiles, place: String, paths: &[String]) -> Result<Self, ModelError> {
        let mut checkpoint = Self::empty(place);
        for path in paths {
            checkpoint
                .add(TensorFile::read(files.open(path)?, &files.describe(path))?)
                .map_err(|why| ModelError::new(files.describe(path), why))?;
        }
        Ok(checkpoint)
    }

    /// Opens a file that does not belong to a model.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn at(path: &Path) -> Result<Self, ModelError> {
        let place = path.display().to_string();
        let mut checkpoint = Self::empty(place.clone());
        checkpoint.add(TensorFile::at(path)?).map_err(|why| ModelError::new(place, why))?;
        Ok(checkpoint)
    }

    fn empty(place: String) -> Self {
        Self { place, files: Vec::new(), tensors: BTreeMap::new(), single: None, additions: BTreeMap::new() }
    }

    fn add(&mut self, file: TensorFile) -> Result<(), String> {
        for (name, info) in file.tensors() {
            let tensor = Tensor { file: self.files.len(), info, transposed: false, own: None };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(format!("holds {name:?}, as another shard does"));
            }
        }
        self.files.push(Arc::new(file));
        Ok(())
    }

    /// The name under which the checkpoint holds a weight.
    fn resolve(&self, name: &str) -> Option<String> {
        let prefixed = PREFIXES.iter().map(|prefix| format!("{prefix}{name}"));
        prefixed.chain(older_names(name)).find(|own| self.tensors.contains_key(own))
    }

    /// The same checkpoint without the tensors whose names begin with one of these prefixes: parts of the component
    /// that are not used.
    #[must_use]
    pub fn without(mut self, prefixes: &[&str]) -> Self {
        self.tensors.retain(|name, _| !prefixes.iter().any(|prefix| name.starts_with(prefix)));
        self
    }

    /// Every tensor with its shape, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (&**name, &*tensor.info.shape))
    }

    /// Whether the tensors are an adapter's, told by the names that adapters are read by.
    #[must_use]
    pub fn is_adapter(&self) -> bool {
        self.contents().is_some_and(Contents::is_adapter)
    }

    /// Whether the tensors are a network's, with or without the other parts of a model.
    #[must_use]
    pub fn has_network(&self) -> bool {
        matches!(self.contents(), Some(Contents::Whole | Contents::Unet | Contents::Transformer))
    }

    fn contents(&self) -> Option<Contents> {
        contents::of_tensors(self.tensors.keys().map(|name| &**name))
    }

    /// A tensor's number type in the format's own notation, such as `F16`.
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<String> {
        self.tensors.get(name).map(|tensor| tensor.info.dtype.to_string())
    }

    /// Bytes of all tensors together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.info.bytes.len() as u64).sum()
    }

    /// Compares the checkpoint with what a graph needs, and looks for numbers that are not finite, before anything is
    /// uploaded. Returns the tensors that the graph does not read: what trainers and mergers left behind.
    ///
    /// # Errors
    /// When any weight is missing, misshapen, quantized, of a type that is not supported, or not finite, or there are
    /// more layers than the graph has.
    pub fn check(&self, weights: &[WeightSpec]) -> Result<Vec<String>, ModelError> {
        let report = self.report(weights);
        if report.is_usable() { Ok(report.extra) } else { Err(ModelError::new(&self.place, report.to_string())) }
    }

    /// The result of [`check`](Self::check) as lists of names.
    #[must_use]
    pub fn report(&self, weights: &[WeightSpec]) -> CheckReport {
        let mut report = CheckReport::default();
        let mut used = HashSet::new();
        for spec in weights {
            let Some(name) = self.resolve(&spec.name) else {
                report.missing.push(self.wanted_name(&spec.name));
                continue;
            };
            let Tensor { file, info, .. } = &self.tensors[&name];
            let shown = self.own_name(&name).to_owned();
            if info.shape != spec.shape {
                report.misshapen.push((shown.clone(), spec.shape.clone(), info.shape.clone()));
            }
            match storage(info) {
                None => report.unsupported.push((shown, info.dtype.to_string())),
                Some(kind) => match self.files[*file].bytes(&info.bytes) {
                    Ok(bytes) if finite(kind, &bytes) => {}
                    Ok(_) => report.not_finite.push(shown),
                    Err(_) => report.unreadable.push(shown),
                },
            }
            self.files[*file].release(&info.bytes);
            used.insert(name);
        }
        let unread = self.tensors.keys().filter(|name| !used.contains(*name));
        let unread = unread.filter(|name| !is_harmless(name));
        let unread = unread.map(|name| self.own_name(name).to_owned()).chain(self.left_over_here());
        (report.quantized, report.extra) = unread.partition(|name| is_quantization(name));
        let read: HashSet<String> = weights.iter().map(|spec| unnumbered(&spec.name)).collect();
        let bare = |name: &str| unnumbered(PREFIXES.iter().fold(name, |name, p| name.strip_prefix(p).unwrap_or(name)));
        let is_deeper = |name: &mut String| read.contains(&bare(name));
        report.deeper = report.extra.extract_if(.., is_deeper).collect();
        report
    }

    /// Tensors of a single file that lie among those of this part and have no name in it.
    fn left_over_here(&self) -> impl Iterator<Item = String> {
        let single = self.single.as_ref().and_then(|(files, part)| Some((files.as_single()?, part)));
        let names = single.into_iter().flat_map(|(single, part)| {
            let prefix = single.parts.get(part).map(|part| &*part.prefix).unwrap_or_default();
            single.left_over.iter().filter(move |name| name.starts_with(prefix))
        });
        names.cloned()
    }

    /// The file's own name for one of these tensors.
    fn own_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.tensors.get(name).and_then(|tensor| tensor.own.as_deref()).unwrap_or(name)
    }

    /// The file's own name for a weight that it lacks.
    fn wanted_name(&self, name: &str) -> String {
        let part = self.single.as_ref().and_then(|(files, part)| files.as_single()?.parts.get(part));
        part.map_or_else(|| name.to_owned(), |part| part.own_name(name))
    }
}

impl WeightSource for Checkpoint {
    fn weight(&self, name: &str) -> Option<WeightView<'_>> {
        self.read(&self.resolve(name)?, false)
    }

    fn why_not(&self, name: &str) -> String {
        let tensor = self.resolve(name).and_then(|name| self.tensors.get(&name));
        let read = tensor.map(|Tensor { file, info, .. }| self.files[*file].bytes(&info.bytes));
        match read {
            Some(Err(why)) => format!("{why} (a file of {})", self.place),
            _ => "is missing from the checkpoint".into(),
        }
    }

    fn stored_as(&self, name: &str) -> Option<StorageType> {
        let name = self.resolve(name)?;
        let own = self.storage(&name)?;
        Some(if self.additions.contains_key(&name) && own != StorageType::F16 { StorageType::F32 } else { own })
    }

    fn release(&self, name: &str) {
        if let Some(Tensor { file, info, .. }) = self.resolve(name).and_then(|name| self.tensors.get(&name)) {
            self.files[*file].release(&info.bytes);
        }
    }
}

impl Checkpoint {
    /// A tensor by the name that [`tensors`](Self::tensors) gives, with adapters added. With `widen`, a tensor that
    /// adapters change is returned in single precision.
    pub(crate) fn read(&self, name: &str, widen: bool) -> Option<WeightView<'_>> {
        let view = self.stored(name)?;
        match self.additions.get(name) {
            Some(additions) => Some(lora::merge(&view, additions, widen)),
            None => Some(view),
        }
    }

    /// The number type in which a file holds a tensor.
    pub(crate) fn storage(&self, name: &str) -> Option<StorageType> {
        let info = &self.tensors.get(name)?.info;
        let own = storage(info).map(Numbers::storage)?;
        Some(if info.scale.is_some() { StorageType::F32 } else { own })
    }

    /// The name of this checkpoint in errors.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    fn stored(&self, name: &str) -> Option<WeightView<'_>> {
        let Tensor { file, info, transposed, .. } = self.tensors.get(name)?;
        let mut view = self.files[*file].view(info)?;
        if *transposed {
            view.shape.reverse();
            view = view.permuted(&[1, 0]);
        }
        Some(view)
    }
}

/// A name without its numbers: that of the same tensor in every layer.
fn unnumbered(name: &str) -> String {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.split('.').map(|part| if plain(part) { "#" } else { part }).collect::<Vec<_>>().join(".")
}

fn none_found(names: &[String], variant: Option<&str>) -> String {
    match (weight_files::pickle(names), variant) {
        (Some(name), _) => format!("has its weights only as a pickle ({name}): {PICKLE}"),
        (None, Some(variant)) => format!("has no safetensors weights of the variant {variant}"),
        (None, None) => format!("has no weights (expected {})", weight_files::expected()),
    }
}

/// How a checkpoint differs from what a graph needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Weights that the graph reads and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors that the checkpoint holds and the graph never reads. They change nothing.
    pub extra: Vec<String>,
    /// Tensors of further layers, of which the graph has fewer: the configuration is of another model.
    pub deeper: Vec<String>,
    /// Tensors without which other weights mean nothing: scales and tables of quantized ones.
    pub quantized: Vec<String>,
    /// Name, shape wanted, shape found.
    pub misshapen: Vec<(String, Shape, Shape)>,
    /// Name and type of tensors whose numbers cannot be read.
    pub unsupported: Vec<(String, String)>,
    /// Tensors with an infinity or a NaN in them.
    pub not_finite: Vec<String>,
    /// Tensors whose place in the file could not be read.
    pub unreadable: Vec<String>,
}

impl CheckReport {
    /// Whether the graph can be computed from the checkpoint.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        *self == Self { extra: self.extra.clone(), ..Self::default() }
    }
}

/// One sentence with the first few names of each kind and the number of the others.
impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.misshapen.iter().map(|(name, want, have)| format!("{name} ({have:?} instead of {want:?})"));
        let types = self.unsupported.iter().map(|(name, dtype)| format!("{name} ({dtype})"));
        let kinds = [
            ("is missing", self.missing.clone()),
            ("has another shape for", shapes.collect()),
            ("has an unsupported number type for", types.collect()),
            ("has infinities or NaN in", self.not_finite.clone()),
            ("could not be read at", self.unreadable.clone()),
            ("is quantized, which is not supported:", self.quantized.clone()),
            ("holds more layers than its configuration says:", self.deeper.clone()),
            ("holds tensors this model does not have:", self.extra.clone()),
        ];
        let parts: Vec<String> = kinds
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", first_few(names)))
            .collect();
        f.write_str(&parts.join("; "))
    }
}
