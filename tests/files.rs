//! The files people have: a single file in latent diffusion's layout gives the picture that diffusers makes of the folder it was made
//! of, and adapters and textual inversions change pictures as they do there.
//!
//! The tiny single files are put together by the lists in `tests/goldens/single_files`, which diffusers' own loader has proved.

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

fn golden_cases(folder: &Path) -> Vec<Value> {
    let cases: Value = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    cases.as_array().unwrap().clone()
}

/// Draws a golden case; the largest difference from diffusers' picture in `pictures`.
fn difference(place: &Path, pictures: &Path, case: &Value, device: &str, more: &[&str]) -> i32 {
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

fn folder(pipeline: &str) -> String {
    goldens().join("pipelines").join(pipeline).to_str().unwrap().to_owned()
}

#[test]
fn the_picture_is_that_of_the_folder() {
    for pipeline in ["stable_diffusion", "stable_diffusion_xl"] {
        let place = tempfile::tempdir().unwrap();
        write(&place.path().join("model.safetensors"), &single(pipeline));
        let pictures = Path::new(&folder(pipeline)).join("pictures");
        for (name, device) in [("default-tall", "cpu"), ("euler", "cpu"), ("euler", "gpu")] {
            let cases = golden_cases(&pictures);
            let case = cases.iter().find(|case| case["file"] == format!("{name}.png")).unwrap();
            let more = ["--model", "model.safetensors", "--config", &folder(pipeline)];
            let worst = difference(place.path(), &pictures, case, device, &more);
            println!("{pipeline}, {name}, {device}: {worst} of 255");
            assert!(worst <= 2, "{pipeline}, {name}, {device}: {worst} of 255");
        }
    }
}

#[test]
fn adapters_change_the_picture_as_in_diffusers() {
    let loras = goldens().join("loras");
    let place = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for case in golden_cases(&loras) {
        let pipeline = case["pipeline"].as_str().unwrap();
        let path = |name: &str| loras.join(format!("{name}.safetensors")).display().to_string();
        let adapters =
            case["loras"].as_object().unwrap().iter().map(|(name, weight)| format!("{}:{weight}", path(name)));
        let mut more = vec!["--model".to_owned(), folder(pipeline)];
        more.extend(adapters.flat_map(|adapter| ["--lora".to_owned(), adapter]));
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        for device in ["cpu", "gpu"] {
            let worst = difference(place.path(), &loras, &case, device, &more);
            println!("{}, {device}: {worst} of 255", case["file"]);
            if worst > 2 {
                wrong.push(format!("{}, {device}: {worst}", case["file"]));
            }
        }
        let none: Vec<&str> = more[..2].to_vec();
        assert!(difference(place.path(), &loras, &case, "cpu", &none) > 8, "without them it is another picture");
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // The same on a single file.
    write(&place.path().join("model.safetensors"), &single("stable_diffusion_xl"));
    let case = golden_cases(&loras).into_iter().find(|case| case["file"] == "xl-kohya+xl-diffusers.png").unwrap();
    let [first, second] = [("xl-kohya", ":0.4"), ("xl-diffusers", "")]
        .map(|(name, weight)| format!("{}{weight}", loras.join(format!("{name}.safetensors")).display()));
    let of = folder("stable_diffusion_xl");
    let more = ["-m", "model.safetensors", "--config", &of, "--lora", &first, "--lora", &second];
    assert!(difference(place.path(), &loras, &case, "cpu", &more) <= 2);
}

#[test]
fn an_autoencoder_given_apart() {
    let place = tempfile::tempdir().unwrap();
    let own = folder("stable_diffusion");
    let mixed = place.path().join("mixed");
    std::fs::create_dir(&mixed).unwrap();
    for part in ["unet", "text_encoder", "tokenizer", "scheduler", "vae"] {
        let from = Path::new(&own).join(part);
        std::fs::create_dir(mixed.join(part)).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, mixed.join(part).join(path.file_name().unwrap())).unwrap();
        }
    }
    // An autoencoder that lacks some of its numbers makes another picture.
    let spoiled = mixed.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = std::fs::read(&spoiled).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    std::fs::write(&spoiled, bytes).unwrap();
    std::fs::copy(Path::new(&own).join("model_index.json"), mixed.join("model_index.json")).unwrap();
    let mut whole = single("stable_diffusion");
    whole.retain(|name, _| name.starts_with("first_stage_model."));
    let plain =
        whole.iter().map(|(name, tensor)| (name["first_stage_model.".len()..].to_owned(), tensor.clone())).collect();
    write(&place.path().join("prefixed.safetensors"), &whole);
    write(&place.path().join("plain.safetensors"), &plain);
    let pictures = Path::new(&own).join("pictures");
    let case = golden_cases(&pictures).into_iter().find(|case| case["file"] == "euler.png").unwrap();
    let draw = |more: &[&str]| difference(place.path(), &pictures, &case, "cpu", &[&["-m", "mixed"], more].concat());
    assert!(draw(&[]) > 8, "the wrong autoencoder");
    let (part, file) = (format!("{own}/vae"), format!("{own}/vae/diffusion_pytorch_model.safetensors"));
    for vae in [&*own, &part, &file, "prefixed.safetensors", "plain.safetensors"] {
        let worst = draw(&["--vae", vae]);
        assert!(worst <= 2, "{vae}: {worst}");
    }
    let text = format!("{own}/text_encoder/model.safetensors");
    for (vae, part) in [
        (&*text, "no AutoencoderKL"),
        ("mixed/unet", "of UNet2DConditionModel, no autoencoder"),
        ("nowhere", "not a model folder"),
    ] {
        let (code, message) = run(place.path(), &["generate", "x", "-m", "mixed", "--device", "cpu", "--vae", vae]);
        assert!(
            code == Some(1) && message.contains(part) && message.trim_end().lines().count() == 1,
            "{vae}: {message}"
        );
    }
}

