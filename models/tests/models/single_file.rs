//! Single files of the published families: every name and shape finds its place, and the configurations are those of diffusers.
//! `tests/goldens/make_single_files.py` lists what the files hold.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use graph::{Rate, Scope, Tensor, WeightSpec};
use models::{
    AddedConditions, AutoencoderKlConfig, Checkpoint, ClipHiddenState, ClipTextConfig, GivenApart, ModelFiles,
    ModelIndex, Pieces, Tokenizer, UNet2DConditionConfig, UNet2DConditionInputs, autoencoder_kl_decode,
    clip_text_model, clip_text_model_with_projection, unet_2d_condition_model,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Shapes = BTreeMap<String, Vec<usize>>;

/// Names and shapes, and the configurations of diffusers.
fn golden(family: &str) -> (Shapes, Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/goldens/single_files/{family}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut tensors = Shapes::new();
    let mut before = String::new();
    for line in golden["tensors"].as_array().unwrap() {
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let line = line.as_array().unwrap();
        before.truncate(number(&line[0]));
        before += line[1].as_str().unwrap();
        tensors.insert(before.clone(), line[2..].iter().map(number).collect());
    }
    (tensors, golden["configs"].clone())
}

/// A file of zeros in half precision, as long as its header says and nearly empty on disk.
fn write(folder: &Path, tensors: &Shapes, metadata: Value) -> PathBuf {
    write_with(folder, tensors, metadata, &[])
}

/// The same with these numbers in single precision.
fn write_with(folder: &Path, tensors: &Shapes, metadata: Value, numbers: &[(&str, &[f32])]) -> PathBuf {
    let mut header = Map::new();
    if !metadata.is_null() {
        header.insert("__metadata__".into(), metadata);
    }
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] }));
    }
    let zeros = end;
    for (name, values) in numbers {
        let start = end;
        end += 4 * values.len();
        let place = json!({ "dtype": "F32", "shape": [values.len()], "data_offsets": [start, end] });
        header.insert((*name).to_owned(), place);
    }
    let header = Value::Object(header).to_string();
    let path = folder.join("model.safetensors");
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + zeros) as u64).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    for value in numbers.iter().flat_map(|(_, values)| *values) {
        file.write_all(&value.to_le_bytes()).unwrap();
    }
    path
}

/// A file that is not mapped.
#[derive(Debug)]
struct OnDisk(File);

impl Pieces for OnDisk {
    fn length(&self) -> usize {
        usize::try_from(self.0.metadata().unwrap().len()).unwrap()
    }
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; range.len()];
        (&self.0).seek(SeekFrom::Start(range.start as u64)).unwrap();
        (&self.0).read_exact(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

fn weights(build: impl FnOnce(&Scope) -> Vec<Tensor>) -> Vec<WeightSpec> {
    let scope = Scope::root();
    let outputs = build(&scope);
    let names: Vec<String> = (0..outputs.len()).map(|i| i.to_string()).collect();
    let outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&outputs).collect();
    scope.finish(&outputs).unwrap().weights()
}

/// The weights that the model of a part reads.
fn wanted(part: &str, config: &[u8]) -> Vec<WeightSpec> {
    let input = |s: &Scope, name: &str, shape: &[usize]| s.input(name, shape, Rate::Step);
    match part {
        "unet" => {
            let config = UNet2DConditionConfig::from_json(part, config).unwrap();
            weights(|s| {
                // The refiner is told five numbers, and its text has 1280 channels.
                let ids = if config.cross_attention_dim() == 1280 { 5 } else { 6 };
                let pooled = config.pooled_channels(ids);
                let pooled = pooled.map(|c| (input(s, "pooled", &[1, c]), input(s, "ids", &[1, ids])));
                let added = pooled.as_ref().map(|(text_embeds, time_ids)| AddedConditions { text_embeds, time_ids });
                let condition = config.time_cond_proj_dim.map(|c| input(s, "condition", &[1, c]));
                let labels = config.takes_class_labels().then(|| input(s, "class", &[1]));
                let side = config.side_multiple();
                let inputs = UNet2DConditionInputs {
                    sample: &input(s, "sample", &[1, side, side, config.in_channels]),
                    timestep: &input(s, "timestep", &[1]),
                    encoder_hidden_states: &input(s, "text", &[1, 77, config.cross_attention_dim()]),
                    timestep_cond: condition.as_ref(),
                    added,
                    class_labels: labels.as_ref(),
                };
                vec![unet_2d_condition_model(s, &config, &inputs)]
            })
        }
        "vae" => {
            let config = AutoencoderKlConfig::from_json(part, config).unwrap();
            weights(|s| vec![autoencoder_kl_decode(s, &config, &input(s, "latents", &[1, 1, 1, 4]))])
        }
        _ => {
            let config = ClipTextConfig::from_json(part, config).unwrap();
            weights(|s| {
                let ids = input(s, "ids", &[1, 77]);
                if part == "text_encoder" {
                    return vec![clip_text_model(s, &config, &ids, None, ClipHiddenState::Last)];
                }
                let at = input(s, "pooled_at", &[1, 77]);
                let (hidden, embeds) = clip_text_model_with_projection(s, &config, &ids, None, &at);
                vec![hidden, embeds]
            })
        }
    }
}

