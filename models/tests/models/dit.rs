//! DiT against diffusers in f64 (`tests/goldens/make_unconditional.py`), weights drawn from names.

use crate::common::{cases, check_graph, inputs};
use graph::{Rate, Scope};
use models::{DiTConfig, DiTInputs, dit_transformer_2d_model};
use serde_json::json;

#[test]
fn dit_transformer_2d_model_is_diffusers() {
    for case in cases("DiTTransformer2DModel") {
        let name = case["name"].as_str().expect("a name");
        let config = DiTConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let inputs = inputs(&case, &["sample"], &["timestep", "class_labels"]);
        let scope = Scope::root();
        let input = |name: &'static str| scope.input(name, &inputs[name].shape, Rate::Step);
        let model_inputs =
            DiTInputs { sample: &input("sample"), timestep: &input("timestep"), class_labels: &input("class_labels") };
        let output = dit_transformer_2d_model(&scope, &config, &model_inputs);
        let graph = scope.finish(&[("sample", &output)]).expect("a well-shaped graph");
        check_graph(name, &case["outputs"]["sample"], &graph, &inputs);
    }
}

/// facebook/DiT-XL-2-256, whose configuration is from before the class had its name.
#[test]
fn a_published_configuration() {
    let published = json!({
        "_class_name": "Transformer2DModel", "_diffusers_version": "0.12.0.dev0", "activation_fn": "gelu-approximate",
        "attention_bias": true, "attention_head_dim": 72, "cross_attention_dim": null, "dropout": 0.0, "in_channels": 4,
        "norm_elementwise_affine": false, "norm_num_groups": 32, "norm_type": "ada_norm_zero",
        "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": null,
        "only_cross_attention": false, "out_channels": 8, "patch_size": 2, "sample_size": 32,
        "upcast_attention": false, "use_linear_projection": false
    });
    let config = DiTConfig::from_json("dit", published.to_string().as_bytes()).expect("supported");
    let scope = Scope::root();
    let input = |name: &str, shape: &[usize]| scope.input(name, shape, Rate::Step);
    let output = dit_transformer_2d_model(
        &scope,
        &config,
        &DiTInputs {
            sample: &input("sample", &[1, 2, 2, 4]),
            timestep: &input("timestep", &[1]),
            class_labels: &input("class_labels", &[1]),
        },
    );
    let graph = scope.finish(&[("sample", &output)]).expect("a well-shaped graph");
    let count: usize = graph.weights().iter().map(|weight| weight.shape.iter().product::<usize>()).sum();
    assert_eq!(count, 749_826_464);
    for (field, value) in [
        ("_class_name", json!("PixArtTransformer2DModel")),
        ("norm_type", json!("ada_norm_single")),
        ("activation_fn", json!("geglu")),
        ("cross_attention_dim", json!(768)),
        ("num_embeds_ada_norm", json!(0)),
        ("num_embeds_ada_norm", json!(null)),
        ("patch_size", json!(64)),
        ("attention_head_dim", json!(7.5)),
        ("quantization_config", json!({})),
    ] {
        let mut config = published.clone();
        config[field] = value;
        let error = DiTConfig::from_json("dit", config.to_string().as_bytes()).expect_err(field).to_string();
        assert!(error.starts_with("dit: ") && !error.contains('\n'), "{error}");
    }
    let mut unnamed = published;
    unnamed.as_object_mut().expect("an object").remove("norm_type");
    let error = DiTConfig::from_json("dit", unnamed.to_string().as_bytes()).expect_err("no norm").to_string();
    assert!(error.contains("norm_type"), "{error}");
}
