//! Whole models against diffusers and transformers in f64 (`tests/goldens/make_models.py`), weights drawn from names.

use crate::common::{Inputs, array, cases, check_graph, inputs, shape};
use graph::{Array, Graph, Op, Rate, Scope, Tensor, passes::optimize};
use models::synthetic::signed;
use models::{
    AddedConditions, AutoencoderKlConfig, AutoencoderTinyConfig, ClipHiddenState, ClipTextConfig, PixArtConfig,
    PixArtInputs, SizeConditions, UNet2DConditionConfig, UNet2DConditionInputs,
};
use models::{
    autoencoder_kl_decode, autoencoder_tiny_decode, clip_text_model, clip_text_model_with_projection,
    pixart_transformer_2d_model, unet_2d_condition_model,
};
use serde_json::Value;
use std::collections::HashMap;

#[test]
fn clip_text_model_is_transformers() {
    for case in cases("CLIPTextModel") {
        let name = case["name"].as_str().expect("a name");
        let config =
            ClipTextConfig::from_json(name, case["config"].to_string().as_bytes()).expect("a supported config");
        let inputs = HashMap::from([
            ("input_ids", array(&case["input_ids"])),
            ("attention_mask", array(&case["attention_mask"])),
        ]);
        let states =
            [("last", ClipHiddenState::Last), ("skip1", ClipHiddenState::Skip(1)), ("raw1", ClipHiddenState::Raw(1))];
        for (output, state) in states {
            let scope = Scope::root();
            let ids = scope.input("input_ids", &inputs["input_ids"].shape, Rate::Once);
            let mask = scope.input("attention_mask", &inputs["attention_mask"].shape, Rate::Once);
            let hidden = clip_text_model(&scope, &config, &ids, Some(&mask), state);
            let graph = scope.finish(&[("hidden", &hidden)]).expect("a well-shaped graph");
            check_graph(&format!("{name}, {output}"), &case["outputs"][output], &graph, &inputs);
        }
    }
}

#[test]
fn clip_text_model_with_projection_is_transformers() {
    for case in cases("CLIPTextModelWithProjection") {
        let name = case["name"].as_str().expect("a name");
        let config =
            ClipTextConfig::from_json(name, case["config"].to_string().as_bytes()).expect("a supported config");
        let ids = array(&case["input_ids"]);
        let tokens = ids.shape[1];
        let mut pooled_at = vec![0.0; ids.data.len()];
        for (row, ids) in ids.data.chunks(tokens).enumerate() {
            let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
            pooled_at[row * tokens + config.pooled_token(&ids)] = 1.0;
        }
        let inputs = HashMap::from([("pooled_at", Array::new(ids.shape.clone(), pooled_at)), ("input_ids", ids)]);
        for output in ["hidden_states", "text_embeds"] {
            let scope = Scope::root();
            let input = |name: &str| scope.input(name, &inputs[name].shape, Rate::Once);
            let (hidden, embeds) =
                clip_text_model_with_projection(&scope, &config, &input("input_ids"), None, &input("pooled_at"));
            let tensor = if output == "text_embeds" { &embeds } else { &hidden };
            let graph = scope.finish(&[("out", tensor)]).expect("a well-shaped graph");
            check_graph(&format!("{name}, {output}"), &case["outputs"][output], &graph, &inputs);
        }
    }
}

/// The graph of a case with its inputs.
fn pixart(case: &Value) -> (Graph, Inputs) {
    let name = case["name"].as_str().expect("a name");
    let config = PixArtConfig::from_json(name, case["config"].to_string().as_bytes()).expect("a supported config");
    let drawn = |input: &str| {
        let shape = shape(&case[input]);
        let data = signed(&format!("{name}:{input}"), shape.iter().product()).collect();
        Array::new(shape, data)
    };
    let mut inputs = HashMap::from([
        ("sample", drawn("sample")),
        ("encoder_hidden_states", drawn("encoder_hidden_states")),
        ("timestep", array(&case["timestep"])),
        ("encoder_attention_mask", array(&case["encoder_attention_mask"])),
    ]);
    for input in ["resolution", "aspect_ratio"] {
        if !case[input].is_null() {
            inputs.insert(input, array(&case[input]));
        }
    }
    let scope = Scope::root();
    let input = |name: &'static str, rate: Rate| -> Option<Tensor> {
        inputs.get(name).map(|array: &Array<f64>| scope.input(name, &array.shape, rate))
    };
    let sample = input("sample", Rate::Step).expect("bound above");
    let timestep = input("timestep", Rate::Step).expect("bound above");
    let text = input("encoder_hidden_states", Rate::Once).expect("bound above");
    let mask = input("encoder_attention_mask", Rate::Once);
    let (resolution, aspect_ratio) = (input("resolution", Rate::Once), input("aspect_ratio", Rate::Once));
    let size = resolution
        .as_ref()
        .zip(aspect_ratio.as_ref())
        .map(|(resolution, aspect_ratio)| SizeConditions { resolution, aspect_ratio });
    let model_inputs = PixArtInputs {
        sample: &sample,
        timestep: &timestep,
        encoder_hidden_states: &text,
        encoder_attention_mask: mask.as_ref(),
        size,
    };
    let output = pixart_transformer_2d_model(&scope, &config, &model_inputs);
    (scope.finish(&[("sample", &output)]).expect("a well-shaped graph"), inputs)
}