/// One number for all levels, or one for each: the same when they are equal.
fn plain(value: &Value) -> Value {
    match value.as_array() {
        Some(all) if all.iter().all(|one| *one == all[0]) => all[0].clone(),
        _ => value.clone(),
    }
}

fn check(files: &ModelFiles, configs: &Value, tensors: usize) {
    let mut found = 0;
    for (part, theirs) in configs.as_object().unwrap() {
        let config = files.read(&format!("{part}/config.json")).unwrap();
        let ours: Map<String, Value> = serde_json::from_slice(&config).unwrap();
        for (field, value) in &ours {
            let Some(theirs) = theirs.get(field) else { continue };
            let equal = plain(value) == plain(theirs) || value.as_f64().is_some_and(|v| theirs.as_f64() == Some(v));
            assert!(equal, "{part}: {field} is {value}, of diffusers {theirs}");
        }
        let checkpoint = Checkpoint::open(files, part, None).unwrap();
        let own: BTreeMap<&str, &[usize]> = checkpoint.tensors().collect();
        let wanted = wanted(part, &config);
        for weight in &wanted {
            assert_eq!(own.get(&*weight.name).copied(), Some(&*weight.shape), "{part}: {}", weight.name);
        }
        let encoder = own.keys().filter(|name| name.starts_with("encoder.") || name.starts_with("quant_conv.")).count();
        assert_eq!(own.len(), wanted.len() + if part == "vae" { encoder } else { 0 }, "{part}");
        // Three of OpenCLIP's tensors are one in the file, twice in every layer.
        let stacked = if ours.get("hidden_act") == Some(&json!("gelu")) {
            4 * ours["num_hidden_layers"].as_u64().unwrap()
        } else {
            0
        };
        found += own.len() - usize::try_from(stacked).unwrap();
    }
    assert_eq!(found, tensors, "every tensor of the file is one of diffusers'");
}

