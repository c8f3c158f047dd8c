//! The parts of a checkpoint: text encoders, network, autoencoder, and how they fit together.

mod autoencoder;
mod encoder;
mod low_res;
mod prompt;
pub(crate) mod scheduler_config;
mod text_encoder;

use crate::conditioning::SampleShape;
use crate::devices::residency::add;
use crate::edit::Method;
use crate::error::PipelineError;
use crate::networks::{Inputs, Network, ReadNetwork, Source};
use crate::picture::binning;
use graph::{MemoryUse, Rate, Scope, WeightSource};
use models::{Checkpoint, Defaults, ModelFiles, ModelIndex};

pub(crate) use autoencoder::Autoencoder;
pub(crate) use low_res::LowRes;
pub use prompt::PromptSyntax;
pub(crate) use text_encoder::{Prompt, TextEncoders};

/// Everything a checkpoint says but its scheduler.
pub(crate) struct Model {
    defaults: Defaults,
    /// None where the network reads no text.
    pub(crate) text: Option<TextEncoders>,
    pub(crate) network: Network,
    weights: Checkpoint,
    /// Tensors of the files that no part reads.
    left_over: Vec<String>,
    /// None in pixel space.
    pub(crate) autoencoder: Option<Autoencoder>,
    /// Of a network that sees a small picture.
    pub(crate) low_res: Option<LowRes>,
}

