//! Which files of a repository a pipeline needs.

use super::error::HubError;
use super::id::is_safe_path;
use models::{ModelFiles, ModelIndex};
use std::collections::BTreeSet;

/// The file that says what a pipeline is made of.
pub(super) const INDEX: &str = "model_index.json";

/// The file names that diffusers and transformers give to weights, in the order in which they are looked for.
const STEMS: &[&str] = &["diffusion_pytorch_model", "model"];

/// Parts whose weights no pipeline here reads: what they judge or describe is the picture's content, after it is made.
const WITHOUT_WEIGHTS: &[&str] = &["safety_checker", "feature_extractor"];

/// Weights that are programs.
const PICKLES: &[&str] = &[".bin", ".pt", ".pth", ".ckpt"];

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
        for part in index.components.iter().map(|component| &*component.name) {
            let own = inside(files, part);
            let (folder, names) = if own.is_empty() { ("", at_the_root(files)) } else { (part, own) };
            let path = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let small = names.iter().filter(|name| is_small(name)).map(|name| path(name));
            parts.small.extend(small.filter(|name| name != INDEX));
            if WITHOUT_WEIGHTS.contains(&part) {
                continue;
            }
            match weights(&names, variant) {
                Some(name) => parts.weights.push(path(&name)),
                None => {
                    if let Some(pickle) = pickle(&names) {
                        return Err(format!(
                            "has the weights of {part} only as a pickle ({pickle}), a program that could do anything \
                             when loaded: it is refused; look for a revision or a copy of the model with safetensors"
                        ));
                    }
                }
            }
        }
        parts.small.extend(parts.weights.iter().filter(|name| is_index(name)).cloned());
        // Parts that lie at the root lie there together.
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
                let shards = shards(name, &read(name)?).map_err(HubError::Failed)?;
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
    for component in index.components.iter().filter(|component| !WITHOUT_WEIGHTS.contains(&&*component.name)) {
        let part = &component.name;
        let own = files.list(part);
        let at_the_root = own.is_empty() && files.exists("config.json");
        let (folder, names) = if at_the_root { (String::new(), files.list("")) } else { (format!("{part}/"), own) };
        if names.is_empty() {
            return Some(part.clone());
        }
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        match weights(&names, variant) {
            Some(name) if is_index(&name) => {
                let path = format!("{folder}{name}");
                let Some(shards) = files.read(&path).ok().and_then(|text| shards(&path, &text).ok()) else {
                    return Some(path);
                };
                if let Some(shard) = shards.into_iter().find(|shard| !files.exists(shard)) {
                    return Some(shard);
                }
            }
            Some(_) => {}
            // Models have a config.json; tokenizers and schedulers name theirs otherwise.
            None if names.contains(&"config.json")
                && !component.class_name.contains("Tokenizer")
                && pickle(&names).is_none() =>
            {
                return Some(format!("the weights of {part}"));
            }
            None => {}
        }
    }
    None
}

/// The names of the files directly inside a folder.
fn inside<'a>(files: &'a BTreeSet<String>, folder: &str) -> Vec<&'a str> {
    let own = |name: &'a String| name.strip_prefix(folder)?.strip_prefix('/').filter(|rest| !rest.contains('/'));
    files.iter().filter_map(own).collect()
}

/// The names of what a pipeline of one network keeps beside its index, as those of DDPM do: such a one has no folders.
fn at_the_root(files: &BTreeSet<String>) -> Vec<&str> {
    let wanted = |name: &&str| {
        let stem = STEMS[0];
        ["config.json", "scheduler_config.json"].contains(name) || name.starts_with(stem)
    };
    if !files.contains("config.json") {
        return Vec::new();
    }
    files.iter().map(|name| &**name).filter(|name| !name.contains('/')).filter(wanted).collect()
}

/// Configurations and vocabularies; sentencepiece's are called `.model`.
fn is_small(name: &str) -> bool {
    [".json", ".txt", ".model"].iter().any(|end| name.ends_with(end)) && !name.contains(".index.")
}

