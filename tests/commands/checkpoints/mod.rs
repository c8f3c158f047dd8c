//! What tests of checkpoint files share: running the program, and reading what it wrote.

#![allow(dead_code, reason = "every test file uses a part of this")]

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

pub(crate) fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(crate) fn pixels(path: &Path) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(frame.buffer_size());
    pixels
}

/// All tensors of the single file: type, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn single(pipeline: &str) -> Tensors {
    let folder = goldens().join("pipelines").join(pipeline);
    let mut parts = BTreeMap::new();
    for part in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        for stem in ["diffusion_pytorch_model", "model"] {
            if let Ok(bytes) = std::fs::read(folder.join(part).join(format!("{stem}.safetensors"))) {
                parts.insert(part, bytes);
            }
        }
    }
    let list = std::fs::read(goldens().join(format!("single_files/{pipeline}.json"))).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let mut out = Tensors::new();
    for line in list.as_array().unwrap() {
        let file = SafeTensors::deserialize(&parts[line[1].as_str().unwrap()]).unwrap();
        let names = line[2].as_array().unwrap();
        let tensors: Vec<TensorView<'_>> =
            names.iter().map(|name| file.tensor(name.as_str().unwrap()).unwrap()).collect();
        let mut shape = tensors[0].shape().to_vec();
        let mut bytes: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data().to_vec()).collect();
        match line[3].as_str().unwrap() {
            "stacked" => shape[0] *= 3,
            "pointwise" => shape.extend([1, 1]),
            "transposed" => {
                let (rows, columns) = (shape[0], shape[1]);
                let halves: Vec<&[u8]> = bytes.chunks(2).collect();
                bytes = (0..rows * columns).flat_map(|i| halves[i % rows * columns + i / rows].to_vec()).collect();
                shape.reverse();
            }
            _ => {}
        }
        out.insert(line[0].as_str().unwrap().to_owned(), (tensors[0].dtype(), shape, bytes));
    }
    out
}

pub(crate) fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

pub(crate) fn golden_cases(folder: &Path) -> Vec<Value> {
    let cases: Value = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    cases.as_array().unwrap().clone()
}

/// Draws a golden case and returns the largest difference from diffusers' picture in `pictures`.
pub(crate) fn difference(place: &Path, pictures: &Path, case: &Value, device: &str, more: &[&str]) -> i32 {
    let text = |name: &str| case[name].as_str().map_or_else(|| case[name].to_string(), str::to_owned);
    let mut arguments = vec!["generate".to_owned(), text("prompt"), "-q".into(), "--rng".into(), "torch-cpu".into()];
    for (flag, field) in [
        ("--negative-prompt", "negative_prompt"),
        ("--seed", "seed"),
        ("--steps", "steps"),
        ("--height", "height"),
        ("--width", "width"),
        ("--guidance", "guidance_scale"),
        ("--sampler", "sampler"),
        ("--clip-skip", "clip_skip"),
    ] {
        if !case[field].is_null() {
            arguments.extend([flag.to_owned(), text(field)]);
        }
    }
    arguments.extend(["--device", device, "-o", "out.png"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let (code, message) = run(place, &arguments);
    assert_eq!(code, Some(0), "{case}: {message}");
    let (ours, theirs) = (pixels(&place.join("out.png")), pixels(&pictures.join(text("file"))));
    std::fs::remove_file(place.join("out.png")).unwrap();
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(&theirs).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).max().unwrap()
}

pub(crate) fn folder(pipeline: &str) -> String {
    goldens().join("pipelines").join(pipeline).to_str().unwrap().to_owned()
}
