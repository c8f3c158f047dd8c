//! Which files of a folder hold a part's weights, by the names that diffusers and transformers give them.

use crate::checkpoint::path::is_inside;
use std::collections::BTreeSet;

/// Names without variant and ending, in the order in which they are looked for.
const STEMS: &[&str] = &["diffusion_pytorch_model", "model"];

/// Endings of files that hold Python pickles. Loading a pickle runs code.
const PICKLES: &[&str] = &[".bin", ".pt", ".pth", ".ckpt"];

/// Parts whose weights no pipeline here reads: safety checkers and image encoders.
pub const UNREAD_PARTS: &[&str] = &["safety_checker", "feature_extractor", "image_encoder"];

/// The file or index that holds a folder's weights. Files of the variant (such as `fp16`) come first, then files
/// without a variant, then files of another variant if there is only one. diffusers applies this rule to each part of a
/// pipeline.
#[must_use]
pub fn choose(names: &[impl AsRef<str>], variant: Option<&str>) -> Option<String> {
    let asked = variant.and_then(|variant| exactly(names, Some(variant)));
    asked.or_else(|| exactly(names, None)).or_else(|| exactly(names, Some(only_variant(names)?)))
}

/// Like [`choose`], but only files of this variant. `None` means files without a variant.
#[must_use]
pub fn exactly(names: &[impl AsRef<str>], variant: Option<&str>) -> Option<String> {
    let infix = variant.map_or_else(String::new, |variant| format!(".{variant}"));
    let spelled = |stem: &&str| {
        // Both libraries put the variant of a sharded checkpoint's index at its end.
        [format!("{stem}{infix}.safetensors"), format!("{stem}.safetensors.index{infix}.json")]
    };
    STEMS.iter().flat_map(spelled).find(|wanted| names.iter().any(|name| name.as_ref() == wanted))
}

/// The variant that a folder has weights in, if there is exactly one.
fn only_variant(names: &[impl AsRef<str>]) -> Option<&str> {
    fn variant(name: &str) -> Option<&str> {
        let rest = STEMS.iter().find_map(|stem| name.strip_prefix(stem)?.strip_prefix('.'))?;
        let single = rest.strip_suffix(".safetensors").filter(|variant| !variant.contains(['.', '-']));
        single.or_else(|| rest.strip_prefix("safetensors.index.")?.strip_suffix(".json"))
    }
    let found: BTreeSet<&str> = names.iter().filter_map(|name| variant(name.as_ref())).collect();
    if found.len() == 1 { found.into_iter().next() } else { None }
}

/// Whether a file is the index of shards.
#[must_use]
pub fn is_index(name: &str) -> bool {
    name.contains(".safetensors.index.")
}

/// Whether a file holds weights or is an index of them, in any format.
#[must_use]
pub fn is_weights(name: &str) -> bool {
    let others = [".safetensors", ".msgpack", ".onnx", ".onnx_data", ".pb", ".h5", ".index.json"];
    is_index(name) || name.contains(".bin.index.") || PICKLES.iter().chain(&others).any(|end| name.ends_with(end))
}

/// The first of these files that is a pickle. Pickles are never loaded, because loading one runs code.
#[must_use]
pub fn pickle(names: &[impl AsRef<str>]) -> Option<&str> {
    names.iter().map(AsRef::as_ref).find(|name: &&str| PICKLES.iter().any(|end| name.ends_with(end)))
}

/// Whether a file may belong to the network, in a pipeline whose files all lie at its root.
#[must_use]
pub fn is_of_network(name: &str) -> bool {
    name == "config.json" || name.starts_with(STEMS[0])
}

/// The name that a library (`diffusers` or `transformers`) gives to weights in a single file.
#[must_use]
pub fn name_for(library: &str) -> String {
    format!("{}.safetensors", STEMS[usize::from(library != "diffusers")])
}

/// The file names that were looked for, for error messages.
pub(crate) fn expected() -> String {
    format!("{}.safetensors", STEMS.join(".safetensors or "))
}

/// The paths of the shards that an index at this path names, each once and sorted.
///
/// # Errors
/// A sentence when the text is not an index, or names a file outside its folder or of another format.
pub fn shards(index: &str, text: &[u8]) -> Result<Vec<String>, String> {
    let json: serde_json::Value = serde_json::from_slice(text).map_err(|_| "is no JSON")?;
    let map = json.get("weight_map").and_then(|map| map.as_object()).ok_or("has no weight_map")?;
    let folder = index.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let shard = |name: &serde_json::Value| Some(format!("{folder}{}", name.as_str().filter(|name| is_inside(name))?));
    let shards: Option<BTreeSet<String>> = map.values().map(shard).collect();
    let shards = shards.ok_or("names a file outside its folder")?;
    match shards.iter().find(|name| !name.ends_with(".safetensors")) {
        Some(other) => Err(format!("names {other}, and only safetensors are loaded")),
        None => Ok(shards.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_found_by_name() {
        let names = ["config.json", "model.fp16.safetensors", "model.safetensors", "model.onnx"];
        for (names, variant, wanted) in [
            (&names[..], None, Some("model.safetensors")),
            (&names, Some("fp16"), Some("model.fp16.safetensors")),
            (&names, Some("bf16"), Some("model.safetensors")),
            (&names[..2], None, Some("model.fp16.safetensors")),
            (&names[..2], Some("bf16"), Some("model.fp16.safetensors")),
            (&names[..1], None, None),
            (&["model.a.safetensors", "model.b.safetensors"], None, None),
            (&["model.safetensors.index.fp16.json"], None, Some("model.safetensors.index.fp16.json")),
            (&["model-00001-of-00002.safetensors"], None, None),
            (
                &["model.safetensors", "diffusion_pytorch_model.safetensors"],
                None,
                Some("diffusion_pytorch_model.safetensors"),
            ),
        ] {
            assert_eq!(choose(names, variant).as_deref(), wanted, "{names:?} {variant:?}");
        }
        assert_eq!(exactly(&names, Some("bf16")), None);
    }

    #[test]
    fn weights_are_told_from_other_files() {
        for name in
            ["model.fp16.safetensors", "a.bin", "m.pt", "a.safetensors.index.fp16.json", "a.bin.index.fp16.json"]
        {
            assert!(is_weights(name), "{name}");
        }
        for name in ["config.json", "spiece.model", "merges.txt", "preprocessor_config.json"] {
            assert!(!is_weights(name), "{name}");
        }
    }

    #[test]
    fn indices_are_not_trusted() {
        let whole = br#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        assert_eq!(shards("unet/i.json", whole).expect("whole"), ["unet/1.safetensors", "unet/2.safetensors"]);
        assert_eq!(shards("i.json", whole).expect("whole"), ["1.safetensors", "2.safetensors"]);
        for (text, part) in [
            ("{", "no JSON"),
            ("{}", "no weight_map"),
            (r#"{"weight_map": {"a": "../../x.safetensors"}}"#, "outside"),
            (r#"{"weight_map": {"a": "/etc/x.safetensors"}}"#, "outside"),
            (r#"{"weight_map": {"a": "C:\\x.safetensors"}}"#, "outside"),
            (r#"{"weight_map": {"a": 1}}"#, "outside"),
            (r#"{"weight_map": {"a": "x.bin"}}"#, "x.bin"),
        ] {
            let why = shards("unet/i.json", text.as_bytes()).expect_err(text);
            assert!(why.contains(part), "{why}");
        }
    }
}
