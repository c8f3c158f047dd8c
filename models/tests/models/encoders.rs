//! Autoencoders encode as diffusers' do.

use crate::common::{cases, check_graph, inputs};
use graph::{Rate, Scope};
use models::{AutoencoderKlConfig, AutoencoderTinyConfig, autoencoder_kl_encode, autoencoder_tiny_encode};

#[test]
fn autoencoder_kl_encodes_as_diffusers() {
    for case in cases("AutoencoderKL.encode") {
        let name = case["name"].as_str().expect("a name");
        let config = AutoencoderKlConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let inputs = inputs(&case, &["picture"], &[]);
        for output in ["mean", "logvar"] {
            let scope = Scope::root();
            let picture = scope.input("picture", &inputs["picture"].shape, Rate::Step);
            let (mean, logvar) = autoencoder_kl_encode(&scope, &config, &picture);
            let tensor = if output == "mean" { &mean } else { &logvar };
            let graph = scope.finish(&[(output, tensor)]).expect("a well-shaped graph");
            check_graph(&format!("{name}, {output}"), &case["outputs"][output], &graph, &inputs);
        }
    }
}

#[test]
fn autoencoder_tiny_encodes_as_diffusers() {
    for case in cases("AutoencoderTiny.encode") {
        let name = case["name"].as_str().expect("a name");
        let config = AutoencoderTinyConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let inputs = inputs(&case, &["picture"], &[]);
        let scope = Scope::root();
        let picture = scope.input("picture", &inputs["picture"].shape, Rate::Step);
        let latents = autoencoder_tiny_encode(&scope, &config, &picture);
        let graph = scope.finish(&[("latents", &latents)]).expect("a well-shaped graph");
        check_graph(name, &case["outputs"]["latents"], &graph, &inputs);
    }
}
