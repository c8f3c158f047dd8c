//! All tests of this crate in one program: fourteen would be linked one by one, and run one after the other.

#![recursion_limit = "256"] // of published configurations, which are long literals
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod checkpoint;
mod common;
mod config;
mod contents;
mod dit;
mod encoders;
mod goldens;
mod lora;
mod many_names;
mod published;
mod single_file;
mod t5;
mod textual_inversion;
mod tokenizer;
mod unet_2d;
