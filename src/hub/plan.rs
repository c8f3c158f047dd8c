//! Which files of a repository a pipeline needs.

use super::error::HubError;
use models::weight_files::{self, UNREAD_PARTS, is_index};
use models::{ModelFiles, ModelIndex};
use std::collections::BTreeSet;

/// The file that says what a pipeline is made of.
pub(super) const INDEX: &str = "model_index.json";

/// The files of all parts.
#[derive(Debug)]
pub(super) struct Parts {
    small: Vec<String>,
    /// Each part's weights: one file, or the index of its shards.
    weights: Vec<String>,
}

impl Parts {
    /// Chooses among a repository's files. `Err` is a sentence about the repository.
    pub(super) fn choose(files: &BTreeSet<String>, variant: Option<&str>, index: &ModelIndex) -> Result<Self, String> {
        let mut parts = Self { small: Vec::new(), weights: Vec::new() };
        let mut has_variant = variant.is_none();
        for part in index.components.iter().map(|component| &*component.name) {
            let own = inside(files, part);
            let (folder, names) = if own.is_empty() { ("", at_the_root(files)) } else { (part, own) };
            let path = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let small = names.iter().filter(|name| is_small(name)).map(|name| path(name));
            parts.small.extend(small.filter(|name| name != INDEX));
            if UNREAD_PARTS.contains(&part) {
                continue;
            }
            has_variant |= weight_files::exactly(&names, variant).is_some();
            match weight_files::choose(&names, variant) {
                Some(name) => parts.weights.push(path(&name)),
                None => {
                    if let Some(pickle) = weight_files::pickle(&names) {
                        return Err(format!(
                            "has the weights of {part} only as a pickle ({pickle}), a program that could do anything \
                             when loaded: it is refused; look for a revision or a copy of the model with safetensors"
                        ));
                    }
                }
            }
        }
        if let Some(variant) = variant.filter(|_| !has_variant) {
            return Err(format!("has no weights of the variant {variant}"));
        }
        parts.small.extend(parts.weights.iter().filter(|name| is_index(name)).cloned());
        // A pipeline without folders keeps the files of all its parts at the root.
        for list in [&mut parts.small, &mut parts.weights] {
            let mut known = BTreeSet::new();
            list.retain(|name| known.insert(name.clone()));
        }
        Ok(parts)
    }

    /// Configurations, vocabularies, and the indices of shards.
    pub(super) fn small(&self) -> Vec<&str> {
        self.small.iter().map(|name| &**name).collect()
    }

    /// The files of weights, those that indices name among them.
    pub(super) fn weights(
        &self,
        mut read: impl FnMut(&str) -> Result<Vec<u8>, HubError>,
        has: impl Fn(&str) -> Result<(), HubError>,
    ) -> Result<Vec<String>, HubError> {
        let mut files = Vec::new();
        for name in &self.weights {
            if is_index(name) {
                let shards = weight_files::shards(name, &read(name)?);
                let shards = shards.map_err(|why| HubError::Failed(format!("the index {name} {why}")))?;
                shards.iter().try_for_each(|shard| has(shard))?;
                files.extend(shards);
            } else {
                files.push(name.clone());
            }
        }
        Ok(files)
    }
}

/// What a folder lacks of a whole pipeline, if anything. Weights come last when a pipeline is downloaded, so a part that
/// has them has the rest.
pub(super) fn absent(files: &ModelFiles, variant: Option<&str>) -> Option<String> {
    let Ok(index) = ModelIndex::read(files) else { return Some(INDEX.to_owned()) };
    let mut has_variant = variant.is_none();
    for component in index.components.iter().filter(|component| !UNREAD_PARTS.contains(&&*component.name)) {
        let part = &component.name;
        let own = files.list(part);
        let at_the_root = own.is_empty() && files.exists("config.json");
        let (folder, names) = if at_the_root { (String::new(), files.list("")) } else { (format!("{part}/"), own) };
        if names.is_empty() {
            return Some(part.clone());
        }
        has_variant |= weight_files::exactly(&names, variant).is_some();
        match weight_files::choose(&names, variant) {
            Some(name) if is_index(&name) => {
                let path = format!("{folder}{name}");
                let Some(shards) = files.read(&path).ok().and_then(|text| weight_files::shards(&path, &text).ok())
                else {
                    return Some(path);
                };
                if let Some(shard) = shards.into_iter().find(|shard| !files.exists(shard)) {
                    return Some(shard);
                }
            }
            Some(_) => {}
            // Models have a config.json; tokenizers and schedulers name theirs otherwise.
            None if names.iter().any(|name| name == "config.json")
                && !component.class_name.contains("Tokenizer")
                && weight_files::pickle(&names).is_none() =>
            {
                return Some(format!("the weights of {part}"));
            }
            None => {}
        }
    }
    variant.filter(|_| !has_variant).map(|variant| format!("the variant {variant}"))
}