#[test]
fn published_families() {
    for (family, class) in [
        ("sd1", "StableDiffusionPipeline"),
        ("sd2", "StableDiffusionPipeline"),
        ("sdxl", "StableDiffusionXLPipeline"),
        ("sdxl_refiner", "StableDiffusionXLImg2ImgPipeline"),
        ("x4_upscaler", "StableDiffusionUpscalePipeline"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (tensors, configs) = golden(family);
        let mut file = tensors.clone();
        // Tensors of training that such files also hold.
        file.insert("model_ema.decay".into(), vec![1]);
        file.insert("alphas_cumprod".into(), vec![1000]);
        file.insert("cond_stage_model.transformer.text_model.embeddings.position_ids".into(), vec![1, 77]);
        if family != "sd1" {
            file.remove("cond_stage_model.transformer.text_model.embeddings.position_ids");
        }
        let path = write(folder.path(), &file, Value::Null);
        let pieces = OnDisk(File::open(&path).unwrap());
        let in_pieces = ModelFiles::single_in_pieces("model.safetensors", Arc::new(pieces)).unwrap();
        for files in [ModelFiles::single(&path, None).unwrap(), in_pieces] {
            let index = ModelIndex::read(&files).unwrap();
            assert_eq!(index.class_name, class);
            let scores = index.options.get("requires_aesthetics_score") == Some(&json!(true));
            assert_eq!(scores, family == "sdxl_refiner");
            check(&files, &configs, tensors.len());
        }
    }
}

/// Each mark of a file says one thing: what is predicted, how the schedule ends, EDM's noise levels, the latents' statistics.
#[test]
fn marks_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let read = |family: &str, numbers: &[(&str, &[f32])], path: &str| -> Value {
        let file = write_with(folder.path(), &golden(family).0, Value::Null, numbers);
        serde_json::from_slice(&ModelFiles::single(&file, None).unwrap().read(path).unwrap()).unwrap()
    };
    let ([euler, ddim, pndm], none): ([_; 3], &[f32]) =
        (["EulerDiscreteScheduler", "DDIMScheduler", "PNDMScheduler"], &[]);
    let [v, zero] = ["v_pred", "ztsnr"].map(|name| (name, none));
    for (family, marks, class, prediction, ends_without_signal) in [
        ("sdxl", vec![], euler, "epsilon", false),
        ("sdxl", vec![v], euler, "v_prediction", false),
        ("sdxl", vec![zero], euler, "epsilon", true),
        ("sdxl", vec![v, zero], euler, "v_prediction", true),
        ("sd1", vec![v], pndm, "v_prediction", false),
        ("sd1", vec![v, zero], ddim, "v_prediction", true),
        ("sd2", vec![v], ddim, "v_prediction", false),
        ("sd2", vec![v, zero], ddim, "v_prediction", true),
    ] {
        let scheduler = read(family, &marks, "scheduler/scheduler_config.json");
        assert_eq!((&scheduler["_class_name"], &scheduler["prediction_type"]), (&json!(class), &json!(prediction)));
        let rescaled = scheduler.get("rescale_betas_zero_snr") == Some(&json!(true));
        assert_eq!(rescaled, ends_without_signal, "{family} {marks:?}");
        assert_eq!(scheduler["timestep_spacing"] == "trailing", ends_without_signal, "{family} {marks:?}");
    }
    // CosXL and Playground v2.5, whose published values these are.
    let cos: &[(&str, &[f32])] = &[("edm_vpred.sigma_max", &[120.0]), ("edm_vpred.sigma_min", &[0.002])];
    let scheduler = read("sdxl", cos, "scheduler/scheduler_config.json");
    let wanted = json!({
        "_class_name": "EDMEulerScheduler", "num_train_timesteps": 1000, "prediction_type": "v_prediction", "sigma_data": 1.0,
        "sigma_max": 120.0, "sigma_min": 0.002, "sigma_schedule": "exponential"
    });
    assert_eq!(scheduler, wanted);
    let [mean, std] = [[-1.6574, 1.886, -1.383, 2.5155], [8.4927, 5.9022, 6.5498, 5.2299]];
    let playground: &[(&str, &[f32])] = &[("edm_mean", &mean), ("edm_std", &std)];
    let vae = read("sdxl", playground, "vae/config.json");
    let found = [&vae["latents_mean"], &vae["latents_std"]].map(|list| serde_json::from_value(list.clone()).unwrap());
    assert_eq!((found, &vae["scaling_factor"]), ([mean, std], &json!(0.5)));
    let scheduler = read("sdxl", playground, "scheduler/scheduler_config.json");
    assert_eq!(
        (&scheduler["_class_name"], &scheduler["sigma_max"], &scheduler["sigma_data"]),
        (&json!("EDMDPMSolverMultistepScheduler"), &json!(80.0), &json!(0.5))
    );
    assert_eq!(read("sdxl", playground, "model_index.json")["scheduler"][1], scheduler["_class_name"]);
}

/// What trainers and mergers leave behind is told, and what has another name for the same is no part of it.
#[test]
fn tensors_that_no_part_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (mut tensors, configs) = golden("sd1");
    let count = tensors.len();
    let strange = ["embedding_manager.embedder.weight", "model.diffusion_model.extra.weight"];
    strange.iter().for_each(|name| drop(tensors.insert((*name).to_owned(), vec![1])));
    tensors.insert("cond_stage_model.transformer.vision_model.embeddings.position_ids".into(), vec![257]);
    let files = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap();
    assert_eq!(files.left_over(), strange);
    check(&files, &configs, count);
}

