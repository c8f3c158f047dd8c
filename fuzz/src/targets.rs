//! What reads files, and files to begin with.

use models::{Checkpoint, Lora, ModelFiles, TextualInversion};
use std::path::{Path, PathBuf};

/// A whole file.
pub(crate) struct Seed {
    /// Relative to its folder.
    pub(crate) name: String,
    /// The folder that it is a part of.
    folder: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// A reader.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Files that it reads, in the project's goldens.
    pub(crate) corpus: fn(&Path) -> Vec<Seed>,
    /// Reads these bytes in the seed's place; the folder is the target's own.
    pub(crate) read: fn(&Path, &Seed, &[u8]),
}

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "models",
        corpus: |goldens| in_folders(goldens, "pipelines", &["json", "safetensors", "txt", "model"]),
        read: model,
    },
    Target { name: "tensors", corpus: |goldens| in_folders(goldens, "pipelines", &["safetensors"]), read: tensors },
    Target { name: "adapters", corpus: adapters, read: tensors },
    Target { name: "pictures", corpus: pictures, read: picture },
];

/// Files of some endings in each folder of a golden folder, those below 256 KiB: changes to larger ones mostly hit weights.
fn in_folders(goldens: &Path, folder: &str, endings: &[&str]) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for folder in entries(&goldens.join(folder)).into_iter().filter(|path| path.is_dir()) {
        collect(&folder, &folder, endings, &mut seeds);
    }
    seeds
}

fn adapters(goldens: &Path) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for folder in ["loras", "embeddings"].map(|name| goldens.join(name)) {
        collect(&folder, &folder, &["safetensors"], &mut seeds);
    }
    seeds
}

fn pictures(goldens: &Path) -> Vec<Seed> {
    let (mut seeds, folder) = (Vec::new(), goldens.join("edits"));
    collect(&folder, &folder, &["png", "jpg", "webp"], &mut seeds);
    seeds
}

fn collect(root: &Path, folder: &Path, endings: &[&str], seeds: &mut Vec<Seed>) {
    for path in entries(folder) {
        let end = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(root, &path, endings, seeds);
        } else if endings.contains(&&*end) && path.metadata().is_ok_and(|file| file.len() < 256 << 10) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if let Ok(bytes) = std::fs::read(&path) {
                seeds.push(Seed { name, folder: root.to_owned(), bytes });
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The whole model around a changed file: every configuration, tokenizer and header of weights.
fn model(place: &Path, seed: &Seed, bytes: &[u8]) {
    let copy = place.join(seed.folder.file_name().unwrap_or_default());
    if !copy.is_dir() {
        copy_model(&seed.folder, &copy);
    }
    let file = copy.join(&seed.name);
    if std::fs::write(&file, bytes).is_ok() {
        if let Ok(files) = ModelFiles::folder(&copy) {
            drop(pipelines::problems(&files));
        }
        drop(std::fs::write(file, &seed.bytes));
    }
}

/// A model without its pictures.
fn copy_model(from: &Path, to: &Path) {
    drop(std::fs::create_dir_all(to));
    for path in entries(from) {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "pictures" && name != "edits" {
            copy_model(&path, &to.join(name));
        } else if path.is_file() {
            drop(std::fs::copy(&path, to.join(name)));
        }
    }
}

/// A file of tensors as whatever it may be.
fn tensors(place: &Path, _: &Seed, bytes: &[u8]) {
    let file = place.join("file.safetensors");
    if std::fs::write(&file, bytes).is_err() {
        return;
    }
    drop(Checkpoint::at(&file));
    drop(Lora::open(&file, 1.0));
    drop(TextualInversion::open(&file, None));
    if let Ok(files) = ModelFiles::single(&file, None) {
        drop(pipelines::problems(&files));
    }
}

fn picture(place: &Path, _: &Seed, bytes: &[u8]) {
    let file = place.join("picture");
    if std::fs::write(&file, bytes).is_ok() {
        drop(headwater::read_picture(&file));
        drop(headwater::read_mask(&file));
    }
}
