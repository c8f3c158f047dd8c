//! `<lora:NAME:WEIGHT>` in a prompt, as in AUTOMATIC1111's web UI: an adapter that the prompt asks for by name.

use super::error::CliError;
use super::model::LoraArg;
use std::path::{Path, PathBuf};

/// A prompt without its tags, and the adapters that they name.
pub(super) fn take(prompt: &str, folder: Option<&Path>) -> Result<(String, Vec<LoraArg>), CliError> {
    let (mut words, mut loras, mut rest) = (String::new(), Vec::new(), prompt);
    while let Some((before, tag, after)) = next(rest) {
        words.push_str(before);
        loras.push(find(tag, folder)?);
        rest = after;
    }
    if loras.is_empty() {
        return Ok((prompt.to_owned(), loras));
    }
    words.push_str(rest);
    // What stood around a tag stands together now.
    Ok((words.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "), loras))
}

/// What stands before the first tag, what it holds, and what follows. A tag that is not closed before the next `<` is text.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("<lora:").find_map(|(start, mark)| {
        let (tag, after) = text[start + mark.len()..].split_once('>')?;
        (!tag.contains('<')).then_some((&text[..start], tag, after))
    })
}

/// `NAME`, `NAME:WEIGHT`, or A1111's `NAME:WEIGHT:WEIGHT` for text encoder and UNet, which must be alike here.
fn find(tag: &str, folder: Option<&Path>) -> Result<LoraArg, CliError> {
    let refuse = |why: String| CliError::Usage(format!("the prompt's <lora:{tag}> {why}"));
    let mut parts = tag.split(':');
    let name = parts.next().unwrap_or_default().trim();
    let weights = parts.map(|text| text.trim().parse::<f64>().ok().filter(|weight| weight.is_finite()));
    let weights =
        weights.collect::<Option<Vec<f64>>>().ok_or_else(|| refuse("needs a number after its name".into()))?;
    let weight = weights.first().copied().unwrap_or(1.0);
    if weights.iter().any(|other| other.to_bits() != weight.to_bits()) {
        return Err(refuse("has several weights, which is not supported: write one".into()));
    }
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(refuse("names no file".into()));
    }
    let Some(folder) = folder else {
        return Err(refuse(format!("names a LoRA: give the folder that holds {name}.safetensors with --lora-dir")));
    };
    let file: PathBuf = folder.join(format!("{name}.safetensors"));
    if !file.is_file() {
        return Err(refuse(format!("is not there: {} has no {name}.safetensors", folder.display())));
    }
    Ok(LoraArg::new(file, weight))
}

/// The names that prompts may say, sorted; none where the folder cannot be read.
#[cfg(feature = "serve")]
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |file: PathBuf| {
        let name = file.file_stem()?.to_str()?.to_owned();
        // A tag ends at the first of these.
        let is_sayable = !name.starts_with('.') && !name.contains(['<', '>', ':']);
        (file.extension()? == "safetensors" && is_sayable && file.is_file()).then_some(name)
    };
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.path())).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_leave_the_words() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["style", "my style"] {
            std::fs::write(folder.path().join(format!("{name}.safetensors")), "").expect("writes");
        }
        let take = |prompt| take(prompt, Some(folder.path()));
        let (words, loras) = take("a cat <lora:style:0.8>, red <lora:my style> fox").expect("both are there");
        let file = |name: &str| folder.path().join(format!("{name}.safetensors"));
        assert_eq!(words, "a cat , red fox");
        assert_eq!(loras, [LoraArg::new(file("style"), 0.8), LoraArg::new(file("my style"), 1.0)]);
        std::fs::write(folder.path().join(".hidden.safetensors"), "").expect("writes");
        std::fs::write(folder.path().join("notes.txt"), "").expect("writes");
        #[cfg(feature = "serve")]
        assert_eq!(names(folder.path()), ["my style", "style"]);
        let plain = "a  cat <b> <lora: x, <b> <lora";
        assert_eq!(take(plain).expect("no tag"), (plain.to_owned(), Vec::new()));
        for (prompt, part) in [
            ("<lora:other:1>", "has no other.safetensors"),
            ("<lora:style:much>", "needs a number"),
            ("<lora:style:1:0.5>", "several weights"),
            ("<lora:../style:1>", "names no file"),
            ("<lora::1>", "names no file"),
        ] {
            let error = take(prompt).expect_err(prompt).to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = super::take("<lora:style:1>", None).expect_err("no folder").to_string();
        assert!(error.contains("--lora-dir") && error.contains("style"), "{error}");
    }
}
