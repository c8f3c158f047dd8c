//! `headwater convert` keeps every tensor, and `headwater info` tells what a file is.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::checkpoints::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        // None of these models needs another file.
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
    // Without --dtype, number types stay the same.
    convert(place.path(), &["merged.safetensors", "brain.safetensors", "--dtype", "bf16"]);
    convert(place.path(), &["brain.safetensors", "twice.safetensors", "--lora", &adapter]);
    let twice = tensors_in(&place.path().join("twice.safetensors"));
    assert!(twice.values().all(|(dtype, ..)| *dtype == Dtype::BF16));
    assert!(twice != tensors_in(&place.path().join("brain.safetensors")));
    // A number that half precision cannot hold is an error, not an infinity.
    let much = format!("{}:1e9", loras.join("xl-kohya.safetensors").display());
    let own = folder("stable_diffusion_xl");
    for more in [&[][..], &["--dtype", "f16"]] {
        let arguments = [&["convert", &own, "much.safetensors", "--lora", &much], more].concat();
        let (code, message) = run(place.path(), &arguments);
        assert!(code == Some(1) && message.contains("that half precision does not hold"), "{message}");
    }
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
    expect(&["folder", "folder", "-f"], &["the model that is read lies there"]);
    convert(place.path(), &[&own, "folder", "-f"]);
    assert!(tensors_of(&place.path().join("folder")) == tensors_of(Path::new(&own)));
}

/// `--force` replaces models, and nothing that a person may have put into a folder.
#[test]
fn only_models_are_replaced() {
    let place = tempfile::tempdir().unwrap();
    let (place, own) = (place.path(), folder("stable_diffusion"));
    std::fs::create_dir_all(place.join("mine")).unwrap();
    std::fs::write(place.join("mine/thesis.txt"), "years of work").unwrap();
    convert(place, &[&own, "model"]);
    convert(place, &[&own, "model/unet/inner"]);
    convert(place, &[&own, "with-notes"]);
    std::fs::write(place.join("with-notes/unet/notes.md"), "mine").unwrap();
    for (arguments, part) in [
        ([&*own, "mine"], "thesis.txt, which is no part of a model"),
        ([&*own, "with-notes"], "notes.md, which is no part of a model"),
        ([&*own, "model"], "inner, which is no part of a model"),
        (["model/unet/inner", "model"], "the model that is read lies there"),
    ] {
        let (code, message) = run(place, &[&["convert"], &arguments[..], &["--force"]].concat());
        assert!(code == Some(1) && message.contains(part), "{arguments:?}: {message}");
    }
    assert_eq!(std::fs::read_to_string(place.join("mine/thesis.txt")).unwrap(), "years of work");
    assert!(place.join("model/unet/inner/model_index.json").is_file());
    let hidden = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    assert!(!std::fs::read_dir(place).unwrap().any(|entry| hidden(entry.unwrap())), "nothing hidden is left");
}

