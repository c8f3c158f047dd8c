//! "What is this file?": whatever is given in a file's place, the sentence says what it is and what to do.

use models::{Checkpoint, Lora, ModelFiles, TextualInversion};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;
use std::time::{Duration, Instant};

fn safetensors(names: &[&str]) -> Vec<u8> {
    let tensor = || TensorView::new(Dtype::F16, vec![1, 1], &[0, 0]).expect("one number");
    safetensors::serialize(names.iter().map(|name| (*name, tensor())), None).expect("serializable")
}

/// What a file is given as, and what opens it.
type Opener = (&'static str, fn(&Path) -> Result<(), models::ModelError>);

/// Every way in which a file of tensors is opened, by the part of a model that it is given as.
fn openers() -> Vec<Opener> {
    vec![
        ("adapter", |path| Lora::open(path, 1.0).map(|_| ())),
        ("model", |path| ModelFiles::single(path, None).map(|_| ())),
        ("embedding", |path| TextualInversion::open(path, None).map(|_| ())),
        ("file", |path| Checkpoint::at(path).map(|_| ())),
        ("autoencoder", |path| {
            let files: &[(&str, &[u8])] =
                &[("model_index.json", br#"{"_class_name": "X", "vae": ["diffusers", "AutoencoderKL"]}"#)];
            ModelFiles::embedded("model", files).with_vae(path).map(|_| ())
        }),
        ("part", |path| {
            let folder = path.parent().expect("a folder");
            Checkpoint::open(&ModelFiles::folder(folder)?, "", None).map(|_| ())
        }),
    ]
}

/// Words of parsers and of the system that say nothing to a person, and names of flags, which libraries do not know.
const NOT_SAID: &[&str] =
    &["untagged", "invalid digit", "EOF", "expected value", "os error", "line 1", " --", "\n", "panicked"];

fn said(what: &str, path: &Path, opener: &Opener) -> String {
    let started = Instant::now();
    let error = opener.1(path).expect_err(what).to_string();
    assert!(started.elapsed() < Duration::from_secs(20), "{what} as {}: waits", opener.0);
    NOT_SAID.iter().for_each(|word| assert!(!error.contains(word), "{what} as {}: {word}: {error}", opener.0));
    for _ in 0..4 {
        assert_eq!(opener.1(path).expect_err(what).to_string(), error, "{what}: always the same");
    }
    error
}

#[test]
fn other_files_are_told_by_their_first_bytes() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:07\nsize 3438167540\n";
    let mut gguf = b"GGUF\x03\0\0\0".to_vec();
    gguf.extend([0; 64]);
    let mut webp = b"RIFF\x10\0\0\0WEBPVP8 ".to_vec();
    webp.extend([0; 8]);
    let mut other_zip = b"PK\x03\x04\x14\0\0\0\0\0model.safetensors".to_vec();
    other_zip.extend(b"PK\x05\x06");
    let mut torch = b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl".to_vec();
    torch.extend(b"PK\x05\x06");
    let mut bmp = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0".to_vec();
    bmp.extend([0; 16]);
    let mut tar = vec![b'x'; 257];
    tar.extend(b"ustar\x0000 and more");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("nothing", vec![], &["is empty", "again"]),
        ("a pointer", lfs.into(), &["Git LFS pointer", "git lfs pull"]),
        ("an old pointer", lfs.replace("git-lfs.github", "hawser.github").into(), &["Git LFS pointer"]),
        ("a page", b"<!DOCTYPE html><html><body>Log in</body></html>".to_vec(), &["web page", "download it again"]),
        ("a page in capitals", b"\n  <HTML><HEAD>".to_vec(), &["web page"]),
        ("a page after a mark", b"\xef\xbb\xbf<html>".to_vec(), &["web page"]),
        (
            "an answer in XML",
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>".to_vec(),
            &["web page"],
        ),
        ("an error", br#"{"error": "Repository not found"}"#.to_vec(), &["server's message in JSON", "again"]),
        ("an error, indented", b"{\n  \"message\": \"Unauthorized\"\n}".to_vec(), &["server's message in JSON"]),
        ("a configuration", br#"{"_class_name": "UNet2DConditionModel"}"#.to_vec(), &["is JSON, not safetensors"]),
        ("an index", br#"{"metadata": {}, "weight_map": {}}"#.to_vec(), &["index", "shards", "folder"]),
        ("a list", b"[1, 2, 3, 4, 5]".to_vec(), &["is JSON"]),
        ("GGUF", gguf, &["GGUF", "as safetensors"]),
        ("torch.save", torch, &["zip archive, as torch.save writes", "refused"]),
        ("a pickle", b"\x80\x02}q\x00(X\x0a\0\0\0state_dict".to_vec(), &["is a pickle", "refused"]),
        ("protocol 4", b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.".to_vec(), &["is a pickle", "refused"]),
        ("protocol 0", b"(dp0\nS'state_dict'\np1\n".to_vec(), &["is a pickle", "refused"]),
        ("an ordered dictionary", b"ccollections\nOrderedDict\np0\n".to_vec(), &["is a pickle", "refused"]),
        ("another zip", other_zip, &["packed archive", "unpack"]),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03abcdef".to_vec(), &["packed archive"]),
        ("7z", b"7z\xbc\xaf\x27\x1c\0\x04 and more".to_vec(), &["packed archive"]),
        ("tar", tar, &["packed archive"]),
        ("PNG", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), &["is a picture"]),
        ("JPEG", b"\xff\xd8\xff\xe0\0\x10JFIF\0".to_vec(), &["is a picture"]),
        ("GIF", b"GIF89a\x01\0\x01\0\0\0\0".to_vec(), &["is a picture"]),
        ("WebP", webp, &["is a picture"]),
        ("BMP", bmp, &["is a picture"]),
        ("TIFF", b"II*\0\x08\0\0\0\0\0\0\0".to_vec(), &["is a picture"]),
        ("HDF5", b"\x89HDF\r\n\x1a\n\0\0\0\0".to_vec(), &["HDF5"]),
        ("a text", b"Dear friend, here is the model that you asked for.".to_vec(), &["no safetensors file"]),
        ("five bytes", vec![1; 5], &["is not a safetensors file", "only 5 bytes"]),
    ];
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("model.safetensors");
    for (what, bytes, parts) in cases {
        std::fs::write(&path, bytes).expect("writable");
        for opener in openers() {
            let error = said(what, &path, &opener);
            parts.iter().for_each(|part| assert!(error.contains(part), "{what} as {}: {part}: {error}", opener.0));
        }
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("model.safetensors");
    for opener in openers().iter().filter(|opener| opener.0 != "part") {
        let error = said("nothing", &path, opener);
        assert!(error.contains("no such file") || error.contains("not a model folder"), "{error}");
    }
    std::fs::create_dir(&path).expect("a folder");
    for opener in openers().iter().filter(|opener| !["part", "autoencoder"].contains(&opener.0)) {
        let error = said("a folder", &path, opener);
        assert!(error.contains("is a folder, and a file is wanted"), "{error}");
    }
    std::fs::write(path.join("pytorch_lora_weights.safetensors"), safetensors(&["x"])).expect("writable");
    let error = said("a folder with one file", &path, &openers()[0]);
    assert!(error.ends_with("pytorch_lora_weights.safetensors"), "{error}");
    std::fs::remove_dir_all(&path).expect("there");
    #[cfg(unix)]
    {
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()), "a pipe");
        for opener in openers().iter().filter(|opener| opener.0 != "part") {
            let error = said("a pipe", &path, opener);
            assert!(error.contains("pipe or a device"), "{}: {error}", opener.0);
        }
        for opener in openers().iter().filter(|opener| opener.0 != "part") {
            let error = said("a device", Path::new("/dev/zero"), opener);
            assert!(error.contains("pipe or a device"), "{}: {error}", opener.0);
        }
    }
}

#[test]
fn tensors_are_told_by_their_names() {
    let whole = [
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.input_blocks.0.0.diff",
        "first_stage_model.decoder.conv_in.weight",
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
    ];
    let kohya = ["lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight", "lora_unet_x.alpha"];
    let comfy =
        ["diffusion_model.input_blocks.0.0.lora_up.weight", "diffusion_model.input_blocks.0.0.lora_down.weight"];
    let unet = ["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "up_blocks.0.resnets.0.conv1.weight"];
    let vae = ["decoder.conv_in.weight", "decoder.conv_out.weight", "quant_conv.weight"];
    let clip = ["text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.mlp.fc1.weight"];
    let t5 = ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"];
    let cases: Vec<(&str, &[&str], &str, &[&str])> = vec![
        ("a whole checkpoint", &whole, "adapter", &["whole checkpoint", "no LoRA", "give it as the model"]),
        ("a UNet", &whole[..2], "adapter", &["a UNet alone", "no LoRA"]),
        ("diffusers' UNet", &unet, "adapter", &["a UNet alone", "no LoRA"]),
        ("an autoencoder", &vae, "adapter", &["autoencoder (VAE)", "no LoRA", "as a model's autoencoder"]),
        ("CLIP", &clip, "adapter", &["a text encoder", "no LoRA"]),
        ("T5", &t5, "adapter", &["a text encoder", "no LoRA"]),
        ("a word", &["emb_params"], "adapter", &["textual inversion", "no LoRA", "as an embedding"]),
        ("a word by its name", &["<cat>"], "adapter", &["textual inversion"]),
        ("a ControlNet", &["control_model.input_blocks.0.0.weight"], "adapter", &["a ControlNet"]),
        ("a LoRA", &kohya, "model", &["is a LoRA", "no whole model", "the model that it was made for"]),
        ("a LoRA of ComfyUI", &comfy, "model", &["is a LoRA", "no whole model"]),
        ("a LoHa", &["lora_unet_x.hada_w1_a"], "model", &["is a LoRA"]),
        ("a LoKr of PEFT", &["base_model.model.x.lokr_w1"], "model", &["is a LoRA"]),
        ("a difference", &["lora_unet_x.diff"], "model", &["is a LoRA"]),
        ("an OFT", &["lora_unet_x.oft_blocks"], "model", &["is a LoRA"]),
        ("an autoencoder", &vae, "model", &["autoencoder (VAE)", "no whole model"]),
        ("a word", &["clip_g", "clip_l"], "model", &["textual inversion", "no whole model"]),
        ("CLIP", &clip, "model", &["a text encoder", "no whole model"]),
        ("diffusers' UNet", &unet, "model", &["a UNet alone", "no whole model"]),
        ("a LoRA", &kohya, "embedding", &["is a LoRA", "no textual inversion"]),
        ("a whole checkpoint", &whole, "embedding", &["whole checkpoint", "no textual inversion"]),
        ("a LoRA", &kohya, "autoencoder", &["is a LoRA", "no AutoencoderKL"]),
        ("a UNet", &unet, "autoencoder", &["a UNet alone", "no AutoencoderKL"]),
        ("CLIP", &clip, "autoencoder", &["a text encoder", "no AutoencoderKL"]),
        ("unknown tensors", &["a", "b"], "adapter", &["no LoRA: a is a name of no known spelling"]),
    ];
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("x.safetensors");
    for (what, names, given, parts) in cases {
        std::fs::write(&path, safetensors(names)).expect("writable");
        let opener = openers().into_iter().find(|opener| opener.0 == given).expect("one of them");
        let error = said(what, &path, &opener);
        assert!(!error.contains("full difference"), "{error}");
        parts.iter().for_each(|part| assert!(error.contains(part), "{what} as {given}: {part}: {error}"));
    }
}

#[test]
fn small_files_of_a_folder_are_told_too() {
    let place = tempfile::tempdir().expect("a folder");
    let files = ModelFiles::folder(place.path()).expect("a folder");
    for (text, part) in [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:07\nsize 4\n", "Git LFS pointer"),
        ("<!doctype html>\n<title>404</title>", "web page"),
    ] {
        std::fs::write(place.path().join("spiece.model"), text).expect("writable");
        let error = files.read("spiece.model").expect_err(text).to_string();
        assert!(error.contains("spiece.model") && error.contains(part), "{error}");
    }
    let error = files.read("config.json").expect_err("not there").to_string();
    assert!(error.ends_with("config.json: is missing from this model"), "{error}");
    std::fs::write(place.path().join("pytorch_lora_weights.safetensors"), safetensors(&["x"])).expect("writable");
    let error = files.read("model_index.json").expect_err("not there").to_string();
    assert!(error.contains("is missing") && error.ends_with("pytorch_lora_weights.safetensors"), "{error}");
    #[cfg(unix)]
    {
        let made = std::process::Command::new("mkfifo").arg(place.path().join("config.json")).status();
        assert!(made.is_ok_and(|status| status.success()), "a pipe");
        let error = files.read("config.json").expect_err("a pipe").to_string();
        assert!(error.contains("pipe or a device"), "{error}");
    }
}
