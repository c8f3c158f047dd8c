//! UNets without text against diffusers in f64 (`tests/goldens/make_unconditional.py`), weights drawn from names.

use crate::common::{cases, check_graph, inputs};
use graph::{Array, Rate, Scope};
use models::{UNet2DConfig, UNet2DInputs, unet_2d_model};
use serde_json::json;

#[test]
fn unet_2d_model_is_diffusers() {
    for case in cases("UNet2DModel") {
        let name = case["name"].as_str().expect("a name");
        let config = UNet2DConfig::from_json(name, case["config"].to_string().as_bytes()).expect("supported");
        let inputs = inputs(&case, &["sample"], &["timestep", "class_labels"]);
        let scope = Scope::root();
        let input =
            |name: &'static str| inputs.get(name).map(|array: &Array<f64>| scope.input(name, &array.shape, Rate::Step));
        let [sample, timestep] = ["sample", "timestep"].map(|name| input(name).expect("in every case"));
        let class_labels = input("class_labels");
        assert_eq!(config.takes_class_labels(), class_labels.is_some(), "{name}");
        let model_inputs = UNet2DInputs { sample: &sample, timestep: &timestep, class_labels: class_labels.as_ref() };
        let output = unet_2d_model(&scope, &config, &model_inputs);
        let graph = scope.finish(&[("sample", &output)]).expect("a well-shaped graph");
        check_graph(name, &case["outputs"]["sample"], &graph, &inputs);
    }
}

#[test]
fn unets_that_cannot_be_honoured() {
    let plain = json!({
        "_class_name": "UNet2DModel", "block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]
    });
    UNet2DConfig::from_json("unet", plain.to_string().as_bytes()).expect("supported");
    for (field, value) in [
        ("_class_name", json!("UNet1DModel")),
        ("act_fn", json!("gelu")),
        ("class_embed_type", json!("identity")),
        ("time_embedding_type", json!("learned")),
        ("resnet_time_scale_shift", json!("spatial")),
        ("downsample_type", json!("fir")),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("mid_block_scale_factor", json!(0)),
        ("down_block_types", json!(["DownBlock2D", "AttnDownEncoderBlock2D"])),
        ("down_block_types", json!(["DownBlock2D"])),
        ("block_out_channels", json!([32, 65])),
        ("block_out_channels", json!([])),
        ("attention_head_dim", json!(7)),
        ("norm_num_groups", json!(null)),
        ("layers_per_block", json!(0)),
        ("downsample_padding", json!(2147483648_u64)),
        ("sample_size", json!([32, 0])),
        ("quantization_config", json!({})),
    ] {
        let mut config = plain.clone();
        config[field] = value;
        let error = UNet2DConfig::from_json("unet", config.to_string().as_bytes()).expect_err(field).to_string();
        assert!(error.starts_with("unet: ") && !error.contains('\n'), "{error}");
    }
    // Nothing is wrong by itself, and yet there is no such graph.
    let mut shifted = plain.clone();
    (shifted["freq_shift"], shifted["attention_head_dim"]) = (json!(1e19), json!(null));
    let config = UNet2DConfig::from_json("unet", shifted.to_string().as_bytes()).expect("a number");
    let s = Scope::root();
    let sample = s.input("sample", &[1, 8, 8, 3], Rate::Step);
    let timestep = s.input("timestep", &[1], Rate::Step);
    let inputs = UNet2DInputs { sample: &sample, timestep: &timestep, class_labels: None };
    let output = unet_2d_model(&s, &config, &inputs);
    assert!(s.finish(&[("sample", &output)]).is_err());
    let mut skips = plain;
    skips["down_block_types"] = json!(["SkipDownBlock2D", "AttnSkipDownBlock2D"]);
    skips["in_channels"] = json!(4);
    let error = UNet2DConfig::from_json("unet", skips.to_string().as_bytes()).expect_err("four channels").to_string();
    assert!(error.contains("not 4 in"), "{error}");
}
