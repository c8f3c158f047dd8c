//! Published checkpoints: their configurations are read, and the graphs have as many parameters as the models have in PyTorch.

use graph::{Rate, Scope, Tensor};
use models::{
    AddedConditions, AutoencoderKlConfig, AutoencoderTinyConfig, ClipHiddenState, ClipTextConfig, T5Config,
    UNet2DConditionConfig, UNet2DConditionInputs, autoencoder_kl_decode, autoencoder_kl_encode,
    autoencoder_tiny_decode, autoencoder_tiny_encode, clip_text_model, clip_text_model_with_projection,
    t5_encoder_model, unet_2d_condition_model,
};
use serde_json::{Value, json};

/// Numbers in all weights of what `build` makes.
fn parameters(build: impl FnOnce(&Scope) -> Vec<Tensor>) -> usize {
    let scope = Scope::root();
    let outputs = build(&scope);
    let names: Vec<String> = (0..outputs.len()).map(|i| i.to_string()).collect();
    let outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&outputs).collect();
    let graph = scope.finish(&outputs).expect("a well-shaped graph");
    graph.weights().iter().map(|weight| weight.shape.iter().product::<usize>()).sum()
}

/// `time_ids` numbers tell a network of SDXL about the picture.
fn unet(what: &str, config: &Value, time_ids: usize) -> usize {
    let config = UNet2DConditionConfig::from_json(what, config.to_string().as_bytes());
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    parameters(|s| {
        let input = |name: &str, shape: &[usize]| s.input(name, shape, Rate::Step);
        let pooled = config.pooled_channels(time_ids);
        let pooled = pooled.map(|channels| (input("pooled", &[1, channels]), input("ids", &[1, time_ids])));
        let added = pooled.as_ref().map(|(text_embeds, time_ids)| AddedConditions { text_embeds, time_ids });
        let condition = config.time_cond_proj_dim.map(|channels| input("condition", &[1, channels]));
        let labels = config.takes_class_labels().then(|| input("class", &[1]));
        let side = config.side_multiple();
        let inputs = UNet2DConditionInputs {
            sample: &input("sample", &[1, side, side, config.in_channels]),
            timestep: &input("timestep", &[1]),
            encoder_hidden_states: &input("text", &[1, 77, config.cross_attention_dim()]),
            timestep_cond: condition.as_ref(),
            class_labels: labels.as_ref(),
            added,
        };
        vec![unet_2d_condition_model(s, &config, &inputs)]
    })
}

/// A configuration with some fields changed.
fn with(config: &Value, fields: Value) -> Value {
    let (mut config, Value::Object(fields)) = (config.clone(), fields) else { panic!("fields are an object") };
    fields.into_iter().for_each(|(field, value)| config[field] = value);
    config
}

fn stable_diffusion_1_5() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
    })
}

fn stable_diffusion_xl() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.19.0.dev0", "act_fn": "silu",
        "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "center_input_sample": false,
        "class_embed_type": null, "class_embeddings_concat": false, "conv_in_kernel": 3, "conv_out_kernel": 3,
        "cross_attention_dim": 2048, "cross_attention_norm": null,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "downsample_padding": 1,
        "dual_cross_attention": false, "encoder_hid_dim": null, "encoder_hid_dim_type": null, "flip_sin_to_cos": true,
        "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_only_cross_attention": null,
        "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-05,
        "norm_num_groups": 32, "num_attention_heads": null, "num_class_embeds": null, "only_cross_attention": false,
        "out_channels": 4, "projection_class_embeddings_input_dim": 2816, "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": false, "resnet_time_scale_shift": "default", "sample_size": 128,
        "time_cond_proj_dim": null, "time_embedding_act_fn": null, "time_embedding_dim": null,
        "time_embedding_type": "positional", "timestep_post_act": null, "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "upcast_attention": null,
        "use_linear_projection": true
    })
}

