//! Diffusion transformers, text encoders, tokenizers and checkpoints for Headwater.
//!
//! **Invariant: this crate knows no device.** A model is a function from a [`graph::Scope`] and its inputs to a tensor,
//! next to a configuration read from the checkpoint's own `config.json`. Weights carry the checkpoint's names, so a model
//! can be checked against a checkpoint, priced and golden-tested before any device exists.
//!
//! What a configuration says is either honoured or refused: a field that would change the computation and is not known
//! here is an error that names it.

mod checkpoint;
mod clip;
mod config;
mod error;
mod files;
mod index;
mod mapped;
mod pixart;
mod safetensors_file;
pub mod synthetic;
mod tokenizer;

pub use checkpoint::{CheckReport, Checkpoint};
pub use clip::{ClipHiddenState, ClipTextConfig, HiddenActivation, clip_text_model};
pub use error::ModelError;
pub use files::ModelFiles;
pub use index::{Component, Defaults, ModelIndex};
pub use mapped::Bytes;
pub use pixart::{PixArtConfig, PixArtInputs, SizeConditions, pixart_transformer_2d_model};
pub use tokenizer::{Encoding, Tokenizer};
