//! Tasks: what people ask of a model. Text to image first.
//!
//! **Invariant: tasks differ only in the denoiser.** D(x; σ) is one graph ([`denoiser_graph`]); the loop interprets a
//! sampler's program and reports every step, and no task has a loop of its own. This crate opens devices and reads model
//! folders, and never touches the environment, standard streams or the exit code.

mod autoencoder;
mod binning;
mod config;
mod denoiser;
mod device;
mod encoder;
mod error;
mod image;
mod image_to_image;
mod inpaint;
mod limit;
mod model;
mod network;
pub mod noise;
mod problems;
mod prompt;
mod request;
mod resize;
mod selftest;
mod text_encoder;
mod text_to_image;
mod tiles;
mod unconditional;
mod upscale;

pub use denoiser::{Conditioning, Denoiser, ModelInputs, SampleShape, denoiser_graph};
pub use device::{DeviceChoice, DeviceSettings, automatic, devices, open_device};
pub use error::PipelineError;
pub use image::{RgbImage, nchw_from_nhwc, nhwc_from_nchw};
pub use image_to_image::{Source, Task};
pub use noise::Rng;
pub use problems::problems;
pub use prompt::PromptSyntax;
pub use request::{Bench, Event, Generated, Outcomes, Request, Timings};
pub use resize::Filter;
pub use selftest::{SelftestCase, selftest};
pub use text_to_image::TextToImage;