/// Each name with its configuration, how many numbers about the picture it takes, and its parameters in diffusers.
#[test]
fn unets() {
    let one = stable_diffusion_1_5();
    let two = with(
        &one,
        json!({
            "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "dual_cross_attention": false,
            "num_class_embeds": null, "only_cross_attention": false, "use_linear_projection": true
        }),
    );
    let xl = stable_diffusion_xl();
    // What diffusers' EMAModel leaves in a configuration.
    let averages = json!({
        "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 37000, "power": 0.666_666_666_666_666_6,
        "update_after_step": 0, "use_ema_warmup": false, "in_channels": 9
    });
    let distilled = |down: Value, up: Value| {
        with(
            &xl,
            json!({
                "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": down,
                "reverse_transformer_layers_per_block": up, "dropout": 0.0
            }),
        )
    };
    let [cross, plain] = ["CrossAttnDownBlock2D", "DownBlock2D"];
    let [cross_up, plain_up] = ["CrossAttnUpBlock2D", "UpBlock2D"];
    let refiner = with(
        &xl,
        json!({
            "attention_head_dim": [6, 12, 24, 24], "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280,
            "projection_class_embeddings_input_dim": 2560, "transformer_layers_per_block": 4,
            "down_block_types": [plain, cross, cross, plain], "up_block_types": [plain_up, cross_up, cross_up, plain_up]
        }),
    );
    // Of configs/stable-diffusion/x4-upscaling.yaml in Stability AI's repository.
    let upscaler = with(
        &two,
        json!({
            "attention_head_dim": 8, "block_out_channels": [256, 512, 512, 1024], "in_channels": 7,
            "down_block_types": [plain, cross, cross, cross], "up_block_types": [cross_up, cross_up, cross_up, plain_up],
            "num_class_embeds": 1000, "only_cross_attention": [true, true, true, false], "sample_size": 128
        }),
    );
    // Without the coarsest level and the middle.
    let tiny = with(
        &one,
        json!({
            "block_out_channels": [320, 640, 1280], "down_block_types": [cross, cross, cross], "layers_per_block": 1,
            "mid_block_type": null, "up_block_types": [cross_up, cross_up, cross_up]
        }),
    );
    for (name, config, time_ids, wanted) in [
        ("Stable Diffusion 1.5", one.clone(), 6, 859_520_964),
        ("LCM Dreamshaper", with(&one, json!({ "time_cond_proj_dim": 256 })), 6, 859_520_964 + 256 * 320),
        ("Stable Diffusion 1.5 inpainting", with(&one, json!({ "in_channels": 9 })), 6, 859_535_364),
        ("Stable Diffusion 2.1", with(&two, json!({ "sample_size": 96, "upcast_attention": true })), 6, 865_910_724),
        ("Stable Diffusion Turbo", with(&two, json!({ "sample_size": 64 })), 6, 865_910_724),
        ("Stable Diffusion 2 inpainting", with(&two, json!({ "in_channels": 9 })), 6, 865_925_124),
        ("Stable Diffusion x4 upscaler", upscaler, 6, 473_398_020),
        ("Stable Diffusion XL", xl.clone(), 6, 2_567_463_684),
        ("Stable Diffusion XL inpainting", with(&xl, averages), 6, 2_567_478_084),
        ("Stable Diffusion XL Turbo", with(&xl, json!({ "sample_size": 64 })), 6, 2_567_463_684),
        (
            "Playground v2.5",
            with(
                &xl,
                json!({
                    "_diffusers_version": "0.27.0.dev0", "attention_type": "default", "dropout": 0.0,
                    "reverse_transformer_layers_per_block": null
                }),
            ),
            6,
            2_567_463_684,
        ),
        ("Stable Diffusion XL refiner", refiner, 5, 2_259_526_660),
        ("SSD-1B", distilled(json!([1, [2, 2], [4, 4]]), json!([[4, 4, 10], [2, 1, 1], 1])), 6, 1_331_334_404),
        ("Segmind's small-sd", with(&one, json!({ "layers_per_block": 1 })), 6, 579_384_964),
        ("Segmind's tiny-sd", tiny, 6, 323_384_964),
        ("LCM of Stable Diffusion XL", with(&xl, json!({ "time_cond_proj_dim": 256 })), 6, 2_567_463_684 + 256 * 320),
        ("Segmind Vega", distilled(json!([1, [1, 1], [2, 2]]), json!([[2, 2, 2], [1, 1, 1], 1])), 6, 745_225_604),
    ] {
        assert_eq!(unet(name, &config, time_ids), wanted, "{name}");
    }
}