#[test]
fn adapters_that_cannot_be_added() {
    let place = tempfile::tempdir().unwrap();
    let lora = |name: &str| goldens().join(format!("loras/{name}.safetensors"));
    let expect = |lora: &str, code: i32, parts: &[&str]| {
        let (own, of) = (folder("stable_diffusion"), ["generate", "x", "--device", "cpu", "--steps", "1", "--lora"]);
        let (found, message) = run(place.path(), &[&of[..], &[lora, "-m", &own]].concat());
        assert_eq!(found, Some(code), "{message}");
        assert!(code == 2 || message.trim_end().lines().count() == 1, "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
        assert!(!message.contains("panicked"), "{message}");
    };
    let path = |name: &str| lora(name).display().to_string();
    expect(&path("xl-kohya"), 1, &["xl-kohya.safetensors", "is a LoRA for another model", "lora_te1_", "first"]);
    expect(&path("xl-diffusers"), 1, &["for another model"]);
    expect("nowhere.safetensors", 1, &["nowhere.safetensors", "cannot be read"]);
    expect(&format!("{}:inf", path("peft")), 2, &["--lora", "give a file"]);
    let mut tensors = Tensors::new();
    let bytes = std::fs::read(lora("peft")).unwrap();
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().iter() {
        tensors.insert(name.to_owned(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()));
    }
    let down = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight";
    let change = |change: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        write(&place.path().join("bad.safetensors"), &tensors);
        expect("bad.safetensors", 1, &[&["error: bad.safetensors: "], parts].concat());
    };
    change(&|t| drop(t.remove(down)), &["one of the two matrices", "attn1.to_q"]);
    change(&|t| t.get_mut(down).unwrap().1.swap(0, 1), &["do not fit each other"]);
    change(&|t| t.get_mut(down).unwrap().2[..2].copy_from_slice(&[0, 0x7c]), &["infinities or NaN", down]);
    let renamed = |t: &mut Tensors, to: &str| drop(t.remove(down).map(|tensor| t.insert(to.to_owned(), tensor)));
    change(&|t| renamed(t, "unet.x.hada_w1_a"), &["a LoHa", "unet.x.hada_w1_a"]);
    change(&|t| renamed(t, "unet.x.weight"), &["no LoRA", "unet.x.weight"]);
    let narrow = |t: &mut Tensors| drop(t.insert(down.to_owned(), (Dtype::F16, vec![2, 3], vec![0; 12])));
    change(&narrow, &["for another model", "attn1.to_q", "[2, 3]", "[24, 24]"]);
    std::fs::write(place.path().join("bad.safetensors"), b"PK\x03\x04 and so on").unwrap();
    expect("bad.safetensors", 1, &["pickle", "refused"]);
}

