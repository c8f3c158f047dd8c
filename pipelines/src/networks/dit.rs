//! Diffusion transformers of classes (Peebles & Xie 2023).

use super::{Classes, Concatenated, Defaults, Guidance, Network, Source};
use crate::error::PipelineError;
use models::{DiTConfig, DiTInputs, ModelFiles, ModelIndex, dit_transformer_2d_model};

/// Describes the transformer of a `DiTPipeline`.
pub(super) fn read(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Network>, PipelineError> {
    if index.class_name != "DiTPipeline" {
        return Ok(None);
    }
    index.require("transformer", &["DiTTransformer2DModel", "Transformer2DModel"])?;
    let path = "transformer/config.json";
    let config = DiTConfig::from_json(&files.describe(path), &files.read(path)?)?;
    Ok(Some(Network {
        folder: "transformer",
        channels: config.in_channels,
        sample_extents: [config.sample_size; 2],
        side_multiple: config.patch_size,
        patch: config.patch_size,
        conditions: vec![Source::Class.named("class_labels")],
        text: None,
        classes: Some(Classes { count: config.classes, null: Some(config.classes) }),
        guidance: Guidance::ClassifierFree,
        concatenated: Concatenated::Nothing,
        bins: false,
        several_sizes: false,
        draws_twice: true,
        defaults: Defaults::new(4.0, 50),
        build: Box::new(move |s, inputs| {
            let Some(class_labels) = inputs.get("class_labels") else { return s.poison("this network draws classes") };
            let inputs = DiTInputs { sample: inputs.sample, timestep: inputs.timestep, class_labels };
            config.without_variance(&dit_transformer_2d_model(s, &config, &inputs))
        }),
    }))
}
