//! Damaged and foreign checkpoints: one sentence that names the file, exit code 1, nothing written.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A copy of a golden pipeline to be damaged.
fn copy(name: &str, to: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pipelines").join(name);
    let folder = to.join("model");
    copy_folder(&from, &folder);
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn edit_json(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    edit(path, |bytes| {
        let mut value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        *bytes = serde_json::to_vec(&value).unwrap();
    });
}

/// Damages a copy and expects a run to end with a sentence that holds every part.
fn expect(what: &str, damage: impl FnOnce(&Path), parts: &[&str]) {
    expect_of("pixels", what, damage, parts);
}

fn expect_of(pipeline: &str, what: &str, damage: impl FnOnce(&Path), parts: &[&str]) {
    expect_end(pipeline, &["a red square", "--steps", "1"], 1, what, damage, parts);
}

/// Expects a run with these arguments to end with this code and a sentence that holds every part.
fn expect_end(pipeline: &str, arguments: &[&str], code: i32, what: &str, damage: impl FnOnce(&Path), parts: &[&str]) {
    let place = tempfile::tempdir().unwrap();
    let model = copy(pipeline, place.path());
    damage(&model);
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["generate", "--model", "model", "--device", "cpu", "-q"])
        .args(arguments)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {message}");
    assert!(message.starts_with("error: ") && message.trim_end().lines().count() == 1, "{what}: {message}");
    for part in parts {
        assert!(message.contains(part), "{what}: {message}");
    }
    assert!(output.stdout.is_empty(), "{what}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "{what}: nothing is written");
}

const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
const CONFIG: &str = "transformer/config.json";

#[test]
fn the_whole_copy_works() {
    let place = tempfile::tempdir().unwrap();
    copy("pixels", place.path());
    let status = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args([
            "generate",
            "a red square",
            "--model",
            "model",
            "--device",
            "cpu",
            "--steps",
            "1",
            "-q",
            "-o",
            "x.png",
            "--force",
        ])
        .current_dir(place.path())
        .status()
        .unwrap();
    assert!(status.success() && place.path().join("x.png").is_file());
}

#[test]
fn damaged_weights() {
    expect("truncated", |m| edit(&m.join(WEIGHTS), |b| b.truncate(b.len() / 2)), &["model.safetensors", "truncated"]);
    expect("empty", |m| edit(&m.join(WEIGHTS), Vec::clear), &["model.safetensors", "0 bytes"]);
    expect("huge header", |m| edit(&m.join(WEIGHTS), |b| b[..8].fill(0xff)), &["model.safetensors", "header"]);
    expect("no JSON", |m| edit(&m.join(WEIGHTS), |b| b[8] = b'!'), &["model.safetensors", "JSON"]);
    let hostile = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 16]);
        bytes
    };
    let overlap = hostile(
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#,
    );
    expect("overlap", |m| fs::write(m.join(WEIGHTS), overlap).unwrap(), &["damaged"]);
    let overflow = hostile(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,16]}}"#);
    expect("overflow", |m| fs::write(m.join(WEIGHTS), overflow).unwrap(), &["damaged"]);
    let nan = |b: &mut Vec<u8>| {
        let end = b.len();
        b[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    expect("NaN", |m| edit(&m.join(WEIGHTS), nan), &["transformer", "NaN"]);
    expect("no weights", |m| fs::remove_file(m.join(WEIGHTS)).unwrap(), &["transformer", "no weights"]);
    expect(
        "pickle",
        |m| fs::rename(m.join(WEIGHTS), m.join("transformer/diffusion_pytorch_model.bin")).unwrap(),
        &["pickle", "refused"],
    );
}

#[test]
fn weights_that_do_not_fit_the_configuration() {
    let with = |field: &'static str, value: u64| {
        move |m: &Path| edit_json(&m.join(CONFIG), |config| config[field] = value.into())
    };
    expect("missing", with("num_layers", 3), &["missing", "transformer_blocks.2."]);
    expect("deeper", with("num_layers", 1), &["more layers than its configuration says", "transformer_blocks.1."]);
    expect("misshapen", with("patch_size", 4), &["pos_embed.proj.weight", "[40, 3, 8, 8]"]);
}

