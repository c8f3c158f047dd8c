//! T5's encoder against transformers in f64 (`tests/goldens/make_text.py`), weights drawn from names.

use crate::common::{array, cases, check_graph};
use graph::{Rate, Scope};
use models::{T5Config, t5_encoder_model};
use serde_json::json;
use std::collections::HashMap;

#[test]
fn t5_encoder_model_is_transformers() {
    for case in cases("T5EncoderModel") {
        let name = case["name"].as_str().expect("a name");
        let config = T5Config::from_json(name, case["config"].to_string().as_bytes()).expect("a supported config");
        let inputs = HashMap::from([
            ("input_ids", array(&case["input_ids"])),
            ("attention_mask", array(&case["attention_mask"])),
        ]);
        let scope = Scope::root();
        let input = |name: &str| scope.input(name, &inputs[name].shape, Rate::Once);
        let hidden = t5_encoder_model(&scope, &config, &input("input_ids"), Some(&input("attention_mask")));
        let graph = scope.finish(&[("last", &hidden)]).expect("a well-shaped graph");
        check_graph(name, &case["outputs"]["last"], &graph, &inputs);
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    for (field, value) in [
        ("model_type", json!("mt5")),
        ("feed_forward_proj", json!("gated-silu")),
        ("is_decoder", json!(true)),
        ("relative_attention_num_buckets", json!(7)),
        ("relative_attention_max_distance", json!(2)),
        ("num_heads", json!(0)),
        ("quantization_config", json!({})),
    ] {
        let mut config = json!({"model_type": "t5"});
        config[field] = value;
        let error = T5Config::from_json("t5", config.to_string().as_bytes()).expect_err(field).to_string();
        assert!(error.starts_with("t5: ") && !error.contains('\n'), "{error}");
    }
}
