//! The parts of a checkpoint: text encoders, network, autoencoder.

use crate::autoencoder::Autoencoder;
use crate::binning;
use crate::denoiser::{ModelInputs, SampleShape};
use crate::error::PipelineError;
use crate::network::{Beside, Network};
use crate::request::Request;
use crate::text_encoder::{self, TextEncoders};
use crate::upscale::Upscaler;
use graph::{Rate, Scope, Tensor, WeightSource};
use models::{Checkpoint, Defaults, ModelFiles, ModelIndex};

/// Everything a checkpoint says but its scheduler.
pub(crate) struct TextModel {
    defaults: Defaults,
    /// None where the network reads no text.
    pub(crate) text: Option<TextEncoders>,
    pub(crate) network: Network,
    weights: Checkpoint,
    /// None in pixel space.
    pub(crate) autoencoder: Option<Autoencoder>,
    /// Of a network that enlarges pictures.
    pub(crate) upscaler: Option<Upscaler>,
}

impl TextModel {
    /// Reads and checks all parts.
    pub(crate) fn load(files: &ModelFiles) -> Result<Self, PipelineError> {
        let index = ModelIndex::read(files)?;
        let network = Network::load(files, &index)?;
        if let Some(embedding) = files.embeddings().first().filter(|_| !network.takes_text()) {
            return Err(text_encoder::no_clip(files, embedding));
        }
        let autoencoder = Autoencoder::load(files, &index)?;
        let text = network.takes_text().then(|| TextEncoders::load(files, &index, &network)).transpose()?;
        Ok(Self { text, ..Self::load_network(files, &index, network, autoencoder)? })
    }

    /// All but the text encoders.
    pub(crate) fn load_network(
        files: &ModelFiles,
        index: &ModelIndex,
        network: Network,
        autoencoder: Option<Autoencoder>,
    ) -> Result<Self, PipelineError> {
        let model = Self {
            defaults: index.defaults.clone(),
            autoencoder,
            text: None,
            weights: Checkpoint::open(files, network.folder(), None)?,
            upscaler: (network.beside() == Beside::Picture).then(|| Upscaler::load(files, index)).transpose()?,
            network,
        };
        model.check(files)?;
        Ok(model)
    }

    /// Compares configurations with each other, and weights with what the models read.
    fn check(&self, files: &ModelFiles) -> Result<(), PipelineError> {
        let broken = |message: String| PipelineError::Checkpoint(format!("{}: {message}", files.describe("")));
        if let Some(autoencoder) = self.autoencoder.as_ref().filter(|a| a.latent_channels() != self.network.channels())
        {
            let (made, taken) = (self.network.channels(), autoencoder.latent_channels());
            return Err(broken(format!(
                "the {} makes {made} channels and the vae takes {taken}",
                self.network.folder()
            )));
        }
        let (height, width) = (self.defaults.height.unwrap_or(self.side()), self.defaults.width.unwrap_or(self.side()));
        self.sample_shape(height, width, self.bin(height, width))
            .map_err(|error| broken(format!("the block \"headwater\" is wrong: {error}")))?;
        // Shapes of weights do not depend on the picture's size: the smallest will do.
        let shape = self.sample_shape(self.side(), self.side(), None)?;
        let seen = shape.channels + self.network.beside_channels();
        let s = Scope::root();
        let inputs = [
            s.input("sample", &[1, shape.height, shape.width, seen], Rate::Step),
            s.input("timestep", &[1], Rate::Step),
            s.input("mask", &[1, 1], Rate::Once),
            s.input("guidance", &[1], Rate::Once),
            s.input("class", &[1], Rate::Once),
        ];
        let [sample, timestep, mask, guidance, class] = &inputs;
        let text_channels = self.network.text_channels();
        let text = (text_channels > 0).then(|| s.input("text", &[1, 1, text_channels], Rate::Once));
        let pooled = self.network.pooled_channels().map(|channels| s.input("pooled", &[1, channels], Rate::Once));
        let inputs = ModelInputs {
            sample,
            timestep,
            encoder_hidden_states: text.as_ref(),
            encoder_attention_mask: text.as_ref().map(|_| mask),
            text_embeds: pooled.as_ref(),
            embedded_guidance: self.network.embeds_guidance().then_some(guidance),
            class_labels: (self.network.classes().is_some() || self.upscaler.is_some()).then_some(class),
        };
        let output = self.build(&s, &inputs);
        Ok(self.weights.check(&s.finish(&[("output", &output)])?.weights())?)
    }

    /// Forgets the plans of the text encoders and the autoencoder; tells whether there were any.
    pub(crate) fn let_go(&mut self) -> bool {
        let text = self.text.as_mut().is_some_and(TextEncoders::let_go);
        self.autoencoder.as_mut().is_some_and(Autoencoder::let_go) || text
    }

    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    pub(crate) fn weights(&self) -> &dyn WeightSource {
        &self.weights
    }

