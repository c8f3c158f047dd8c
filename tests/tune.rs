//! `headwater tune`: what was measured is kept, used, shown and forgotten; what is kept can be damaged without harm.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{model, read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the program with a cache folder of its own.
fn run(folder: &Path, kernel: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(arguments)
        .args(["--device", "cpu", "-t", "2"])
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("HEADWATER_KERNEL", kernel)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn succeed(folder: &Path, kernel: &str, arguments: &[&str]) -> (String, String) {
    let output = run(folder, kernel, arguments);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{arguments:?}: {err}");
    (out, err)
}

/// What is kept: one file for each device.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.join("cache/headwater/tuned"));
    files.map(|files| files.map(|file| file.unwrap().path()).collect()).unwrap_or_default()
}

fn tune(folder: &Path) -> String {
    let arguments = ["tune", "-m", &model("stable_diffusion"), "--repeats", "1"];
    succeed(folder, "", &arguments).0
}

fn picture(folder: &Path, name: &str, kernel: &str) -> (headwater::RgbImage, String) {
    let model = model("stable_diffusion");
    let arguments = ["generate", "a fox", "-m", &model, "--steps", "2", "--seed", "5", "-v", "--force", "-o", name];
    let (_, err) = succeed(folder, kernel, &arguments);
    (read(folder, name), err)
}

#[test]
fn what_was_measured_is_kept_used_shown_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(succeed(folder, "", &["tune", "--show"]).0.starts_with("nothing is kept of "));
    let (plain, err) = picture(folder, "plain.png", "");
    assert!(!err.contains("tuned"), "{err}");

    let told = tune(folder);
    let shapes = told.lines().filter(|line| line.contains(" is taken (")).count();
    assert!(shapes > 0 && told.contains("conv2d stride 1 padding 1 1 1 1"), "{told}");
    assert_eq!(kept(folder).len(), 1);
    let shown = succeed(folder, "", &["tune", "--show"]).0;
    assert_eq!(shown.lines().count(), shapes, "{shown}");
    let shown = succeed(folder, "", &["tune", "--show", "--json"]).0;
    for line in shown.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(["direct", "winograd2", "winograd4"].contains(&object["winner"].as_str().unwrap()), "{line}");
    }
    let (tuned, err) = picture(folder, "tuned.png", "");
    assert!(err.contains(&format!("tuned: {shapes} shapes were measured on this device")), "{err}");
    let worst = plain.pixels.iter().zip(&tuned.pixels).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(1), "{worst:?} of 255");
    // What is forced comes before what was measured.
    let (_, err) = picture(folder, "forced.png", "direct");
    assert!(!err.contains("tuned"), "{err}");

    succeed(folder, "", &["tune", "--forget"]);
    assert_eq!(kept(folder).len(), 0);
    succeed(folder, "", &["tune", "--forget"]);
}

#[test]
fn what_is_damaged_or_foreign_is_passed_over_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tune(folder);
    let file = kept(folder).remove(0);
    let whole = std::fs::read_to_string(&file).unwrap();
    let (right, _) = picture(folder, "right.png", "");
    for (spoilt, why) in [
        (&whole[..whole.len() / 2], "it is damaged"),
        ("[]", "it is of another device"),
        (&*whole.replace("\"native\"", "\"vulkan\""), "it is of another device"),
    ] {
        std::fs::write(&file, spoilt).unwrap();
        let (made, err) = picture(folder, "made.png", "");
        let warnings: Vec<&str> = err.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains(why), "{err}");
        let worst = right.pixels.iter().zip(&made.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{worst:?} of 255");
        let refused = run(folder, "", &["tune", "--show"]);
        assert_eq!(refused.status.code(), Some(1));
    }
    // Measuring again replaces it.
    tune(folder);
    assert!(succeed(folder, "", &["tune", "--show"]).0.lines().count() > 0);
}

#[test]
fn variables_that_say_nothing_known_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("HEADWATER_KERNEL_CACHE", "some"), ("HEADWATER_ACTIVATIONS", "f8")] {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["generate", "a fox", "--device", "cpu"])
            .env(name, value)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(&format!("{name}: {value} is neither")), "{message}");
    }
}
