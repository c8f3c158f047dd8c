//! The UNet of Stable Diffusion 1, 2 and XL, of its inpainting, refining and x4 upscaling models, and of latent consistency models.

use super::{Concatenated, Defaults, Guidance, Inputs, Network, Source, TextInput};
use crate::error::PipelineError;
use graph::{Scope, Tensor};
use models::{
    AddedConditions, ModelFiles, ModelIndex, UNet2DConditionConfig, UNet2DConditionInputs, unet_2d_condition_model,
};

/// Pipelines whose UNet takes text and, in the XL ones, an embedding of it and the picture's size. Networks of their other tasks are the same.
const PIPELINES: &[&str] = &[
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionXLInpaintPipeline",
    UPSCALER,
];

/// The pipeline whose network sees the picture that is enlarged.
const UPSCALER: &str = "StableDiffusionUpscalePipeline";

/// Describes a `UNet2DConditionModel`.
pub(super) fn read(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Network>, PipelineError> {
    index.require("unet", &["UNet2DConditionModel"])?;
    if !PIPELINES.contains(&&*index.class_name) {
        let (path, class, known) = (&index.path, &index.class_name, PIPELINES.join(", "));
        let message = format!("{path}: the pipeline {class} is not supported (with a unet, these are: {known})");
        return Err(PipelineError::Checkpoint(message));
    }
    let path = files.describe("unet/config.json");
    let config = UNet2DConditionConfig::from_json(&path, &files.read("unet/config.json")?)?;
    let concatenated = concatenated(&config, index, &path)?;
    // A refiner is told the size of the original, the corner of the crop and how beautiful the picture is.
    let scores = index.options.get("requires_aesthetics_score") == Some(&serde_json::Value::Bool(true));
    let pooled = config.pooled_channels(if scores { 5 } else { 6 });
    let text = TextInput { channels: config.cross_attention_dim(), pooled, masks_padding: false };
    let guidance = if config.time_cond_proj_dim.is_some() { Guidance::Embedded } else { Guidance::ClassifierFree };
    let mut conditions = vec![Source::Text.named("encoder_hidden_states")];
    conditions.extend(text.pooled.map(|_| Source::TextEmbeds.named("text_embeds")));
    conditions.extend(text.pooled.filter(|_| scores).map(|_| Source::AestheticScore.named("aesthetic_score")));
    conditions.extend(config.takes_class_labels().then(|| Source::Class.named("class_labels")));
    conditions.extend(config.time_cond_proj_dim.map(|_| Source::Guidance.named("embedded_guidance")));
    Ok(Some(Network {
        folder: "unet",
        channels: config.out_channels,
        sample_extents: config.sample_size().unwrap_or([64, 64]),
        side_multiple: config.side_multiple(),
        patch: config.narrowing(),
        conditions,
        text: Some(text),
        classes: None,
        guidance,
        concatenated,
        bins: false,
        several_sizes: true,
        draws_twice: false,
        defaults: defaults(guidance, concatenated, text.pooled.is_some()),
        build: Box::new(move |s, inputs| build(s, &config, inputs)),
    }))
}

/// What this network sees besides its sample; refuses one that takes what its pipeline does not give.
fn concatenated(config: &UNet2DConditionConfig, index: &ModelIndex, path: &str) -> Result<Concatenated, PipelineError> {
    let class = &index.class_name;
    let broken = |message: String| Err(PipelineError::Checkpoint(format!("{path}: {message}")));
    let large = class.starts_with("StableDiffusionXL");
    let further = config.in_channels.checked_sub(config.out_channels);
    let concatenated = match further {
        Some(3) if class == UPSCALER && config.takes_class_labels() => {
            Some(Concatenated::Picture { levels: config.num_class_embeds })
        }
        _ if class == UPSCALER || config.takes_class_labels() => None,
        Some(0) => Some(Concatenated::Nothing),
        Some(further) if class.ends_with("InpaintPipeline") && further == config.out_channels + 1 => {
            Some(Concatenated::Mask(further))
        }
        _ => None,
    };
    match concatenated {
        Some(concatenated) if !config.takes_pooled_text() || large => {
            if !config.takes_pooled_text() && large {
                return broken(format!("this network takes no embedding of the prompt, which {class} gives"));
            }
            Ok(concatenated)
        }
        _ => broken(format!("this network takes more than a sample and text, which {class} does not give")),
    }
}

fn defaults(guidance: Guidance, concatenated: Concatenated, large: bool) -> Defaults {
    let own = match (guidance, concatenated) {
        (Guidance::Embedded, _) => Defaults::new(8.5, 4),
        (_, Concatenated::Picture { .. }) => Defaults::new(9.0, 75),
        _ if large => Defaults::new(5.0, 50),
        _ => Defaults::new(7.5, 50),
    };
    if !large {
        return own;
    }
    Defaults { image_strength: 0.3, inpaint_strength: 0.9999, inpaint_guidance_scale: 7.5, ..own }
}

fn build(s: &Scope, config: &UNet2DConditionConfig, inputs: &Inputs<'_>) -> Tensor {
    let Some(text) = inputs.get("encoder_hidden_states") else { return s.poison("this network reads text") };
    let guidance = inputs.get("embedded_guidance").zip(config.time_cond_proj_dim);
    let timestep_cond = guidance.map(|(guidance, channels)| {
        // diffusers' get_guidance_scale_embedding of guidance_scale - 1.
        guidance.offset(-1.0).scale(1000.0).timestep_embedding(channels, false, 1.0)
    });
    // Original size, top left corner of the crop, size or score: the picture as if it had never been cut.
    let (batch, [height, width]) = (inputs.batch(), inputs.picture_extents());
    let text_embeds = inputs.get("text_embeds");
    let time_ids = text_embeds.map(|_| {
        let place = s.constant(&[batch, 4], [height, width, 0.0, 0.0].repeat(batch));
        let rest = match inputs.get("aesthetic_score") {
            Some(score) => score.reshape(&[batch, 1]),
            None => s.constant(&[batch, 2], [height, width].repeat(batch)),
        };
        Tensor::concat(&[&place, &rest], 1)
    });
    let added =
        text_embeds.zip(time_ids.as_ref()).map(|(text_embeds, time_ids)| AddedConditions { text_embeds, time_ids });
    let inputs = UNet2DConditionInputs {
        sample: inputs.sample,
        timestep: inputs.timestep,
        encoder_hidden_states: text,
        timestep_cond: timestep_cond.as_ref(),
        added,
        class_labels: inputs.get("class_labels"),
    };
    unet_2d_condition_model(s, config, &inputs)
}
