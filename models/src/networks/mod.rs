//! The networks: one file for each family, one function for each block, over the blocks that families share (`blocks` and `resample`
//! for images, `transformer` for tokens).

mod autoencoder_kl;
mod autoencoder_tiny;
mod blocks;
mod clip;
mod dit;
mod pixart;
mod resample;
pub mod seams;
mod t5;
mod transformer;
mod unet_2d;
mod unet_2d_condition;

pub use autoencoder_kl::{AutoencoderKlConfig, autoencoder_kl_decode, autoencoder_kl_encode};
pub use autoencoder_tiny::{AutoencoderTinyConfig, autoencoder_tiny_decode, autoencoder_tiny_encode};
pub use clip::{ClipHiddenState, ClipTextConfig, HiddenActivation, clip_text_model, clip_text_model_with_projection};
pub use dit::{DiTConfig, DiTInputs, dit_transformer_2d_model};
pub use pixart::{PixArtConfig, PixArtInputs, SizeConditions, pixart_transformer_2d_model};
pub use t5::{T5Config, t5_encoder_model};
pub use unet_2d::{UNet2DConfig, UNet2DInputs, unet_2d_model};
pub use unet_2d_condition::{AddedConditions, UNet2DConditionConfig, UNet2DConditionInputs, unet_2d_condition_model};
