//! UNets that no text guides: DDPM, DDIM and consistency models.

use super::{Classes, Concatenated, Defaults, Guidance, Network, Source};
use crate::error::PipelineError;
use models::{ModelFiles, ModelIndex, UNet2DConfig, UNet2DInputs, unet_2d_model};

/// Pipelines with the steps that diffusers takes where nobody says.
const PIPELINES: &[(&str, usize)] = &[("ConsistencyModelPipeline", 1), ("DDIMPipeline", 50), ("DDPMPipeline", 1000)];

/// Describes a `UNet2DModel`, if the pipeline is one of these.
pub(super) fn read(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Network>, PipelineError> {
    let Some((class, steps)) = PIPELINES.iter().find(|(class, _)| *class == index.class_name) else {
        return Ok(None);
    };
    index.require("unet", &["UNet2DModel"])?;
    // The first checkpoints of diffusers have no folders; it still reads them.
    let flat = files.list("unet").is_empty() && files.exists("config.json");
    let (folder, path) = if flat { ("", "config.json") } else { ("unet", "unet/config.json") };
    let config = UNet2DConfig::from_json(&files.describe(path), &files.read(path)?)?;
    let broken = |message: String| {
        let path = files.describe(path);
        Err(PipelineError::Checkpoint(format!("{path}: {message}")))
    };
    if config.in_channels != config.out_channels {
        let (taken, made) = (config.in_channels, config.out_channels);
        return broken(format!("{made} channels are predicted of {taken}, which {class} does not take"));
    }
    if config.takes_class_labels() && config.num_class_embeds.is_none() {
        return broken("class_embed_type needs num_class_embeds, which says how many classes there are".into());
    }
    Ok(Some(Network {
        folder,
        channels: config.in_channels,
        sample_extents: config.sample_size().unwrap_or([64, 64]),
        side_multiple: config.side_multiple(),
        patch: config.side_multiple(),
        conditions: config.num_class_embeds.map(|_| Source::Class.named("class_labels")).into_iter().collect(),
        text: None,
        classes: config.num_class_embeds.map(|count| Classes { count, null: None }),
        guidance: Guidance::None,
        concatenated: Concatenated::Nothing,
        bins: false,
        several_sizes: false,
        draws_twice: false,
        defaults: Defaults::new(1.0, *steps),
        build: Box::new(move |s, inputs| {
            let class_labels = inputs.get("class_labels");
            unet_2d_model(s, &config, &UNet2DInputs { sample: inputs.sample, timestep: inputs.timestep, class_labels })
        }),
    }))
}
