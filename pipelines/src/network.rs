//! The network that predicts: which class it is, what it takes, and its graph.

use crate::denoiser::ModelInputs;
use crate::error::PipelineError;
use crate::unconditional::Unconditional;
use graph::{Scope, Tensor};
use models::{
    AddedConditions, DiTConfig, DiTInputs, ModelFiles, ModelIndex, PixArtConfig, PixArtInputs, SizeConditions,
    UNet2DConditionConfig, UNet2DConditionInputs, dit_transformer_2d_model, pixart_transformer_2d_model,
    unet_2d_condition_model,
};

/// A configuration of a network, and what it is guided by.
#[derive(Debug)]
pub(crate) enum Network {
    /// A diffusion transformer.
    PixArt(PixArtConfig),
    /// The UNet of Stable Diffusion, or of a latent consistency model.
    UNet(UNet2DConditionConfig),
    /// A UNet without text.
    Unconditional(Unconditional),
    /// A diffusion transformer of classes.
    DiT(DiTConfig),
}

/// Pipelines whose UNet takes text and, in the XL ones, an embedding of it and the picture's size. Networks of their other tasks are the same.
const UNET_PIPELINES: &[&str] = &[
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

/// What a network sees beside the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    /// A mask, and the latents of a picture without what is white there.
    Mask,
    /// A picture of the sample's size, under noise of a level that is its class.
    Picture,
}

/// Channels of such a picture.
const PICTURE: usize = 3;

impl Network {
    /// Reads the configuration of whichever network the pipeline has.
    pub(crate) fn load(files: &ModelFiles, index: &ModelIndex) -> Result<Self, PipelineError> {
        if let Some(network) = Unconditional::load(files, index)? {
            return Ok(Self::Unconditional(network));
        }
        let read = |path: &str| files.read(path).map(|text| (files.describe(path), text));
        if index.class_name == "DiTPipeline" {
            index.require("transformer", &["DiTTransformer2DModel", "Transformer2DModel"])?;
            let (path, text) = read("transformer/config.json")?;
            return Ok(Self::DiT(DiTConfig::from_json(&path, &text)?));
        }
        if index.component("unet").is_none() {
            index.require("transformer", &["PixArtTransformer2DModel", "Transformer2DModel"])?;
            let (path, text) = read("transformer/config.json")?;
            return Ok(Self::PixArt(PixArtConfig::from_json(&path, &text)?));
        }
        index.require("unet", &["UNet2DConditionModel"])?;
        if !UNET_PIPELINES.contains(&&*index.class_name) {
            let (path, class, known) = (&index.path, &index.class_name, UNET_PIPELINES.join(", "));
            let message = format!("{path}: the pipeline {class} is not supported (with a unet, these are: {known})");
            return Err(PipelineError::Checkpoint(message));
        }
        let (path, text) = read("unet/config.json")?;
        let config = UNet2DConditionConfig::from_json(&path, &text)?;
        let class = &index.class_name;
        let broken = |message: String| Err(PipelineError::Checkpoint(format!("{path}: {message}")));
        let large = class.starts_with("StableDiffusionXL");
        let masked = class.ends_with("InpaintPipeline") && config.in_channels == 2 * config.out_channels + 1;
        let fits = if class == UPSCALER {
            config.in_channels == config.out_channels + PICTURE && config.takes_class_labels()
        } else {
            (config.in_channels == config.out_channels || masked) && !config.takes_class_labels()
        };
        if !fits || (config.pooled_channels().is_some() && !large) {
            return broken(format!("this network takes more than a sample and text, which {class} does not give"));
        }
        if config.pooled_channels().is_none() && large {
            return broken(format!("this network takes no embedding of the prompt, which {class} gives"));
        }
        if index.options.get("requires_aesthetics_score") == Some(&serde_json::Value::Bool(true)) {
            let path = &index.path;
            let message = format!("{path}: requires_aesthetics_score = true (a refiner) is not supported");
            return Err(PipelineError::Checkpoint(message));
        }
        Ok(Self::UNet(config))
    }

