//! Tasks: what people ask of a model.
//!
//! A [`Request`] says what is wanted; [`Pipeline::job`] decides everything that it leaves open; [`Pipeline::start`] gives a [`Run`], which its
//! caller resumes step by step, and which ends in the picture.
//!
//! **Invariant: tasks differ only in where a run begins and in what [`Replacement`] and [`Constraint`] do to it.** D(x; σ) is one graph; one
//! loop interprets every sampler's program, and no task has a loop of its own. This crate opens devices and reads model folders, and never
//! touches the environment, standard streams or the exit code.

#![cfg_attr(target_family = "wasm", allow(dead_code, reason = "what measures and tunes is no part of a page"))]

#[cfg(not(target_family = "wasm"))]
mod bench;
mod conditioning;
mod denoiser;
mod devices;
mod edit;
mod error;
mod guidance;
mod job;
mod lane;
mod memo;
mod networks;
pub mod noise;
pub mod operators;
mod parts;
mod picture;
mod pipeline;
mod problems;
mod request;
mod resolve;
mod reuse;
mod run;
mod step_cache;
mod tasks;
#[cfg(not(target_family = "wasm"))]
mod tune;
mod warning;

#[cfg(not(target_family = "wasm"))]
pub use bench::{Bench, Repeats};
pub use conditioning::SampleShape;
pub use devices::{
    DeviceChoice, DeviceSettings, KernelCache, SelftestCase, SelftestDepth, SharedDevice, open_device_async,
    selftest_async,
};
#[cfg(not(target_family = "wasm"))]
pub use devices::{automatic, devices, open_device, selftest};
pub use edit::{Constraint, Method, Replacement};
pub use error::PipelineError;
pub use guidance::GuidanceInterval;
pub use job::{Job, Settings};
pub use memo::Memo;
pub use noise::Rng;
pub use parts::PromptSyntax;
pub use picture::{Filter, RgbImage, nchw_from_nhwc, nhwc_from_nchw};
pub use pipeline::{Estimate, Pipeline};
pub use problems::{methods, problems};
pub use request::{Request, StartingNoise};
pub use run::{Batch, Generated, Run, RunId, Step, Timings};
pub use step_cache::StepCache;
pub use tasks::{Colorize, ImageToImage, Inpaint, Invert, Restore, Stroke, Task, Upscale};
#[cfg(not(target_family = "wasm"))]
pub use tune::Tuned;
pub use warning::Warning;
