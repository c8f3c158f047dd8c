//! Comparisons: samplers, or any other axis, from the same noise, step by step, and how far each is from the truth.
//!
//! The truth is the probability-flow ODE, solved from the same noise to [`TOLERANCE`] and read at the noise level of every step. A
//! [`Comparison`] is made of [`Axis`]es; every combination of their values is a [`Cell`], which runs as any job does ([`pipelines::Run`]). Its caller
//! asks for one [`Event`] after the other.
//!
//! ```
//! use headwater::compare::{Axis, Comparison, Event, Model, Options, Value};
//! use headwater::{DeviceChoice, Pipeline, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = headwater::open_device(&DeviceChoice::Auto, &Default::default())?;
//! let files = headwater::bundled::find("icons-64").expect("bundled").files();
//! let model = Model { name: "icons-64".into(), pipe: Pipeline::from_pretrained(&device, &files, Default::default())? };
//! let samplers = ["euler", "dpmpp_2m"].map(|name| name.parse().map(Value::Sampler));
//! let axes = vec![Axis::new(samplers.into_iter().collect::<Result<_, _>>()?)?, Axis::new(vec![Value::Steps(4)])?];
//! let base = Request { prompt: "a red heart".into(), seed: 7, ..Request::default() };
//! # let options = Options { without_reference: true, ..Options::default() };
//! # let _ = Options::default();
//! let mut comparison = Comparison::new(vec![model], &base, axes, options)?;
//! while let Some(event) = comparison.next()? {
//!     if let Event::Done { record, .. } = event {
//!         println!("{}: {} evaluations, error {:?}", record.id, record.nfe, record.error_final);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod analytic;
mod axes;
mod cells;
mod converge;
mod metrics;
mod record;
mod reference;
#[cfg(feature = "report")]
pub mod report;
mod study;

pub use analytic::Analytic;
pub use axes::{Axis, AxisError, AxisName, Value};
pub use cells::{Cell, Model};
pub use converge::{Convergence, ConvergencePoint, converge, convergence};
pub use metrics::{psnr, rms, ssim};
pub use record::{CellSettings, Nearest, Path, Record, StepRecord, cheapest, nearest, ranked, slope};
pub use reference::{Point, Reference, TOLERANCE};
pub use study::{CompareError, Comparison, Event, Made, Options};
#[cfg(feature = "serve")]
pub(crate) use {
    cells::{is_direct, path_of},
    reference::{Recording, job_of, name_of},
};
