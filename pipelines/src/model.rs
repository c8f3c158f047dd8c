//! The parts of a text-to-image checkpoint: tokenizer, text encoder, network, autoencoder.

use crate::autoencoder::Autoencoder;
use crate::denoiser::{ModelInputs, SampleShape};
use crate::error::PipelineError;
use crate::network::Network;
use graph::{Device, Graph, Plan, PlanOptions, Rate, Scope, Tensor, WeightSource, passes};
use models::{
    Checkpoint, ClipHiddenState, ClipTextConfig, Defaults, ModelFiles, ModelIndex, Tokenizer, clip_text_model,
};

/// A prompt as the text encoder reads it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EncodedPrompt {
    /// `[S, D]`.
    pub(crate) hidden_states: Vec<f32>,
    /// `[S]`.
    pub(crate) attention_mask: Vec<f32>,
    /// Tokens that did not fit.
    pub(crate) tokens_dropped: usize,
}

/// Everything a checkpoint says but its scheduler.
pub(crate) struct TextModel {
    defaults: Defaults,
    tokenizer: Tokenizer,
    text_config: ClipTextConfig,
    text_weights: Checkpoint,
    pub(crate) network: Network,
    weights: Checkpoint,
    /// None in pixel space.
    pub(crate) autoencoder: Option<Autoencoder>,
}

impl TextModel {
    /// Reads and checks all parts.
    pub(crate) fn load(files: &ModelFiles) -> Result<Self, PipelineError> {
        let index = ModelIndex::read(files)?;
        let network = Network::load(files, &index)?;
        index.require("text_encoder", &["CLIPTextModel"])?;
        let path = "text_encoder/config.json";
        let text_config = ClipTextConfig::from_json(&files.describe(path), &files.read(path)?)?;
        let tokenizer = Tokenizer::open(files, "tokenizer")?;
        let model = Self {
            defaults: index.defaults.clone(),
            autoencoder: Autoencoder::load(files, &index)?,
            text_weights: Checkpoint::open(files, "text_encoder", None)?,
            weights: Checkpoint::open(files, network.folder(), None)?,
            tokenizer,
            text_config,
            network,
        };
        model.check(files)?;
        Ok(model)
    }

    /// Compares configurations with each other, and weights with what the models read.
    fn check(&self, files: &ModelFiles) -> Result<(), PipelineError> {
        let broken = |message: String| PipelineError::Checkpoint(format!("{}: {message}", files.describe("")));
        let (given, taken) = (self.text_config.hidden_size, self.network.text_channels());
        if given != taken {
            let folder = self.network.folder();
            return Err(broken(format!("the text encoder gives {given} channels and the {folder} takes {taken}")));
        }
        if let Some(autoencoder) = self.autoencoder.as_ref().filter(|a| a.latent_channels() != self.network.channels())
        {
            let (made, taken) = (self.network.channels(), autoencoder.latent_channels());
            return Err(broken(format!(
                "the {} makes {made} channels and the vae takes {taken}",
                self.network.folder()
            )));
        }
        if self.tokenizer.largest_id() as usize >= self.text_config.vocab_size {
            return Err(broken(format!(
                "the tokenizer has a token {} and the text encoder {} rows",
                self.tokenizer.largest_id(),
                self.text_config.vocab_size
            )));
        }
        let (height, width) = (self.defaults.height.unwrap_or(self.side()), self.defaults.width.unwrap_or(self.side()));
        self.sample_shape(height, width)
            .map_err(|error| broken(format!("the block \"headwater\" is wrong: {error}")))?;
        self.text_weights.check(&self.text_graph()?.weights())?;
        // Shapes of weights do not depend on the picture's size: the smallest will do.
        let shape = self.sample_shape(self.side(), self.side())?;
        let s = Scope::root();
        let inputs = [
            s.input("sample", &[1, shape.height, shape.width, shape.channels], Rate::Step),
            s.input("timestep", &[1], Rate::Step),
            s.input("text", &[1, 1, self.network.text_channels()], Rate::Once),
            s.input("mask", &[1, 1], Rate::Once),
            s.input("guidance", &[1], Rate::Once),
        ];
        let [sample, timestep, encoder_hidden_states, encoder_attention_mask, guidance] = &inputs;
        let embedded_guidance = self.network.embeds_guidance().then_some(guidance);
        let inputs = ModelInputs { sample, timestep, encoder_hidden_states, encoder_attention_mask, embedded_guidance };
        let output = self.build(&s, &inputs);
        Ok(self.weights.check(&s.finish(&[("output", &output)])?.weights())?)
    }

    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    pub(crate) fn weights(&self) -> &dyn WeightSource {
        &self.weights
    }