#[test]
fn unets_that_cannot_be_honoured() {
    for (field, value) in [
        ("class_embed_type", json!("projection")),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("time_embedding_type", json!("fourier")),
        ("dual_cross_attention", json!(true)),
        ("only_cross_attention", json!([true, false])),
        ("transformer_layers_per_block", json!([1, [1, 1], 1, 1])),
        ("reverse_transformer_layers_per_block", json!([1, 1, 1])),
        ("reverse_transformer_layers_per_block", json!([1, 1, [1, 1], 1])),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("quantization_config", json!({ "load_in_4bit": true })),
        ("act_fn", json!("mish")),
        ("conv_in_kernel", json!(5)),
        ("down_block_types", json!(["DownBlock2D", "KDownBlock2D", "DownBlock2D", "DownBlock2D"])),
        ("block_out_channels", json!([320, 640, 1280])),
        ("block_out_channels", json!([320, 640, 1280, 1281])),
    ] {
        let mut config = stable_diffusion_1_5();
        config[field] = value;
        let error = UNet2DConditionConfig::from_json("unet", config.to_string().as_bytes()).expect_err(field);
        let error = error.to_string();
        assert!(error.starts_with("unet: ") && !error.contains('\n'), "{error}");
    }
}

/// PixArt-α of three sizes and -Σ.
#[test]
fn transformers() {
    for (sample_size, more, wanted) in [
        (32, json!({}), 610_856_096),
        (64, json!({}), 610_856_096),
        (128, json!({}), 611_349_152),
        (128, json!({ "use_additional_conditions": false, "interpolation_scale": 2 }), 610_856_096),
    ] {
        let config = json!({
            "_class_name": "Transformer2DModel", "_diffusers_version": "0.22.0.dev0", "activation_fn": "gelu-approximate",
            "attention_bias": true, "attention_head_dim": 72, "attention_type": "default", "caption_channels": 4096,
            "cross_attention_dim": 1152, "double_self_attention": false, "dropout": 0.0, "in_channels": 4,
            "norm_elementwise_affine": false, "norm_eps": 1e-06, "norm_num_groups": 32, "norm_type": "ada_norm_single",
            "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": null,
            "only_cross_attention": false, "out_channels": 8, "patch_size": 2, "sample_size": sample_size,
            "upcast_attention": false, "use_linear_projection": false
        });
        let config =
            models::PixArtConfig::from_json("t", with(&config, more).to_string().as_bytes()).expect("published");
        let count = parameters(|s| {
            let input = |name: &str, shape: &[usize]| s.input(name, shape, Rate::Step);
            let [resolution, aspect_ratio] = [input("resolution", &[1, 2]), input("aspect_ratio", &[1, 1])];
            let size = models::SizeConditions { resolution: &resolution, aspect_ratio: &aspect_ratio };
            let inputs = models::PixArtInputs {
                sample: &input("sample", &[1, 2, 2, 4]),
                timestep: &input("timestep", &[1]),
                encoder_hidden_states: &input("text", &[1, 5, 4096]),
                encoder_attention_mask: None,
                size: config.use_additional_conditions().then_some(size),
            };
            vec![models::pixart_transformer_2d_model(s, &config, &inputs)]
        });
        assert_eq!(count, wanted, "PixArt of {sample_size}");
    }
}