    /// Height and width in pixels that the model was trained on.
    pub(crate) fn default_size(&self) -> [usize; 2] {
        self.network.sample_extents().map(|extent| extent * self.pixels_per_element())
    }

    /// Whether samples are pictures themselves.
    pub(crate) fn samples_are_pictures(&self) -> bool {
        self.autoencoder.is_none() && matches!(self.network.channels(), 1 | 3)
    }

    /// Whether pictures come out in the end.
    pub(crate) fn makes_pictures(&self) -> bool {
        self.samples_are_pictures() || self.autoencoder.as_ref().is_some_and(Autoencoder::makes_pictures)
    }

    pub(crate) fn pixels_per_element(&self) -> usize {
        self.autoencoder.as_ref().map_or(1, Autoencoder::factor)
    }

    /// What every picture's sides are multiples of, in pixels.
    pub(crate) fn side(&self) -> usize {
        self.network.side_multiple() * self.pixels_per_element()
    }

    /// The size that a picture is made at before it is fitted to the one asked for; `None` where they are the same. Only PixArt on latents
    /// is binned, and only what starts from noise: a picture would not lie where it did.
    pub(crate) fn binned(&self, request: &Request) -> Option<(usize, usize)> {
        self.bin(request.height, request.width).filter(|_| request.source.is_none())
    }

    fn bin(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        let binned = self.autoencoder.is_some() && matches!(self.network, Network::PixArt(_));
        binned.then(|| binning::nearest(self.network.sample_size(), height, width)).flatten()
    }

    /// Tokens of the picture.
    pub(crate) fn patches(&self, request: &Request) -> usize {
        let (height, width) = self.binned(request).unwrap_or((request.height, request.width));
        (height / self.side()) * (width / self.side())
    }

    /// Extents of the sample that a request is for.
    pub(crate) fn request_shape(&self, request: &Request) -> Result<SampleShape, PipelineError> {
        self.sample_shape(request.height, request.width, self.binned(request))
    }

    /// Extents of the sample for a picture's size, or the bin's that stands for it.
    fn sample_shape(
        &self,
        height: usize,
        width: usize,
        bin: Option<(usize, usize)>,
    ) -> Result<SampleShape, PipelineError> {
        let side = self.side();
        let (height, width) = match bin {
            // What a bin is fitted to is no multiple of anything, and has a limit still.
            Some(_) if height == 0 || width == 0 || height.saturating_mul(width) > MAX_PATCHES << 8 => {
                let message =
                    format!("{width}x{height} is not possible: this model makes 1 to {} pixels", MAX_PATCHES << 8);
                return Err(PipelineError::Request(message));
            }
            Some(bin) => bin,
            None => (height, width),
        };
        for (what, pixels) in [("height", height), ("width", width)] {
            if pixels == 0 || !pixels.is_multiple_of(side) {
                return Err(PipelineError::Request(format!(
                    "{what} {pixels} is not possible: this model makes multiples of {side} pixels"
                )));
            }
        }
        let per = self.pixels_per_element();
        let patch = self.network.patch() * per;
        if height.div_ceil(patch).saturating_mul(width.div_ceil(patch)) > MAX_PATCHES {
            return Err(PipelineError::Request(format!(
                "{width}x{height} is too large: this model makes at most {MAX_PATCHES} patches of {patch}x{patch} pixels"
            )));
        }
        Ok(SampleShape { height: height / per, width: width / per, channels: self.network.channels() })
    }

    /// The network around its inputs.
    pub(crate) fn build(&self, s: &Scope, inputs: &ModelInputs<'_>) -> Tensor {
        self.network.build(s, inputs, self.pixels_per_element())
    }
}

/// The most patches of a picture: attention over more is no longer a matter of patience.
const MAX_PATCHES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_largest_picture_is_counted_where_a_unet_is_narrowest() {
        // Two levels on latents of four pixels, and of two.
        for (name, largest) in [("upscaler", 2048), ("stable_diffusion", 1024)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines").join(name);
            let model = TextModel::load(&ModelFiles::folder(folder).expect("a golden")).expect("it loads");
            let shape = |height, width| model.sample_shape(height, width, None).map_err(|error| error.to_string());
            shape(largest, largest).expect("as many as it makes");
            let side = model.side();
            for (height, width) in [(largest + side, largest), (largest, largest + side), (1 << 40, 1 << 40)] {
                let error = shape(height, width).expect_err(name);
                assert!(error.contains("is too large: this model makes at most 65536 patches of"), "{error}");
            }
        }
    }
}
