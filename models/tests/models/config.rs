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

/// Folders made of the whole of CLIP, whose text encoder transformers takes out of its configuration.
#[test]
fn the_text_half_of_clip_is_read() {
    let read =
        |text: &str| ClipTextConfig::from_json("config.json", text.as_bytes()).map_err(|error| error.to_string());
    let whole = r#"{"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 768, "logit_scale_init_value": 2.6592,
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "model_type": "clip_text_model"},
        "text_config_dict": null, "vision_config": {"hidden_size": 1024, "model_type": "clip_vision_model"}}"#;
    let config = read(whole).expect("transformers reads it");
    assert_eq!((config.hidden_size, config.intermediate_size, config.vocab_size), (768, 3072, 49408));
    let bare = read(r#"{"model_type": "clip", "text_config": {}}"#).expect("all by default");
    assert_eq!(bare.hidden_size, 512);
    for (text, part) in [
        (r#"{"model_type": "clip"}"#, "model_type is clip, and there is no text_config for its text encoder"),
        (r#"{"model_type": "clip", "text_config": null}"#, "there is no text_config"),
        (r#"{"model_type": "clip", "text_config": {"is_decoder": true}}"#, "is_decoder = true is not supported"),
        (
            r#"{"model_type": "clip", "text_config": {"model_type": "clip_vision_model"}}"#,
            "model_type is clip_vision_model, which is not supported",
        ),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.starts_with("config.json: ") && error.contains(part), "{error}");
    }
}

fn unet(fields: &str) -> Result<models::UNet2DConditionConfig, String> {
    let text = format!("{{\"_class_name\": \"UNet2DConditionModel\", {fields}}}");
    models::UNet2DConditionConfig::from_json("config.json", text.as_bytes()).map_err(|error| error.to_string())
}

/// diffusers takes two sides of a sample, and channels of the text for each block. All blocks read one text.
#[test]
fn lists_of_sides_and_of_text_channels() {
    let config = unet(r#""sample_size": [64, 96], "cross_attention_dim": [768, 768, 768, 768]"#).expect("of one text");
    assert_eq!((config.sample_size(), config.cross_attention_dim()), (Some([64, 96]), 768));
    // The last level attends in the middle alone, and the first of these two nowhere.
    let blocks = r#""block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]"#;
    let config = unet(&format!(r#"{blocks}, "cross_attention_dim": [1, 768]"#)).expect("of one text");
    assert_eq!(config.cross_attention_dim(), 768);
    assert_eq!(unet(r#""sample_size": 64"#).expect("plain").sample_size(), Some([64, 64]));
    assert_eq!(unet(r#""sample_size": null"#).expect("none").sample_size(), None);
    let seventeen = vec!["32"; 17].join(", ");
    let [down, up] = ["DownBlock2D", "UpBlock2D"].map(|kind| vec![format!("\"{kind}\""); 17].join(", "));
    let deep =
        format!(r#""block_out_channels": [{seventeen}], "down_block_types": [{down}], "up_block_types": [{up}]"#);
    for (fields, part) in [
        (
            r#""cross_attention_dim": [768, 768, 1024, 768]"#,
            "cross_attention_dim is 768 in one block and 1024 in another, and all read the same text",
        ),
        (r#""cross_attention_dim": [768, 768]"#, "cross_attention_dim is not one value for each of 4 levels"),
        (r#""cross_attention_dim": [768, 768, 768, 0]"#, "cross_attention_dim = 0 is not between"),
        (r#""sample_size": [64]"#, "sample_size = [64] is of another kind than it may be"),
        (r#""sample_size": [64, 0]"#, "sample_size = 0 is not between"),
        (&deep, "block_out_channels has 17 levels, more than the 16 of any model"),
    ] {
        let error = unet(fields).expect_err(fields);
        assert!(error.starts_with("config.json: ") && error.contains(part), "{error}");
    }
}

/// What a field holds is told in our words, with its name.
#[test]
fn fields_of_another_kind_are_named() {
    for (fields, part) in [
        (r#""in_channels": "four""#, "is not understood: in_channels = \"four\" is of another kind than it may be"),
        (r#""in_channels": -3"#, "in_channels = -3 is of another kind"),
        (r#""norm_eps": null"#, "norm_eps = null is of another kind"),
        (r#""block_out_channels": 320"#, "block_out_channels = 320 is of another kind"),
        (r#""attention_head_dim": {"a": 1}"#, "attention_head_dim = {\"a\":1} is of another kind"),
        (r#""mid_block_type": "KMid""#, "mid_block_type = \"KMid\" is an unknown variant `KMid`"),
    ] {
        let error = unet(fields).expect_err(fields);
        assert!(error.contains(part), "{error}");
        for word in ["untagged", "invalid", "EOF", "usize", "at line 0", "\n"] {
            assert!(!error.contains(word), "{word}: {error}");
        }
    }
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
    assert_eq!(index.absent, ["vae"]);
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
        (r#"{"_class_name": "P", "headwater": {"height": "x"}}"#, "understood: height = \"x\" is of another kind"),
        (r#"{"_class_name": "P", "headwater": [1]}"#, "the block \"headwater\" is no JSON object"),
        (r#"{"unet": [null, null]}"#, "has no _class_name"),
    ] {
        let error = ModelIndex::from_json("model_index.json", text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(message), "{error}");
    }
    let text = r#"{"_class_name": "P", "vae": null, "safety_checker": null}"#;
    let index = ModelIndex::from_json("model_index.json", text.as_bytes()).expect("an index");
    assert_eq!(index.absent, ["vae"], "null alone stands for an absent part, too");
}

/// A pipeline that comes without an autoencoder can be given one.
#[test]
fn an_autoencoder_for_a_pipeline_without_one() {
    let goldens = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines");
    let vae = goldens.join("stable_diffusion/vae");
    for (entry, given) in [("[null, null]", true), ("null", true), ("", false)] {
        let place = tempfile::tempdir().expect("a temporary folder");
        let entry = if entry.is_empty() { String::new() } else { format!(", \"vae\": {entry}") };
        let text = format!(
            r#"{{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]{entry}}}"#
        );
        std::fs::write(place.path().join("model_index.json"), text).expect("writes");
        let files = models::ModelFiles::folder(place.path()).expect("a folder").with_vae(&vae);
        if !given {
            let error = files.expect_err("no such part").to_string();
            assert!(error.ends_with("has no vae, so none can be given apart"), "{error}");
            continue;
        }
        let files = files.expect("an autoencoder");
        let index = ModelIndex::read(&files).expect("an index");
        assert!(index.require("vae", &["AutoencoderKL"]).is_ok());
        assert!(models::Checkpoint::open(&files, "vae", None).is_ok() && files.has_weights("vae"));
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

/// What a model says it draws, in its file's order; a file that is no such list is named with what is wrong.
#[test]
fn vocabularies_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |text: &str| {
        std::fs::write(folder.path().join("vocabulary.json"), text).expect("writes");
        models::Vocabulary::read(&models::ModelFiles::folder(folder.path()).expect("a folder"))
    };
    let files = models::ModelFiles::folder(folder.path()).expect("a folder");
    assert_eq!(models::Vocabulary::read(&files), Ok(None));
    let text = r#"{"groups": {"z": ["red fox", "owl"], "a": ["jack-o-lantern"]}, "styles": ["3d style"]}"#;
    let vocabulary = read(text).expect("a list").expect("there is one");
    let names: Vec<&str> = vocabulary.groups.iter().map(|(group, _)| group.as_str()).collect();
    assert_eq!((names, vocabulary.colours.len()), (vec!["z", "a"], 0));
    for (word, known) in
        [("fox", true), ("lantern", true), ("3d", true), ("re", false), ("red fox", false), ("", false)]
    {
        assert_eq!(vocabulary.has_word(word), known, "{word}");
    }
    for (text, part) in [
        ("{", "cut off"),
        (r#"{"groups": {"a": "owl"}}"#, "the group a is no list of names"),
        (r#"{"styles": "3d"}"#, "styles = \"3d\" is of another kind"),
    ] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.contains("vocabulary.json") && error.contains(part), "{error}");
    }
}
