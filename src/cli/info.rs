//! `headwater info`: what a file or folder holds.

use super::error::CliError;
use super::{hub, model, png};
use models::{Checkpoint, ModelFiles, ModelIndex};
use serde_json::json;
use std::io::{Read, Write};
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
    let name = args.file.to_string_lossy();
    let bundled = crate::bundled::find(&name);
    let downloaded = if bundled.is_some() { None } else { hub::locate(&name, None, args.json)? };
    let path = downloaded.as_ref().unwrap_or(&args.file);
    let report = if let Some(model) = bundled {
        folder(&model.files())?
    } else if path.is_dir() {
        folder(&ModelFiles::folder(path)?)?
    } else if is_png(path)? {
        image(path)?
    } else {
        checkpoint(&model::checkpoint(path)?)
    };
    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", report.json)?;
    } else {
        stdout.write_all(report.text.as_bytes())?;
    }
    Ok(())
}

/// The same facts twice: to read, and to parse.
struct Report {
    text: String,
    json: serde_json::Value,
}

fn is_png(path: &Path) -> Result<bool, CliError> {
    let mut start = [0; 8];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut start));
    let read = read.map_err(|error| CliError::Failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(read == 8 && start == *b"\x89PNG\r\n\x1a\n")
}

fn image(path: &Path) -> Result<Report, CliError> {
    let info = png::read_info(path)?;
    let mut text = format!("PNG image, {}x{}\n", info.width, info.height);
    let mut json = json!({ "kind": "image", "width": info.width, "height": info.height });
    for (keyword, value) in &info.texts {
        text += &format!("{keyword}:\n{value}\n");
        json[keyword] = match serde_json::from_str::<serde_json::Value>(value) {
            Ok(parsed) if parsed.is_object() => parsed,
            _ => json!(value),
        };
    }
    if info.texts.is_empty() {
        text += "no text chunks: nothing is known of how it was made\n";
    }
    Ok(Report { text, json })
}

fn folder(files: &ModelFiles) -> Result<Report, CliError> {
    let index = ModelIndex::read(files)?;
    let mut text = format!("diffusers folder, {}\n", index.class_name);
    let mut parts = Vec::new();
    for component in &index.components {
        let (name, class) = (&component.name, &component.class_name);
        text += &format!("{name}: {class}");
        let mut part = json!({ "name": name, "class": class });
        // Tokenizers and schedulers have no weights.
        let is_weights =
            |file: &String| [".safetensors", ".bin", ".safetensors.index.json"].iter().any(|end| file.ends_with(end));
        if files.list(name).iter().any(is_weights) {
            let tensors = describe(&Checkpoint::open(files, name, None)?);
            text += &format!(", {}", tensors.text);
            part["weights"] = tensors.json;
        }
        text.push('\n');
        parts.push(part);
    }
    Ok(Report { text, json: json!({ "kind": "diffusers", "class": index.class_name, "parts": parts }) })
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
        parameters += shape.iter().product::<usize>();
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