/// Every field that diffusers' classes have is read or refused, but for those named here, which change nothing in inference.
/// What the classes do not have is passed over, as diffusers does.
#[test]
fn every_field_of_a_class_is_known() {
    let fields = include_str!("../../../tests/goldens/fields.json");
    let fields: std::collections::BTreeMap<String, Vec<String>> = serde_json::from_str(fields).expect("a table");
    type Read = fn(&str, &[u8]) -> Result<(), models::ModelError>;
    let classes: [(&str, Read, &[&str]); 6] = [
        ("AutoencoderKL", |p, t| AutoencoderKlConfig::from_json(p, t).map(drop), &["sample_size", "force_upcast"]),
        (
            "AutoencoderTiny",
            |p, t| AutoencoderTinyConfig::from_json(p, t).map(drop),
            &["latent_magnitude", "latent_shift", "force_upcast"],
        ),
        (
            "DiTTransformer2DModel",
            |p, t| models::DiTConfig::from_json(p, t).map(drop),
            &["dropout", "norm_num_groups", "upcast_attention"],
        ),
        (
            "PixArtTransformer2DModel",
            |p, t| models::PixArtConfig::from_json(p, t).map(drop),
            &["dropout", "norm_num_groups", "num_embeds_ada_norm", "upcast_attention"],
        ),
        (
            "UNet2DConditionModel",
            |p, t| UNet2DConditionConfig::from_json(p, t).map(drop),
            &[
                "dropout",
                "upcast_attention",
                "resnet_skip_time_act",
                "resnet_out_scale_factor",
                "mid_block_only_cross_attention",
                "cross_attention_norm",
                "addition_embed_type_num_heads",
            ],
        ),
        ("UNet2DModel", |p, t| models::UNet2DConfig::from_json(p, t).map(drop), &["dropout", "num_train_timesteps"]),
    ];
    assert_eq!(fields.len(), classes.len());
    for (class, read, harmless) in classes {
        for field in &fields[class] {
            let text = json!({ "_class_name": class, field: { "no": "field holds this" } }).to_string();
            let is_harmless = harmless.contains(&&**field);
            assert_eq!(read("c", text.as_bytes()).is_ok(), is_harmless, "{field} of {class}");
        }
        let text = json!({ "_class_name": class, "_name_or_path": "x", "decay": 0.9999, "trainer": { "steps": [1] } });
        assert!(read("c", text.to_string().as_bytes()).is_ok(), "{class}");
    }
}

/// DDPM, OpenAI's consistency models and NCSN++.
#[test]
fn unets_without_text() {
    let count = |config: &Value| {
        let config = models::UNet2DConfig::from_json("unet", config.to_string().as_bytes()).expect("published");
        parameters(|s| {
            let (side, channels) = (config.side_multiple(), config.in_channels);
            let labels = config.takes_class_labels().then(|| s.input("class", &[1], Rate::Once));
            let inputs = models::UNet2DInputs {
                sample: &s.input("sample", &[1, side, side, channels], Rate::Step),
                timestep: &s.input("timestep", &[1], Rate::Step),
                class_labels: labels.as_ref(),
            };
            vec![models::unet_2d_model(s, &config, &inputs)]
        })
    };
    let mut ddpm = json!({
        "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": null,
        "block_out_channels": [128, 256, 256, 256], "center_input_sample": false,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "downsample_padding": 0,
        "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
        "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32,
        "time_embedding_type": "positional",
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]
    });
    assert_eq!(count(&ddpm), 35_746_307, "google/ddpm-cifar10-32");
    let repeated = |kind: &str, attention: &str, at: usize, levels: usize| -> Value {
        (0..levels).map(|level| if level == at { attention } else { kind }).collect()
    };
    ddpm["block_out_channels"] = json!([128, 128, 256, 256, 512, 512]);
    ddpm["down_block_types"] = repeated("DownBlock2D", "AttnDownBlock2D", 4, 6);
    ddpm["up_block_types"] = repeated("UpBlock2D", "AttnUpBlock2D", 1, 6);
    ddpm["sample_size"] = 256.into();
    assert_eq!(count(&ddpm), 113_673_219, "google/ddpm-celebahq-256");

    let mut ncsnpp = ddpm;
    for (field, value) in [
        ("block_out_channels", json!([128, 128, 256, 256, 256, 256, 256])),
        ("down_block_types", repeated("SkipDownBlock2D", "AttnSkipDownBlock2D", 4, 7)),
        ("up_block_types", repeated("SkipUpBlock2D", "AttnSkipUpBlock2D", 2, 7)),
        ("downsample_padding", json!(1)),
        ("flip_sin_to_cos", json!(true)),
        ("freq_shift", json!(0)),
        ("mid_block_scale_factor", json!(std::f64::consts::SQRT_2)),
        ("norm_num_groups", json!(null)),
        ("time_embedding_type", json!("fourier")),
    ] {
        ncsnpp[field] = value;
    }
    assert_eq!(count(&ncsnpp), 65_574_549, "google/ncsnpp-church-256");

    let consistency = json!({
        "_class_name": "UNet2DModel", "_diffusers_version": "0.18.0.dev0", "act_fn": "silu", "add_attention": true,
        "attention_head_dim": 64, "attn_norm_num_groups": 32, "block_out_channels": [192, 384, 576, 768],
        "center_input_sample": false, "class_embed_type": null,
        "down_block_types": repeated("AttnDownBlock2D", "ResnetDownsampleBlock2D", 0, 4), "downsample_padding": 1,
        "downsample_type": "resnet", "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 3, "layers_per_block": 3,
        "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "num_class_embeds": 1000,
        "out_channels": 3, "resnet_time_scale_shift": "scale_shift", "sample_size": 64,
        "time_embedding_type": "positional",
        "up_block_types": repeated("AttnUpBlock2D", "ResnetUpsampleBlock2D", 3, 4), "upsample_type": "resnet"
    });
    assert_eq!(count(&consistency), 295_899_267, "openai/diffusers-cd_imagenet64_l2");
    let [down, up] = ["ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"];
    let [down_attention, up_attention] = ["AttnDownBlock2D", "AttnUpBlock2D"];
    let lsun = with(
        &consistency,
        json!({
            "block_out_channels": [256, 256, 512, 512, 1024, 1024], "layers_per_block": 2, "num_class_embeds": null,
            "down_block_types": [down, down, down, down_attention, down_attention, down_attention],
            "up_block_types": [up_attention, up_attention, up_attention, up, up, up], "sample_size": 256,
            "resnet_time_scale_shift": "default"
        }),
    );
    assert_eq!(count(&lsun), 526_304_771, "openai/diffusers-cd_bedroom256_l2 and _cat256_l2");
}

