//! Headwater in a browser: what a page's worker calls.
//!
//! **Invariant: nothing here decides what a picture looks like, and nothing waits.** A job's fields become a [`pipelines::Request`], and a run is
//! asked for its steps one by one; whatever takes time is a promise. Pages, storage and the network belong to the scripts beside this crate.

#![cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "scripts reach what Rust does not"))]

pub mod job;

#[cfg(target_family = "wasm")]
mod blobs;
#[cfg(target_family = "wasm")]
mod engine;

/// Starts the threads on which the processor's plans run from then on.
#[cfg(all(target_family = "wasm", feature = "threads"))]
pub use wasm_bindgen_rayon::init_thread_pool;
