//! Whole runs of the program, in one program of tests: nine would be linked one by one, and run one after the other.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod broken;
mod checkpoints;
mod cli;
mod compare;
mod convert;
mod convolutions;
mod edit_commands;
mod files;
mod report_page;
#[cfg(all(unix, feature = "serve"))]
mod worker;
mod zero_shot_commands;
