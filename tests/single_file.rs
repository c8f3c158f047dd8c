//! A single file in latent diffusion's layout gives the picture that diffusers makes of the folder it was made of.
//!
//! The tiny files are put together by the lists in `tests/goldens/single_files`, which diffusers' own loader has proved.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn pixels(path: &Path) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(frame.buffer_size());
    pixels
}

/// All tensors of the single file: type, shape, bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn single(pipeline: &str) -> Tensors {
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

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Draws one golden case with the given files on a device; the largest difference from diffusers' picture.
fn difference(place: &Path, pipeline: &str, case: &str, device: &str, more: &[&str]) -> i32 {
    let pictures = goldens().join("pipelines").join(pipeline).join("pictures");
    let cases: Value = serde_json::from_slice(&std::fs::read(pictures.join("cases.json")).unwrap()).unwrap();
    let file = format!("{case}.png");
    let case = cases.as_array().unwrap().iter().find(|one| one["file"] == *file).unwrap();
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
    ] {
        if !case[field].is_null() {
            arguments.extend([flag.to_owned(), text(field)]);
        }
    }
    arguments.extend(["--device", device, "-o", "out.png"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let (code, message) = run(place, &arguments);
    assert_eq!(code, Some(0), "{pipeline}, {file}: {message}");
    let (ours, theirs) = (pixels(&place.join("out.png")), pixels(&pictures.join(&file)));
    std::fs::remove_file(place.join("out.png")).unwrap();
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(&theirs).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).max().unwrap()
}

#[test]
fn the_picture_is_that_of_the_folder() {
    for pipeline in ["stable_diffusion", "stable_diffusion_xl"] {
        let place = tempfile::tempdir().unwrap();
        write(&place.path().join("model.safetensors"), &single(pipeline));
        let folder = goldens().join("pipelines").join(pipeline);
        let more = ["--model", "model.safetensors", "--config", folder.to_str().unwrap()];
        for (case, device) in [("default-tall", "cpu"), ("euler", "cpu"), ("euler", "gpu")] {
            let worst = difference(place.path(), pipeline, case, device, &more);
            assert!(worst <= 2, "{pipeline}, {case}, {device}: {worst} of 255");
        }
    }
}

#[test]
fn damaged_single_files() {
    let place = tempfile::tempdir().unwrap();
    let whole = single("stable_diffusion");
    let folder = goldens().join("pipelines/stable_diffusion");
    let expect = |change: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        write(&place.path().join("x.safetensors"), &tensors);
        let arguments =
            ["generate", "x", "-m", "x.safetensors", "--device", "cpu", "--config", folder.to_str().unwrap()];
        let (code, message) = run(place.path(), &arguments);
        assert_eq!(code, Some(1), "{parts:?}: {message}");
        assert!(message.starts_with("error: x.safetensors") && message.trim_end().lines().count() == 1, "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    let name = "model.diffusion_model.output_blocks.1.2.conv.weight";
    expect(&|t| drop(t.remove(name)), &["is missing", name]);
    expect(
        &|t| drop(t.remove(name).map(|tensor| t.insert("model.diffusion_model.renamed".into(), tensor))),
        &["renamed"],
    );
    let query = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight";
    expect(&|t| t.get_mut(query).unwrap().2[..2].copy_from_slice(&[0, 0x7e]), &["NaN", query]);
    expect(
        &|t| t.get_mut("model.diffusion_model.out.2.bias").unwrap().1 = vec![2, 2],
        &["[2, 2] instead of [4]", "out.2.bias"],
    );
    expect(&|t| t.retain(|name, _| !name.starts_with("first_stage")), &["first_stage_model.decoder", "vae"]);
}