/// Tensors that no part reads stop nothing, and are told of once.
#[test]
fn tensors_that_are_left_over_are_told() {
    let place = tempfile::tempdir().unwrap();
    let model = copy("pixels", place.path());
    let bytes = fs::read(model.join(WEIGHTS)).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let stray = [("manager.weight".to_owned(), weights.tensor(weights.names()[0]).unwrap())];
    let all = weights.iter().map(|(name, tensor)| (name.to_owned(), tensor)).chain(stray);
    fs::write(model.join(WEIGHTS), safetensors::serialize(all, None).unwrap()).unwrap();
    let arguments =
        ["generate", "a red square", "--steps", "1", "--model", "model", "--device", "cpu", "-o", "out.png", "--force"];
    let output =
        Command::new(env!("CARGO_BIN_EXE_headwater")).args(arguments).current_dir(place.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{message}");
    let warnings: Vec<&str> = message.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("manager.weight"), "{message}");
}

#[test]
fn configurations_that_cannot_be_honoured() {
    let set = |file: &'static str, field: &'static str, value: &'static str| {
        move |m: &Path| edit_json(&m.join(file), |config| config[field] = value.into())
    };
    expect("quantized", set(CONFIG, "quantization_config", "yes"), &["config.json", "quantization_config"]);
    expect("other transformer", set(CONFIG, "_class_name", "FluxTransformer2DModel"), &["FluxTransformer2DModel"]);
    // Python writes infinities into this file, which are not JSON, so it is edited as text.
    let scheduler = |from: &'static str, to: &'static str| {
        move |m: &Path| {
            edit(&m.join("scheduler/scheduler_config.json"), |bytes| {
                let text = String::from_utf8(bytes.clone()).unwrap();
                assert!(text.contains(from));
                *bytes = text.replace(from, to).into_bytes();
            });
        }
    };
    expect("other scheduler", scheduler("DPMSolverMultistepScheduler", "MagicScheduler"), &["MagicScheduler"]);
    expect("unknown scheduler field", scheduler("\"beta_start\"", "\"magic\": 1, \"beta_start\""), &["magic"]);
    expect("no JSON", |m| fs::write(m.join("model_index.json"), "{").unwrap(), &["model_index.json"]);
    expect("no tokenizer", |m| fs::remove_dir_all(m.join("tokenizer")).unwrap(), &["tokenizer"]);
    expect("no scheduler", |m| fs::remove_dir_all(m.join("scheduler")).unwrap(), &["scheduler_config.json"]);
    let narrow = |m: &Path| edit_json(&m.join(CONFIG), |config| config["caption_channels"] = 16.into());
    expect("text of another width", narrow, &["24 channels"]);
}

#[test]
fn latent_pipelines() {
    let index = |class: &'static str| {
        move |m: &Path| edit_json(&m.join("model_index.json"), |json| json["_class_name"] = class.into())
    };
    let field = |part: &'static str, name: &'static str, value: serde_json::Value| {
        move |m: &Path| edit_json(&m.join(part).join("config.json"), |json| json[name] = value.clone())
    };
    let of = |what: &str, damage: &dyn Fn(&Path), parts: &[&str]| expect_of("stable_diffusion", what, damage, parts);
    of("another task's class", &index("StableDiffusionControlNetPipeline"), &["model_index.json", "is not supported"]);
    of("no autoencoder", &|m| fs::remove_dir_all(m.join("vae")).unwrap(), &["vae/config.json", "is missing"]);
    of("masked inputs", &field("unet", "in_channels", 9.into()), &["unet/config.json"]);
    let parts = ["vae", "another shape", "decoder.conv_in.weight"];
    of("other latents", &field("vae", "latent_channels", 5.into()), &parts);
    of("a scale of zero", &field("vae", "scaling_factor", 0.into()), &["vae/config.json"]);
    of(
        "a smaller model in a larger pipeline",
        &index("StableDiffusionXLPipeline"),
        &["unet/config.json", "no embedding"],
    );

    let of = |what: &str, damage: &dyn Fn(&Path), parts: &[&str]| expect_of("stable_diffusion_xl", what, damage, parts);
    of("the reverse", &index("StableDiffusionPipeline"), &["unet/config.json", "does not give"]);
    let refiner =
        |m: &Path| edit_json(&m.join("model_index.json"), |json| json["requires_aesthetics_score"] = true.into());
    // A refiner is told one number less about the picture than the base model, so more of its embedding is left for the prompt.
    of("a base model taken for a refiner", &refiner, &["projects prompts to 20 channels", "takes 28"]);
    of("one encoder", &|m| fs::remove_dir_all(m.join("text_encoder_2")).unwrap(), &["text_encoder_2", "is missing"]);
    let parts = ["text_encoder_2", "text_projection.weight", "another shape"];
    of("another projection", &field("text_encoder_2", "projection_dim", 8.into()), &parts);
    let wide = |m: &Path| {
        edit_json(&m.join("unet/config.json"), |json| json["projection_class_embeddings_input_dim"] = 60.into());
    };
    of("another embedding", &wide, &["projects prompts to 20 channels", "takes 12"]);
    of(
        "other hidden states",
        &field("unet", "cross_attention_dim", 24.into()),
        &["encoders give 40 channels", "takes 24"],
    );
}

