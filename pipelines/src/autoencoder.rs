//! From latents to pictures.

use crate::denoiser::SampleShape;
use crate::error::PipelineError;
use graph::{Device, Graph, MemoryUse, Plan, PlanOptions, Rate, Scope, passes};
use models::{AutoencoderKlConfig, Checkpoint, ModelFiles, ModelIndex, autoencoder_kl_decode};

/// The decoder of a latent diffusion model.
pub(crate) struct Autoencoder {
    config: AutoencoderKlConfig,
    weights: Checkpoint,
    /// Planned for latents of this shape.
    plan: Option<(SampleShape, Box<dyn Plan>)>,
}

/// The half that makes latents of pictures.
const ENCODER: &[&str] = &["encoder.", "quant_conv."];

impl Autoencoder {
    /// Reads and checks the pipeline's autoencoder; none if it has none.
    pub(crate) fn load(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Self>, PipelineError> {
        if index.component("vae").is_none() {
            return Ok(None);
        }
        index.require("vae", &["AutoencoderKL"])?;
        let path = "vae/config.json";
        let config = AutoencoderKlConfig::from_json(&files.describe(path), &files.read(path)?)?;
        let weights = Checkpoint::open(files, "vae", None)?.without(ENCODER);
        let model = Self { config, weights, plan: None };
        let smallest = SampleShape { height: 1, width: 1, channels: model.config.latent_channels };
        model.weights.check(&model.graph(smallest)?.weights())?;
        Ok(Some(model))
    }

    /// Pixels along a side of one latent.
    pub(crate) fn factor(&self) -> usize {
        self.config.factor()
    }

    /// Channels of the latents.
    pub(crate) fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// Whether what it decodes is a picture.
    pub(crate) fn makes_pictures(&self) -> bool {
        matches!(self.config.out_channels, 1 | 3)
    }

    /// What its plan holds, once there is one.
    pub(crate) fn memory(&self) -> Option<MemoryUse> {
        self.plan.as_ref().map(|(_, plan)| plan.memory())
    }

    fn graph(&self, shape: SampleShape) -> Result<Graph, PipelineError> {
        let s = Scope::root();
        let latents = s.input("latents", &[1, shape.height, shape.width, shape.channels], Rate::Step);
        let image = autoencoder_kl_decode(&s, &self.config, &latents);
        Ok(s.finish(&[("image", &image)])?)
    }

    /// The picture of latents `[H, W, C]`, about −1..1, with its extents.
    pub(crate) fn decode(
        &mut self,
        device: &dyn Device,
        options: PlanOptions,
        latents: &[f32],
        shape: SampleShape,
    ) -> Result<(Vec<f32>, SampleShape), PipelineError> {
        let plan = match self.plan.take() {
            Some((known, plan)) if known == shape => plan,
            // The old plan's memory is free before the new one asks for more.
            old => {
                drop(old);
                device.plan(&passes::optimize(&self.graph(shape)?), &self.weights, options)?
            }
        };
        let factor = self.factor();
        let extents = SampleShape {
            height: shape.height * factor,
            width: shape.width * factor,
            channels: self.config.out_channels,
        };
        let (_, plan) = self.plan.insert((shape, plan));
        plan.write("latents", latents)?;
        plan.run()?;
        Ok((plan.read("image")?, extents))
    }
}