/// The noise over its small picture is configured beside the network's own.
#[test]
fn the_x4_upscaler() {
    let folder = tempfile::tempdir().unwrap();
    let (mut tensors, configs) = golden("x4_upscaler");
    let count = tensors.len();
    // Buffers of the noise over the small picture.
    tensors.insert("low_scale_model.alphas_cumprod".into(), vec![1000]);
    let files = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap();
    assert_eq!((files.family(), files.left_over().len()), (Some("Stable Diffusion's x4 upscaler"), 0));
    check(&files, &configs, count);
    let read = |path: &str| serde_json::from_slice::<Value>(&files.read(path).unwrap()).unwrap();
    let (own, low) = (read("scheduler/scheduler_config.json"), read("low_res_scheduler/scheduler_config.json"));
    for scheduler in [&own, &low] {
        let betas = ["beta_start", "beta_end", "beta_schedule"].map(|field| scheduler[field].clone());
        assert_eq!(betas, [json!(0.0001), json!(0.02), json!("scaled_linear")]);
    }
    assert_eq!((&own["prediction_type"], &low["_class_name"]), (&json!("v_prediction"), &json!("DDPMScheduler")));
    let index = ModelIndex::read(&files).unwrap();
    assert_eq!(index.options["max_noise_level"], json!(350));
    assert!(index.require("low_res_scheduler", &["DDPMScheduler"]).is_ok());
}

/// Guidance is an input of such a network, which its embedding of time tells.
#[test]
fn latent_consistency_models() {
    for (family, class) in [("sd1", "LatentConsistencyModelPipeline"), ("sdxl", "StableDiffusionXLPipeline")] {
        let folder = tempfile::tempdir().unwrap();
        let (mut tensors, configs) = golden(family);
        tensors.insert("model.diffusion_model.time_embed.cond_proj.weight".into(), vec![320, 256]);
        let files = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap();
        assert_eq!(ModelIndex::read(&files).unwrap().class_name, class);
        let mut configs = configs;
        configs["unet"].as_object_mut().unwrap().remove("time_cond_proj_dim");
        check(&files, &configs, tensors.len());
        let config: Value = serde_json::from_slice(&files.read("unet/config.json").unwrap()).unwrap();
        assert_eq!(config["time_cond_proj_dim"], json!(256));
        let scheduler: Value = serde_json::from_slice(&files.read("scheduler/scheduler_config.json").unwrap()).unwrap();
        assert_eq!(scheduler["_class_name"], json!("LCMScheduler"));
    }
}

/// diffusers' names of a UNet in latent diffusion's names.
fn in_diffusers_names(tensors: &Shapes) -> Shapes {
    let folder = tempfile::tempdir().unwrap();
    let files = ModelFiles::single(&write(folder.path(), tensors, Value::Null), None).unwrap();
    let unet = Checkpoint::open(&files, "unet", None).unwrap();
    unet.tensors().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect()
}

