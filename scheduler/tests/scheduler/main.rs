//! All tests of this crate in one program: ten would be linked one by one, and run one after the other.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod comfyui;
mod common;
mod conditional;
mod convergence;
mod diffusers;
mod k_diffusion;
mod likelihood;
mod mixtures;
mod programs;
mod repaint;
mod strength;