#[test]
fn pixart_transformer_is_diffusers() {
    for case in cases("PixArtTransformer2DModel") {
        let (graph, inputs) = pixart(&case);
        check_graph(&case["name"].to_string(), &case["outputs"]["sample"], &graph, &inputs);
    }
}

#[test]
fn unet_2d_condition_model_is_diffusers() {
    for case in cases("UNet2DConditionModel") {
        let name = case["name"].as_str().expect("a name");
        let config = UNet2DConditionConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let drawn = ["sample", "encoder_hidden_states", "timestep_cond", "text_embeds"];
        let inputs = inputs(&case, &drawn, &["timestep", "time_ids", "class_labels"]);
        let scope = Scope::root();
        let input = |name: &'static str, rate: Rate| {
            inputs.get(name).map(|array: &Array<f64>| scope.input(name, &array.shape, rate))
        };
        let [sample, timestep] = ["sample", "timestep"].map(|name| input(name, Rate::Step).expect("in every case"));
        let text = input("encoder_hidden_states", Rate::Once).expect("in every case");
        let condition = input("timestep_cond", Rate::Once);
        let (text_embeds, time_ids) = (input("text_embeds", Rate::Once), input("time_ids", Rate::Once));
        let added = text_embeds.as_ref().zip(time_ids.as_ref());
        let class_labels = input("class_labels", Rate::Once);
        let model_inputs = UNet2DConditionInputs {
            sample: &sample,
            timestep: &timestep,
            encoder_hidden_states: &text,
            timestep_cond: condition.as_ref(),
            added: added.map(|(text_embeds, time_ids)| AddedConditions { text_embeds, time_ids }),
            class_labels: class_labels.as_ref(),
        };
        let output = unet_2d_condition_model(&scope, &config, &model_inputs);
        let graph = scope.finish(&[("sample", &output)]).expect("a well-shaped graph");
        check_graph(name, &case["outputs"]["sample"], &graph, &inputs);
    }
}

#[test]
fn autoencoder_kl_decodes_as_diffusers() {
    for case in cases("AutoencoderKL") {
        let name = case["name"].as_str().expect("a name");
        let config = AutoencoderKlConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let inputs = inputs(&case, &["latents"], &[]);
        let scope = Scope::root();
        let latents = scope.input("latents", &inputs["latents"].shape, Rate::Step);
        let image = autoencoder_kl_decode(&scope, &config, &latents);
        let graph = scope.finish(&[("image", &image)]).expect("a well-shaped graph");
        check_graph(name, &case["outputs"]["image"], &graph, &inputs);
    }
}

#[test]
fn autoencoder_tiny_decodes_as_diffusers() {
    for case in cases("AutoencoderTiny") {
        let name = case["name"].as_str().expect("a name");
        let config = AutoencoderTinyConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let inputs = inputs(&case, &["latents"], &[]);
        let scope = Scope::root();
        let latents = scope.input("latents", &inputs["latents"].shape, Rate::Step);
        let image = autoencoder_tiny_decode(&scope, &config, &latents);
        let graph = scope.finish(&[("image", &image)]).expect("a well-shaped graph");
        check_graph(name, &case["outputs"]["image"], &graph, &inputs);
    }
}

#[test]
fn the_prompt_is_projected_once_and_modulation_costs_no_dispatch() {
    let (graph, _) = pixart(&cases("PixArtTransformer2DModel")[0]);
    let graph = optimize(&graph);
    let of =
        |end: &str| graph.iter().filter(|(_, node)| node.path.ends_with(end)).map(|(_, node)| node).collect::<Vec<_>>();
    for end in ["attn2.to_k", "attn2.to_v"] {
        let products: Vec<_> = of(end).into_iter().filter(|node| matches!(node.op, Op::MatMul(_))).collect();
        assert_eq!(products.len(), 2, "one product for each of two blocks at {end}");
        assert!(products.iter().all(|node| node.rate == Rate::Once), "{end} depends on the prompt alone");
    }
    let blocks = graph.iter().filter(|(_, node)| node.rate == Rate::Step && node.path.contains("transformer_blocks"));
    let loose: Vec<_> =
        blocks.filter(|(_, node)| matches!(node.op, Op::Elementwise(_))).map(|(_, n)| &n.path).collect();
    assert!(loose.is_empty(), "elementwise work outside other kernels at {loose:?}");
}