#[test]
fn pipelines_with_t5() {
    let of = |what: &str, damage: &dyn Fn(&Path), parts: &[&str]| expect_of("pixart_alpha", what, damage, parts);
    let field = |name: &'static str, value: serde_json::Value| {
        move |m: &Path| edit_json(&m.join("text_encoder/config.json"), |json| json[name] = value.clone())
    };
    of("another family", &field("model_type", "umt5".into()), &["text_encoder/config.json", "umt5"]);
    of("another activation", &field("feed_forward_proj", "gated-silu".into()), &["text_encoder/config.json"]);
    of("a gate too many", &field("feed_forward_proj", "gated-gelu".into()), &["text_encoder", "wi_0.weight"]);
    of("fewer rows than tokens", &field("vocab_size", 70.into()), &["a token 77", "70 rows"]);
    let tokenizer = |m: &Path| {
        fs::remove_file(m.join("tokenizer/tokenizer.json")).unwrap();
        fs::write(m.join("tokenizer/spiece.model"), b"\xff\xff").unwrap();
    };
    of("a damaged vocabulary", &tokenizer, &["spiece.model", "is not a SentencePiece model"]);
}

#[test]
fn networks_without_text() {
    let field = |file: &'static str, name: &'static str, value: serde_json::Value| {
        move |m: &Path| edit_json(&m.join(file), |json| json[name] = value.clone())
    };
    let of = |pipeline: &str, what: &str, damage: &dyn Fn(&Path), parts: &[&str]| {
        expect_end(pipeline, &["--steps", "1"], 1, what, damage, parts);
    };
    let config = "unet/config.json";
    of("consistency", "another activation", &field(config, "act_fn", "mish".into()), &[config, "act_fn"]);
    of(
        "consistency",
        "a learned embedding",
        &field(config, "time_embedding_type", "learned".into()),
        &[config, "learned"],
    );
    of(
        "consistency",
        "more classes",
        &field(config, "num_class_embeds", 6.into()),
        &["class_embedding.weight", "[6, 48]"],
    );
    of("consistency", "a learned variance", &field(config, "out_channels", 6.into()), &[config, "6 channels"]);
    of(
        "consistency",
        "no shift",
        &field(config, "resnet_time_scale_shift", "default".into()),
        &["time_emb_proj.weight"],
    );
    let kind = field("model_index.json", "unet", serde_json::json!(["diffusers", "UNet2DConditionModel"]));
    of("consistency", "another network", &kind, &["model_index.json", "UNet2DConditionModel"]);
    of("consistency", "no network", &|m| fs::remove_dir_all(m.join("unet")).unwrap(), &["unet", "is missing"]);
    of("ddpm", "no network", &|m| fs::remove_file(m.join("config.json")).unwrap(), &["unet/config.json", "is missing"]);
    of(
        "ddpm",
        "no scheduler",
        &|m| fs::remove_file(m.join("scheduler_config.json")).unwrap(),
        &["scheduler_config.json"],
    );
    let heads = field("config.json", "attention_head_dim", 7.into());
    of("ddpm", "heads of another size", &heads, &["24 channels do not split into heads of 7"]);

    let usage = |pipeline: &str, arguments: &[&str], damage: &dyn Fn(&Path), parts: &[&str]| {
        expect_end(pipeline, arguments, 2, &arguments.join(" "), damage, parts);
    };
    let whole = |_: &Path| ();
    usage("consistency", &["a cat"], &whole, &["reads no text"]);
    usage("consistency", &["--negative-prompt", "a cat"], &whole, &["reads no text"]);
    usage("consistency", &["--class-label", "5"], &whole, &["classes 0 to 4"]);
    usage("consistency", &["--guidance", "2"], &whole, &["guidance 2"]);
    usage("consistency", &["--sampler", "euler"], &whole, &["consistency model", "euler"]);
    usage("consistency", &["--timesteps", "41,0"], &whole, &["timestep", "41"]);
    usage("consistency", &["--width", "18"], &whole, &["width 18", "multiples of 4"]);
    usage("ddpm", &["--class-label", "1"], &whole, &["no classes"]);
    usage("ddpm", &["--clip-skip", "1"], &whole, &["reads no text"]);
    usage("pixels", &[], &whole, &["needs a PROMPT"]);
    usage("pixels", &["a cat", "--class-label", "1"], &whole, &["no classes"]);
    let learned = field("scheduler_config.json", "variance_type", "learned_range".into());
    usage("ddpm", &["--steps", "2"], &learned, &["variance_type", "fixed_small"]);
}

