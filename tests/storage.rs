//! How weights and values are stored: devices agree on what rounded weights give, and halves give nearly the same picture.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{model, read};
use std::path::Path;
use std::process::Command;

/// A picture by a tiny model of Stable Diffusion's kind.
fn picture(folder: &Path, device: &str, dtype: &str, activations: &str) -> headwater::RgbImage {
    let name = format!("{device}-{dtype}-{activations}.png");
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["generate", "a fox", "-m", &model("stable_diffusion"), "--steps", "3", "--seed", "5", "-o", &name])
        .args(["--device", device, "--dtype", dtype])
        .env("HEADWATER_ACTIVATIONS", activations)
        .env("HEADWATER_KERNEL_CACHE", "off")
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read(folder, &name)
}

/// Root mean square of the difference, in levels of 255, and its largest value.
fn apart(a: &headwater::RgbImage, b: &headwater::RgbImage) -> (f64, u8) {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let levels: Vec<u8> = a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
    let squares: f64 = levels.iter().map(|level| f64::from(*level).powi(2)).sum();
    ((squares / levels.len() as f64).sqrt(), levels.into_iter().max().unwrap_or(0))
}

/// How far diffusers' own UNet in half precision moves this model's pictures in three steps, at most of eight seeds.
const DIFFUSERS_HALF: f64 = 0.76;

/// The same by weights of linear layers and convolutions rounded to `q8_0`, at most of four seeds.
const DIFFUSERS_EIGHT: f64 = 0.85;

#[test]
fn devices_agree_on_weights_of_eight_bits_and_halves_are_near() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let single = picture(folder, "cpu", "f32", "");
    let eight = picture(folder, "cpu", "q8_0", "");
    let (rms, _) = apart(&single, &eight);
    assert!(rms > 0.0 && rms <= 2.0 * DIFFUSERS_EIGHT, "eight bits move the picture by {rms} levels");
    // The same rounded weights on an adapter.
    let (_, largest) = apart(&eight, &picture(folder, "llvmpipe", "q8_0", ""));
    assert!(largest <= 1, "{largest} levels between devices");
    // Whoever asks for singles has no halves.
    let adapter = picture(folder, "llvmpipe", "f32", "");
    assert_eq!(adapter.pixels, picture(folder, "llvmpipe", "f32", "f16").pixels);
    let (rms, _) = apart(&adapter, &picture(folder, "llvmpipe", "auto", "f16"));
    assert!(rms > 0.0 && rms <= 2.0 * DIFFUSERS_HALF, "activations of halves move the picture by {rms} levels");
    assert!(!folder.join("cache/headwater").exists(), "nothing is kept where that is turned off");
}
