//! Diffusion transformers, text encoders, tokenizers and checkpoints for Headwater.
//!
//! **Invariant: this crate knows no device.** A model is a function from a [`graph::Scope`] and its inputs to a tensor,
//! next to a configuration read from the checkpoint's own `config.json`. Weights carry the checkpoint's names, so a model
//! can be checked against a checkpoint, priced and golden-tested before any device exists.
//!
//! What a configuration says is either honoured or refused: a field that would change the computation and is not known
//! here is an error that names it.
//!
//! Three folders: `checkpoint` finds, reads and writes files, `networks` builds the graphs of models from their
//! configurations, and `text` turns prompts into token ids.

mod checkpoint;
mod config;
mod contain;
mod error;
mod networks;
pub mod synthetic;
mod text;

pub use checkpoint::{
    Bytes, CheckReport, Checkpoint, Component, Conversion, ConvertError, Defaults, Learned, LearnedWeights, Lora,
    ModelFiles, ModelIndex, Pieces, SmallFile, TextualInversion, is_inside, weight_files,
};
pub use config::json_object;
pub use contain::{contain, panics_are_contained};
pub use error::{GivenApart, ModelError, first_few};
pub use networks::{
    AddedConditions, AutoencoderKlConfig, AutoencoderTinyConfig, ClipHiddenState, ClipTextConfig, DiTConfig, DiTInputs,
    HiddenActivation, PixArtConfig, PixArtInputs, SizeConditions, T5Config, UNet2DConditionConfig,
    UNet2DConditionInputs, UNet2DConfig, UNet2DInputs, autoencoder_kl_decode, autoencoder_kl_encode,
    autoencoder_tiny_decode, autoencoder_tiny_encode, clip_text_model, clip_text_model_with_projection,
    dit_transformer_2d_model, pixart_transformer_2d_model, seams, t5_encoder_model, unet_2d_condition_model,
    unet_2d_model,
};
pub use text::{Encoding, Tokenizer, Vocabulary};