/// A network without the parts around it: those are read in a folder that is given with it.
#[test]
fn networks_alone() {
    for (family, title, lacking) in [
        ("sd1", "Stable Diffusion 1", "no text encoder and no autoencoder (VAE)"),
        ("sd2", "Stable Diffusion 2", "no text encoder and no autoencoder (VAE)"),
        ("sdxl", "Stable Diffusion XL", "no text encoder and no autoencoder (VAE)"),
        ("sdxl_refiner", "Stable Diffusion XL's refiner", "no text encoder and no autoencoder (VAE)"),
    ] {
        let (all, configs) = golden(family);
        let prefix = "model.diffusion_model.";
        let own = all.iter().filter_map(|(name, shape)| Some((name.strip_prefix(prefix)?.to_owned(), shape.clone())));
        let own: Shapes = own.collect();
        let under = |prefix: &str| own.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.clone())).collect();
        let rest: Shapes =
            all.iter().filter(|(name, _)| !name.starts_with(prefix)).map(|(n, s)| (n.clone(), s.clone())).collect();
        // A whole model in diffusers' layout beside it, whose network is not read.
        let beside = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap();
        let whole = ModelFiles::single(&write(place.path(), &all, Value::Null), None).unwrap();
        for part in configs.as_object().unwrap().keys() {
            std::fs::create_dir(beside.path().join(part)).unwrap();
            std::fs::write(
                beside.path().join(part).join("config.json"),
                whole.read(&format!("{part}/config.json")).unwrap(),
            )
            .unwrap();
            let tensors: Shapes = Checkpoint::open(&whole, part, None)
                .unwrap()
                .tensors()
                .map(|(n, s)| (n.to_owned(), s.to_vec()))
                .collect();
            let file =
                write(&beside.path().join(part), &if part == "unet" { Shapes::new() } else { tensors }, Value::Null);
            if part == "vae" {
                std::fs::rename(&file, file.with_file_name("diffusion_pytorch_model.safetensors")).unwrap();
            }
        }
        for (names, tensors) in [
            ("latent diffusion's, whole", under(prefix)),
            ("ComfyUI's", under("diffusion_model.")),
            ("latent diffusion's", under("")),
            ("diffusers'", in_diffusers_names(&all)),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = write(folder.path(), &tensors, Value::Null);
            let error = ModelFiles::single(&file, None).unwrap_err();
            let sentence = format!(
                "is a UNet alone, the network of a model ({title} by its shapes), and no whole model: it has {lacking}"
            );
            assert!(error.message.starts_with(&sentence), "{family} in {names} names: {error}");
            assert_eq!(error.wanted, Some(GivenApart::Folder));
            let files = ModelFiles::single(&file, Some(beside.path())).unwrap();
            check(&files, &configs, if names == "diffusers'" { all.len() } else { tensors.len() + rest.len() });
        }
        // An autoencoder may also be given by itself.
        std::fs::remove_dir_all(beside.path().join("vae")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let files = ModelFiles::single(&write(folder.path(), &own, Value::Null), Some(beside.path())).unwrap();
        let error = Checkpoint::open(&files, "vae", None).unwrap_err();
        assert_eq!(error.wanted, Some(GivenApart::Autoencoder), "{error}");
        let vae: Shapes = all
            .iter()
            .filter(|(n, _)| n.starts_with("first_stage_model."))
            .map(|(n, s)| (n.clone(), s.clone()))
            .collect();
        let apart = tempfile::tempdir().unwrap();
        let files = files.with_vae(&write(apart.path(), &vae, Value::Null)).unwrap();
        assert!(Checkpoint::open(&files, "vae", None).is_ok(), "{family}");
    }
    // What reads no text, or text that no family reads, is told.
    let folder = tempfile::tempdir().unwrap();
    for (tensors, part) in [
        (Shapes::from([("down_blocks.0.x".into(), vec![1]), ("up_blocks.0.x".into(), vec![1])]), "it reads no text"),
        (
            Shapes::from([
                ("down_blocks.0.attn2.to_k.weight".into(), vec![320, 640]),
                ("up_blocks.0.x".into(), vec![1]),
                ("conv_in.weight".into(), vec![1]),
            ]),
            "it reads text of 640 channels",
        ),
    ] {
        let error = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap_err().to_string();
        assert!(error.contains("a UNet alone") && error.contains(part), "{error}");
    }
}

/// Names are compared part by part: a tensor whose name merely contains the word of another kind of file is a left-over.
#[test]
fn names_that_contain_words_of_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let (tensors, configs) = golden("sd1");
    let strange = [
        "model.diffusion_model.my_joint_blocks.0.x",
        "my_double_blocks.0.x",
        "notes.control_model.x",
        "my_lora_down.weight",
        "betas_of_me",
        "my.betas",
        "global_stepping",
        "logvars",
        "v_prediction",
        "edm_mean_of_me",
        "model.diffusion_model.my_label_emb.weight",
        "model.diffusion_model.label_emb.weight_of_me",
        "my_shared.weight",
        "my_scaled_fp8",
        "first_stage_model.decoder.my_position_ids",
    ];
    let mut file = tensors.clone();
    strange.iter().for_each(|name| drop(file.insert((*name).to_owned(), vec![1])));
    let files = ModelFiles::single(&write(folder.path(), &file, Value::Null), None).unwrap();
    assert_eq!(files.family(), Some("Stable Diffusion 1"));
    let mut left: Vec<&str> = files.left_over().iter().map(|name| &**name).collect();
    let mut wanted = strange.to_vec();
    left.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(left, wanted);
    check(&files, &configs, tensors.len());
}

