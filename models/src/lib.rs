//! Diffusion transformers, text encoders, tokenizers and checkpoints for Headwater.
//!
//! **Invariant: this crate knows no device.** A model is a function from a [`graph::Scope`] and its inputs to a tensor,
//! next to a configuration read from the checkpoint's own `config.json`. Weights carry the checkpoint's names, so a model
//! can be checked against a checkpoint, priced and golden-tested before any device exists.
//!
//! What a configuration says is either honoured or refused: a field that would change the computation and is not known
//! here is an error that names it.

mod autoencoder_kl;
mod autoencoder_tiny;
mod blocks;
mod checkpoint;
mod clip;
mod config;
mod convert;
mod dit;
mod error;
mod files;
mod index;
mod lora;
mod mapped;
mod pixart;
mod resample;
mod safetensors_file;
mod sentence_piece;
mod single_file;
pub mod synthetic;
mod t5;
mod textual_inversion;
mod tokenizer;
mod transformer;
mod unet_2d;
mod unet_2d_condition;
pub mod weight_files;

pub use autoencoder_kl::{AutoencoderKlConfig, autoencoder_kl_decode, autoencoder_kl_encode};
pub use autoencoder_tiny::{AutoencoderTinyConfig, autoencoder_tiny_decode, autoencoder_tiny_encode};
pub use checkpoint::{CheckReport, Checkpoint};
pub use clip::{ClipHiddenState, ClipTextConfig, HiddenActivation, clip_text_model, clip_text_model_with_projection};
pub use convert::{Conversion, ConvertError, SmallFile};
pub use dit::{DiTConfig, DiTInputs, dit_transformer_2d_model};
pub use error::{ModelError, first_few};
pub use files::{ModelFiles, is_inside};
pub use index::{Component, Defaults, ModelIndex};
pub use lora::Lora;
pub use mapped::Bytes;
pub use pixart::{PixArtConfig, PixArtInputs, SizeConditions, pixart_transformer_2d_model};
pub use t5::{T5Config, t5_encoder_model};
pub use textual_inversion::{Learned, LearnedWeights, TextualInversion};
pub use tokenizer::{Encoding, Tokenizer};
pub use unet_2d::{UNet2DConfig, UNet2DInputs, unet_2d_model};
pub use unet_2d_condition::{AddedConditions, UNet2DConditionConfig, UNet2DConditionInputs, unet_2d_condition_model};
