//! Headwater generates and edits images with diffusion and consistency models, on any GPU and on none.
//!
//! **Invariant: stdout, the environment, the file system's layout and the exit code belong to this crate alone.** The
//! crates below take what they need as arguments and return values.
//!
//! Cargo features: `gpu` and `cpu` (where graphs run), `hub` (downloads), `bundled` (small models inside the program), `cli` (the command).
//! All are on by default; a program that uses the library alone needs one of the first two.
//!
//! ```
//! use headwater::{DeviceChoice, Pipeline, Request, SavePicture};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = headwater::open_device(&DeviceChoice::Auto, &Default::default())?;
//! let files = headwater::bundled::find("icons-64-consistency").expect("bundled").files();
//! let pipe = Pipeline::from_pretrained(&device, &files, Default::default())?;
//! let job = pipe.job(&Request { prompt: "a red heart".into(), seed: 7, ..Request::default() })?; // checked; nothing is computed yet
//! let mut run = pipe.start(&job)?;
//! while let Some(step) = run.next()? {
//!     println!("step {}: sigma {:.2}", step.index, step.sigma);
//! }
//! let image = run.finish()?.image.expect("this model makes pictures");
//! # assert_eq!((image.width, image.height), (64, 64));
//! # let folder = std::env::temp_dir().join(format!("headwater-example-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # std::env::set_current_dir(&folder)?;
//! image.save("heart.png")?;
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(())
//! # }
//! ```

pub mod bundled;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod compare;
mod device;
#[cfg(feature = "hub")]
pub mod hub;
mod picture;
mod save;

// Whole, so that every type that a function here returns can be named.
pub use {graph, models, pipelines, scheduler};

pub use device::{devices, open_device};
pub use graph::{
    Activations, Convolution, Device, DeviceError, DeviceInfo, DeviceKind, MemoryUse, NodeTime, Plan, PlanOptions,
    Storage, Tile, Winners,
};
pub use models::{Lora, ModelError, ModelFiles, TextualInversion, Vocabulary};
pub use picture::{
    MaskPicture, PictureBytes, PictureError, Transparency, is_animated, read_mask, read_picture, read_transparent,
};
pub use pipelines::{
    Batch, Bench, Colorize, Constraint, DeviceChoice, DeviceSettings, Estimate, Generated, GuidanceInterval,
    ImageToImage, Inpaint, Invert, Job, KernelCache, Method, Pipeline, PipelineError, PromptSyntax, Repeats,
    Replacement, Request, Restore, RgbImage, Rng, Run, RunId, SampleShape, Settings, SharedDevice, StartingNoise, Step,
    StepCache, Stroke, Task, Timings, Tuned, Upscale, Warning, operators,
};
pub use save::{PictureFormat, SavePicture};
pub use scheduler::{NamedSampler, NamedSchedule, Program, SAMPLERS, Sampler, Sampling, Steps};
