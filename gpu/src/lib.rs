//! Runs Headwater's graphs on any GPU through wgpu.
//!
//! **Invariant: this is the only crate that names wgpu, and it knows no model.** Any [`graph::Graph`] becomes a plan: one
//! buffer per slot, one list of dispatches that runs when the prompt changes and one that runs every step. Planning
//! allocates, compiles and uploads; replaying only encodes one compute pass.
//!
//! Nothing a driver does may end the process: errors of wgpu, a lost device and exhausted memory all come back as
//! [`graph::DeviceError`].

#![cfg_attr(target_family = "wasm", allow(dead_code, reason = "what looks into a plan is no part of a page"))]

mod adapter;
mod build;
mod cache;
mod check;
mod compile;
mod device;
mod fault;
mod inner;
mod memory;
mod options;
mod pipeline;
mod plan;
mod selftest;
mod storage;
#[cfg(not(target_family = "wasm"))]
mod trace;
mod trusted;
mod wait;

pub use adapter::{Adapter, Backends, Choice, request};
#[cfg(not(target_family = "wasm"))]
pub use adapter::{adapters, best, choose};
pub use check::Check;
pub use device::GpuDevice;
pub use options::{GpuOptions, SubmitBudget};
pub use plan::GpuPlan;
#[cfg(not(target_family = "wasm"))]
pub use selftest::selftest;
pub use selftest::{CaseResult, Depth, Outcome, selftest_async};
#[cfg(not(target_family = "wasm"))]
pub use trace::{Divergence, first_divergence};
