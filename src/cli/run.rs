//! What every image command does: opens the model, makes the images, saves and reports them.

use super::devices::device_settings;
use super::error::CliError;
use super::image_args::ImageArgs;
use super::interrupt;
use super::output::{Destination, Saved};
use super::progress::Progress;
use super::save_steps::StepWriter;
use super::settings::{parameters, settings_json};
use pipelines::{Generated, Outcomes, RgbImage, Source, TextToImage};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// An image command's work.
pub(super) struct Job<'a> {
    /// Its name.
    pub(super) command: &'static str,
    pub(super) prompt: Option<&'a str>,
    /// What a file is called where no name is asked for.
    pub(super) name: &'a str,
    pub(super) flags: &'a ImageArgs,
    /// The picture that images are made from.
    pub(super) source: Option<Source>,
    /// The files that it was read from, each with what it is.
    pub(super) inputs: &'a [(&'static str, &'a Path)],
}

pub(super) fn run(job: &Job<'_>) -> Result<(), CliError> {
    let flags = job.flags;
    flags.check_names()?;
    let destination = Destination::new(flags.output.as_deref(), job.name, flags.count, flags.json)?;
    let interrupted = interrupt::install()?;
    let files = flags.open_model()?;
    let mut settings = device_settings(flags.checked, flags.threads.map(|n| n as usize));
    settings.max_memory = flags.max_memory.map(|gib| (gib * f64::from(1 << 30)) as u64);
    let device = pipelines::open_device(&flags.device, &settings)?;
    if flags.verbose {
        let info = device.info();
        eprintln!("device: {} ({}, {})", info.name, info.kind, info.backend);
    }
    let mut pipe = TextToImage::from_pretrained(device.as_ref(), &files, flags.plan_options())?;
    if pipe.takes_prompt() != job.prompt.is_some() {
        let message = if pipe.takes_prompt() {
            let input = if job.source.is_some() { " picture.png" } else { "" };
            let command = job.command;
            format!(
                "this model needs a PROMPT that says what to draw, as in headwater {command}{input} \"a red heart\""
            )
        } else {
            "this model reads no text: leave the prompt out".into()
        };
        return Err(CliError::Usage(message));
    }
    if !pipe.makes_pictures() && !destination.takes_samples() {
        let message = "this model makes latents, not pictures; give --output a name ending in .safetensors";
        return Err(CliError::Usage(message.into()));
    }
    let defaults = job.source.clone().map_or_else(|| pipe.defaults(), |source| pipe.defaults_for(source));
    let first_seed = flags.seed.unwrap_or_else(random_seed);
    for index in 0..flags.count {
        let seed = first_seed.wrapping_add(u64::from(index));
        let request = flags.apply(job.prompt.unwrap_or_default(), seed, defaults.clone());
        let started = Instant::now();
        let mut progress = Progress::new(flags.is_quiet());
        let mut steps = flags
            .save_steps
            .as_deref()
            .map(|folder| StepWriter::new(folder, seed, pipe.samples_are_pictures()))
            .transpose()?;
        let mut write_error = None;
        let outcome = pipe.run(&request, |event| {
            progress.step(event);
            if let Some(Err(error)) = steps.as_mut().map(|writer| writer.write(event)) {
                write_error = Some(error);
                return ControlFlow::Break(());
            }
            if interrupted.get() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        progress.finish();
        if let Some(error) = write_error {
            return Err(error);
        }
        let generated = match outcome {
            Outcomes::Finished(generated) if !interrupted.get() => generated,
            _ => return Err(CliError::Interrupted),
        };
        if generated.tokens_dropped > 0 && !flags.quiet {
            let dropped = generated.tokens_dropped;
            eprintln!(
                "warning: the text encoder reads only the start of a long prompt; {dropped} tokens were left out"
            );
        }
        let settings = settings_json(job, &request, &generated, &device.info().name);
        let saved = destination.save(&generated, index, seed, &parameters(&request, &generated, flags), &settings)?;
        if flags.verbose {
            let memory = pipe.memory();
            eprintln!("memory: {} MB weights, {} MB activations", memory.weights >> 20, memory.activations >> 20);
        }
        match report(flags, &saved, &settings, &generated, started) {
            // Whoever read the paths has enough of them; the images are still wanted.
            Err(CliError::Pipe) => {}
            result => result?,
        }
    }
    Ok(())
}

/// One line on standard output: the path, or the JSON object.
fn report(
    flags: &ImageArgs,
    saved: &Saved,
    settings: &serde_json::Value,
    generated: &Generated,
    started: Instant,
) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let seconds = |d: std::time::Duration| (d.as_secs_f64() * 1e4).round() / 1e4;
    if flags.json {
        let mut object = settings.clone();
        object["path"] = saved.path().map_or(serde_json::Value::Null, |path| json!(path.display().to_string()));
        object["timings"] = json!({
            "prepare": seconds(generated.timings.prepare),
            "encode": seconds(generated.timings.encode),
            "sample": seconds(generated.timings.sample),
            "decode": seconds(generated.timings.decode),
            "total": seconds(started.elapsed()),
        });
        writeln!(stdout, "{object}")?;
    } else if let Some(path) = saved.path() {
        writeln!(stdout, "{}", path.display())?;
    }
    if !flags.quiet && !flags.json {
        eprintln!("seed {}, {:.2} s", settings["seed"], started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// A picture that a command is given.
pub(super) fn picture(path: &Path) -> Result<RgbImage, CliError> {
    crate::read_picture(path).map_err(|error| CliError::Failed(error.to_string()))
}

/// A file's name without its ending.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A strength on the command line.
pub(super) fn strength(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "it must lie between 0 and 1".into())
}

/// Fits 32 bits: other tools that read the seed keep no more.
fn random_seed() -> u64 {
    u64::from(rand::random::<u32>())
}
