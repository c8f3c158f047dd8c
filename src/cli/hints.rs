//! What people type who come from other tools, or who mix up an order: recognised, and said how it is here.

use super::error::CliError;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};
use std::path::{Path, PathBuf};

/// Flags of diffusers' scripts, AUTOMATIC1111's web UI, ComfyUI, InvokeAI and stable-diffusion.cpp, with ours. `_` is `-`.
const ELSEWHERE: &[(&[&str], &[&str])] = &[
    (&["scheduler"], &["sampler", "schedule"]),
    (&["sampling-method", "sample-method", "sampler-name", "solver"], &["sampler", "samplers"]),
    (&["sigma-schedule", "noise-schedule", "schedule-type"], &["schedule", "schedules"]),
    (&["cfg", "guidance-scale", "scale", "unconditional-guidance-scale"], &["guidance"]),
    (&["num-inference-steps", "inference-steps", "sampling-steps", "ddim-steps", "n-steps", "num-steps"], &["steps"]),
    (&["n-iter", "n-samples", "num-images", "num-images-per-prompt", "batch-count", "batch-size"], &["count"]),
    (&["neg", "negative", "neg-prompt", "uc"], &["negative-prompt"]),
    (&["out", "outdir", "out-dir", "output-dir", "output-path", "outpath", "save-path"], &["output"]),
    (
        &["ckpt", "ckpt-path", "checkpoint", "model-path", "model-id", "pretrained-model-name-or-path"],
        &["model", "models"],
    ),
    (&["denoise", "denoising-strength", "img2img-strength"], &["strength"]),
    (&["w"], &["width"]),
    (&["h"], &["height"]),
    (&["mask-image", "init-mask"], &["mask"]),
    (&["upscale-factor", "factor"], &["scale"]),
    (&["lora-path", "lora-weights"], &["lora"]),
    (&["lora-model-dir", "lora-folder"], &["lora-dir"]),
    (&["textual-inversion", "embeddings"], &["embedding"]),
    (&["vae-path"], &["vae"]),
    (&["precision", "torch-dtype", "half", "fp16"], &["dtype"]),
    (&["lowvram", "medvram", "low-vram", "offload", "cpu-offload"], &["max-memory"]),
    (&["cuda", "gpu", "cpu", "backend"], &["device"]),
    (&["overwrite", "yes"], &["force"]),
];

/// Words that other tools put behind a flag, and which stand by themselves here.
const POSITIONAL: &[(&[&str], &str)] = &[
    (&["prompt", "text"], "a prompt needs no flag: headwater generate a red heart"),
    (
        &["init-image", "init-img", "image", "input", "input-image"],
        "a picture comes first and needs no flag: headwater img2img PICTURE \"PROMPT\"",
    ),
];

/// An error about a flag that is another tool's, with the flag that is meant; any other error as it is.
pub(super) fn explained(mut error: clap::Error, root: &Command, arguments: &[String]) -> clap::Error {
    let typed = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(typed))) => typed.clone(),
        _ => return error,
    };
    let command = arguments.iter().skip(1).find_map(|word| root.find_subcommand(word));
    let name = typed.split('=').next().unwrap_or(&typed).trim_start_matches('-').replace('_', "-").to_lowercase();
    if let Some(tip) = command.and_then(|command| tip(&name, &typed, command)) {
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn tip(name: &str, typed: &str, command: &Command) -> Option<String> {
    let find = |long: &&&str| {
        command.get_arguments().find(|own| {
            own.get_long() == Some(**long) || own.get_visible_aliases().is_some_and(|all| all.contains(*long))
        })
    };
    if let Some((_, tip)) = POSITIONAL.iter().find(|(names, _)| names.contains(&name)) {
        return Some((*tip).to_owned());
    }
    let meant = ELSEWHERE.iter().find(|(names, _)| names.contains(&name)).map_or(&[][..], |(_, ours)| *ours);
    let same = [name];
    let ours: Vec<String> = meant
        .iter()
        .chain(&same)
        .filter_map(|long| Some((long, find(&long)?)))
        .map(|(long, own)| {
            let help = own.get_help().map(ToString::to_string).unwrap_or_default();
            // What it does, without details: up to the first mark.
            let end = help.find([':', ';', '[', '(']).unwrap_or(help.len());
            let mut letters = help[..end].trim().chars();
            let first = letters.next().map(char::to_lowercase).into_iter().flatten();
            format!("--{long} ({})", first.chain(letters).collect::<String>())
        })
        .collect();
    (!ours.is_empty()).then(|| format!("what other tools call {typed} is here {}", ours.join(", or ")))
}

/// Refuses a prompt in a picture's place, and a picture in a prompt's, before either is missed.
pub(super) fn check_order(matches: &ArgMatches) -> Result<(), CliError> {
    let Some((name, own)) = matches.subcommand() else { return Ok(()) };
    let words: Vec<&String> = own.try_get_many("words").ok().flatten().into_iter().flatten().collect();
    let Some(picture) = words.iter().copied().find(|word| is_picture(word)) else { return Ok(()) };
    let prompt =
        words.iter().copied().filter(|word| *word != picture).map(String::as_str).collect::<Vec<_>>().join(" ");
    match own.try_get_one::<PathBuf>("input").ok().flatten() {
        Some(input) if !input.exists() => {
            let prompt = format!("{} {prompt}", input.display());
            let prompt = prompt.trim();
            let message = format!("the picture comes before the prompt: headwater {name} {picture} \"{prompt}\"");
            Err(CliError::Usage(message))
        }
        None if name == "generate" => {
            let prompt = if prompt.is_empty() { "PROMPT" } else { &prompt };
            Err(CliError::Usage(format!(
                "{picture} is a picture: to start from it, headwater img2img {picture} \"{prompt}\"; to make it again, headwater generate --from {picture}"
            )))
        }
        _ => Ok(()),
    }
}

/// Whether a word is the path of a picture that is there.
fn is_picture(word: &str) -> bool {
    let path = Path::new(word);
    let ends = |end: &str| matches!(end, "png" | "jpg" | "jpeg" | "webp" | "bmp" | "gif" | "tif" | "tiff");
    path.extension().and_then(|end| end.to_str()).is_some_and(|end| ends(&end.to_lowercase())) && path.is_file()
}
