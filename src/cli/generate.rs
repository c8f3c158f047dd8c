//! `headwater generate`: text, a class or nothing but noise to an image.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::run::{self, Work};
use pipelines::Task;
use serde_json::json;
use std::path::PathBuf;

/// Make an image from text, or from noise alone by a model that reads none.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What the image shows, in words with or without quotes; a class-conditional or unconditional model takes none
    #[arg(value_name = "PROMPT")]
    pub(super) words: Vec<String>,

    /// Make an image again as it says it was made, by this program or AUTOMATIC1111's web UI; other flags go before what it says
    #[arg(long, value_name = "PICTURE")]
    pub(super) from: Option<PathBuf>,

    #[command(flatten)]
    pub(super) image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    run::run(&work(args))
}

/// What is to be done.
pub(super) fn work(args: &Args) -> Work {
    let prompt = run::prompt(&args.words);
    let class = args.image.class_label.map_or_else(String::new, |label| format!("class {label}"));
    Work {
        command: "generate",
        name: prompt.clone().unwrap_or(class),
        prompt,
        flags: args.image.clone(),
        task: Task::default(),
        picture: None,
        told: json!({}),
        inputs: Vec::new(),
    }
}
