//! PixArt: a diffusion transformer that reads text (Chen et al. 2023).

use super::{Concatenated, Defaults, Guidance, Inputs, Network, Source, TextInput};
use crate::error::PipelineError;
use graph::{Scope, Tensor};
use models::{ModelFiles, ModelIndex, PixArtConfig, PixArtInputs, SizeConditions, pixart_transformer_2d_model};

/// Describes the transformer of a pipeline without a `unet`.
pub(super) fn read(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Network>, PipelineError> {
    if index.component("unet").is_some() {
        return Ok(None);
    }
    index.require("transformer", &["PixArtTransformer2DModel", "Transformer2DModel"])?;
    let path = "transformer/config.json";
    let config = PixArtConfig::from_json(&files.describe(path), &files.read(path)?)?;
    let text = TextInput { channels: config.encoder_channels(), pooled: None, masks_padding: true };
    Ok(Some(Network {
        folder: "transformer",
        channels: config.in_channels,
        sample_extents: [config.sample_size; 2],
        side_multiple: config.patch_size,
        patch: config.patch_size,
        conditions: vec![Source::Text.named("encoder_hidden_states"), Source::TextMask.named("encoder_attention_mask")],
        text: Some(text),
        classes: None,
        guidance: Guidance::ClassifierFree,
        concatenated: Concatenated::Nothing,
        // diffusers rounds the size of latents only.
        bins: index.component("vae").is_some(),
        several_sizes: config.use_additional_conditions(),
        draws_twice: false,
        defaults: Defaults::new(4.5, 20),
        build: Box::new(move |s, inputs| build(s, &config, inputs)),
    }))
}

fn build(s: &Scope, config: &PixArtConfig, inputs: &Inputs<'_>) -> Tensor {
    let Some(text) = inputs.get("encoder_hidden_states") else { return s.poison("this network reads text") };
    let batch = inputs.batch();
    let [height, width] = inputs.picture_extents();
    let resolution = s.constant(&[batch, 2], [height, width].repeat(batch));
    let aspect_ratio = s.constant(&[batch, 1], vec![height / width; batch]);
    let size = config
        .use_additional_conditions()
        .then_some(SizeConditions { resolution: &resolution, aspect_ratio: &aspect_ratio });
    let inputs = PixArtInputs {
        sample: inputs.sample,
        timestep: inputs.timestep,
        encoder_hidden_states: text,
        encoder_attention_mask: inputs.get("encoder_attention_mask"),
        size,
    };
    config.without_variance(&pixart_transformer_2d_model(s, config, &inputs))
}