/// Both halves of both autoencoders.
#[test]
fn autoencoders() {
    let kl = json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D",
        "DownEncoderBlock2D", "DownEncoderBlock2D"], "in_channels": 3, "latent_channels": 4, "layers_per_block": 2,
        "norm_num_groups": 32, "out_channels": 3, "sample_size": 512, "up_block_types": ["UpDecoderBlock2D",
        "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
    });
    let config = AutoencoderKlConfig::from_json("vae", kl.to_string().as_bytes()).expect("a published configuration");
    assert_eq!((config.factor(), config.scaling_factor), (8, 0.18215));
    let latents = |s: &Scope| s.input("latents", &[1, 1, 1, 4], Rate::Step);
    let count = parameters(|s| vec![autoencoder_kl_decode(s, &config, &latents(s))]);
    assert_eq!(count, 49_490_199, "the decoder and its first convolution");
    let picture = |s: &Scope| s.input("picture", &[1, 8, 8, 3], Rate::Step);
    let both = parameters(|s| {
        let (mean, logvar) = autoencoder_kl_encode(s, &config, &picture(s));
        vec![mean, logvar, autoencoder_kl_decode(s, &config, &latents(s))]
    });
    assert_eq!(both, 83_653_863, "the autoencoder of Stable Diffusion");
    // Of Playground v2.5, whose latents are also normalized channel by channel.
    let playground = with(
        &kl,
        json!({
            "latents_mean": [-1.6574, 1.886, -1.383, 2.5155], "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
            "scaling_factor": 0.5, "sample_size": 1024, "force_upcast": true
        }),
    );
    let config = AutoencoderKlConfig::from_json("vae", playground.to_string().as_bytes()).expect("published");
    assert_eq!(config.normalization()[3], (2.5155, 0.5 / 5.2299));
    for (field, value) in [
        ("latents_std", json!([1, 1])),
        ("latents_std", json!([1, 1, 0, 1])),
        ("act_fn", json!("relu")),
        ("quantization_config", json!({})),
    ] {
        let text = with(&playground, json!({ field: value })).to_string();
        assert!(AutoencoderKlConfig::from_json("vae", text.as_bytes()).is_err(), "{field}");
    }
    let upscaler = with(
        &kl,
        json!({
            "block_out_channels": [128, 256, 512], "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"], "scaling_factor": 0.083_33
        }),
    );
    let config = AutoencoderKlConfig::from_json("vae", upscaler.to_string().as_bytes()).expect("published");
    let both = parameters(|s| {
        let (mean, logvar) = autoencoder_kl_encode(s, &config, &picture(s));
        vec![mean, logvar, autoencoder_kl_decode(s, &config, &latents(s))]
    });
    assert_eq!((both, config.factor()), (55_325_927, 4), "the autoencoder of the x4 upscaler");

    let tiny = json!({
        "_class_name": "AutoencoderTiny", "_diffusers_version": "0.20.0.dev0", "act_fn": "relu",
        "decoder_block_out_channels": [64, 64, 64, 64], "encoder_block_out_channels": [64, 64, 64, 64],
        "force_upcast": false, "in_channels": 3, "latent_channels": 4, "latent_magnitude": 3, "latent_shift": 0.5,
        "num_decoder_blocks": [3, 3, 3, 1], "num_encoder_blocks": [1, 3, 3, 3], "out_channels": 3,
        "scaling_factor": 1.0, "upsample_fn": "nearest", "upsampling_scaling_factor": 2
    });
    let config = AutoencoderTinyConfig::from_json("vae", tiny.to_string().as_bytes()).expect("published");
    assert_eq!(config.factor(), 8);
    let count = parameters(|s| vec![autoencoder_tiny_decode(s, &config, &latents(s))]);
    assert_eq!(count, 1_222_531, "TAESD's decoder");
    let both = parameters(|s| {
        vec![autoencoder_tiny_encode(s, &config, &picture(s)), autoencoder_tiny_decode(s, &config, &latents(s))]
    });
    assert_eq!(both, 2_445_063, "TAESD");
    for (field, value) in [
        ("act_fn", json!("gelu")),
        ("upsample_fn", json!("bilinear")),
        ("upsampling_scaling_factor", json!(3)),
        ("shift_factor", json!(0.5)),
        ("scaling_factor", json!(0)),
        ("num_decoder_blocks", json!([3, 3])),
        ("decoder_block_out_channels", json!([64, 64, 32, 64])),
    ] {
        let mut config = tiny.clone();
        config[field] = value;
        let error = AutoencoderTinyConfig::from_json("vae", config.to_string().as_bytes()).expect_err(field);
        assert!(error.to_string().starts_with("vae: "), "{error}");
    }
}