#[test]
fn textual_inversions_mean_what_they_mean_in_diffusers() {
    let embeddings = goldens().join("embeddings");
    let place = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for case in golden_cases(&embeddings) {
        let mut more = vec!["--model".to_owned(), folder(case["pipeline"].as_str().unwrap())];
        for (file, word) in case["embeddings"].as_object().unwrap() {
            let path = embeddings.join(format!("{file}.safetensors")).display().to_string();
            more.extend(["--embedding".into(), word.as_str().map_or(path.clone(), |word| format!("{path}:{word}"))]);
        }
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        for device in ["cpu", "gpu"] {
            let worst = difference(place.path(), &embeddings, &case, device, &more);
            println!("{}, {device}: {worst} of 255", case["file"]);
            if worst > 2 {
                wrong.push(format!("{}, {device}: {worst}", case["file"]));
            }
        }
        let without = difference(place.path(), &embeddings, &case, "cpu", &more[..2]);
        assert!(without > 8, "{}: without them it is another picture", case["file"]);
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // The same on a single file, the settings of which name the words.
    write(&place.path().join("model.safetensors"), &single("stable_diffusion_xl"));
    let case = golden_cases(&embeddings).into_iter().find(|case| case["file"] == "pair.png").unwrap();
    let pair = format!("{}:whorl", embeddings.join("pair.safetensors").display());
    let of = folder("stable_diffusion_xl");
    let more = ["-m", "model.safetensors", "--config", &of, "--embedding", &pair];
    assert!(difference(place.path(), &embeddings, &case, "cpu", &more) <= 2);
    let (_, message) =
        run(place.path(), &[&["generate", "whorl", "-o", "x.png", "-q", "--steps", "1"], &more[..]].concat());
    assert_eq!(message, "");
    let output =
        Command::new(env!("CARGO_BIN_EXE_headwater")).args(["info", "--json", "x.png"]).current_dir(&place).output();
    let json: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(json["headwater"]["embeddings"][0]["token"], "whorl");
    // Published configurations tell the end mark by being the largest id, which learned words exceed.
    let legacy = place.path().join("legacy");
    copy(Path::new(&of), &legacy);
    let config = legacy.join("text_encoder_2/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(r#""eos_token_id": 639"#, r#""eos_token_id": 2"#)).unwrap();
    let more = ["-m", "legacy", "--embedding", &pair];
    assert!(difference(place.path(), &embeddings, &case, "cpu", &more) <= 2);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn textual_inversions_that_cannot_be_learned() {
    let place = tempfile::tempdir().unwrap();
    let expect = |pipeline: &str, embeddings: &[&str], parts: &[&str]| {
        let (own, of) = (folder(pipeline), ["generate", "--device", "cpu", "--steps", "1"]);
        let named = embeddings.iter().flat_map(|embedding| ["--embedding", embedding]).collect::<Vec<_>>();
        let prompt: &[&str] = if pipeline == "ddpm" { &[] } else { &["x"] };
        let (code, message) = run(place.path(), &[&of[..], prompt, &["-m", &own], &named].concat());
        assert_eq!(code, Some(1), "{parts:?}: {message}");
        assert!(message.starts_with("error: ") && message.trim_end().lines().count() == 1, "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    let path = |name: &str| goldens().join(format!("embeddings/{name}.safetensors")).display().to_string();
    let (toy, pair) = (path("toy"), path("pair"));
    expect("stable_diffusion", &[&pair], &["pair.safetensors: is for a model with two CLIP text encoders", "has 1"]);
    expect("stable_diffusion", &[&path("learned_2")], &["for another model", "have 16 numbers", "24"]);
    expect("stable_diffusion", &[&format!("{toy}:squ")], &["toy.safetensors", "the token squ already"]);
    expect("stable_diffusion", &[&toy, &toy], &["the token <toy> already"]);
    expect("stable_diffusion", &[&toy, &format!("{toy}:<TOY>")], &["<TOY> cannot be told from another"]);
    expect("pixart_alpha", &[&toy], &["toy.safetensors: is for CLIP's text encoder", "pixart_alpha has not"]);
    expect("ddpm", &[&toy], &["toy.safetensors: is for CLIP's text encoder", "ddpm has not"]);
    expect("stable_diffusion", &["none.safetensors"], &["none.safetensors: cannot be read"]);
    std::fs::write(place.path().join("old.pt"), b"PK\x03\x04 and so on").unwrap();
    expect("stable_diffusion", &["old.pt:<old>"], &["old.pt: is a zip archive", "pickle", "refused"]);
    let bad = |tensors: &[(&str, Dtype, &[usize], &[u8])], parts: &[&str]| {
        let tensors = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| ((*name).to_owned(), (*dtype, shape.to_vec(), bytes.to_vec())));
        write(&place.path().join("bad.safetensors"), &tensors.collect());
        expect("stable_diffusion", &["bad.safetensors"], &[&["error: bad.safetensors: "], parts].concat());
    };
    let half = |name: &'static str, shape: &'static [usize], bytes: &'static [u8]| (name, Dtype::F16, shape, bytes);
    bad(&[half("<x>", &[1, 2, 1], &[0; 4])], &["<x> of shape [1, 2, 1]"]);
    bad(&[half("<x>", &[0, 24], &[])], &["no vectors in <x>"]);
    bad(&[half("<x>", &[1], &[0, 0x7c])], &["infinities or NaN in <x>"]);
    bad(&[("<x>", Dtype::I8, &[2], &[0; 2])], &["number type I8 for <x>"]);
    bad(&[half(" ", &[1], &[0; 2])], &["has no word"]);
    bad(&[half("a", &[1], &[0; 2]), half("b", &[1], &[0; 2])], &["no textual inversion", "2 tensors (a first)"]);
    bad(&[], &["no textual inversion", "0 tensors"]);
    bad(
        &[half("clip_l", &[1, 1], &[0; 2]), half("clip_g", &[2, 1], &[0; 4])],
        &["1 vectors in clip_l and 2 in clip_g"],
    );
}

#[test]
fn damaged_single_files() {
    let place = tempfile::tempdir().unwrap();
    let whole = single("stable_diffusion");
    let folder = folder("stable_diffusion");
    let expect = |change: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        write(&place.path().join("x.safetensors"), &tensors);
        let arguments = ["generate", "x", "-m", "x.safetensors", "--device", "cpu", "--config", &folder];
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

/// Every tensor of a folder by part and by name without the prefix that versions of transformers differ in.
fn tensors_of(folder: &Path) -> Tensors {
    let mut found = Tensors::new();
    for part in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        for stem in ["diffusion_pytorch_model", "model"] {
            let path = folder.join(part).join(format!("{stem}.safetensors"));
            if path.is_file() {
                let plain = |name: &str| format!("{part}/{}", name.trim_start_matches("text_model."));
                found.extend(tensors_in(&path).into_iter().map(|(name, tensor)| (plain(&name), tensor)));
            }
        }
    }
    found
}

fn tensors_in(file: &Path) -> Tensors {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter();
    tensors.map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

fn convert(place: &Path, arguments: &[&str]) {
    let (code, message) = run(place, &[&["convert"], arguments].concat());
    assert_eq!((code, &*message), (Some(0), ""), "{arguments:?}");
}

#[test]
fn a_folder_becomes_a_file_and_a_folder_again() {
    for pipeline in ["stable_diffusion", "stable_diffusion_xl"] {
        let place = tempfile::tempdir().unwrap();
        let (place, own) = (place.path(), PathBuf::from(folder(pipeline)));
        convert(place, &[&folder(pipeline), "model.safetensors"]);
        let made = tensors_in(&place.join("model.safetensors"));
        assert!(made == single(pipeline), "{pipeline}: not the tensors that diffusers' loader takes");
        convert(place, &["model.safetensors", "again"]);
        assert!(tensors_of(&place.join("again")) == tensors_of(&own), "{pipeline}");
        for entry in [
            "model_index.json",
            "unet/config.json",
            "vae/config.json",
            "text_encoder/config.json",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
            "tokenizer/tokenizer_config.json",
        ] {
            assert_eq!(
                std::fs::read(place.join("again").join(entry)).unwrap(),
                std::fs::read(own.join(entry)).unwrap()
            );
        }
        convert(place, &["again", "single.safetensors", "--dtype", "f32"]);
        convert(place, &["single.safetensors", "half", "--dtype", "f16"]);
        assert!(tensors_of(&place.join("half")) == tensors_of(&own), "{pipeline}: f16 to f32 and back");
        let wide = tensors_in(&place.join("single.safetensors"));
        assert!(wide.values().all(|(dtype, ..)| *dtype == Dtype::F32));
        convert(place, &["single.safetensors", "brain.safetensors", "--dtype", "bf16"]);
        for (name, (dtype, _, bytes)) in tensors_in(&place.join("brain.safetensors")) {
            assert_eq!(dtype, Dtype::BF16);
            for (brain, wide) in bytes.chunks_exact(2).zip(wide[&name].2.chunks_exact(4)) {
                let brain = f32::from_le_bytes([0, 0, brain[0], brain[1]]);
                let wide = f32::from_le_bytes(wide.try_into().unwrap());
                assert!((brain - wide).abs() <= wide.abs() / 256.0 + f32::MIN_POSITIVE, "{name}");
            }
        }
        // None of them needs anything beside it.
        let pictures = own.join("pictures");
        let case = golden_cases(&pictures).into_iter().find(|case| case["file"] == "euler.png").unwrap();
        for model in ["model.safetensors", "again", "single.safetensors"] {
            assert!(difference(place, &pictures, &case, "cpu", &["-m", model]) <= 2, "{pipeline}, {model}");
        }
        assert_eq!(std::fs::read_dir(place).unwrap().count(), 5, "nothing else is left");
    }
}

#[test]
fn adapters_are_merged_for_good() {
    let place = tempfile::tempdir().unwrap();
    let loras = goldens().join("loras");
    let case = golden_cases(&loras).into_iter().find(|case| case["file"] == "xl-kohya.png").unwrap();
    let adapter = format!("{}:0.8", loras.join("xl-kohya.safetensors").display());
    convert(
        place.path(),
        &[&folder("stable_diffusion_xl"), "merged.safetensors", "--lora", &adapter, "--dtype", "f32"],
    );
    assert!(difference(place.path(), &loras, &case, "cpu", &["-m", "merged.safetensors"]) <= 1);
}

#[test]
fn conversions_that_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let expect = |arguments: &[&str], parts: &[&str]| {
        let (code, message) = run(place.path(), &[&["convert"], arguments].concat());
        assert!(code == Some(1) && message.trim_end().lines().count() == 1, "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    std::fs::write(place.path().join("there.safetensors"), "mine").unwrap();
    let own = folder("stable_diffusion");
    expect(&[&own, "there.safetensors"], &["there.safetensors is there already", "--force"]);
    assert_eq!(std::fs::read(place.path().join("there.safetensors")).unwrap(), b"mine");
    expect(&["icons-64", "x.safetensors"], &["PixArtAlphaPipeline", "no single-file layout"]);
    expect(
        &[&folder("latent_consistency"), "x.safetensors"],
        &["LatentConsistencyModelPipeline", "no single-file layout"],
    );
    expect(&[&own, "nowhere/x.safetensors"], &["cannot write nowhere/x.safetensors"]);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "nothing is left behind");
    convert(place.path(), &[&own, "there.safetensors", "-f"]);
    convert(place.path(), &[&own, "folder"]);
    convert(place.path(), &["folder", "folder", "-f"]);
    assert!(tensors_of(&place.path().join("folder")) == tensors_of(Path::new(&own)), "onto itself");
}

fn info(place: &Path, what: &str) -> (String, Value) {
    let output = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args([&["info", what], more].concat())
            .current_dir(place)
            .output()
            .unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    (output(&[]), serde_json::from_str(&output(&["--json"])).unwrap())
}

#[test]
fn info_tells_what_a_model_is() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let own = folder("stable_diffusion_xl");
    convert(place.path(), &[&own, "model.safetensors"]);
    for what in ["model.safetensors", &own] {
        let (text, json) = info(place.path(), what);
        assert!(
            text.contains("StableDiffusionXLPipeline\n") && text.contains("unet: UNet2DConditionModel, "),
            "{text}"
        );
        assert_eq!(json["problems"], serde_json::json!([]), "{what}");
        let parts = json["parts"].as_array().unwrap();
        let part = |name: &str| parts.iter().find(|part| part["name"] == name).unwrap();
        let numbers: usize = tensors_of(Path::new(&own))
            .iter()
            .filter(|(name, _)| name.starts_with("unet/"))
            .map(|(_, (_, shape, _))| shape.iter().product::<usize>())
            .sum();
        assert_eq!(part("unet")["weights"]["parameters"], numbers, "{what}");
        assert_eq!(part("unet")["weights"]["dtypes"], serde_json::json!(["F16"]));
        assert!(part("tokenizer")["weights"].is_null());
    }
    assert_eq!(info(place.path(), "model.safetensors").1["family"], "Stable Diffusion XL");

    // Everything that is wrong, not the first of it.
    convert(place.path(), &["model.safetensors", "broken"]);
    let mut unet = tensors_in(&path("broken/unet/diffusion_pytorch_model.safetensors"));
    unet.remove("conv_in.bias");
    unet.get_mut("conv_out.bias").unwrap().2[..2].copy_from_slice(&[0, 0x7e]);
    write(&path("broken/unet/diffusion_pytorch_model.safetensors"), &unet);
    std::fs::write(path("broken/text_encoder/model.safetensors"), "short").unwrap();
    std::fs::write(path("broken/scheduler/scheduler_config.json"), "{\"_class_name\": \"Magic\"}").unwrap();
    let (text, json) = info(place.path(), "broken");
    assert_eq!(json["problems"].as_array().unwrap().len(), 3, "{text}");
    let parts = ["is missing conv_in.bias", "NaN in conv_out.bias", "broken/text_encoder/model.safetensors", "Magic"];
    parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
}

#[test]
fn info_tells_what_other_files_are() {
    let place = tempfile::tempdir().unwrap();
    let lora = |name: &str| info(place.path(), goldens().join(format!("loras/{name}.safetensors")).to_str().unwrap());
    let (text, json) = lora("xl-kohya");
    assert!(text.starts_with("LoRA in kohya's names, rank 2, 73 layers, "), "{text}");
    assert_eq!(json["parts"], serde_json::json!({ "text_encoder": 4, "text_encoder_2": 4, "unet": 65 }));
    assert_eq!(lora("peft").1["spelling"], "PEFT");
    assert_eq!(lora("processor").1["rank"], serde_json::json!([1, 1]));

    let word = Tensors::from([("<cat>".to_owned(), (Dtype::F16, vec![2, 3], vec![0; 12]))]);
    write(&place.path().join("word.safetensors"), &word);
    assert_eq!(info(place.path(), "word.safetensors").0, "textual inversion\n<cat>: 2 tokens of 3 channels\n");
    let mut half = single("stable_diffusion");
    half.retain(|name, _| name.starts_with("model.diffusion_model."));
    write(&place.path().join("half.safetensors"), &half);
    let (text, json) = info(place.path(), "half.safetensors");
    assert!(text.starts_with("problem: half.safetensors: holds a UNet and no text encoder"), "{text}");
    assert_eq!(json["problems"].as_array().unwrap().len(), 1);
}

/// Half a shard, named by an index that is whole.
#[test]
fn a_shard_that_ends_early() {
    let place = tempfile::tempdir().unwrap();
    convert(place.path(), &[&folder("stable_diffusion"), "model"]);
    let unet = place.path().join("model/unet");
    let tensors = tensors_in(&unet.join("diffusion_pytorch_model.safetensors"));
    std::fs::remove_file(unet.join("diffusion_pytorch_model.safetensors")).unwrap();
    let mut shards = [Tensors::new(), Tensors::new()];
    let mut map = serde_json::Map::new();
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i % 2 + 1).into());
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        write(&unet.join(format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1)), shard);
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    std::fs::write(unet.join("diffusion_pytorch_model.safetensors.index.json"), index).unwrap();
    let pictures = PathBuf::from(folder("stable_diffusion")).join("pictures");
    let case = golden_cases(&pictures).into_iter().find(|case| case["file"] == "euler.png").unwrap();
    assert!(difference(place.path(), &pictures, &case, "cpu", &["-m", "model"]) <= 2, "whole shards");
    let second = unet.join("diffusion_pytorch_model-00002-of-00002.safetensors");
    let bytes = std::fs::read(&second).unwrap();
    std::fs::write(&second, &bytes[..bytes.len() / 2]).unwrap();
    let (code, message) = run(place.path(), &["generate", "x", "-m", "model", "--device", "cpu"]);
    assert!(code == Some(1) && message.trim_end().lines().count() == 1, "{message}");
    assert!(message.contains("00002-of-00002.safetensors") && message.contains("truncated"), "{message}");
}
