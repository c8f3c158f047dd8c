//! The files of the bundled models, inside the program and in `assets/models`, have the checksums that were recorded when the models were made.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use headwater::bundled::{BUNDLED, DEFAULT, find};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// `assets/models/SHA256SUMS`, which `training/export.py` writes as `sha256sum` does: every file but the model cards.
fn listed() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models/SHA256SUMS");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| line.split_once("  ").unwrap());
    lines.map(|(hash, path)| (path.to_owned(), hash.to_owned())).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[test]
fn files_are_intact() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models");
    for (path, hash) in listed() {
        assert_eq!(sha256(&std::fs::read(folder.join(&path)).unwrap()), hash, "{path}");
    }
}

#[test]
fn all_files_are_embedded() {
    let mut embedded = BTreeMap::new();
    for model in BUNDLED {
        let files = model.files();
        for path in model.paths().filter(|path| *path != "README.md") {
            embedded.insert(format!("{}/{path}", model.name), sha256(&files.read(path).unwrap()));
        }
    }
    let mut of_bundled = listed();
    of_bundled.retain(|path, _| BUNDLED.iter().any(|model| path.starts_with(&format!("{}/", model.name))));
    assert_eq!(embedded, of_bundled);
}

#[test]
fn they_are_small_and_one_is_the_default() {
    let bytes: usize = BUNDLED.iter().map(headwater::bundled::Bundled::bytes).sum();
    assert!(bytes <= 48_000_000, "{bytes} bytes are part of every program");
    assert!(find(DEFAULT).is_some());
    assert!(find("icons").is_none());
}
