//! Headwater generates and edits images with diffusion and consistency models, on any GPU and on none.
//!
//! **Invariant: stdout, the environment, the file system's layout and the exit code belong to this crate alone.** The
//! crates below take what they need as arguments and return values.
//!
//! ```no_run
//! use headwater::{Request, TextToImage};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = headwater::open_device(&headwater::DeviceChoice::Auto, &Default::default())?;
//! let files = headwater::bundled::find("icons-64-consistency").expect("bundled").files();
//! let mut pipe = TextToImage::from_pretrained(device.as_ref(), &files, Default::default())?;
//! let request = Request { prompt: "a red heart".into(), seed: 7, ..pipe.defaults() };
//! let outcome = pipe.run(&request, |_event| ControlFlow::Continue(()))?;
//! # Ok(())
//! # }
//! ```

pub mod bundled;
#[doc(hidden)]
pub mod cli;
pub mod hub;
mod picture;

pub use graph::{Device, DeviceError, DeviceInfo, DeviceKind, MemoryUse, NodeTime, Plan, PlanOptions, Storage};
pub use models::{Lora, ModelError, ModelFiles, TextualInversion};
pub use picture::{PictureError, read_picture};
pub use pipelines::{
    Bench, DeviceChoice, DeviceSettings, Event, Generated, Outcomes, PipelineError, PromptSyntax, Request, RgbImage,
    Rng, SampleShape, Source, Task, TextToImage, Timings, open_device,
};
pub use scheduler::{SAMPLERS, Steps};