    /// The folder of its weights.
    pub(crate) fn folder(&self) -> &'static str {
        match self {
            Self::PixArt(_) | Self::DiT(_) => "transformer",
            Self::UNet(_) => "unet",
            Self::Unconditional(network) => network.folder,
        }
    }

    /// Channels of the sample.
    pub(crate) fn channels(&self) -> usize {
        match self {
            Self::PixArt(config) => config.in_channels,
            Self::UNet(config) => config.out_channels,
            Self::Unconditional(network) => network.config.in_channels,
            Self::DiT(config) => config.in_channels,
        }
    }

    /// What it sees beside the sample.
    pub(crate) fn beside(&self) -> Beside {
        match self {
            Self::UNet(config) if config.takes_class_labels() => Beside::Picture,
            Self::UNet(config) if config.in_channels > config.out_channels => Beside::Mask,
            _ => Beside::Nothing,
        }
    }

    /// Channels of what it sees beside the sample.
    pub(crate) fn beside_channels(&self) -> usize {
        if let Self::UNet(config) = self { config.in_channels - config.out_channels } else { 0 }
    }

    /// Whether it reads text.
    pub(crate) fn takes_text(&self) -> bool {
        matches!(self, Self::PixArt(_) | Self::UNet(_))
    }

    /// How many classes it knows, if it has classes.
    pub(crate) fn classes(&self) -> Option<usize> {
        match self {
            Self::PixArt(_) | Self::UNet(_) => None,
            Self::Unconditional(network) => network.config.num_class_embeds,
            Self::DiT(config) => Some(config.classes),
        }
    }

    /// Levels of noise over the picture beside the sample, counted from 0; none if the network takes any.
    pub(crate) fn noise_levels(&self) -> Option<usize> {
        if let Self::UNet(config) = self { config.num_class_embeds } else { None }
    }

    /// The class that stands for none of them under guidance, if it was trained with one.
    pub(crate) fn null_class(&self) -> Option<usize> {
        if let Self::DiT(config) = self { Some(config.classes) } else { None }
    }

    /// Whether its pipeline steps a sample and its copy under guidance, so that each step's draw is of both.
    pub(crate) fn steps_two_samples(&self) -> bool {
        matches!(self, Self::DiT(_))
    }

    /// Channels of the text embeddings; 0 of none.
    pub(crate) fn text_channels(&self) -> usize {
        match self {
            Self::PixArt(config) => config.encoder_channels(),
            Self::UNet(config) => config.cross_attention_dim,
            Self::Unconditional(_) | Self::DiT(_) => 0,
        }
    }

    /// Channels of the embedding of a whole prompt, if it takes one.
    pub(crate) fn pooled_channels(&self) -> Option<usize> {
        match self {
            Self::PixArt(_) | Self::Unconditional(_) | Self::DiT(_) => None,
            Self::UNet(config) => config.pooled_channels(),
        }
    }

    /// Height and width of the sample that it was trained on.
    pub(crate) fn sample_extents(&self) -> [usize; 2] {
        match self {
            Self::Unconditional(network) => network.config.sample_size().unwrap_or([64, 64]),
            _ => [self.sample_size(); 2],
        }
    }

    /// Side of the sample that it was trained on.
    pub(crate) fn sample_size(&self) -> usize {
        match self {
            Self::Unconditional(_) => self.sample_extents()[0],
            Self::DiT(config) => config.sample_size,
            Self::PixArt(config) => config.sample_size,
            Self::UNet(config) => config.sample_size.unwrap_or(64),
        }
    }

    /// What the sample's sides are multiples of.
    pub(crate) fn side_multiple(&self) -> usize {
        match self {
            Self::PixArt(config) => config.patch_size,
            Self::UNet(config) => config.side_multiple(),
            Self::Unconditional(network) => network.config.side_multiple(),
            Self::DiT(config) => config.patch_size,
        }
    }

    /// Elements of the sample along a side of what the network counts its work by: a patch, or an element where a UNet is narrowest.
    pub(crate) fn patch(&self) -> usize {
        if let Self::UNet(config) = self { config.narrowing() } else { self.side_multiple() }
    }

    /// Whether padding of the prompt is hidden from the text encoder and the network. Stable Diffusion was trained to see it.
    pub(crate) fn masks_padding(&self) -> bool {
        matches!(self, Self::PixArt(_))
    }

    /// Whether guidance is an input of the network, so that it runs once a step.
    pub(crate) fn embeds_guidance(&self) -> bool {
        matches!(self, Self::UNet(config) if config.time_cond_proj_dim.is_some())
    }

    /// Whether guidance can make two predictions of it into one.
    pub(crate) fn guides(&self) -> bool {
        (self.takes_text() && !self.embeds_guidance()) || self.null_class().is_some()
    }

    /// (guidance_scale, num_inference_steps) where neither checkpoint nor user says: diffusers' own for Stable Diffusion, its
    /// XL and latent consistency models.
    pub(crate) fn defaults(&self) -> (f64, usize) {
        match self {
            Self::PixArt(_) => (4.5, 20),
            Self::UNet(_) if self.embeds_guidance() => (8.5, 4),
            Self::UNet(_) if self.beside() == Beside::Picture => (9.0, 75),
            Self::UNet(config) if config.pooled_channels().is_some() => (5.0, 50),
            Self::UNet(_) => (7.5, 50),
            Self::Unconditional(network) => (1.0, network.steps),
            Self::DiT(_) => (4.0, 50),
        }
    }

    /// The network around its inputs; `pixels_per_element` tells how large the picture of a sample is.
    pub(crate) fn build(&self, s: &Scope, inputs: &ModelInputs<'_>, pixels_per_element: usize) -> Tensor {
        match self {
            Self::PixArt(config) => pixart(s, config, inputs, pixels_per_element),
            Self::Unconditional(network) => network.build(s, inputs),
            Self::DiT(config) => {
                let Some(class_labels) = inputs.class_labels else { return s.poison("this network draws classes") };
                let inputs = DiTInputs { sample: inputs.sample, timestep: inputs.timestep, class_labels };
                config.without_variance(&dit_transformer_2d_model(s, config, &inputs))
            }
            Self::UNet(config) => {
                let Some(text) = inputs.encoder_hidden_states else { return s.poison("this network reads text") };
                let condition = inputs.embedded_guidance.zip(config.time_cond_proj_dim).map(|(guidance, channels)| {
                    // diffusers' get_guidance_scale_embedding of guidance_scale - 1.
                    guidance.offset(-1.0).scale(1000.0).timestep_embedding(channels, false, 1.0)
                });
                // Original size, top left corner of the crop, size: the picture as if it had never been cut.
                let batch = inputs.sample.extent(0);
                let [height, width] = [1, 2].map(|axis| (inputs.sample.extent(axis) * pixels_per_element) as f32);
                let time_ids = inputs
                    .text_embeds
                    .map(|_| s.constant(&[batch, 6], [height, width, 0.0, 0.0, height, width].repeat(batch)));
                let added = inputs
                    .text_embeds
                    .zip(time_ids.as_ref())
                    .map(|(text_embeds, time_ids)| AddedConditions { text_embeds, time_ids });
                unet_2d_condition_model(
                    s,
                    config,
                    &UNet2DConditionInputs {
                        sample: inputs.sample,
                        timestep: inputs.timestep,
                        encoder_hidden_states: text,
                        timestep_cond: condition.as_ref(),
                        added,
                        class_labels: inputs.class_labels,
                    },
                )
            }
        }
    }
}

fn pixart(s: &Scope, config: &PixArtConfig, inputs: &ModelInputs<'_>, pixels_per_element: usize) -> Tensor {
    let Some(text) = inputs.encoder_hidden_states else { return s.poison("this network reads text") };
    let batch = inputs.sample.extent(0);
    let [height, width] = [1, 2].map(|axis| (inputs.sample.extent(axis) * pixels_per_element) as f32);
    let resolution = s.constant(&[batch, 2], [height, width].repeat(batch));
    let aspect_ratio = s.constant(&[batch, 1], vec![height / width; batch]);
    let size = config
        .use_additional_conditions()
        .then_some(SizeConditions { resolution: &resolution, aspect_ratio: &aspect_ratio });
    let output = pixart_transformer_2d_model(
        s,
        config,
        &PixArtInputs {
            sample: inputs.sample,
            timestep: inputs.timestep,
            encoder_hidden_states: text,
            encoder_attention_mask: inputs.encoder_attention_mask,
            size,
        },
    );
    config.without_variance(&output)
}
