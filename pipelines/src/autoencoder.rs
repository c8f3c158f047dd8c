//! From latents to pictures, and back.

use crate::denoiser::SampleShape;
use crate::encoder::{Encoder, Latents};
use crate::error::PipelineError;
use graph::{Device, Graph, MemoryUse, Plan, PlanOptions, Rate, Scope, Tensor, passes};
use models::{
    AutoencoderKlConfig, AutoencoderTinyConfig, Checkpoint, ModelFiles, ModelIndex, autoencoder_kl_decode,
    autoencoder_tiny_decode,
};

/// The decoder of a latent diffusion model, and its encoder where a picture comes.
pub(crate) struct Autoencoder {
    decoder: Decoder,
    encoder: Encoder,
    weights: Checkpoint,
    /// Planned for latents of this shape.
    plan: Option<(SampleShape, Box<dyn Plan>)>,
}

pub(crate) enum Decoder {
    Kl(AutoencoderKlConfig),
    Tiny(AutoencoderTinyConfig),
}

impl Decoder {
    fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::Tiny(config) => config.latent_channels,
        }
    }

    /// Channels of a picture, and pixels along a side of one latent, of what the encoder takes and makes.
    fn taken(&self) -> (usize, usize) {
        match self {
            Self::Kl(config) => (config.in_channels, config.factor()),
            Self::Tiny(config) => (config.in_channels, config.encoder_factor()),
        }
    }

    fn out_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.out_channels,
            Self::Tiny(config) => config.out_channels,
        }
    }

    fn factor(&self) -> usize {
        match self {
            Self::Kl(config) => config.factor(),
            Self::Tiny(config) => config.factor(),
        }
    }

    fn build(&self, s: &Scope, latents: &Tensor) -> Tensor {
        match self {
            Self::Kl(config) => autoencoder_kl_decode(s, config, latents),
            Self::Tiny(config) => autoencoder_tiny_decode(s, config, latents),
        }
    }
}

/// The half that makes latents of pictures.
const ENCODER: &[&str] = &["encoder.", "quant_conv."];

impl Autoencoder {
    /// Reads and checks the pipeline's autoencoder; none if it has none.
    pub(crate) fn load(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Self>, PipelineError> {
        if index.component("vae").is_none() {
            return Ok(None);
        }
        let class = &index.require("vae", &["AutoencoderKL", "AutoencoderTiny"])?.class_name;
        let (path, text) = (files.describe("vae/config.json"), files.read("vae/config.json")?);
        let decoder = if class == "AutoencoderTiny" {
            Decoder::Tiny(AutoencoderTinyConfig::from_json(&path, &text)?)
        } else {
            Decoder::Kl(AutoencoderKlConfig::from_json(&path, &text)?)
        };
        let weights = Checkpoint::open(files, "vae", None)?.without(ENCODER);
        let model = Self { decoder, encoder: Encoder::new(files), weights, plan: None };
        let smallest = SampleShape { height: 1, width: 1, channels: model.latent_channels() };
        model.weights.check(&model.graph(smallest)?.weights())?;
        Ok(Some(model))
    }

    /// Pixels along a side of one latent.
    pub(crate) fn factor(&self) -> usize {
        self.decoder.factor()
    }

    /// Channels of the latents.
    pub(crate) fn latent_channels(&self) -> usize {
        self.decoder.latent_channels()
    }

    /// Whether what it decodes is a picture.
    pub(crate) fn makes_pictures(&self) -> bool {
        matches!(self.decoder.out_channels(), 1 | 3)
    }

    /// What its plan holds, once there is one.
    pub(crate) fn memory(&self) -> Option<MemoryUse> {
        self.plan.as_ref().map(|(_, plan)| plan.memory())
    }

    fn graph(&self, shape: SampleShape) -> Result<Graph, PipelineError> {
        let s = Scope::root();
        let latents = s.input("latents", &[1, shape.height, shape.width, shape.channels], Rate::Step);
        let image = self.decoder.build(&s, &latents);
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
            channels: self.decoder.out_channels(),
        };
        let (_, plan) = self.plan.insert((shape, plan));
        plan.write("latents", latents)?;
        plan.run()?;
        Ok((plan.read("image")?, extents))
    }

    /// Channels of the pictures that [`encode`](Self::encode) takes; none if their latents are not what the decoder reads.
    pub(crate) fn picture_channels(&self) -> Option<usize> {
        let (channels, factor) = self.decoder.taken();
        (matches!(channels, 1 | 3) && factor == self.factor()).then_some(channels)
    }

    /// The latents of a picture `[H, W, C]` of −1..1.
    pub(crate) fn encode(
        &mut self,
        device: (&dyn Device, PlanOptions),
        picture: &[f32],
        shape: SampleShape,
    ) -> Result<Latents, PipelineError> {
        self.encoder.encode(&self.decoder, device, picture, shape)
    }

    /// Whether latents of a picture are drawn from a distribution.
    pub(crate) fn draws(&self) -> bool {
        matches!(self.decoder, Decoder::Kl(_))
    }
}