#[test]
fn conversions_tell_what_they_leave_out() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let path = |name: &str| place.join(name);
    let warned = |arguments: &[&str], expected: &str| {
        let (code, message) = run(place, &[&["convert"], arguments].concat());
        assert_eq!((code, &*message), (Some(0), expected), "{arguments:?}");
    };
    convert(place, &[&folder("stable_diffusion"), "model"]);
    let index = path("model/model_index.json");
    let mut fields: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    fields["safety_checker"] = serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    fields["feature_extractor"] = serde_json::json!(["transformers", "CLIPImageProcessor"]);
    std::fs::write(&index, fields.to_string()).unwrap();
    for part in ["safety_checker", "feature_extractor"] {
        std::fs::create_dir(path("model").join(part)).unwrap();
    }
    let judge = Tensors::from([("concept_embeds".to_owned(), (Dtype::F16, vec![2, 3], vec![0; 12]))]);
    write(&path("model/safety_checker/model.safetensors"), &judge);
    std::fs::write(path("model/safety_checker/config.json"), "{}").unwrap();
    std::fs::write(path("model/feature_extractor/preprocessor_config.json"), "{\"size\": 4}").unwrap();
    convert(place, &["model", "same"]);
    assert!(tensors_in(&path("same/safety_checker/model.safetensors")) == judge, "folders hold whatever there is");

    write(&path("model/unet/diffusion_pytorch_model.fp16.safetensors"), &judge);
    std::fs::write(path("model/vae/diffusion_pytorch_model.bin"), "PK").unwrap();
    let others = "unet/diffusion_pytorch_model.fp16.safetensors, vae/diffusion_pytorch_model.bin\n";
    warned(&["model", "again"], &format!("warning: again is without {others}"));
    warned(&["model", "one.safetensors"], &format!("warning: one.safetensors is without safety_checker, {others}"));
    // The converted model's index does not list the parts that are left out.
    convert(place, &["one.safetensors", "back"]);
    let fields: Value = serde_json::from_slice(&std::fs::read(path("back/model_index.json")).unwrap()).unwrap();
    assert_eq!(fields["safety_checker"], serde_json::json!([null, null]));
    assert!(!path("back/safety_checker").exists());
    assert_eq!(std::fs::read(path("back/feature_extractor/preprocessor_config.json")).unwrap(), b"{\"size\": 4}");

    // Nor does it list parts whose weights the source lacks and that no pipeline reads, as after a download. Missing
    // weights of other parts are an error.
    std::fs::remove_file(path("same/safety_checker/model.safetensors")).unwrap();
    warned(&["same", "less"], "warning: less is without safety_checker\n");
    assert!(!path("less/safety_checker").exists());
    std::fs::write(path("same/tokenizer/more.json"), "{}").unwrap();
    warned(&["one.safetensors", "more", "--config", "same"], "warning: more is without safety_checker\n");
    assert_eq!(std::fs::read(path("more/tokenizer/more.json")).unwrap(), b"{}");
    std::fs::remove_file(path("same/vae/diffusion_pytorch_model.safetensors")).unwrap();
    let (code, message) = run(place, &["convert", "same", "none"]);
    assert!(
        code == Some(1) && message.starts_with("error: same/vae: has no weights") && !path("none").exists(),
        "{message}"
    );

    let mut trained = single("stable_diffusion");
    for name in ["model_ema.diffusion_modelout2bias", "alphas_cumprod", "first_stage_model.loss.logvar"] {
        trained.insert(name.to_owned(), (Dtype::F16, vec![1], vec![0; 2]));
    }
    write(&path("trained.safetensors"), &trained);
    let lost = "alphas_cumprod, first_stage_model.loss.logvar, model_ema.diffusion_modelout2bias";
    let own = folder("stable_diffusion");
    for to in ["plain.safetensors", "plain"] {
        warned(&["trained.safetensors", to, "--config", &own], &format!("warning: {to} is without {lost}\n"));
    }
}

/// The first checkpoints of diffusers have no folders. The result of a conversion has them.
#[test]
fn a_pipeline_without_folders_becomes_one_with_folders() {
    let place = tempfile::tempdir().unwrap();
    let own = folder("ddpm");
    assert!(Path::new(&own).join("config.json").is_file(), "it has no folders");
    let (text, json) = info(place.path(), &own);
    assert!(text.contains("unet: UNet2DModel, ") && json["problems"] == serde_json::json!([]), "{text}");
    convert(place.path(), &[&own, "model"]);
    for (file, from) in [
        ("unet/config.json", "config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors"),
        ("scheduler/scheduler_config.json", "scheduler_config.json"),
    ] {
        let (file, from) = (place.path().join("model").join(file), Path::new(&own).join(from));
        if file.extension().is_some_and(|end| end == "safetensors") {
            assert!(tensors_in(&file) == tensors_in(&from), "{}", file.display());
        } else {
            assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&from).unwrap(), "{}", file.display());
        }
    }
    let draw = |model: &str| {
        let out = format!("{}.png", model.len());
        let (code, message) =
            run(place.path(), &["generate", "-m", model, "-s1", "--steps", "2", "--device", "cpu", "-q", "-o", &out]);
        assert_eq!(code, Some(0), "{message}");
        pixels(&place.path().join(out))
    };
    assert_eq!(draw("model"), draw(&own));
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

    // All problems are listed, not only the first.
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

/// A shard that is cut in half, named by a correct index.
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