#[test]
fn a_class_is_stored_with_the_picture() {
    let place = tempfile::tempdir().unwrap();
    copy("consistency", place.path());
    let label = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["generate", "--model", "model", "--device", "cpu", "--json", "-o", "x.png", "--force"])
            .args(arguments)
            .current_dir(place.path())
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["class_label"].as_u64().unwrap()
    };
    assert_eq!(label(&["--class-label", "3"]), 3);
    let by_seed: std::collections::BTreeSet<u64> =
        ["1", "2", "3", "4", "5", "6"].iter().map(|seed| label(&["--seed", seed])).collect();
    assert!(by_seed.len() > 1 && by_seed.iter().all(|label| *label < 5), "{by_seed:?}");
    assert_eq!(label(&["--seed", "9"]), label(&["--seed", "9"]));
}

/// The first DiT was written before its transformer had a class of its own.
#[test]
fn classes_drawn_by_a_transformer() {
    let field = |file: &'static str, name: &'static str, value: serde_json::Value| {
        move |m: &Path| edit_json(&m.join(file), |json| json[name] = value.clone())
    };
    let place = tempfile::tempdir().unwrap();
    let model = copy("dit", place.path());
    let older = serde_json::json!(["diffusers", "Transformer2DModel"]);
    field("model_index.json", "transformer", older)(&model);
    field(CONFIG, "_class_name", "Transformer2DModel".into())(&model);
    let status = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["generate", "--model", "model", "--device", "cpu", "--steps", "1", "-q", "-o", "x.png", "--force"])
        .current_dir(place.path())
        .status()
        .unwrap();
    assert!(status.success() && place.path().join("x.png").is_file());

    let of = |what: &str, damage: &dyn Fn(&Path), parts: &[&str]| {
        expect_end("dit", &["--steps", "1"], 1, what, damage, parts);
    };
    of("another norm", &field(CONFIG, "norm_type", "ada_norm_single".into()), &[CONFIG, "norm_type"]);
    let table = ["class_embedder.embedding_table.weight", "another shape"];
    of("other classes", &field(CONFIG, "num_embeds_ada_norm", 10.into()), &table);
    of("no autoencoder", &|m| fs::remove_dir_all(m.join("vae")).unwrap(), &["vae/config.json", "is missing"]);
    let kind = field("model_index.json", "transformer", serde_json::json!(["diffusers", "PixArtTransformer2DModel"]));
    of("another transformer", &kind, &["model_index.json", "PixArtTransformer2DModel"]);
    let wide = field("vae/config.json", "latent_channels", 8.into());
    of("other latents", &wide, &["vae", "another shape"]);
    let whole = |_: &Path| ();
    expect_end("dit", &["--class-label", "1000"], 2, "no class at all", whole, &["classes 0 to 999"]);
    expect_end("dit", &["red"], 2, "a prompt", whole, &["reads no text"]);
}
