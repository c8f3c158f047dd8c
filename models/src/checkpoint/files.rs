use crate::checkpoint::contents::{self, Contents, plain};
use crate::checkpoint::convert::layout::Layout;
use crate::checkpoint::index::ModelIndex;
use crate::checkpoint::lora::{Addition, Additions};
use crate::checkpoint::mapped::{Bytes, Pieces};
use crate::checkpoint::path::{is_inside, join};
use crate::checkpoint::safetensors_file::TensorFile;
use crate::checkpoint::single_file::SingleFile;
use crate::checkpoint::textual_inversion::TextualInversion;
use crate::checkpoint::weight_files;
use crate::error::{GivenApart, ModelError};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a model's files come from: a folder, files built into the program, or one file that holds a whole model.
///
/// Paths are relative to the model, with `/` between their parts, as diffusers' folders are documented:
/// `transformer/config.json`.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    pub(super) source: Source,
    pub(super) additions: Arc<Additions>,
    pub(super) variant: Option<String>,
    pub(super) apart: Vec<Apart>,
    pub(super) embeddings: Arc<Vec<TextualInversion>>,
}

/// A part that is read from elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Apart {
    /// The part's name in this model.
    pub(super) part: &'static str,
    pub(super) files: Arc<ModelFiles>,
    /// The part's folder in those files.
    pub(super) inside: &'static str,
}

/// Parts that a single file may lack, and that a folder beside it may have.
const PARTS_APART: [&str; 3] = ["text_encoder", "text_encoder_2", "vae"];

#[derive(Debug, Clone)]
pub(super) enum Source {
    Folder(PathBuf),
    Embedded { name: &'static str, files: &'static [(&'static str, &'static [u8])] },
    Single { file: Arc<SingleFile>, config: Option<PathBuf> },
    Pieces { name: Arc<str>, files: Arc<BTreeMap<String, Arc<dyn Pieces>>> },
}

impl From<Source> for ModelFiles {
    fn from(source: Source) -> Self {
        Self { source, additions: Arc::default(), variant: None, apart: Vec::new(), embeddings: Arc::default() }
    }
}

impl ModelFiles {
    /// The files that hold a path, and the path within them.
    pub(crate) fn route(&self, path: &str) -> (&Self, String) {
        let inside = |apart: &Apart| {
            let rest = path.strip_prefix(apart.part).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
            Some(join(apart.inside, rest.trim_start_matches('/')))
        };
        match self.apart.iter().find_map(|apart| Some((&*apart.files, inside(apart)?))) {
            Some(found) => found,
            None => (self, path.to_owned()),
        }
    }

