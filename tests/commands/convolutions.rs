//! `HEADWATER_KERNEL`: pictures are the same in every way to compute convolutions, and a way that there is not is refused.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::common::{model, read};
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, kernel: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(arguments)
        .args(["--device", "cpu"])
        .env("HEADWATER_KERNEL", kernel)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn pictures_are_the_same_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let model = model("stable_diffusion");
    let picture = |kernel: &str| {
        let name = format!("{kernel}.png");
        let arguments = ["generate", "a fox", "-m", &model, "--steps", "3", "--seed", "5", "-o", &name];
        let output = run(folder.path(), kernel, &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read(folder.path(), &name)
    };
    let direct = picture("direct");
    for kernel in ["auto", "winograd2", "winograd4"] {
        let other = picture(kernel);
        assert_eq!((other.width, other.height), (direct.width, direct.height));
        let worst = direct.pixels.iter().zip(&other.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{kernel}: {worst:?} of 255");
    }
}

#[test]
fn a_way_that_there_is_not_is_refused_by_all_that_would_use_it() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["generate", "a fox"][..], &["bench"], &["bench", "--suite", "micro"], &["compare", "a fox"]] {
        let output = run(folder.path(), "fast", arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(
            message.contains("HEADWATER_KERNEL: fast is no way to compute a convolution"),
            "{arguments:?}: {message}"
        );
    }
}
