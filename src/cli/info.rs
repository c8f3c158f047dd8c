//! `headwater info`: what a file or folder holds.

use super::error::{CliError, one_line, printable};
use super::model::Wanted;
use super::{hub, picture_file};
use models::{Checkpoint, Lora, ModelFiles, ModelIndex};
use pipelines::Method;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Show what a file or folder holds: an image's settings, a checkpoint's parts.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image, a .safetensors file, a folder in diffusers' layout, a bundled model's name, or a hub's id
    file: PathBuf,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let bundled = args.file.to_str().and_then(crate::bundled::find);
    let downloaded = if bundled.is_some() {
        None
    } else {
        hub::locate(&args.file, Wanted { quiet: args.json, ..Wanted::default() })?
    };
    let path = downloaded.as_ref().unwrap_or(&args.file);
    let report = if let Some(model) = bundled {
        folder(&model.files())?
    } else if path.is_dir() {
        folder(&ModelFiles::folder(path)?)?
    } else if picture_file::is_picture(path)? {
        image(path)?
    } else {
        file(path)?
    };
    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", report.json)?;
    } else {
        stdout.write_all(printable(&report.text).as_bytes())?;
    }
    Ok(())
}

/// The facts in two forms: lines to read, and JSON to parse.
struct Report {
    text: String,
    json: serde_json::Value,
}

fn image(path: &Path) -> Result<Report, CliError> {
    let info = picture_file::read_info(path)?;
    let mut text = format!("{} image, {}x{}\n", info.format, info.width, info.height);
    let mut json = json!({ "kind": "image", "width": info.width, "height": info.height });
    let mut others = serde_json::Map::new();
    for (keyword, value) in &info.texts {
        text += &format!("{keyword}:\n{value}\n");
        let value = match serde_json::from_str::<serde_json::Value>(value) {
            Ok(parsed) if parsed.is_object() => parsed,
            _ => json!(value),
        };
        // A file's own keywords must not stand where ours do.
        match &**keyword {
            "parameters" | "headwater" => json[keyword] = value,
            _ => drop(others.insert(keyword.clone(), value)),
        }
    }
    if !others.is_empty() {
        json["texts"] = others.into();
    }
    if info.texts.is_empty() {
        text += "no texts: nothing is known of how it was made\n";
    }
    Ok(Report { text, json })
}

/// A model's parts, and whatever keeps it from being used.
fn folder(files: &ModelFiles) -> Result<Report, CliError> {
    let index = ModelIndex::read(files)?;
    let (kind, what) = match files.family() {
        Some(family) => ("single file", format!("single file, {family}")),
        None => ("diffusers", "diffusers folder".to_owned()),
    };
    let mut text = format!("{what}, {}\n", index.class_name);
    let mut parts = Vec::new();
    let mut problems = Vec::new();
    for component in &index.components {
        let (name, class) = (&component.name, &component.class_name);
        text += &format!("{name}: {class}");
        let mut part = json!({ "name": name, "class": class });
        if files.has_weights(name) {
            match Checkpoint::open(files, name, None) {
                Ok(weights) => {
                    let tensors = describe(&weights);
                    text += &format!(", {}", tensors.text);
                    part["weights"] = tensors.json;
                }
                Err(error) => problems.push(one_line(&error.to_string())),
            }
        }
        text.push('\n');
        parts.push(part);
    }
    for problem in pipelines::problems(files).iter().map(|problem| one_line(problem)) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    for problem in &problems {
        text += &format!("problem: {problem}\n");
    }
    let mut json = json!({ "kind": kind, "class": index.class_name, "parts": parts, "problems": problems });
    let methods = if problems.is_empty() { pipelines::methods(files) } else { Vec::new() };
    if !methods.is_empty() {
        let shown = |(task, method): &(&str, Option<Method>)| match method {
            Some(method) => format!("{task} by {method}"),
            None => format!("{task}, which it was trained for"),
        };
        text += &format!("edits: {}\n", methods.iter().map(shown).collect::<Vec<_>>().join(", "));
        let named = |(task, method): &(&str, Option<Method>)| ((*task).to_owned(), json!(method.map(Method::name)));
        json["edits"] = methods.iter().map(named).collect::<serde_json::Map<_, _>>().into();
    }
    if let Some(family) = files.family() {
        json["family"] = json!(family);
    }
    Ok(Report { text, json })
}

/// The lines that tell of a model's parts; an error where something keeps it from being used.
#[cfg(feature = "serve")]
pub(super) fn parts(files: &ModelFiles) -> Result<Vec<String>, CliError> {
    let report = folder(files)?;
    let problem = report.text.lines().find_map(|line| line.strip_prefix("problem: "));
    match problem {
        Some(problem) => Err(CliError::Failed(problem.to_owned())),
        None => Ok(report.text.lines().map(str::to_owned).collect()),
    }
}

