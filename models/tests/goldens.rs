//! Whole models against diffusers and transformers in f64 (`tests/goldens/make_models.py`), weights drawn from names.

use graph::{Array, Graph, Op, Rate, Real, Scope, Tensor, evaluate, passes::optimize};
use models::synthetic::{SyntheticWeights, signed};
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

type Inputs = HashMap<&'static str, Array<f64>>;

fn cases(model: &str) -> Vec<Value> {
    let text = include_str!("../../tests/goldens/models.json");
    let all: Vec<Value> = serde_json::from_str(text).expect("the golden is JSON");
    let cases: Vec<Value> = all.into_iter().filter(|case| case["model"] == model).collect();
    assert!(cases.len() >= 3, "{} cases of {model}", cases.len());
    cases
}

/// Nested lists of numbers as an array.
fn array(value: &Value) -> Array<f64> {
    fn flatten(value: &Value, depth: usize, shape: &mut Vec<usize>, data: &mut Vec<f64>) {
        match value {
            Value::Array(items) => {
                if shape.len() == depth {
                    shape.push(items.len());
                }
                items.iter().for_each(|item| flatten(item, depth + 1, shape, data));
            }
            number => data.push(number.as_f64().expect("a number")),
        }
    }
    let (mut shape, mut data) = (Vec::new(), Vec::new());
    flatten(value, 0, &mut shape, &mut data);
    Array::new(shape, data)
}

fn shape(value: &Value) -> Vec<usize> {
    array(value).data.iter().map(|extent| *extent as usize).collect()
}

/// A golden stores f64 results; how far ours may be off follows from the reference's own f32 error.
fn check<T: Real>(what: &str, golden: &Value, ours: &Array<T>, tolerance: f64) {
    assert_eq!(ours.shape, shape(&golden["shape"]), "{what}");
    let wanted = array(&golden["data"]).data;
    let largest = wanted.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let worst = wanted.iter().zip(&ours.data).map(|(a, b)| (a - b.to_f64()).abs()).fold(0.0, f64::max) / largest;
    assert!(worst <= tolerance, "{what}: {worst:e} off, {tolerance:e} allowed");
}

fn check_graph(name: &str, golden: &Value, graph: &Graph, inputs: &Inputs) {
    let weights = SyntheticWeights::new(&graph.weights());
    let f32_inputs: HashMap<&str, Array<f32>> = inputs.iter().map(|(name, array)| (*name, array.cast())).collect();
    let error = golden["f32_error"].as_f64().expect("a number");
    for (form, graph) in [("as built", graph.clone()), ("optimised", optimize(graph))] {
        let ours = &evaluate(&graph, inputs, &weights).expect("every input is bound")[0];
        check(&format!("{name}, f64, {form}"), golden, ours, 1e-12);
        let ours = &evaluate(&graph, &f32_inputs, &weights).expect("every input is bound")[0];
        check(&format!("{name}, f32, {form}"), golden, ours, 4.0 * error);
    }
}

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

/// Inputs of these names, drawn from the case's name where the golden gives a shape, else as the golden lists them.
fn inputs(case: &Value, drawn: &[&'static str], listed: &[&'static str]) -> Inputs {
    let name = case["name"].as_str().expect("a name");
    let present = |input: &&&'static str| !case[**input].is_null();
    let draw = |input: &&'static str| {
        let shape = shape(&case[*input]);
        let data = signed(&format!("{name}:{input}"), shape.iter().product()).collect();
        (*input, Array::new(shape, data))
    };
    let drawn = drawn.iter().filter(present).map(draw);
    drawn.chain(listed.iter().filter(present).map(|input| (*input, array(&case[*input])))).collect()
}

#[test]
fn unet_2d_condition_model_is_diffusers() {
    for case in cases("UNet2DConditionModel") {
        let name = case["name"].as_str().expect("a name");
        let config = UNet2DConditionConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let drawn = ["sample", "encoder_hidden_states", "timestep_cond", "text_embeds"];
        let inputs = inputs(&case, &drawn, &["timestep", "time_ids"]);
        let scope = Scope::root();
        let input = |name: &'static str, rate: Rate| {
            inputs.get(name).map(|array: &Array<f64>| scope.input(name, &array.shape, rate))
        };
        let [sample, timestep] = ["sample", "timestep"].map(|name| input(name, Rate::Step).expect("in every case"));
        let text = input("encoder_hidden_states", Rate::Once).expect("in every case");
        let condition = input("timestep_cond", Rate::Once);
        let (text_embeds, time_ids) = (input("text_embeds", Rate::Once), input("time_ids", Rate::Once));
        let added = text_embeds.as_ref().zip(time_ids.as_ref());
        let model_inputs = UNet2DConditionInputs {
            sample: &sample,
            timestep: &timestep,
            encoder_hidden_states: &text,
            timestep_cond: condition.as_ref(),
            added: added.map(|(text_embeds, time_ids)| AddedConditions { text_embeds, time_ids }),
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
