//! Changes to a model before it is loaded: adapters, a variant of its weights, another autoencoder, textual inversions.

use crate::checkpoint::contents::{self, Contents};
use crate::checkpoint::files::{Apart, ModelFiles, Source};
use crate::checkpoint::index::ModelIndex;
use crate::checkpoint::lora::Lora;
use crate::checkpoint::lora_targets;
use crate::checkpoint::path::join;
use crate::checkpoint::safetensors_file::TensorFile;
use crate::checkpoint::single_file::SingleFile;
use crate::checkpoint::textual_inversion::TextualInversion;
use crate::checkpoint::weight_files;
use crate::config::parse;
use crate::error::ModelError;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

impl ModelFiles {
    /// The same model with adapters added to its weights, and the words that are in their files learned. Each weight
    /// is changed when it is read. Adapters that the model already has stay.
    ///
    /// # Errors
    /// When a layer of an adapter is not in the model or has another shape (it is for another model), or when so much
    /// is added that a weight has infinities or NaN.
    pub fn with_loras(self, loras: &[Lora]) -> Result<Self, ModelError> {
        let mut additions = (*self.additions).clone();
        for (part, layers) in lora_targets::resolve(&self, loras)? {
            for (name, more) in layers {
                additions.entry(part.clone()).or_default().entry(name).or_default().extend(more);
            }
        }
        let words = loras.iter().flat_map(Lora::words);
        let embeddings = self.embeddings.iter().chain(words).cloned().collect();
        Ok(Self { additions: Arc::new(additions), embeddings: Arc::new(embeddings), ..self })
    }

    /// The same model with weights of this variant, such as `fp16`. Parts without weights of the variant use their
    /// other files, as in diffusers.
    ///
    /// # Errors
    /// When no part has weights of this variant, or the model is no folder.
    pub fn with_variant(self, variant: &str) -> Result<Self, ModelError> {
        let index = ModelIndex::read(&self)?;
        let parts = index.components.iter().map(|component| &*component.name).chain([""]);
        let folder = matches!(self.source, Source::Folder(_));
        if folder && parts.into_iter().any(|part| weight_files::exactly(&self.list(part), Some(variant)).is_some()) {
            return Ok(Self { variant: Some(variant.to_owned()), ..self });
        }
        let what = if folder { "has no weights" } else { "is no folder of files, so there are none" };
        Err(ModelError::new(self.describe(""), format!("{what} of the variant {variant}")))
    }

    /// The same model with an autoencoder from another place: a folder of its own or of a whole pipeline, or a file in
    /// latent diffusion's or diffusers' names. What such a file does not contain (the scale of the latents) is taken
    /// from the model's own autoencoder.
    ///
    /// # Errors
    /// When the model has no autoencoder to replace, or there is none at `path`.
    pub fn with_vae(self, path: &Path) -> Result<Self, ModelError> {
        const PART: &str = "vae";
        let index = ModelIndex::read(&self)?;
        if index.component(PART).is_none() && !index.absent.iter().any(|absent| absent == PART) {
            return Err(ModelError::new(self.describe(""), "has no vae, so none can be given apart"));
        }
        if path.exists() && !path.is_dir() {
            let own: Map<String, Value> = match self.read("vae/config.json") {
                Ok(text) => parse(&self.describe("vae/config.json"), &text)?,
                Err(_) => Map::new(),
            };
            let names: Vec<String> = TensorFile::at(path)?.tensors().map(|(name, _)| name).collect();
            match contents::of_tensors(names.iter().map(|name| &**name)) {
                None | Some(Contents::Whole | Contents::Autoencoder) => {}
                Some(what) => {
                    let message = format!("is {what}, and holds no AutoencoderKL: {}", what.advice());
                    return Err(ModelError::new(path.display().to_string(), message));
                }
            }
            let file = Arc::new(SingleFile::open_vae(path, &own)?);
            let files = Self::from(Source::Single { file, config: None });
            return Ok(self.apart(Apart { part: PART, files: Arc::new(files), inside: PART }));
        }
        let files = Self { variant: self.variant.clone(), ..Self::folder(path)? };
        let Some(inside) = ["", PART].into_iter().find(|inside| files.exists(&join(inside, "config.json"))) else {
            return Err(ModelError::new(files.describe(""), "has neither config.json nor vae/config.json"));
        };
        let config = join(inside, "config.json");
        let fields: Map<String, Value> = parse(&files.describe(&config), &files.read(&config)?)?;
        let class = fields.get("_class_name").and_then(Value::as_str).unwrap_or("nothing");
        if !class.starts_with("Autoencoder") {
            return Err(ModelError::new(
                files.describe(&config),
                format!("is the configuration of {class}, no autoencoder"),
            ));
        }
        Ok(self.apart(Apart { part: PART, files: Arc::new(files), inside }))
    }

    /// The same model with a part from elsewhere, in place of one that was given before.
    fn apart(mut self, apart: Apart) -> Self {
        self.apart.retain(|before| before.part != apart.part);
        self.apart.push(apart);
        self
    }

    /// The same model with these textual inversions beside those that it has. They are checked against the text
    /// encoders when the model is loaded.
    #[must_use]
    pub fn with_embeddings(self, embeddings: Vec<TextualInversion>) -> Self {
        let embeddings = self.embeddings.iter().cloned().chain(embeddings).collect();
        Self { embeddings: Arc::new(embeddings), ..self }
    }
}
