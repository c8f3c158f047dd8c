//! The command line: parse, one library call, print. One file per command.

/// Prints a line on standard error. Where that cannot be written (a closed pipe, a full disk), the work goes on without it: `eprintln!` would
/// panic.
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stderr(), $($text)*));
    }};
}

mod again;
mod animation;
mod bench;
mod beside;
mod colorize;
mod compare;
mod converge;
mod convert;
mod devices;
mod dry_run;
mod edit_args;
mod error;
mod generate;
mod help;
mod hints;
mod hub;
mod image_args;
mod img2img;
mod info;
mod inpaint;
mod interpolate;
mod interrupt;
mod kernel;
mod lora_tags;
mod memory;
mod model;
mod models;
mod outpaint;
mod output;
mod picture_file;
mod pictures;
mod png;
mod progress;
mod restore;
mod run;
mod samplers;
mod save_steps;
mod selftest;
#[cfg(feature = "serve")]
mod serve;
mod settings;
mod stroke;
mod tune;
mod tuned;
mod upscale;
mod warnings;

use clap::{Parser, Subcommand};
use error::CliError;
use std::process::ExitCode;

/// Generate and edit images with diffusion and consistency models on any GPU, or on none.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What a newcomer may type first.
const EXAMPLES: &str = "Examples:
  headwater generate a red heart                         an image from words, by the model inside
  headwater generate \"a blue fish\" --steps 4 -n 4         four of them, finer
  headwater generate a cat -m OWNER/REPO                 by a model from Hugging Face, downloaded once";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an image from text, or from noise alone by a model that reads none
    Generate(Box<generate::Args>),
    /// Make an image from a picture: what it shows is kept more or less
    Img2img(Box<img2img::Args>),
    /// Make a part of a picture anew and keep the rest, bit for bit
    Inpaint(Box<inpaint::Args>),
    /// Make what lies around a picture, which itself is kept, bit for bit
    Outpaint(Box<outpaint::Args>),
    /// Give a picture colours, and keep the brightness of every pixel
    Colorize(Box<colorize::Args>),
    /// Enlarge a picture, by a model that was trained for it or by any other
    Upscale(Box<upscale::Args>),
    /// Take the noise off a picture
    Restore(Box<restore::Args>),
    /// Make a picture of a painting of a few strokes, in its colours
    Stroke(Box<stroke::Args>),
    /// Make the pictures on the way from one to another, by seeds or from pictures
    Interpolate(Box<interpolate::Args>),
    /// Compare samplers, or any other setting, step by step from the same noise
    Compare(Box<compare::Args>),
    /// Measure how samplers' errors fall with evaluations, over many seeds, on a model or on data whose truth is exact
    Converge(Box<converge::Args>),
    /// Serve a web page and HTTP APIs that keep models loaded
    #[cfg(feature = "serve")]
    Serve(Box<serve::Args>),
    /// Make the images of jobs that come as JSON lines, on one machine or on many
    #[cfg(feature = "serve")]
    Worker(Box<serve::lines::Args>),
    /// List the samplers, or explain one
    Samplers(samplers::Args),
    /// List the models inside this program, and what they draw
    Models(models::Args),
    /// List what can compute on this machine
    Devices(devices::Args),
    /// Show what a file or folder holds: an image's settings, a checkpoint's parts
    Info(info::Args),
    /// Write a model in another layout, number type, or with adapters merged
    Convert(Box<convert::Args>),
    /// Check every kernel against its reference on this machine's adapter
    Selftest(selftest::Args),
    /// Measure this machine, and the time and memory that a model takes on it
    Bench(bench::Args),
    /// Measure which ways of computing a model's operations are the fastest here, and keep them for later runs
    Tune(tune::Args),
    /// Print a shell's completion script
    Completions(help::CompletionsArgs),
    /// Print or write manual pages
    Man(help::ManArgs),
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    // Before any thread is there.
    crate::device::quiet_drivers();
    quiet_contained_panics();
    let cli = match again::parse() {
        Ok(cli) => cli,
        Err(error) => {
            note!("error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    let result = match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Img2img(args) => img2img::run(&args),
        Command::Inpaint(args) => inpaint::run(&args),
        Command::Outpaint(args) => outpaint::run(&args),
        Command::Colorize(args) => colorize::run(&args),
        Command::Upscale(args) => upscale::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Stroke(args) => stroke::run(&args),
        Command::Interpolate(args) => interpolate::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Converge(args) => converge::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
        #[cfg(feature = "serve")]
        Command::Worker(args) => serve::lines::run(&args),
        Command::Samplers(args) => samplers::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Completions(args) => help::completions(&args),
        Command::Man(args) => help::man(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has enough of it (`headwater samplers | head`): that is no failure.
        Err(CliError::Pipe) => ExitCode::SUCCESS,
        Err(CliError::Interrupted) => {
            note!("stopped");
            ExitCode::from(130)
        }
        Err(error) => {
            note!("error: {}", error::printable(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// A library that panics on a damaged file ends in an error of ours, which says all that its own message would.
fn quiet_contained_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !::models::panics_are_contained() {
            loud(info);
        }
    }));
}

/// Readers of what people type and of what pictures say, for fuzzing: nothing is returned, and nothing may panic.
#[doc(hidden)]
pub mod readers {
    use super::{again, lora_tags, picture_file, try_arguments};
    use std::path::Path;

    /// The arguments of `headwater generate`.
    pub fn arguments(arguments: &[String]) {
        try_arguments(arguments.iter().cloned());
    }

    /// A prompt with the tags of adapters.
    pub fn prompt(prompt: &str) {
        drop(lora_tags::take(prompt, None));
    }

    /// A picture's texts.
    pub fn texts_of(picture: &Path) {
        if let Ok(info) = picture_file::read_info(picture) {
            again::try_texts(&info.texts);
        }
    }

    /// One text of a picture.
    pub fn text(keyword: &str, text: &str) {
        again::try_texts(&[(keyword.to_owned(), text.to_owned())]);
    }
}

fn try_arguments(arguments: impl Iterator<Item = String>) {
    drop(Cli::try_parse_from(["headwater", "generate"].map(String::from).into_iter().chain(arguments)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
