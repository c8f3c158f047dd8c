//! Models of their published size against diffusers and transformers, block by block (`tests/goldens/make_full_size.py`).
//!
//! Weights are drawn from their names, so that no file holds them. The first block that differs is named, by its path in the
//! checkpoint. SDXL's UNet is too large for a small machine's memory: `cargo test --release --test full_size -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use graph::{Convolution, Device, PlanOptions, Rate, Scope, Storage, Tensor, Tile, passes::optimize, shape::numel};
use headwater::{DeviceChoice, DeviceSettings, SharedDevice, open_device};
use models::synthetic::{SyntheticWeights, signed};
use models::{
    AddedConditions, AutoencoderKlConfig, ClipHiddenState, ClipTextConfig, UNet2DConditionConfig,
    UNet2DConditionInputs, UNet2DConfig, UNet2DInputs, autoencoder_kl_decode, autoencoder_kl_encode, clip_text_model,
    unet_2d_condition_model, unet_2d_model,
};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Our error may be this many times the reference's own error in single precision. Two sums in different orders differ
/// as much from each other as from the exact sum.
const TIMES_F32_ERROR: f64 = 4.0;

struct Model {
    golden: Value,
    inputs: HashMap<String, Vec<f32>>,
    scope: Scope,
    output: Tensor,
}

/// The model of a golden around its inputs.
fn model(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/full_size/{name}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let config = golden["config"].to_string().into_bytes();
    let scope = Scope::root();
    let mut inputs = HashMap::new();
    let mut input = |input: &str| -> Option<Tensor> {
        let (shape, values): (Vec<usize>, Vec<f32>) = match (&golden["inputs"][input], &golden[input]) {
            (Value::Array(shape), _) => {
                let shape: Vec<usize> = shape.iter().map(|extent| extent.as_u64().unwrap() as usize).collect();
                let values = signed(&format!("{name}:{input}"), numel(&shape)).map(|v| v as f32).collect();
                (shape, values)
            }
            (_, Value::Array(list)) => {
                (vec![1, list.len()], list.iter().map(|value| value.as_f64().unwrap() as f32).collect())
            }
            (_, Value::Number(value)) => (vec![1], vec![value.as_f64().unwrap() as f32]),
            _ => return None,
        };
        inputs.insert(input.to_owned(), values);
        Some(scope.input(input, &shape, Rate::Step))
    };
    let output = match golden["model"].as_str().unwrap() {
        "UNet2DConditionModel" => {
            let config = UNet2DConditionConfig::from_json(name, &config).unwrap();
            let [sample, timestep, text] =
                ["sample", "timestep", "encoder_hidden_states"].map(|name| input(name).unwrap());
            let added = input("text_embeds").zip(input("time_ids"));
            let inputs = UNet2DConditionInputs {
                sample: &sample,
                timestep: &timestep,
                encoder_hidden_states: &text,
                timestep_cond: None,
                class_labels: None,
                added: added.as_ref().map(|(text_embeds, time_ids)| AddedConditions { text_embeds, time_ids }),
            };
            unet_2d_condition_model(&scope, &config, &inputs)
        }
        "UNet2DModel" => {
            let config = UNet2DConfig::from_json(name, &config).unwrap();
            let [sample, timestep] = ["sample", "timestep"].map(|name| input(name).unwrap());
            let labels = input("class_labels").map(|labels| labels.reshape(&[1]));
            let inputs = UNet2DInputs { sample: &sample, timestep: &timestep, class_labels: labels.as_ref() };
            unet_2d_model(&scope, &config, &inputs)
        }
        "AutoencoderKL" if !golden["inputs"]["image"].is_null() => {
            let config = AutoencoderKlConfig::from_json(name, &config).unwrap();
            let (mean, logvar) = autoencoder_kl_encode(&scope, &config, &input("image").unwrap());
            Tensor::concat(&[&mean, &logvar], 3)
        }
        "AutoencoderKL" => {
            let config = AutoencoderKlConfig::from_json(name, &config).unwrap();
            autoencoder_kl_decode(&scope, &config, &input("latents").unwrap())
        }
        "CLIPTextModel" => {
            let config = ClipTextConfig::from_json(name, &config).unwrap();
            clip_text_model(&scope, &config, &input("ids").unwrap(), None, ClipHiddenState::Last)
        }
        other => panic!("{other}"),
    };
    Model { golden, inputs, scope, output }
}

/// Held while a test runs: the models take gigabytes, so only one may be in memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a model, compares every block, and prints the error of the result.
fn check(device: &dyn Device, name: &str, storage: Storage) {
    check_by(device, name, PlanOptions { storage, ..Default::default() }, 1.0);
}