/// Such a file is meant for an autoencoder given apart, and still says how its latents are scaled.
#[test]
fn files_without_an_autoencoder() {
    let folder = tempfile::tempdir().unwrap();
    let (all, _) = golden("sdxl");
    let is_vae = |name: &&String| name.starts_with("first_stage_model.");
    let vae: Shapes = all.iter().filter(|(name, _)| is_vae(name)).map(|(n, s)| (n.clone(), s.clone())).collect();
    let rest: Shapes = all.iter().filter(|(name, _)| !is_vae(name)).map(|(n, s)| (n.clone(), s.clone())).collect();
    let apart = tempfile::tempdir().unwrap();
    let (file, apart) = (write(folder.path(), &rest, Value::Null), write(apart.path(), &vae, Value::Null));
    let files = ModelFiles::single(&file, None).unwrap();
    let error = Checkpoint::open(&files, "vae", None).unwrap_err().to_string();
    assert!(error.ends_with("(vae): has no weights in this file, so it must be given apart"), "{error}");
    let files = files.with_vae(&apart).unwrap();
    assert!(Checkpoint::open(&files, "vae", None).is_ok() && Checkpoint::open(&files, "unet", None).is_ok());
    let config: Value = serde_json::from_slice(&files.read("vae/config.json").unwrap()).unwrap();
    assert_eq!(config["scaling_factor"], json!(0.13025));
}

/// SSD-1B and Segmind Vega: transformers taken out of Stable Diffusion XL, and the middle's attention with them.
#[test]
fn distilled_networks() {
    for (down, up, depths, reverse) in [
        ([0, 2, 4], [[4, 4, 10], [2, 1, 1], [0; 3]], json!([1, [2, 2], [4, 4]]), json!([[4, 4, 10], [2, 1, 1], 1])),
        ([0, 1, 2], [[2; 3], [1; 3], [0; 3]], json!([1, 1, 2]), Value::Null),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (mut tensors, _) = golden("sdxl");
        tensors.retain(|name, _| {
            let Some(rest) = name.strip_prefix("model.diffusion_model.") else { return true };
            let number = |text: &str| text.parse::<usize>().unwrap_or(0);
            let parts: Vec<&str> = rest.split('.').collect();
            let most = match parts[0] {
                "middle_block" => return parts[1] == "0",
                "input_blocks" => down[number(parts[1]).saturating_sub(1) / 3],
                "output_blocks" => up[number(parts[1]) / 3][number(parts[1]) % 3],
                _ => return true,
            };
            parts.get(3) != Some(&"transformer_blocks") || number(parts[4]) < most
        });
        let files = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap();
        let config = files.read("unet/config.json").unwrap();
        let fields: Value = serde_json::from_slice(&config).unwrap();
        let found = ["transformer_layers_per_block", "reverse_transformer_layers_per_block", "mid_block_type"];
        assert_eq!(found.map(|field| fields[field].clone()), [depths, reverse, json!("UNetMidBlock2D")]);
        let own = Checkpoint::open(&files, "unet", None).unwrap();
        let own: BTreeMap<&str, &[usize]> = own.tensors().collect();
        let wanted = wanted("unet", &config);
        assert_eq!(own.len(), wanted.len());
        assert!(wanted.iter().all(|weight| own.get(&*weight.name).copied() == Some(&*weight.shape)));
    }
}

#[test]
fn networks_that_see_a_mask() {
    for (family, class) in [("sd1", "StableDiffusionInpaintPipeline"), ("sdxl", "StableDiffusionXLInpaintPipeline")] {
        let folder = tempfile::tempdir().unwrap();
        let (mut tensors, _) = golden(family);
        tensors.get_mut("model.diffusion_model.input_blocks.0.0.weight").unwrap()[1] = 9;
        let files = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap();
        assert_eq!(ModelIndex::read(&files).unwrap().class_name, class);
        let config: Value = serde_json::from_slice(&files.read("unet/config.json").unwrap()).unwrap();
        assert_eq!((&config["in_channels"], &config["out_channels"]), (&json!(9), &json!(4)));
    }
}