/// The names of the files directly inside a folder.
fn inside<'a>(files: &'a BTreeSet<String>, folder: &str) -> Vec<&'a str> {
    let own = |name: &'a String| name.strip_prefix(folder)?.strip_prefix('/').filter(|rest| !rest.contains('/'));
    files.iter().filter_map(own).collect()
}

/// What a pipeline of a single network, as DDPM's, may keep at the root in place of folders.
fn at_the_root(files: &BTreeSet<String>) -> Vec<&str> {
    let wanted = |name: &&str| *name == "scheduler_config.json" || weight_files::is_of_network(name);
    if !files.contains("config.json") {
        return Vec::new();
    }
    files.iter().map(|name| &**name).filter(|name| !name.contains('/')).filter(wanted).collect()
}

/// Configurations and vocabularies; sentencepiece's are called `.model`.
fn is_small(name: &str) -> bool {
    [".json", ".txt", ".model"].iter().any(|end| name.ends_with(end)) && !weight_files::is_weights(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listing like that of Stable Diffusion's repositories.
    const FILES: &[&str] = &[
        "README.md",
        "model_index.json",
        "v1-5-pruned.safetensors",
        "v1-5-pruned.ckpt",
        "weights/a.json",
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "safety_checker/pytorch_model.bin",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/flax_model.msgpack",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.onnx",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "tokenizer/spiece.model",
        "tokenizer/deep/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/pytorch_model.bin.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae_decoder/model.onnx",
    ];

    fn choose(files: &[&str], variant: Option<&str>) -> Result<Parts, String> {
        let index = br#"{"_class_name": "StableDiffusionPipeline", "safety_checker": ["stable_diffusion", "A"],
            "feature_extractor": ["transformers", "B"], "scheduler": ["diffusers", "C"], "text_encoder": ["transformers", "D"],
            "tokenizer": ["transformers", "E"], "unet": ["diffusers", "F"], "vae": ["diffusers", "G"],
            "image_encoder": [null, null]}"#;
        let files = files.iter().map(|name| (*name).to_owned()).collect();
        Parts::choose(&files, variant, &ModelIndex::from_json(INDEX, index).expect("an index"))
    }

    fn all(files: &[&str], variant: Option<&str>) -> Vec<String> {
        let parts = choose(files, variant).expect("a pipeline");
        let index = br#"{"weight_map": {
            "a": "diffusion_pytorch_model-00002-of-00002.safetensors", "b": "diffusion_pytorch_model-00001-of-00002.safetensors",
            "c": "diffusion_pytorch_model-00002-of-00002.safetensors"}}"#;
        let weights = parts.weights(|_| Ok(index.to_vec()), |_| Ok(())).expect("whole");
        parts.small().into_iter().map(str::to_owned).chain(weights).collect()
    }

    #[test]
    fn only_what_the_pipeline_reads_is_taken() {
        assert_eq!(
            all(FILES, None),
            [
                "safety_checker/config.json",
                "feature_extractor/preprocessor_config.json",
                "scheduler/scheduler_config.json",
                "text_encoder/config.json",
                "tokenizer/merges.txt",
                "tokenizer/spiece.model",
                "tokenizer/vocab.json",
                "unet/config.json",
                "vae/config.json",
                "unet/diffusion_pytorch_model.safetensors.index.json",
                "text_encoder/model.safetensors",
                "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
                "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ]
        );
    }

    #[test]
    fn a_variant_is_taken_where_there_is_one() {
        let half = all(FILES, Some("fp16"));
        let weights = [
            "text_encoder/model.fp16.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
        ];
        assert_eq!(half[half.len() - 3..], weights);
        // Parts that have none of it are plain, as in diffusers.
        let some: Vec<&str> =
            FILES.iter().copied().filter(|name| !name.starts_with("text_encoder/model.fp16")).collect();
        let some = all(&some, Some("fp16"));
        assert_eq!(some[some.len() - 3..], ["text_encoder/model.safetensors", weights[1], weights[2]]);
        let why = choose(FILES, Some("bf16")).expect_err("no part has it");
        assert_eq!(why, "has no weights of the variant bf16");
    }

    #[test]
    fn pickles_are_refused_before_anything_is_downloaded() {
        let files: Vec<&str> =
            FILES.iter().copied().filter(|name| *name != "vae/diffusion_pytorch_model.fp16.safetensors").collect();
        let files = [&files[..], &["vae/diffusion_pytorch_model.bin"]].concat();
        let why = choose(&files, None).expect_err("a pickle");
        assert!(why.contains("vae") && why.contains("diffusion_pytorch_model.bin"), "{why}");
    }
}
