//! The rules that no compiler checks.

use crate::run::Failure;
use std::path::{Path, PathBuf};

/// Lines above which a file can no longer be read in one sitting.
const MAX_LINES: usize = 600;

/// Crates by folder, and what each may import of the others. A new edge is a rare event: it changes the architecture.
const EDGES: &[(&str, &[&str])] = &[
    ("scheduler", &[]),
    ("graph", &[]),
    ("shaders", &["graph"]),
    ("gpu", &["graph", "shaders"]),
    ("cpu", &["graph"]),
    ("models", &["graph"]),
    ("pipelines", &["scheduler", "graph", "gpu", "cpu", "models"]),
    ("web", &["scheduler", "graph", "models", "pipelines"]),
];

/// Checks the repository; every breach is one line.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    let mut breaches = Vec::new();
    for (name, may_import) in EDGES {
        check_crate(root, name, may_import, &mut breaches)?;
    }
    for file in sources(root)? {
        let text = read(&file)?;
        let is_library = EDGES.iter().any(|(name, _)| file.starts_with(root.join(name).join("src")));
        if let Some(line) = text.lines().position(names_a_flag).filter(|_| is_library) {
            breaches.push(format!("{}:{}: a library names a flag of the command line", shown(root, &file), line + 1));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            breaches.push(format!("{}: {lines} lines, more than {MAX_LINES}", shown(root, &file)));
        }
    }
    if breaches.is_empty() { Ok(()) } else { Err(Failure::new(format!("tidy:\n  {}", breaches.join("\n  ")))) }
}

fn check_crate(root: &Path, name: &str, may_import: &[&str], breaches: &mut Vec<String>) -> Result<(), Failure> {
    let library = read(&root.join(name).join("src/lib.rs"))?;
    let head = library.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    if !head.contains("**Invariant:") {
        breaches.push(format!("{name}/src/lib.rs: no invariant at the top"));
    }
    let manifest = read(&root.join(name).join("Cargo.toml"))?;
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
    for (other, _) in EDGES {
        let imports = dependencies
            .lines()
            .any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ")));
        if imports && !may_import.contains(other) {
            breaches.push(format!("{name}/Cargo.toml: {name} must not import {other}"));
        }
    }
    Ok(())
}

/// Whether a line of code has a flag (`--name`) in its text. A library does not know the command line that calls it.
fn names_a_flag(line: &str) -> bool {
    let is_flag = |(at, _): (usize, &str)| line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase());
    !line.trim_start().starts_with("//")
        && line.contains('"')
        && line.match_indices(" --").map(|(at, s)| (at + 1, s)).any(is_flag)
}

/// Every source file that people read: Rust, WGSL, Python.
fn sources(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if [".rs", ".wgsl", ".py"].iter().any(|end| name.ends_with(end)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