/// [`check`] with these options, allowing so many times the usual error inside the network. Its result has to be as near as ever.
fn check_by(device: &dyn Device, name: &str, options: PlanOptions, times: f64) {
    let storage = options.storage;
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Model { golden, inputs, scope, output } = model(name);
    let mut blocks = scope.marked();
    blocks.push(("output".to_owned(), output));
    let outputs: Vec<(&str, &Tensor)> = blocks.iter().map(|(path, tensor)| (&**path, tensor)).collect();
    let graph = optimize(&scope.finish(&outputs).unwrap());
    let weights = SyntheticWeights::new(&graph.weights());
    let mut plan = device.plan(&graph, &weights, options).unwrap();
    for (input, values) in &inputs {
        plan.write(input, values).unwrap();
    }
    plan.run().unwrap();

    let golden = golden["blocks"].as_array().unwrap();
    assert_eq!(golden.len(), blocks.len(), "{name}: blocks of the golden and of the graph");
    let known: HashMap<&str, &Value> = golden.iter().map(|block| (block["path"].as_str().unwrap(), block)).collect();
    let (limit, what) = match storage {
        Storage::F16 => ("f16_error", "f16"),
        _ => ("f32_error", "f32"),
    };
    let factor = if storage == Storage::F16 { 1.0 } else { TIMES_F32_ERROR };
    let mut last = (0.0, 0.0);
    for (path, tensor) in &blocks {
        let block = known.get(&**path).unwrap_or_else(|| panic!("{name}: the golden has no {path}"));
        let shape: Vec<u64> = tensor.shape().iter().map(|extent| *extent as u64).collect();
        assert_eq!(Value::from(shape), block["shape"], "{name}: {path}");
        let ours = plan.read(path).unwrap();
        let samples = block["samples"].as_array().unwrap();
        let places =
            signed(&format!("{name}:{path}"), samples.len()).map(|u| ((u + 1.0) / 2.0 * ours.len() as f64) as usize);
        let largest = block["largest"].as_f64().unwrap();
        let differences =
            places.zip(samples).map(|(at, wanted)| (f64::from(ours[at]) - wanted.as_f64().unwrap()).abs());
        let worst = differences.fold(0.0, f64::max) / largest;
        let error = block[limit].as_f64().unwrap();
        assert!(
            worst <= factor * error * if path == "output" { 1.0 } else { times },
            "{name} in {what} on {}: {path} is the first block that differs, by {worst:.1e} (the reference itself {error:.1e})",
            device.info().name
        );
        last = (worst, error);
    }
    println!("{name} in {what} on {}: {:.1e} (the reference itself {:.1e})", device.info().name, last.0, last.1);
}

fn cpu() -> SharedDevice {
    open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).unwrap()
}

fn adapter() -> SharedDevice {
    open_device(&DeviceChoice::Adapter("gpu".into()), &DeviceSettings::default())
        .unwrap_or_else(|error| panic!("{error} (`cargo xtask test` sets one up)"))
}

const MODELS: &[&str] = &["sd15_text_encoder", "sd15_vae", "sd15_vae_encoder", "imagenet64_unet", "sd15_unet"];

#[test]
fn on_the_cpu() {
    for name in MODELS {
        check(cpu().device(), name, Storage::F32);
    }
}

/// `on_the_cpu` uses the fastest way for each size; this uses one for all. The coefficients of 4×4 tiles go up to 8, so that single
/// convolutions round some ten times as much as direct ones, which shows in the first blocks and not in the result.
#[test]
fn convolutions_in_other_ways_on_the_cpu() {
    let ways = [
        (Convolution::Direct, 1.0),
        (Convolution::Winograd(Tile::Two), 1.0),
        (Convolution::Winograd(Tile::Four), 10.0),
    ];
    for (convolution, times) in ways {
        for name in ["sd15_vae", "imagenet64_unet"] {
            check_by(
                cpu().device(),
                name,
                PlanOptions { storage: Storage::F32, convolution, ..Default::default() },
                times,
            );
        }
    }
}

#[test]
fn in_half_precision_on_the_cpu() {
    for name in MODELS {
        check(cpu().device(), name, Storage::F16);
    }
}

#[test]
fn on_an_adapter() {
    for name in MODELS {
        check(adapter().device(), name, Storage::F32);
    }
}

#[test]
fn in_half_precision_on_an_adapter() {
    for name in ["sd15_text_encoder", "sd15_vae"] {
        check(adapter().device(), name, Storage::F16);
    }
}

#[test]
#[ignore = "takes 12 GiB of memory"]
fn the_largest_on_the_cpu() {
    check(cpu().device(), "sdxl_unet", Storage::F32);
    check(cpu().device(), "sdxl_unet", Storage::F16);
}

#[test]
#[ignore = "takes 12 GiB of memory"]
fn the_largest_on_an_adapter() {
    check(adapter().device(), "sdxl_unet", Storage::F32);
}
