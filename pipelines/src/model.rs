//! The parts of a text-to-image checkpoint: tokenizer, text encoder, transformer.

use crate::denoiser::{ModelInputs, SampleShape};
use crate::error::PipelineError;
use graph::{Device, Graph, Plan, PlanOptions, Rate, Scope, Tensor, WeightSource, passes};
use models::{
    Checkpoint, ClipHiddenState, ClipTextConfig, Defaults, ModelFiles, ModelIndex, PixArtConfig, PixArtInputs,
    SizeConditions, Tokenizer, clip_text_model, pixart_transformer_2d_model,
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
    config: PixArtConfig,
    weights: Checkpoint,
    /// Pixels along a side of one element of the sample; `None` in pixel space.
    autoencoder_factor: Option<usize>,
}

impl TextModel {
    /// Reads and checks all parts.
    pub(crate) fn load(files: &ModelFiles) -> Result<Self, PipelineError> {
        let index = ModelIndex::read(files)?;
        index.require("transformer", &["PixArtTransformer2DModel", "Transformer2DModel"])?;
        index.require("text_encoder", &["CLIPTextModel"])?;
        let read = |path: &str| files.read(path).map(|text| (files.describe(path), text));
        let (path, text) = read("transformer/config.json")?;
        let config = PixArtConfig::from_json(&path, &text)?;
        let (path, text) = read("text_encoder/config.json")?;
        let text_config = ClipTextConfig::from_json(&path, &text)?;
        let tokenizer = Tokenizer::open(files, "tokenizer")?;
        let model = Self {
            defaults: index.defaults.clone(),
            autoencoder_factor: autoencoder_factor(files, &index)?,
            text_weights: Checkpoint::open(files, "text_encoder", None)?,
            weights: Checkpoint::open(files, "transformer", None)?,
            tokenizer,
            text_config,
            config,
        };
        model.check(files)?;
        Ok(model)
    }

    /// Compares configurations with each other, and weights with what the models read.
    fn check(&self, files: &ModelFiles) -> Result<(), PipelineError> {
        let broken = |message: String| PipelineError::Checkpoint(format!("{}: {message}", files.describe("")));
        if self.text_config.hidden_size != self.config.encoder_channels() {
            return Err(broken(format!(
                "the text encoder gives {} channels and the transformer takes {}",
                self.text_config.hidden_size,
                self.config.encoder_channels()
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
            s.input("text", &[1, 1, self.config.encoder_channels()], Rate::Once),
            s.input("mask", &[1, 1], Rate::Once),
        ];
        let [sample, timestep, encoder_hidden_states, encoder_attention_mask] = &inputs;
        let output = self.build(&s, &ModelInputs { sample, timestep, encoder_hidden_states, encoder_attention_mask });
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
        self.config.sample_size * self.pixels_per_element()
    }

    /// Whether samples are pictures.
    pub(crate) fn makes_pictures(&self) -> bool {
        self.autoencoder_factor.is_none() && matches!(self.config.in_channels, 1 | 3)
    }

    fn pixels_per_element(&self) -> usize {
        self.autoencoder_factor.unwrap_or(1)
    }

    /// The side of a patch in pixels, of which every picture's sides are multiples.
    fn side(&self) -> usize {
        self.config.patch_size * self.pixels_per_element()
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
        Ok(SampleShape { height: height / per, width: width / per, channels: self.config.in_channels })
    }

    /// The transformer around its inputs.
    pub(crate) fn build(&self, s: &Scope, inputs: &ModelInputs<'_>) -> Tensor {
        let batch = inputs.sample.extent(0);
        let [height, width] = [1, 2].map(|axis| (inputs.sample.extent(axis) * self.pixels_per_element()) as f32);
        let resolution = s.constant(&[batch, 2], [height, width].repeat(batch));
        let aspect_ratio = s.constant(&[batch, 1], vec![height / width; batch]);
        let size = self
            .config
            .use_additional_conditions()
            .then_some(SizeConditions { resolution: &resolution, aspect_ratio: &aspect_ratio });
        let output = pixart_transformer_2d_model(
            s,
            &self.config,
            &PixArtInputs {
                sample: inputs.sample,
                timestep: inputs.timestep,
                encoder_hidden_states: inputs.encoder_hidden_states,
                encoder_attention_mask: Some(inputs.encoder_attention_mask),
                size,
            },
        );
        self.config.without_variance(&output)
    }

    fn text_graph(&self) -> Result<Graph, PipelineError> {
        let s = Scope::root();
        let tokens = self.max_tokens();
        let ids = s.input("input_ids", &[1, tokens], Rate::Step);
        let mask = s.input("attention_mask", &[1, tokens], Rate::Step);
        let hidden = clip_text_model(&s, &self.text_config, &ids, Some(&mask), ClipHiddenState::Last);
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
        plan.write("attention_mask", &attention_mask)?;
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

/// How far the autoencoder shrinks a side; `None` without one. diffusers counts its levels the same way.
fn autoencoder_factor(files: &ModelFiles, index: &ModelIndex) -> Result<Option<usize>, PipelineError> {
    if index.component("vae").is_none() {
        return Ok(None);
    }
    let path = "vae/config.json";
    let broken = || PipelineError::Checkpoint(format!("{}: has no usable block_out_channels", files.describe(path)));
    let config: serde_json::Value = serde_json::from_slice(&files.read(path)?).map_err(|_| broken())?;
    let levels = config["block_out_channels"].as_array().ok_or_else(broken)?.len();
    // No autoencoder has more than a handful of levels.
    if (1..=16).contains(&levels) { Ok(Some(1 << (levels - 1))) } else { Err(broken()) }
}
