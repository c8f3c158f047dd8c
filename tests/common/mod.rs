//! What tests of commands share: running the program, and files for it.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    dead_code,
    reason = "a panic is how a test fails; not every test needs all of it"
)]

use headwater::{RgbImage, read_picture};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

pub fn input(name: &str) -> String {
    goldens().join("edits").join(name).to_str().unwrap().to_owned()
}

/// A folder and all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(fs::copy(&path, &target).is_ok()) }
    }
}

pub fn model(name: &str) -> String {
    goldens().join("pipelines").join(name).to_str().unwrap().to_owned()
}

/// Runs the program. Words of `arguments` of the form `input:` or `model:` are replaced by the path of a golden input
/// or pipeline.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    let word = |word: &&str| match word.split_once(':') {
        Some(("input", name)) => input(name),
        Some(("model", name)) => model(name),
        _ => (*word).to_owned(),
    };
    Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(arguments.iter().map(word))
        .args(if ["info", "convert"].contains(&arguments[0]) { &[][..] } else { &["--device", "cpu"] })
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Fails with this code and a sentence that holds `part`.
pub fn fail(folder: &Path, arguments: &[&str], code: i32, part: &str) {
    let output = run(folder, arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.starts_with("error: ") && message.contains(part), "{arguments:?}: {message}");
    // clap's own usage errors have several lines; ours have one.
    assert!(code == 2 || message.trim_end().lines().count() == 1, "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
}

pub fn read(folder: &Path, name: &str) -> RgbImage {
    read_picture(&folder.join(name)).unwrap()
}

/// A PNG file whose header gives a size, but which holds almost no data.
pub fn claim(path: &Path, width: u32, height: u32) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A grey picture as a mask: white where `anew` is true, black elsewhere.
pub fn write_mask(path: &Path, width: usize, height: usize, anew: impl Fn(usize, usize) -> bool) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width.try_into().unwrap(), height.try_into().unwrap());
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..width * height).map(|i| if anew(i % width, i / width) { 255 } else { 0 }).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The name of a headless browser, where one is installed; otherwise it says that a test is skipped.
pub fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    });
    if found.is_none() {
        // Past the capture of output, for whoever counts what was skipped.
        drop(writeln!(std::io::stderr(), "skipped: no Chromium is installed (on Debian: apt-get install chromium)"));
    }
    found
}
