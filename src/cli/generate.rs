//! `headwater generate`: text, a class or nothing but noise to an image.

use super::error::CliError;
use super::image_args::ImageArgs;
use super::run::{self, Work};
use pipelines::Task;

/// Make an image from text, or from noise alone by a model that reads none.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What the image shows; a class-conditional or unconditional model takes no prompt
    prompt: Option<String>,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let class = args.image.class_label.map_or_else(String::new, |label| format!("class {label}"));
    run::run(&Work {
        command: "generate",
        prompt: args.prompt.as_deref(),
        name: args.prompt.as_deref().unwrap_or(&class),
        flags: &args.image,
        task: Task::default(),
        inputs: &[],
    })
}