    /// Tokens of every encoded prompt.
    pub(crate) fn max_tokens(&self) -> usize {
        let longest = self.text_config.max_position_embeddings;
        self.tokenizer.max_length().map_or(longest, |own| own.min(longest))
    }

    pub(crate) fn text_channels(&self) -> usize {
        self.text_config.hidden_size
    }

    /// The side in pixels that the model was trained on.
    pub(crate) fn default_side(&self) -> usize {
        self.network.sample_size() * self.pixels_per_element()
    }

    /// Whether samples are pictures themselves.
    pub(crate) fn samples_are_pictures(&self) -> bool {
        self.autoencoder.is_none() && matches!(self.network.channels(), 1 | 3)
    }

    /// Whether pictures come out in the end.
    pub(crate) fn makes_pictures(&self) -> bool {
        self.samples_are_pictures() || self.autoencoder.as_ref().is_some_and(Autoencoder::makes_pictures)
    }

    fn pixels_per_element(&self) -> usize {
        self.autoencoder.as_ref().map_or(1, Autoencoder::factor)
    }

    /// What every picture's sides are multiples of, in pixels.
    fn side(&self) -> usize {
        self.network.side_multiple() * self.pixels_per_element()
    }

    /// Tokens of the picture.
    pub(crate) fn patches(&self, height: usize, width: usize) -> usize {
        (height / self.side()) * (width / self.side())
    }

    /// Extents of the sample for a picture's size.
    pub(crate) fn sample_shape(&self, height: usize, width: usize) -> Result<SampleShape, PipelineError> {
        let side = self.side();
        for (what, pixels) in [("height", height), ("width", width)] {
            if pixels == 0 || !pixels.is_multiple_of(side) {
                return Err(PipelineError::Request(format!(
                    "{what} {pixels} is not possible: this model makes multiples of {side} pixels"
                )));
            }
        }
        if (height / side).saturating_mul(width / side) > MAX_PATCHES {
            return Err(PipelineError::Request(format!(
                "{width}x{height} is too large: this model makes at most {MAX_PATCHES} patches of {side}x{side} pixels"
            )));
        }
        let per = self.pixels_per_element();
        Ok(SampleShape { height: height / per, width: width / per, channels: self.network.channels() })
    }

    /// The network around its inputs.
    pub(crate) fn build(&self, s: &Scope, inputs: &ModelInputs<'_>) -> Tensor {
        self.network.build(s, inputs, self.pixels_per_element())
    }

    fn text_graph(&self) -> Result<Graph, PipelineError> {
        let s = Scope::root();
        let tokens = self.max_tokens();
        let ids = s.input("input_ids", &[1, tokens], Rate::Step);
        let mask = s.input("attention_mask", &[1, tokens], Rate::Step);
        let mask = self.network.masks_padding().then_some(&mask);
        let hidden = clip_text_model(&s, &self.text_config, &ids, mask, ClipHiddenState::Last);
        Ok(s.finish(&[("hidden_states", &hidden)])?)
    }

    pub(crate) fn plan_text_encoder(
        &self,
        device: &dyn Device,
        options: PlanOptions,
    ) -> Result<Box<dyn Plan>, PipelineError> {
        Ok(device.plan(&passes::optimize(&self.text_graph()?), &self.text_weights, options)?)
    }

    /// Runs the text encoder's plan on a prompt.
    pub(crate) fn encode(&self, plan: &mut dyn Plan, prompt: &str) -> Result<EncodedPrompt, PipelineError> {
        let encoding = self.tokenizer.encode(prompt, self.max_tokens())?;
        let attention_mask = encoding.mask_f32();
        plan.write("input_ids", &encoding.ids_f32())?;
        if self.network.masks_padding() {
            plan.write("attention_mask", &attention_mask)?;
        }
        plan.run()?;
        Ok(EncodedPrompt {
            hidden_states: plan.read("hidden_states")?,
            attention_mask,
            tokens_dropped: encoding.dropped,
        })
    }
}

/// The most patches of a picture: attention over more is no longer a matter of patience.
const MAX_PATCHES: usize = 1 << 16;
