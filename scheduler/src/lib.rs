//! Samplers, sigmas and scalings of diffusion models as data, in f64.
//!
//! **Invariant: this crate is mathematics only.** It holds no tensor, draws no random number, knows no device, and
//! depends on nothing but `std`. It turns a request into a [`Program`]; the caller that runs the program owns the
//! memory and the model.
//!
//! Three separate questions, as in k-diffusion and EDM:
//!
//! - *where*: [`Schedule`], made by formula ([`sigmas`]) or by the rules of a diffusers `scheduler_config.json`
//!   ([`SchedulerConfig`]);
//! - *what a model predicts*: [`Prediction`] and its [`Scalings`];
//! - *how to step*: [`SAMPLERS`].
//!
//! A [`Stepper`] runs a program and stops wherever it needs the model, a draw of noise, or has a step to show; [`run`] drives one with
//! closures.
//!
//! ```
//! use scheduler::{Draw, Frame, Outcome, Schedule, Settings, TimestepMap, run, sampler, sigmas};
//! use std::ops::ControlFlow;
//!
//! let schedule = Schedule::new(sigmas::karras(10, 0.002, 80.0, 7.0)?, Frame::VarianceExploding, TimestepMap::QuarterLog)?;
//! let program = sampler("dpm++ 2m")?.program(&schedule, &Settings::default());
//! // Data that is one point: the denoised image is that point, whatever x is.
//! let mut denoiser = |_x: &[f64], _sigma: f64, _timestep: f64, out: &mut [f64]| -> Result<(), String> {
//!     out.fill(0.25);
//!     Ok(())
//! };
//! let x = [3.0 * schedule.init_noise_sigma];
//! let no_noise = |_: Draw, _: &mut [f64]| {};
//! let outcome = run(&program, &x, &mut denoiser, no_noise, |_event| ControlFlow::Continue(()))?;
//! assert_eq!(outcome, Outcome::Finished(vec![0.25]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod config;
mod dormand_prince;
mod error;
mod expr;
mod frame;
pub mod likelihood;
mod program;
mod registers;
mod run;
mod samplers;
mod scaling;
mod schedule;
mod sde;
pub mod sigmas;
mod special;
mod stepper;

pub use builder::Builder;
pub use config::{Field, NamedSampler, NamedSchedule, Request, SCHEDULES, Sampling, SchedulerConfig, Steps};
pub use error::Error;
pub use expr::Expr;
pub use frame::Frame;
pub use program::{Limit, Op, Program, Reg, Tolerance};
pub use registers::{Element, Registers};
pub use run::{Denoiser, Outcome, run};
pub use samplers::{Aliases, SAMPLERS, Sampler, Settings, SolverType, Variance, sampler};
pub use scaling::{Prediction, Scalings};
pub use schedule::{Schedule, TimestepMap};
pub use sde::Sde;
pub use stepper::{Ask, Draw, Event, Stepper};
