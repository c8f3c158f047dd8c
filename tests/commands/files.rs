//! The files people have: a single file in latent diffusion's layout gives the picture that diffusers makes of the folder it was made
//! of, and adapters and textual inversions change pictures as they do there.
//!
//! The tiny single files are put together by the lists in `tests/goldens/single_files`, which diffusers' own loader has proved.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::checkpoints::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

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

/// A network by itself, in every spelling of its names: what it lacks is read in the folder that is given with it, or said.
#[test]
fn a_network_alone_makes_the_picture_of_the_folder() {
    for pipeline in ["stable_diffusion", "stable_diffusion_xl"] {
        let place = tempfile::tempdir().unwrap();
        let (own, prefix) = (folder(pipeline), "model.diffusion_model.");
        let mut whole = single(pipeline);
        whole.retain(|name, _| name.starts_with(prefix));
        write(&place.path().join("prefixed.safetensors"), &whole);
        let bare = whole.iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor.clone())).collect();
        write(&place.path().join("bare.safetensors"), &bare);
        let unet = format!("{own}/unet/diffusion_pytorch_model.safetensors");
        std::fs::copy(&unet, place.path().join("diffusers.safetensors")).unwrap();
        // Everything but the network's weights.
        let rest = place.path().join("rest");
        for part in ["unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "vae"] {
            let Ok(entries) = std::fs::read_dir(Path::new(&own).join(part)) else { continue };
            std::fs::create_dir_all(rest.join(part)).unwrap();
            for path in entries.map(|entry| entry.unwrap().path()) {
                if part != "unet" || path.extension().is_some_and(|end| end == "json") {
                    std::fs::copy(&path, rest.join(part).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
        std::fs::copy(Path::new(&own).join("model_index.json"), rest.join("model_index.json")).unwrap();
        let pictures = Path::new(&own).join("pictures");
        let case = golden_cases(&pictures).into_iter().find(|case| case["file"] == "euler.png").unwrap();
        for file in ["prefixed.safetensors", "bare.safetensors", "diffusers.safetensors"] {
            let worst = difference(place.path(), &pictures, &case, "cpu", &["--model", file, "--config", "rest"]);
            assert!(worst <= 2, "{pipeline}, {file}: {worst} of 255");
        }
        // Without an autoencoder in that folder, one is wanted by itself.
        std::fs::rename(rest.join("vae"), place.path().join("vae")).unwrap();
        let (code, message) =
            run(place.path(), &["generate", "x", "-m", "bare.safetensors", "--device", "cpu", "--config", "rest"]);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.trim_end().ends_with("must be given apart (--vae DIR or FILE)"), "{message}");
        let more = ["--model", "bare.safetensors", "--config", "rest", "--vae", "vae"];
        let worst = difference(place.path(), &pictures, &case, "cpu", &more);
        assert!(worst <= 2, "{pipeline}: {worst} of 255");
        // The folder's index may say that its pipeline comes without one.
        std::fs::copy(&unet, rest.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
        let index = std::fs::read(rest.join("model_index.json")).unwrap();
        let mut index: Value = serde_json::from_slice(&index).unwrap();
        for absent in [serde_json::json!([null, null]), Value::Null] {
            index["vae"] = absent;
            std::fs::write(rest.join("model_index.json"), index.to_string()).unwrap();
            let worst = difference(place.path(), &pictures, &case, "cpu", &["--model", "rest", "--vae", "vae"]);
            assert!(worst <= 2, "{pipeline}: {worst} of 255");
            let (code, message) = run(place.path(), &["generate", "x", "-m", "rest", "--device", "cpu"]);
            assert!(code == Some(2) && message.contains("or --vae an autoencoder"), "{message}");
        }
    }
}

/// Adapters are told by the names that they are read by, whether or not these have their kind's word in them.
#[test]
fn info_tells_adapters_of_every_kind() {
    let place = tempfile::tempdir().unwrap();
    let info = |tensors: &Tensors| -> String {
        write(&place.path().join("x.safetensors"), tensors);
        let output =
            Command::new(env!("CARGO_BIN_EXE_headwater")).args(["info", "x.safetensors"]).current_dir(&place).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let tensor = || (Dtype::F16, vec![1, 1], vec![0, 0]);
    for names in [
        &["lycoris_down_blocks_0.lokr_w1", "lycoris_down_blocks_0.lokr_w2"][..],
        &[
            "base_model.model.down.hada_w1_a",
            "base_model.model.down.hada_w1_b",
            "base_model.model.down.hada_w2_a",
            "base_model.model.down.hada_w2_b",
        ],
        &["diffusion_model.out.2.diff", "diffusion_model.out.2.diff_b"],
        &["unet.x.lora_A.weight", "unet.x.lora_B.weight", "unet.x.lora_magnitude_vector"],
    ] {
        let tensors: Tensors = names.iter().map(|name| ((*name).to_owned(), tensor())).collect();
        let text = info(&tensors);
        assert!(text.starts_with("LoRA in ") && text.contains("unet: 1 layers"), "{names:?}: {text}");
    }
    // A word inside a name is no kind.
    let plain: Tensors = ["flora.weight", "my.exploration"].iter().map(|name| ((*name).to_owned(), tensor())).collect();
    assert!(info(&plain).starts_with("safetensors checkpoint, 2 tensors"), "{}", info(&plain));
    let mut unet = single("stable_diffusion");
    unet.retain(|name, _| name.starts_with("model.diffusion_model."));
    assert!(info(&unet).starts_with("problem: x.safetensors: holds a UNet and no text encoder"), "{}", info(&unet));
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
    // An autoencoder with a part of its numbers set to zero makes another picture.
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
    expect(
        &format!("{}:1e30", path("peft")),
        1,
        &["peft.safetensors: is too large to be added", "1e30", "half precision does not hold"],
    );
    expect(&folder("stable_diffusion"), 1, &["is a folder, and a file is wanted"]);
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
    change(&|t| renamed(t, "unet.x.oft_blocks"), &["is an OFT", "unet.x.oft_blocks"]);
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
    // The same with a single file. The picture's settings contain the words.
    write(&place.path().join("model.safetensors"), &single("stable_diffusion_xl"));
    let case = golden_cases(&embeddings).into_iter().find(|case| case["file"] == "pair.png").unwrap();
    let pair = format!("{}:whorl", embeddings.join("pair.safetensors").display());
    let of = folder("stable_diffusion_xl");
    let more = ["-m", "model.safetensors", "--config", &of, "--embedding", &pair];
    assert!(difference(place.path(), &embeddings, &case, "cpu", &more) <= 2);
    let (_, message) = run(
        place.path(),
        &[&["generate", "whorl", "-o", "x.png", "--force", "-q", "--steps", "1"], &more[..]].concat(),
    );
    assert_eq!(message, "");
    let output =
        Command::new(env!("CARGO_BIN_EXE_headwater")).args(["info", "--json", "x.png"]).current_dir(&place).output();
    let json: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(json["headwater"]["embeddings"][0]["token"], "whorl");
    // Old configurations define the end mark as the largest id. The ids of learned words are larger, and must not be
    // taken for it.
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
        &["is missing", name],
    );
    let query = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight";
    expect(&|t| t.get_mut(query).unwrap().2[..2].copy_from_slice(&[0, 0x7e]), &["NaN", query]);
    expect(
        &|t| t.get_mut("model.diffusion_model.out.2.bias").unwrap().1 = vec![2, 2],
        &["[2, 2] instead of [4]", "out.2.bias"],
    );
    expect(&|t| t.retain(|name, _| !name.starts_with("first_stage")), &["vae", "has no weights in this file"]);
}