fn is_index(name: &str) -> bool {
    name.contains(".safetensors.index.")
}

fn pickle<'a>(names: &[&'a str]) -> Option<&'a str> {
    names.iter().find(|name| PICKLES.iter().any(|end| name.ends_with(end))).copied()
}

/// The weights of one part: a file or the index of its shards. Of the variant, if there are such; else plain; else of the
/// only variant there is.
fn weights(names: &[&str], variant: Option<&str>) -> Option<String> {
    let find = |variant: Option<&str>| {
        let infix = variant.map_or_else(String::new, |variant| format!(".{variant}"));
        let spelled = |stem: &&str| {
            // Both libraries put the variant of a sharded checkpoint's index at its end.
            [format!("{stem}{infix}.safetensors"), format!("{stem}.safetensors.index{infix}.json")]
        };
        STEMS.iter().flat_map(spelled).find(|wanted| names.contains(&&**wanted))
    };
    let asked = variant.and_then(|variant| find(Some(variant)));
    asked.or_else(|| find(None)).or_else(|| find(Some(only_variant(names)?)))
}

/// The variant that a folder has weights in, if there is exactly one.
fn only_variant<'a>(names: &[&'a str]) -> Option<&'a str> {
    let variant = |name: &'a str| {
        let rest = STEMS.iter().find_map(|stem| name.strip_prefix(stem)?.strip_prefix('.'))?;
        let single = rest.strip_suffix(".safetensors").filter(|variant| !variant.contains(['.', '-']));
        single.or_else(|| rest.strip_prefix("safetensors.index.")?.strip_suffix(".json"))
    };
    let found: BTreeSet<&str> = names.iter().filter_map(|name| variant(name)).collect();
    if found.len() == 1 { found.into_iter().next() } else { None }
}

/// The paths of the shards that an index names, each once.
fn shards(index: &str, text: &[u8]) -> Result<Vec<String>, String> {
    let fault = |what: &str| format!("the index {index} {what}");
    let json: serde_json::Value = serde_json::from_slice(text).map_err(|_| fault("is no JSON"))?;
    let map = json.get("weight_map").and_then(|map| map.as_object()).ok_or_else(|| fault("has no weight_map"))?;
    let folder = index.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let shards: Option<BTreeSet<String>> = map
        .values()
        .map(|name| name.as_str().filter(|name| is_safe_path(name)).map(|name| format!("{folder}{name}")))
        .collect();
    let shards = shards.ok_or_else(|| fault("names a file outside its folder"))?;
    if let Some(other) = shards.iter().find(|name| !name.ends_with(".safetensors")) {
        return Err(fault(&format!("names {other}, and only safetensors are loaded")));
    }
    Ok(shards.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Much as Stable Diffusion's repositories are.
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
        let none = all(FILES, Some("bf16"));
        assert!(none.contains(&"text_encoder/model.safetensors".to_owned()), "{none:?}");
    }

    #[test]
    fn pickles_are_refused_before_anything_is_downloaded() {
        let files: Vec<&str> =
            FILES.iter().copied().filter(|name| *name != "vae/diffusion_pytorch_model.fp16.safetensors").collect();
        let files = [&files[..], &["vae/diffusion_pytorch_model.bin"]].concat();
        let why = choose(&files, None).expect_err("a pickle");
        assert!(why.contains("vae") && why.contains("diffusion_pytorch_model.bin"), "{why}");
    }

    #[test]
    fn indices_are_not_trusted() {
        for (text, part) in [
            ("{", "no JSON"),
            ("{}", "no weight_map"),
            (r#"{"weight_map": {"a": "../../x.safetensors"}}"#, "outside"),
            (r#"{"weight_map": {"a": "/etc/x.safetensors"}}"#, "outside"),
            (r#"{"weight_map": {"a": "x.bin"}}"#, "x.bin"),
        ] {
            let why = shards("unet/i.json", text.as_bytes()).expect_err(text);
            assert!(why.contains(part) && why.contains("unet/i.json"), "{why}");
        }
    }
}