/// A file of tensors: a whole model, an adapter, a word that textual inversion learnt, or whatever else.
fn file(path: &Path) -> Result<Report, CliError> {
    // The error says what a damaged file or a pickle is.
    let weights = Checkpoint::at(path)?;
    let single = match ModelFiles::single(path, None) {
        Ok(files) => return folder(&files),
        Err(error) => CliError::from(error).to_string(),
    };
    if weights.is_adapter() {
        return Ok(adapter(path, &weights));
    }
    if let Some(report) = textual_inversion(&weights) {
        return Ok(report);
    }
    let mut report = checkpoint(&weights);
    // A file that looks like a model but cannot be read as one: say why.
    if weights.has_network() {
        report.text = format!("problem: {single}\n{}", report.text);
        report.json["problems"] = json!([single]);
    }
    Ok(report)
}

fn adapter(path: &Path, weights: &Checkpoint) -> Report {
    let tensors = describe(weights);
    let lora = match Lora::open(path, 1.0) {
        Ok(lora) => lora,
        Err(error) => {
            let problem = one_line(&error.to_string());
            let json = json!({ "kind": "lora", "problems": [&problem], "weights": tensors.json });
            return Report { text: format!("LoRA, {}\nproblem: {problem}\n", tensors.text), json };
        }
    };
    let (low, high) = lora.ranks();
    let rank = if low == high { low.to_string() } else { format!("{low} to {high}") };
    let (spelling, layers) = (lora.spelling(), lora.layers());
    let mut text = format!("LoRA in {spelling}'s names, rank {rank}, {layers} layers, {}\n", tensors.text);
    for (part, layers) in lora.parts() {
        text += &format!("{part}: {layers} layers\n");
    }
    let json = json!({
        "kind": "lora", "spelling": spelling, "rank": [low, high], "layers": layers, "parts": lora.parts(),
        "weights": tensors.json, "problems": [],
    });
    Report { text, json }
}

/// A row for each token: diffusers names the tensor by the word, A1111 `emb_params`, and those of two encoders are `clip_l` and `clip_g`.
fn textual_inversion(weights: &Checkpoint) -> Option<Report> {
    let all: Vec<(&str, &[usize])> = weights.tensors().collect();
    let word = |name: &str| name.starts_with('<') && name.ends_with('>');
    let known = |name: &str| ["emb_params", "clip_l", "clip_g"].contains(&name) || word(name);
    if all.is_empty() || !all.iter().all(|(name, shape)| known(name) && (1..=2).contains(&shape.len())) {
        return None;
    }
    let mut text = "textual inversion\n".to_owned();
    let mut list = Vec::new();
    for (name, shape) in all {
        let (tokens, width) = if let [tokens, width] = shape { (*tokens, *width) } else { (1, shape[0]) };
        text += &format!("{name}: {tokens} tokens of {width} channels\n");
        list.push(json!({ "name": name, "tokens": tokens, "channels": width }));
    }
    Some(Report { text, json: json!({ "kind": "textual inversion", "embeddings": list }) })
}

fn checkpoint(weights: &Checkpoint) -> Report {
    let tensors = describe(weights);
    let mut text = format!("safetensors checkpoint, {}\n", tensors.text);
    let list: Vec<_> = weights
        .tensors()
        .map(|(name, shape)| {
            let dtype = weights.dtype(name).unwrap_or_default();
            text += &format!("{name} {shape:?} {dtype}\n");
            json!({ "name": name, "shape": shape, "dtype": dtype })
        })
        .collect();
    let mut json = tensors.json;
    json["kind"] = json!("safetensors");
    json["list"] = list.into();
    Report { text, json }
}

/// Counts of one checkpoint: `123 tensors, 4.50 M parameters, 9.0 MB, F16`.
fn describe(weights: &Checkpoint) -> Report {
    let (mut tensors, mut parameters) = (0_usize, 0_usize);
    let mut dtypes = std::collections::BTreeSet::new();
    for (name, shape) in weights.tensors() {
        tensors += 1;
        parameters = shape.iter().fold(1_usize, |all, extent| all.saturating_mul(*extent)).saturating_add(parameters);
        dtypes.extend(weights.dtype(name));
    }
    let dtypes: Vec<String> = dtypes.into_iter().collect();
    Report {
        text: format!(
            "{tensors} tensors, {:.2} M parameters, {:.1} MB, {}",
            parameters as f64 / 1e6,
            weights.size() as f64 / 1e6,
            dtypes.join(" ")
        ),
        json: json!({ "tensors": tensors, "parameters": parameters, "bytes": weights.size(), "dtypes": dtypes }),
    }
}
