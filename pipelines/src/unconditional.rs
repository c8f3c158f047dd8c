//! UNets that no text guides: DDPM, DDIM and consistency models.

use crate::denoiser::ModelInputs;
use crate::error::PipelineError;
use graph::{Scope, Tensor};
use models::{ModelFiles, ModelIndex, UNet2DConfig, UNet2DInputs, unet_2d_model};

/// Such a network, as its pipeline uses it.
#[derive(Debug)]
pub(crate) struct Unconditional {
    pub(crate) config: UNet2DConfig,
    /// Of configuration and weights.
    pub(crate) folder: &'static str,
    /// diffusers' own num_inference_steps.
    pub(crate) steps: usize,
}

/// Pipelines with the steps that diffusers takes where nobody says.
const PIPELINES: &[(&str, usize)] = &[("ConsistencyModelPipeline", 1), ("DDIMPipeline", 50), ("DDPMPipeline", 1000)];

impl Unconditional {
    /// Reads the configuration, if the pipeline is one of these.
    pub(crate) fn load(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Self>, PipelineError> {
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
        Ok(Some(Self { config, folder, steps: *steps }))
    }

    pub(crate) fn build(&self, s: &Scope, inputs: &ModelInputs<'_>) -> Tensor {
        let inputs =
            UNet2DInputs { sample: inputs.sample, timestep: inputs.timestep, class_labels: inputs.class_labels };
        unet_2d_model(s, &self.config, &inputs)
    }
}

/// A class that the seed chooses, each as often as any: SplitMix64's first number.
pub(crate) fn label_of_seed(seed: u64, classes: usize) -> usize {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let scaled = u128::from(z ^ (z >> 31)) * classes as u128;
    usize::try_from(scaled >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_choose_every_class_about_equally_often() {
        let mut counts = [0; 10];
        (0..10_000).for_each(|seed| counts[label_of_seed(seed, 10)] += 1);
        // Five standard deviations of a binomial distribution.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(label_of_seed(u64::MAX, 1), 0);
    }
}