/// Extents of a picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Model {
    /// Reads and checks all parts; the network is one of these kinds.
    pub(crate) fn load(files: &ModelFiles, kinds: &[ReadNetwork]) -> Result<Self, PipelineError> {
        let index = ModelIndex::read(files)?;
        let network = Network::read(files, &index, kinds)?;
        if let Some(embedding) = files.embeddings().first().filter(|_| network.text.is_none()) {
            return Err(text_encoder::no_clip(files, embedding));
        }
        let autoencoder = Autoencoder::load(files, &index)?;
        let text = network.text.map(|wanted| TextEncoders::load(files, &index, &network, wanted)).transpose()?;
        let mut model = Self { text, ..Self::load_network(files, &index, network, autoencoder)? };
        model.left_over.extend(files.left_over().iter().cloned());
        model.left_over.extend(model.text.iter().flat_map(TextEncoders::left_over).cloned());
        model.left_over.extend(model.autoencoder.iter().flat_map(Autoencoder::left_over).cloned());
        model.left_over.sort();
        model.left_over.dedup();
        Ok(model)
    }

    /// All but the text encoders.
    pub(crate) fn load_network(
        files: &ModelFiles,
        index: &ModelIndex,
        network: Network,
        autoencoder: Option<Autoencoder>,
    ) -> Result<Self, PipelineError> {
        let mut model = Self {
            defaults: index.defaults.clone(),
            autoencoder,
            text: None,
            weights: Checkpoint::open(files, network.folder, None)?,
            left_over: Vec::new(),
            low_res: LowRes::load(files, index, network.concatenated)?,
            network,
        };
        model.left_over = model.check(files)?;
        Ok(model)
    }

    /// Compares configurations with each other, and weights with what the network reads. Returns those that it does not read.
    fn check(&self, files: &ModelFiles) -> Result<Vec<String>, PipelineError> {
        let broken = |message: String| PipelineError::Checkpoint(format!("{}: {message}", files.describe("")));
        let network = &self.network;
        if let Some(autoencoder) = self.autoencoder.as_ref().filter(|a| a.latent_channels() != network.channels) {
            let (made, taken, folder) = (network.channels, autoencoder.latent_channels(), network.folder);
            return Err(broken(format!("the {folder} makes {made} channels and the vae takes {taken}")));
        }
        let size = Size {
            height: self.defaults.height.unwrap_or(self.side()),
            width: self.defaults.width.unwrap_or(self.side()),
        };
        self.sample_shape(size, self.bin(size))
            .map_err(|error| broken(format!("the block \"headwater\" is wrong: {error}")))?;
        if let Some(share) = self.defaults.restore_noise.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            let error = format!("restore_noise must be a number above 0 and at most 1, not {share}");
            return Err(broken(format!("the block \"headwater\" is wrong: {error}")));
        }
        Method::of_masks(&self.defaults)
            .map_err(|error| broken(format!("the block \"headwater\" is wrong: {error}")))?;
        // Shapes of weights do not depend on the picture's size: the smallest will do.
        let shape = self.sample_shape(Size { height: self.side(), width: self.side() }, None)?;
        let s = Scope::root();
        let seen = shape.channels + network.concatenated.channels();
        let sample = s.input("sample", &[1, shape.height, shape.width, seen], Rate::Step);
        let timestep = s.input("timestep", &[1], Rate::Step);
        let conditions = self.condition_shapes(1);
        let conditions = conditions
            .into_iter()
            .map(|(name, extents)| (name, s.input(name, &[&[1], &extents[..]].concat(), Rate::Once)));
        let conditions: Vec<_> = conditions.collect();
        let pixels_per_element = self.pixels_per_element();
        let inputs = Inputs { sample: &sample, timestep: &timestep, conditions: &conditions, pixels_per_element };
        let output = (network.build)(&s, &inputs);
        Ok(self.weights.check(&s.finish(&[("output", &output)])?.weights())?)
    }

    /// Name and extents of everything that the network is conditioned on, of one row; `tokens` of text where it reads any.
    pub(crate) fn condition_shapes(&self, tokens: usize) -> Vec<(&'static str, Vec<usize>)> {
        let text = self.network.text;
        let shape = |source| match source {
            Source::Text => vec![tokens, text.map_or(0, |text| text.channels)],
            Source::TextMask => vec![tokens],
            Source::TextEmbeds => vec![text.and_then(|text| text.pooled).unwrap_or(0)],
            Source::Class | Source::Guidance | Source::AestheticScore => Vec::new(),
        };
        self.network.conditions.iter().map(|condition| (condition.name, shape(condition.source))).collect()
    }

    /// Tensors of the files that no part reads.
    pub(crate) fn left_over(&self) -> &[String] {
        &self.left_over
    }

    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    pub(crate) fn weights(&self) -> &dyn WeightSource {
        &self.weights
    }

    /// Memory that the plans of text encoders and autoencoder hold.
    pub(crate) fn memory(&self) -> MemoryUse {
        let text = self.text.as_ref().map_or(MemoryUse::default(), TextEncoders::memory);
        add(text, self.autoencoder.as_ref().map_or(MemoryUse::default(), Autoencoder::memory))
    }

    /// The size in pixels that the model was trained on.
    pub(crate) fn default_size(&self) -> Size {
        let [height, width] = self.network.sample_extents.map(|extent| extent * self.pixels_per_element());
        Size { height, width }
    }

    /// The size nearest in shape to a picture's that has about as many pixels as the model was trained on.
    pub(crate) fn fitted_size(&self, size: Size) -> Size {
        let (trained, side) = (self.default_size(), self.side());
        let (width, height) = (size.width.max(1) as f64, size.height.max(1) as f64);
        let scale = ((trained.width * trained.height) as f64 / (width * height)).sqrt();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a side of a model's own picture")]
        let fitted = |extent: f64| ((extent * scale / side as f64).round() as usize).max(1) * side;
        Size { height: fitted(height), width: fitted(width) }
    }

    /// Whether samples are pictures themselves.
    pub(crate) fn samples_are_pictures(&self) -> bool {
        self.autoencoder.is_none() && matches!(self.network.channels, 1 | 3)
    }

    /// Whether pictures come out in the end.
    pub(crate) fn makes_pictures(&self) -> bool {
        self.samples_are_pictures() || self.autoencoder.as_ref().is_some_and(Autoencoder::makes_pictures)
    }

    /// Channels of the pictures it can start from; none if it cannot start from one.
    pub(crate) fn picture_channels(&self) -> Option<usize> {
        match &self.autoencoder {
            Some(autoencoder) => autoencoder.picture_channels(),
            None => Some(self.network.channels).filter(|channels| matches!(channels, 1 | 3)),
        }
    }

    /// Pixels of the picture along a side of an element of the sample.
    pub(crate) fn pixels_per_element(&self) -> usize {
        self.autoencoder.as_ref().map_or(1, Autoencoder::factor)
    }

    /// What every picture's sides are multiples of, in pixels.
    pub(crate) fn side(&self) -> usize {
        self.network.side_multiple * self.pixels_per_element()
    }

    /// The size that a picture is made at before it is fitted to the one asked for; none where no fitting is needed.
    pub(crate) fn bin(&self, size: Size) -> Option<Size> {
        // The table is of square samples.
        let [trained, _] = self.network.sample_extents;
        let (height, width) =
            self.network.bins.then(|| binning::nearest(trained, size.height, size.width)).flatten()?;
        Some(Size { height, width })
    }

    /// Extents of the sample for a picture that is denoised in parts of this size.
    pub(crate) fn tiled_shape(&self, size: Size, tile: Size) -> Result<SampleShape, PipelineError> {
        let part = self.sample_shape(tile, None)?;
        let Size { height, width } = size;
        if height.saturating_mul(width) > MOST_PIXELS {
            return Err(PipelineError::Request(format!(
                "{width}x{height} is too large: pictures of at most {} million pixels are made in parts",
                MOST_PIXELS / 1_000_000
            )));
        }
        let per = self.pixels_per_element();
        self.check_multiples(size)?;
        Ok(SampleShape { height: height / per, width: width / per, ..part })
    }

    /// Refuses sides that the model does not make.
    fn check_multiples(&self, size: Size) -> Result<(), PipelineError> {
        let side = self.side();
        for (what, pixels) in [("height", size.height), ("width", size.width)] {
            if pixels == 0 || !pixels.is_multiple_of(side) {
                return Err(PipelineError::Request(format!(
                    "{what} {pixels} is not possible: this model makes multiples of {side} pixels"
                )));
            }
        }
        Ok(())
    }

    /// Extents of the sample for a picture's size, or for the bin that stands for it.
    pub(crate) fn sample_shape(&self, size: Size, bin: Option<Size>) -> Result<SampleShape, PipelineError> {
        let Size { height, width } = match bin {
            // What a bin is fitted to need not be a multiple of anything, but it has a limit still.
            Some(_)
                if size.height == 0 || size.width == 0 || size.height.saturating_mul(size.width) > MAX_PATCHES << 8 =>
            {
                let (width, height) = (size.width, size.height);
                let message =
                    format!("{width}x{height} is not possible: this model makes 1 to {} pixels", MAX_PATCHES << 8);
                return Err(PipelineError::Request(message));
            }
            Some(bin) => bin,
            None => size,
        };
        self.check_multiples(Size { height, width })?;
        let per = self.pixels_per_element();
        let patch = self.network.patch * per;
        if height.div_ceil(patch).saturating_mul(width.div_ceil(patch)) > MAX_PATCHES {
            return Err(PipelineError::Request(format!(
                "{width}x{height} is too large: this model makes at most {MAX_PATCHES} patches of {patch}x{patch} pixels"
            )));
        }
        Ok(SampleShape { height: height / per, width: width / per, channels: self.network.channels })
    }
}

/// The most pixels of a picture that is denoised in parts. A run holds several copies of its sample.
const MOST_PIXELS: usize = 64_000_000;

/// The most patches of a picture. Attention's work grows with their square, and would take hours with more.
const MAX_PATCHES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::NETWORKS;
    use std::path::Path;

    #[test]
    fn the_largest_picture_is_counted_where_a_unet_is_narrowest() {
        // Two levels on latents of four pixels, and of two.
        for (name, largest) in [("upscaler", 2048), ("stable_diffusion", 1024)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines").join(name);
            let model = Model::load(&ModelFiles::folder(folder).expect("a golden"), NETWORKS).expect("it loads");
            let shape =
                |height, width| model.sample_shape(Size { height, width }, None).map_err(|error| error.to_string());
            shape(largest, largest).expect("as many as it makes");
            let side = model.side();
            for (height, width) in [(largest + side, largest), (largest, largest + side), (1 << 40, 1 << 40)] {
                let error = shape(height, width).expect_err(name);
                assert!(error.contains("is too large: this model makes at most 65536 patches of"), "{error}");
            }
        }
    }
}