#[test]
fn stable_diffusion_2_keeps_a_layer_that_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (tensors, configs) = golden("sd2");
    let mut file = tensors.clone();
    for (name, shape) in &tensors {
        if let Some(rest) = name.strip_prefix("cond_stage_model.model.transformer.resblocks.22.") {
            file.insert(format!("cond_stage_model.model.transformer.resblocks.23.{rest}"), shape.clone());
        }
    }
    file.insert("cond_stage_model.model.text_projection".into(), vec![1024, 1024]);
    file.insert("cond_stage_model.model.logit_scale".into(), vec![]);
    let files = ModelFiles::single(&write(folder.path(), &file, Value::Null), None).unwrap();
    check(&files, &configs, tensors.len());
    let scheduler = |metadata: Value| {
        let files = ModelFiles::single(&write(folder.path(), &file, metadata), None).unwrap();
        let read = |path| serde_json::from_slice::<Value>(&files.read(path).unwrap()).unwrap();
        let scheduler = read("scheduler/scheduler_config.json");
        (
            scheduler["prediction_type"].clone(),
            scheduler["_class_name"].clone(),
            read("unet/config.json")["sample_size"].clone(),
        )
    };
    assert_eq!(scheduler(Value::Null), (json!("epsilon"), json!("PNDMScheduler"), json!(64)));
    let velocity = json!({ "modelspec.prediction_type": "v" });
    assert_eq!(scheduler(velocity), (json!("v_prediction"), json!("DDIMScheduler"), json!(96)));
}

#[test]
fn files_that_are_no_such_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (tensors, _) = golden("sd1");
    let expect = |change: &dyn Fn(&mut Shapes), parts: &[&str]| {
        let mut file = tensors.clone();
        change(&mut file);
        let error =
            ModelFiles::single(&write(folder.path(), &file, Value::Null), None).expect_err(parts[0]).to_string();
        assert!(error.contains("model.safetensors") && !error.contains('\n'), "{error}");
        parts.iter().for_each(|part| assert!(error.contains(part), "{error}"));
    };
    let only = |prefix: &'static str| move |f: &mut Shapes| f.retain(|name, _| name.starts_with(prefix));
    expect(&only("model.diffusion_model."), &["no text encoder"]);
    expect(&only("first_stage_model."), &["an autoencoder (VAE)", "no whole model"]);
    expect(
        &|f| *f = Shapes::from([("something".into(), vec![1])]),
        &["no known family", "Stable Diffusion XL", "something"],
    );
    expect(&|f| drop(f.insert("model.diffusion_model.joint_blocks.0.x".into(), vec![1])), &["Stable Diffusion 3"]);
    expect(&|f| drop(f.insert("lora_unet_x.lora_down.weight".into(), vec![1])), &["a LoRA, which is added to a model"]);
    expect(&|f| drop(f.insert("model.diffusion_model.label_emb.weight".into(), vec![1])), &["x4 upscaler", "folder"]);
    expect(&|f| drop(f.insert("scaled_fp8".into(), vec![1])), &["is quantized, which is not supported: scaled_fp8"]);
    let first = "model.diffusion_model.input_blocks.0.0.weight";
    expect(&|f| drop(f.remove(first)), &["Stable Diffusion 1", first, "unet"]);
}

/// A weight that is missing is called what the file would call it.
#[test]
fn missing_weights_are_named_as_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut tensors, _) = golden("sd1");
    tensors.retain(|name, _| !name.starts_with("model.diffusion_model."));
    let (unet, _) = golden("sd1");
    let gone = "model.diffusion_model.output_blocks.5.2.conv.weight";
    // The wide levels would take a while to look through.
    tensors.extend(unet.into_iter().filter(|(name, _)| name != gone && name.starts_with("model.diffusion_model.")));
    let files = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap();
    let checkpoint = Checkpoint::open(&files, "unet", None).unwrap();
    let up = WeightSpec { name: "up_blocks.1.upsamplers.0.conv.weight".into(), shape: vec![1280, 1280, 3, 3] };
    let bias = WeightSpec { name: "conv_in.bias".into(), shape: vec![321] };
    let report = checkpoint.report(&[up, bias]);
    assert_eq!(report.missing, [gone]);
    assert_eq!(report.misshapen, [("model.diffusion_model.input_blocks.0.0.bias".to_owned(), vec![321], vec![320])]);
}

/// The built-in vocabulary is CLIP's: ids as published in OpenAI's repository and transformers' tests.
#[test]
fn prompts_are_tokenized_without_a_tokenizer_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (tensors, _) = golden("sd2");
    let files = ModelFiles::single(&write(folder.path(), &tensors, Value::Null), None).unwrap();
    let tokenizer = Tokenizer::open(&files, "tokenizer").unwrap();
    assert_eq!((tokenizer.max_length(), tokenizer.largest_id()), (Some(77), 49407));
    let encoded = tokenizer.encode("A photo of a cat", 9).unwrap();
    assert_eq!(encoded.ids, [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0]);
}