    /// The parts that are read from elsewhere.
    pub(crate) fn given_apart(&self) -> impl Iterator<Item = &'static str> {
        self.apart.iter().map(|apart| apart.part)
    }

    /// The textual inversions for the text encoders.
    #[must_use]
    pub fn embeddings(&self) -> &[TextualInversion] {
        &self.embeddings
    }

    pub(crate) fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The model family of a single file, such as `Stable Diffusion XL`.
    #[must_use]
    pub fn family(&self) -> Option<&str> {
        self.as_single().map(|single| &*single.title)
    }

    /// Tensors of a single file that belong to no part: what trainers and mergers left behind.
    #[must_use]
    pub fn left_over(&self) -> &[String] {
        self.as_single().map_or(&[], |single| &*single.left_over)
    }

    /// Whether a part of the model has weights; tokenizers and schedulers have none.
    #[must_use]
    pub fn has_weights(&self, part: &str) -> bool {
        let (files, part) = self.route(part);
        match files.as_single() {
            Some(single) => single.parts.contains_key(&part),
            None => files.place(&part).1.iter().any(|name| weight_files::is_weights(name)),
        }
    }

    /// The folder in which a part lies, and its files there. The first checkpoints of diffusers have no folders: a network and a scheduler lie
    /// at the root.
    pub(crate) fn place(&self, part: &str) -> (String, Vec<String>) {
        let own = self.list(part);
        let is_own: fn(&str) -> bool = match part {
            "unet" => weight_files::is_of_network,
            "scheduler" => |name| name == "scheduler_config.json",
            _ => return (part.to_owned(), own),
        };
        if !own.is_empty() || !self.exists("config.json") {
            return (part.to_owned(), own);
        }
        (String::new(), self.list("").into_iter().filter(|name| is_own(name)).collect())
    }

    /// What adapters add to the tensors of a part.
    pub(crate) fn additions(&self, part: &str) -> BTreeMap<String, Vec<Addition>> {
        self.additions.get(part).cloned().unwrap_or_default()
    }

    /// A folder in diffusers' layout.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let path = path.into();
        let fault = |message: String| ModelError::new(path.display().to_string(), message);
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Source::Folder(path).into()),
            Ok(metadata) if metadata.is_file() => {
                Err(fault("is a file, and a model is a folder in diffusers' layout".into()))
            }
            Ok(_) => Err(fault("is a pipe or a device, and a model is a folder in diffusers' layout".into())),
            Err(error) => Err(fault(format!("is not a model folder ({})", plain(&error)))),
        }
    }

    /// A single `.safetensors` file in the layout of latent diffusion's code: Stable Diffusion 1, 2 or XL, told by its
    /// names and shapes. Configurations in the folder `config`, in diffusers' layout, take precedence over those
    /// derived from the file, and what a network without text encoders lacks is read there.
    ///
    /// # Errors
    /// When it is damaged, quantized, or of no known family.
    pub fn single(path: &Path, config: Option<&Path>) -> Result<Self, ModelError> {
        Self::of_single(TensorFile::at(path)?, path.display().to_string(), config)
    }

    /// The same of a file that is read in pieces; `name` stands for its path in errors.
    ///
    /// # Errors
    /// The same.
    pub fn single_in_pieces(name: &str, file: Arc<dyn Pieces>) -> Result<Self, ModelError> {
        Self::of_single(TensorFile::read(Bytes::Pieces(file), name)?, name.to_owned(), None)
    }

    fn of_single(file: TensorFile, shown: String, config: Option<&Path>) -> Result<Self, ModelError> {
        let folder = config.map(Self::folder).transpose()?;
        let tensors = file.tensors().map(|(name, _)| name).collect::<Vec<_>>();
        let found = contents::of_tensors(tensors.iter().map(|name| &**name));
        let name = shown.clone();
        let fault = |message: String| ModelError::new(&*name, message);
        match found {
            // Checkpoints without one of their parts are for the families to judge.
            Some(Contents::Whole | Contents::Unet | Contents::Transformer) | None => {}
            Some(other) => return Err(fault(format!("is {other}, and no whole model: {}", other.advice()))),
        }
        // What keeps the folder from telling a family keeps nothing else from being told.
        let family = folder.as_ref().and_then(|folder| Layout::of(folder, &ModelIndex::read(folder).ok()?).ok());
        let file = SingleFile::new(file, shown, family.map(Layout::into_family).as_ref())?;
        let mut apart = Vec::new();
        let has_no_text = file.lacks.iter().any(|part| part != "vae");
        for part in PARTS_APART.iter().copied().filter(|part| file.lacks.iter().any(|lacked| lacked == part)) {
            // A file that lacks its autoencoder alone is meant for another one than the folder's, which is given by itself.
            let beside = folder.as_ref().filter(|folder| has_no_text && folder.has_weights(part));
            match beside {
                Some(folder) => apart.push(Apart { part, files: Arc::new(folder.clone()), inside: part }),
                // An autoencoder may still be given by itself.
                None if part == "vae" => {}
                None => {
                    let (title, lacking) = (&file.title, file.lacking());
                    let what = match found {
                        Some(what @ Contents::Unet) => format!("is {what} ({title} by its shapes)"),
                        _ => format!("looks like {title}"),
                    };
                    let message = format!(
                        "{what}, and no whole model: it has {lacking}; give with it the folder in diffusers' layout of a model that has \
                         what is missing"
                    );
                    return Err(fault(message).wants(GivenApart::Folder));
                }
            }
        }
        let files = Self::from(Source::Single { file: Arc::new(file), config: config.map(Path::to_owned) });
        Ok(Self { apart, ..files })
    }

    /// The single file behind this model, if it is one.
    pub(crate) fn as_single(&self) -> Option<&SingleFile> {
        if let Source::Single { file, .. } = &self.source { Some(file) } else { None }
    }

    /// Files that are part of the program; `name` stands for the folder in errors.
    #[must_use]
    pub fn embedded(name: &'static str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Source::Embedded { name, files }.into()
    }

    /// Files that are read in pieces, by their paths within the model; `name` stands for the folder in errors. Where there are no folders, as in a
    /// browser, a model comes this way.
    #[must_use]
    pub fn pieces(name: impl Into<Arc<str>>, files: BTreeMap<String, Arc<dyn Pieces>>) -> Self {
        Source::Pieces { name: name.into(), files: Arc::new(files) }.into()
    }

    /// The name of a file of this model for messages.
    #[must_use]
    pub fn describe(&self, path: &str) -> String {
        if let (files, path) = self.route(path)
            && !std::ptr::eq(files, self)
        {
            return files.describe(&path);
        }
        match &self.source {
            Source::Folder(root) if path.is_empty() => root.display().to_string(),
            Source::Folder(root) => root.join(path).display().to_string(),
            Source::Embedded { name, .. } if path.is_empty() => (*name).to_owned(),
            Source::Embedded { name, .. } => format!("{name}/{path}"),
            Source::Pieces { name, .. } if path.is_empty() => name.as_ref().to_owned(),
            Source::Pieces { name, .. } => format!("{name}/{path}"),
            Source::Single { file, .. } if path.is_empty() => file.shown.clone(),
            Source::Single { config: Some(config), .. } if is_file(config, path) => {
                config.join(path).display().to_string()
            }
            Source::Single { file, .. } => format!("{} ({path})", file.shown),
        }
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        if let (files, path) = self.route(path)
            && !std::ptr::eq(files, self)
        {
            return files.exists(&path);
        }
        match &self.source {
            Source::Folder(root) => is_inside(path) && root.join(path).is_file(),
            Source::Embedded { files, .. } => files.iter().any(|(own, _)| *own == path),
            Source::Pieces { files, .. } => files.contains_key(path),
            Source::Single { config: Some(config), .. } if is_file(config, path) => true,
            Source::Single { file, .. } => file.has(path),
        }
    }

    /// The names of the files directly inside a part of the model (`""` is its root), sorted; empty where there is none.
    #[must_use]
    pub fn list(&self, part: &str) -> Vec<String> {
        if let (files, part) = self.route(part)
            && !std::ptr::eq(files, self)
        {
            return files.list(&part);
        }
        let mut names: Vec<String> = match &self.source {
            Source::Folder(root) if is_inside(part) || part.is_empty() => std::fs::read_dir(root.join(part))
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.path().is_file())
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
            Source::Folder(_) => Vec::new(),
            Source::Embedded { files, .. } => files.iter().filter_map(|(own, _)| inside(part, own)).collect(),
            Source::Pieces { files, .. } => files.keys().filter_map(|own| inside(part, own)).collect(),
            Source::Single { file, config } => {
                // `config` may be the folder of a whole model. Its weights are left out, because those of the single
                // file are used.
                let beside = config
                    .as_deref()
                    .filter(|_| !part.is_empty())
                    .map_or_else(Vec::new, |config| Self::from(Source::Folder(config.to_owned())).list(part));
                let beside = beside.into_iter().filter(|name| !weight_files::is_weights(name));
                file.list(part).into_iter().chain(beside).collect()
            }
        };
        names.sort();
        names.dedup();
        names
    }

    /// The whole of a small file.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn read(&self, path: &str) -> Result<Cow<'static, [u8]>, ModelError> {
        if let (files, path) = self.route(path)
            && !std::ptr::eq(files, self)
        {
            return files.read(&path);
        }
        match &self.source {
            Source::Folder(root) => self.text(path, &self.inside(root, path)?),
            Source::Embedded { .. } => self.built_in(path).map(Cow::Borrowed),
            Source::Pieces { .. } => {
                let file = self.in_pieces(path)?;
                let bytes = file.read(0..file.length());
                bytes.map(Cow::Owned).map_err(|why| ModelError::new(self.describe(path), why))
            }
            Source::Single { config: Some(config), .. } if is_file(config, path) => self.text(path, &config.join(path)),
            Source::Single { file, .. } => {
                let found = file.read(path).map(Cow::Owned);
                found.ok_or_else(|| ModelError::new(self.describe(path), "is missing from this model"))
            }
        }
    }

    /// A file as it lies on disk or in the program, without a copy.
    ///
    /// # Errors
    /// When it is missing or cannot be mapped.
    pub fn open(&self, path: &str) -> Result<Bytes, ModelError> {
        if let (files, path) = self.route(path)
            && !std::ptr::eq(files, self)
        {
            return files.open(&path);
        }
        match &self.source {
            Source::Folder(root) => {
                let full = self.inside(root, path)?;
                contents::open(&full).map_err(|why| self.unreadable(path, &full, why))
            }
            Source::Embedded { .. } => self.built_in(path).map(Bytes::Static),
            Source::Pieces { .. } => self.in_pieces(path).map(Bytes::Pieces),
            Source::Single { .. } => Err(ModelError::new(self.describe(path), "is no file of its own")),
        }
    }

    /// The path on disk, unless it leads out of the model: file names also come from a checkpoint's own index.
    fn inside(&self, root: &Path, path: &str) -> Result<PathBuf, ModelError> {
        if is_inside(path) {
            return Ok(root.join(path));
        }
        Err(ModelError::new(self.describe(""), format!("{path:?} is not a path inside the model")))
    }

    fn built_in(&self, path: &str) -> Result<&'static [u8], ModelError> {
        let Source::Embedded { files, .. } = &self.source else { unreachable!("callers matched on the source") };
        let found = files.iter().find(|(own, _)| *own == path).map(|(_, bytes)| *bytes);
        found.ok_or_else(|| ModelError::new(self.describe(path), "is missing from this model"))
    }

    fn in_pieces(&self, path: &str) -> Result<Arc<dyn Pieces>, ModelError> {
        let Source::Pieces { files, .. } = &self.source else { unreachable!("callers matched on the source") };
        files.get(path).cloned().ok_or_else(|| ModelError::new(self.describe(path), "is missing from this model"))
    }

    /// A small file on disk, if it is not something else that was saved in its place.
    fn text(&self, path: &str, full: &Path) -> Result<Cow<'static, [u8]>, ModelError> {
        let bytes = contents::regular(full)
            .and_then(|_| std::fs::read(full).map_err(|error| format!("cannot be read ({})", plain(&error))));
        let bytes = bytes.map_err(|why| self.unreadable(path, full, why))?;
        match contents::in_place_of_text(&bytes) {
            Some(what) => Err(ModelError::new(self.describe(path), what)),
            None => Ok(Cow::Owned(bytes)),
        }
    }

    fn unreadable(&self, path: &str, full: &Path, why: String) -> ModelError {
        let missing = full.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let mut message = if missing { "is missing from this model".to_owned() } else { why };
        // A folder with an adapter or a single file in it, as hubs keep them.
        let inside = full.parent().filter(|_| missing && path == "model_index.json").and_then(contents::only_weights);
        if let Some(file) = inside {
            message += &format!("; to use the one file of weights in this folder, give {file}");
        }
        ModelError::new(self.describe(path), message)
    }
}

/// The name of a file that lies directly inside a folder of a model; none if it lies elsewhere.
fn inside(folder: &str, path: &str) -> Option<String> {
    let (own, name) = path.rsplit_once('/').unwrap_or(("", path));
    (own == folder).then(|| name.to_owned())
}

fn is_file(root: &Path, path: &str) -> bool {
    is_inside(path) && root.join(path).is_file()
}
