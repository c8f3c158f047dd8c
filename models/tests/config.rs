//! Configurations: what is read, and what is refused.

use models::{ClipTextConfig, HiddenActivation, ModelIndex, PixArtConfig};

fn clip(fields: &str) -> Result<ClipTextConfig, String> {
    let text = format!("{{\"model_type\": \"clip_text_model\", {fields}}}");
    ClipTextConfig::from_json("config.json", text.as_bytes()).map_err(|error| error.to_string())
}

fn pixart(fields: &str) -> Result<PixArtConfig, String> {
    let text = format!("{{\"_class_name\": \"PixArtTransformer2DModel\", {fields}}}");
    PixArtConfig::from_json("config.json", text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn published_text_encoders_are_read() {
    // The fields of Stable Diffusion 1.5's text encoder, saved by transformers 4.
    let config = clip(
        r#""_name_or_path": "x", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0,
        "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768, "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768,
        "torch_dtype": "float32", "transformers_version": "4.22.0.dev0", "vocab_size": 49408"#,
    )
    .expect("a published configuration");
    assert_eq!(
        (config.hidden_size, config.num_hidden_layers, config.hidden_act),
        (768, 12, HiddenActivation::QuickGelu)
    );
    assert_eq!(clip(r#""hidden_act": "gelu_new""#).expect("known").hidden_act, HiddenActivation::GeluNew);
}

#[test]
fn published_transformers_are_read() {
    // The fields of PixArt-α's checkpoint, from when the class was still Transformer2DModel.
    let text = r#"{"_class_name": "Transformer2DModel", "_diffusers_version": "0.22.0.dev0",
        "activation_fn": "gelu-approximate", "attention_bias": true, "attention_head_dim": 72, "attention_type": "default",
        "caption_channels": 4096, "cross_attention_dim": 1152, "double_self_attention": false, "dropout": 0.0,
        "in_channels": 4, "norm_elementwise_affine": false, "norm_eps": 1e-06, "norm_num_groups": 32,
        "norm_type": "ada_norm_single", "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28,
        "num_vector_embeds": null, "only_cross_attention": false, "out_channels": 8, "patch_size": 2, "sample_size": 128,
        "upcast_attention": false, "use_linear_projection": false}"#;
    let config = PixArtConfig::from_json("config.json", text.as_bytes()).expect("a published configuration");
    assert_eq!((config.inner_dim(), config.out_channels(), config.encoder_channels()), (1152, 8, 4096));
    assert!(config.use_additional_conditions(), "a sample size of 128 means conditions on the size");
    let config = pixart(r#""sample_size": 64, "caption_channels": null, "out_channels": null"#).expect("supported");
    assert_eq!((config.out_channels(), config.encoder_channels()), (4, 1152));
    assert!(!config.use_additional_conditions());
}

#[test]
fn what_is_not_implemented_is_refused() {
    let text_encoders = [
        (r#""quantization_config": {}"#, "quantization_config = {} is not supported (only null is)"),
        (r#""is_decoder": true"#, "config.json: is_decoder = true is not supported (only false is)"),
        (
            r#""hidden_size": 10, "num_attention_heads": 4"#,
            "hidden_size = 10 is not a multiple of num_attention_heads = 4",
        ),
        (r#""hidden_size": 0"#, "hidden_size = 0 is not between 1 and 1048576"),
        (r#""num_hidden_layers": 5000"#, "num_hidden_layers = 5000 is not between 1 and 1024"),
        (r#""hidden_act": "mish""#, "unknown variant `mish`"),
        (r#""hidden_size": -3"#, "is not understood"),
        (r#""vocab_size": "many""#, "is not understood"),
    ];
    for (fields, message) in text_encoders {
        let error = clip(fields).expect_err(fields);
        assert!(error.contains(message), "{fields}: {error}");
    }
    let transformers = [
        (r#""activation_fn": "geglu""#, "unknown variant `geglu`"),
        (
            r#""norm_type": "ada_norm_zero""#,
            "norm_type = \"ada_norm_zero\" is not supported (only \"ada_norm_single\" is)",
        ),
        (r#""attention_type": "gated""#, "attention_type = \"gated\" is not supported"),
        (r#""cross_attention_dim": null"#, "cross_attention_dim = null is not supported"),
        (
            r#""cross_attention_dim": 7, "caption_channels": 9"#,
            "captions are projected to 1152 channels and cross_attention_dim is 7",
        ),
        (r#""patch_size": 0"#, "patch_size = 0 is not between"),
        (r#""num_layers": 99999999999"#, "num_layers = 99999999999 is not between"),
        (r#""caption_channels": 0"#, "caption_channels = 0 is not between"),
        (r#""attention_head_dim": 3, "num_attention_heads": 2"#, "6 channels do not split into sines and cosines"),
        (
            r#""attention_head_dim": 4, "num_attention_heads": 2, "cross_attention_dim": 8"#,
            "8 channels do not split into embeddings",
        ),
        (r#""interpolation_scale": 0"#, "interpolation_scale must be above zero"),
    ];
    for (fields, message) in transformers {
        let error = pixart(fields).expect_err(fields);
        assert!(error.starts_with("config.json: ") && error.contains(message), "{fields}: {error}");
    }
}

#[test]
fn other_classes_are_named() {
    let error = |text: &str| PixArtConfig::from_json("config.json", text.as_bytes()).expect_err(text).to_string();
    let text = error(r#"{"_class_name": "UNet2DConditionModel", "attention_head_dim": [5, 10]}"#);
    assert_eq!(
        text,
        "config.json: _class_name is UNet2DConditionModel, which is not supported (supported: PixArtTransformer2DModel, \
         Transformer2DModel)"
    );
    assert!(error("{}").contains("has no _class_name"));
    assert!(error(r#"{"_class_name": "Transformer2DModel"}"#).contains("only with norm_type ada_norm_single"));
    assert!(error("[1]").contains("is not understood"));
    for (text, part) in
        [("", "it is empty"), (" \n", "it is empty"), ("{\"a\":", "cut off at line 1"), ("<p>", "no JSON from line 1")]
    {
        let error = error(text);
        assert!(error.contains(part) && !error.contains("EOF") && !error.contains("expected value"), "{error}");
    }
    assert!(error("").contains("is not understood"));
    let text = ClipTextConfig::from_json("c", br#"{"model_type": "t5"}"#).expect_err("another model").to_string();
    assert_eq!(text, "c: model_type is t5, which is not supported (supported: clip_text_model)");
}

#[test]
fn a_model_index_is_read() {
    let text = r#"{"_class_name": "PixArtAlphaPipeline", "_diffusers_version": "0.42.1", "requires_safety_checker": true,
        "transformer": ["diffusers", "PixArtTransformer2DModel"], "vae": [null, null],
        "headwater": {"guidance_scale": 3.5, "num_inference_steps": 20, "height": 64, "width": 48}}"#;
    let index = ModelIndex::from_json("model_index.json", text.as_bytes()).expect("an index");
    assert_eq!((&*index.class_name, index.components.len()), ("PixArtAlphaPipeline", 1));
    assert!(index.component("vae").is_none(), "null stands for an absent part");
    assert!(index.options.contains_key("requires_safety_checker"));
    assert_eq!(
        (index.defaults.guidance_scale, index.defaults.height, index.defaults.width),
        (Some(3.5), Some(64), Some(48))
    );
    assert_eq!(index.defaults.negative_prompt, None);
    assert!(index.require("transformer", &["PixArtTransformer2DModel"]).is_ok());
    let error = index.require("transformer", &["UNet2DModel"]).expect_err("another class").to_string();
    assert!(error.contains("transformer is PixArtTransformer2DModel, which is not supported"), "{error}");
    let error = index.require("vae", &["AutoencoderKL"]).expect_err("absent").to_string();
    assert_eq!(error, "model_index.json: has no vae (supported: AutoencoderKL)");

    for (text, message) in [
        (r#"{"_class_name": "P", "unet": ["diffusers"]}"#, "unet is not a pair of library and class"),
        (r#"{"_class_name": "P", "headwater": {"guidence": 1}}"#, "unknown field `guidence`"),
        (r#"{"unet": [null, null]}"#, "has no _class_name"),
    ] {
        let error = ModelIndex::from_json("model_index.json", text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// Every list of layers and blocks is bounded before a graph is built of it.
#[test]
fn depths_that_no_model_has_are_refused() {
    let tiny = |blocks: &str| {
        let text = format!(
            r#"{{"_class_name": "AutoencoderTiny", "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8],
                "num_encoder_blocks": [1, 1], "num_decoder_blocks": {blocks}}}"#
        );
        models::AutoencoderTinyConfig::from_json("config.json", text.as_bytes())
    };
    assert!(tiny("[1, 2]").is_ok());
    for blocks in ["[1, 1000000000000000000]", "[1025, 1]"] {
        let error = tiny(blocks).expect_err(blocks).to_string();
        assert!(error.contains("num_decoder_blocks") && error.contains("is not between 1 and 1024"), "{error}");
    }
    let unet = br#"{"_class_name": "UNet2DConditionModel", "transformer_layers_per_block": [[1, 2], [3, 5000], 1, 1]}"#;
    assert!(models::UNet2DConditionConfig::from_json("config.json", unet).is_err());
}