#[test]
fn text_encoders() {
    let large = json!({
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0,
        "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768, "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
        "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1,
        "projection_dim": 768, "torch_dtype": "float16", "transformers_version": "4.32.0.dev0", "vocab_size": 49408
    });
    let read = |config: &Value| {
        ClipTextConfig::from_json("text_encoder", config.to_string().as_bytes()).expect("a published configuration")
    };
    let tokens = |s: &Scope, name: &str| s.input(name, &[1, 77], Rate::Step);
    let config = read(&large);
    let count = parameters(|s| vec![clip_text_model(s, &config, &tokens(s, "ids"), None, ClipHiddenState::Last)]);
    assert_eq!(count, 123_060_480, "CLIP ViT-L");

    let mut larger = large;
    for (field, value) in [
        ("architectures", json!(["CLIPTextModelWithProjection"])),
        ("hidden_act", json!("gelu")),
        ("hidden_size", json!(1280)),
        ("intermediate_size", json!(5120)),
        ("num_attention_heads", json!(20)),
        ("num_hidden_layers", json!(32)),
        ("projection_dim", json!(1280)),
    ] {
        larger[field] = value;
    }
    let config = read(&larger);
    let count = parameters(|s| {
        let (hidden, embeds) =
            clip_text_model_with_projection(s, &config, &tokens(s, "ids"), None, &tokens(s, "pooled_at"));
        vec![hidden, embeds]
    });
    assert_eq!(count, 694_659_840, "OpenCLIP ViT-bigG");
    // These files give 2 as the end mark, and the largest id is used instead.
    assert_eq!(config.pooled_token(&[49406, 320, 2, 49407, 0, 0]), 3);
}

#[test]
fn t5_version_1_1_xxl() {
    let config = json!({
        "architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64, "d_model": 4096,
        "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1, "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0, "is_encoder_decoder": true, "is_gated_act": true,
        "layer_norm_epsilon": 1e-06, "model_type": "t5", "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24,
        "output_past": true, "pad_token_id": 0, "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32, "tie_word_embeddings": false, "torch_dtype": "float32",
        "transformers_version": "4.21.1", "use_cache": true, "vocab_size": 32128
    });
    let config = T5Config::from_json("text_encoder", config.to_string().as_bytes()).expect("a published configuration");
    let count = parameters(|s| {
        let input = |name: &str| s.input(name, &[1, 120], Rate::Step);
        vec![t5_encoder_model(s, &config, &input("ids"), Some(&input("mask")))]
    });
    assert_eq!(count, 4_762_310_656);
}
