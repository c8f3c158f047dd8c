//! The tests of this crate as its users see it, in one program: linking several takes longer than running them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod batches;
mod caches;
mod common;
mod guidance;
mod pathwise;
mod runs;
mod sharing;
mod step_cache;
mod warnings;
