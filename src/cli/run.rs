//! What every image command does: opens the model, makes the images, saves and reports them.

use super::devices::device_settings;
use super::dry_run;
use super::error::CliError;
use super::image_args::{ImageArgs, Names, Seed};
use super::interrupt::{self, Interrupted};
use super::lora_tags;
use super::model::LoraArg;
use super::output::{Destination, Saved};
use super::progress::Progress;
use super::save_steps::StepWriter;
use super::settings::{parameters, settings_json};
use super::warnings::warn;
use graph::DeviceKind;
use models::first_few;
use pipelines::{Generated, Job, Pipeline, PromptSyntax, Request, Task, Warning};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// An image command's work.
#[derive(Debug)]
pub(super) struct Work {
    /// Its name.
    pub(super) command: &'static str,
    pub(super) prompt: Option<String>,
    /// What a file is called where no name is asked for.
    pub(super) name: String,
    pub(super) flags: ImageArgs,
    /// What images are made from.
    pub(super) task: Task,
    /// Of the picture that is started from.
    pub(super) picture: Option<Extents>,
    /// What else the command was told that the job does not know, for whoever reads the image's settings.
    pub(super) told: serde_json::Value,
    /// The files that it was read from, each with what it is.
    pub(super) inputs: Vec<(&'static str, PathBuf)>,
}

/// The size of a picture that is started from, and whether it may be changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Whether it is made as large as the model's own where it is much larger.
    pub(super) resize: bool,
    /// Whether the command has a flag for that.
    pub(super) can_resize: bool,
}

pub(super) fn run(work: &Work) -> Result<(), CliError> {
    let flags = &work.flags;
    if !flags.quiet {
        for (_, path) in work.inputs.iter().filter(|(_, path)| crate::is_animated(path)) {
            note!("note: {} is animated: its first frame is taken", path.display());
        }
    }
    let names = flags.names()?;
    let destination = Destination::new(flags.output.as_deref(), &work.name, flags.count, flags.json)?;
    let first_seed = seed(flags);
    let seeds = (0..flags.count).map(|index| first_seed.wrapping_add(u64::from(index)));
    let destination = destination.of_seeds(seeds.clone(), flags.force)?;
    let interrupted = interrupt::install()?;
    let Opened { pipe, prompt, loras } = open(flags, work.prompt.as_deref())?;
    check(&pipe, work)?;
    if !pipe.makes_pictures() && !destination.takes_samples() {
        let message = "this model makes latents, not pictures; give --output a name ending in .safetensors, or --vae an autoencoder";
        return Err(CliError::Usage(message.into()));
    }
    let job = |seed| Ok::<_, CliError>(pipe.job(&request(&pipe, work, &prompt, names, seed))?);
    let first = job(first_seed)?;
    let warnings = warn_of_request(&pipe, work, &first)?;
    if flags.dry_run {
        return dry_run::print(&pipe, &first, &seeds.collect::<Vec<_>>(), flags);
    }
    warn_of_time(&pipe, work, &first)?;
    if first.settings().method.is_some() && destination.loses_pixels() && !flags.quiet {
        note!("note: JPEG keeps no pixel as it is: PNG and WebP do");
    }
    let mut index = 0;
    // A job holds its pictures, so there are never more of them than are made together.
    drop(first);
    let seeds: Vec<u64> = seeds.collect();
    for seeds in seeds.chunks(flags.batch as usize) {
        let jobs = &seeds.iter().map(|seed| job(*seed)).collect::<Result<Vec<_>, CliError>>()?;
        let started = Instant::now();
        let made = make(&pipe, jobs, flags, &interrupted)?;
        let seconds = started.elapsed().as_secs_f64() / jobs.len() as f64;
        for (job, generated) in jobs.iter().zip(&made) {
            let settings = settings_json(work, job, generated, &loras, &pipe.device().info().name);
            let seed = job.settings().seed;
            let sigma = job.sampling().schedule.sigmas.last().copied().unwrap_or(0.0);
            let saved =
                destination.save(generated, index, seed, &parameters(work, job, generated), &settings, sigma)?;
            index += 1;
            match report(flags, &saved, &settings, generated, seconds, &warnings) {
                // Whoever read the paths has enough of them; the images are still wanted.
                Err(CliError::Pipe) => {}
                result => result?,
            }
        }
        if flags.verbose {
            let memory = pipe.memory();
            note!("memory: {} MB weights, {} MB activations", memory.weights >> 20, memory.activations >> 20);
        }
    }
    Ok(())
}

/// Refuses what this model has no use for.
pub(super) fn check(pipe: &Pipeline, work: &Work) -> Result<(), CliError> {
    check_prompt(pipe, work)?;
    if work.told["replace_every"].is_number() && pipe.samples_are_pictures() {
        let message = "--replace-every is for models of latents, and this one makes pixels: leave it out";
        return Err(CliError::Usage(message.into()));
    }
    Ok(())
}

/// What is asked of the model for the image of one seed.
pub(super) fn request(pipe: &Pipeline, work: &Work, prompt: &str, names: Names, seed: u64) -> Request {
    let mut request = work.flags.request(prompt, seed, names, work.task.clone());
    let resized = work.picture.filter(|picture| picture.resize);
    if let Some((width, height)) = resized.and_then(|picture| smaller(pipe, picture)) {
        (request.width, request.height) = (Some(width), Some(height));
    }
    request
}

/// What an image command works with.
pub(super) struct Opened {
    pub(super) pipe: Pipeline,
    /// Without the adapters that it names.
    pub(super) prompt: String,
    pub(super) loras: Vec<LoraArg>,
}

/// Opens the model on the device.
pub(super) fn open(flags: &ImageArgs, prompt: Option<&str>) -> Result<Opened, CliError> {
    let plain = flags.prompt_syntax == Some(PromptSyntax::Plain);
    let (prompt, mut loras) = match prompt {
        Some(prompt) if !plain => lora_tags::take(prompt, flags.lora_dir.as_deref())?,
        prompt => (prompt.unwrap_or_default().to_owned(), Vec::new()),
    };
    loras.splice(0..0, flags.lora.iter().cloned());
    let files = flags.open_model(&loras)?;
    let mut settings = device_settings(flags.checked, flags.threads.map(|n| n as usize))?;
    settings.max_memory = flags.max_memory.map(|gib| (gib * f64::from(1 << 30)) as u64);
    let device = pipelines::open_device(&flags.device, &settings)?;
    if flags.verbose {
        let info = device.info();
        note!("device: {} ({}, {})", info.name, info.kind, info.backend);
    }
    let options = flags.dtype.plan_options(device.info())?;
    if let (true, Some(winners)) = (flags.verbose, options.winners) {
        note!("tuned: {} shapes were measured on this device", winners.len());
    }
    let pipe = Pipeline::from_pretrained(&device, &files, options)?;
    if !pipe.left_over().is_empty() {
        let (model, names) = (flags.model.display(), first_few(pipe.left_over()));
        warn(flags.quiet, &format!("{model} has tensors that no part of the model reads: {names}"))?;
    }
    Ok(Opened { pipe, prompt, loras })
}

/// The first image's seed.
pub(super) fn seed(flags: &ImageArgs) -> u64 {
    match flags.seed {
        Some(Seed::Given(seed)) => seed,
        Some(Seed::Random) | None => random_seed(),
    }
}

/// The size that a picture is made, if it is much larger than the model's own.
fn smaller(pipe: &Pipeline, picture: Extents) -> Option<(usize, usize)> {
    let Extents { width, height, .. } = picture;
    pipe.is_much_larger(width, height).then(|| pipe.fitted_size(width, height))
}

/// Warns of what does nothing with this model, or harm; with `--json` the warnings are in the objects and nowhere else.
fn warn_of_request(pipe: &Pipeline, work: &Work, job: &Job) -> Result<Vec<String>, CliError> {
    // Commands that keep most of a picture do without words.
    let needs_none = ["colorize", "upscale", "restore", "stroke"].contains(&work.command);
    let shown = |warning: &&Warning| !(needs_none && **warning == Warning::EmptyPrompt);
    let listed = |warning: &Warning| match warning {
        Warning::UnknownWords(_) => format!("{warning} (headwater models lists what it draws)"),
        _ => warning.to_string(),
    };
    let mut warnings: Vec<String> = job.warnings().iter().filter(shown).map(listed).collect();
    if work.flags.threads.is_some() && pipe.device().info().kind != DeviceKind::Cpu {
        warnings.push("--threads does nothing here: it is for the cpu device".into());
    }
    warnings.iter().try_for_each(|text| warn(work.flags.is_quiet(), text))?;
    Ok(warnings)
}

/// Says what will take long, before it begins: a picture denoised in parts, and latents that are decoded in every step.
fn warn_of_time(pipe: &Pipeline, work: &Work, job: &Job) -> Result<(), CliError> {
    let quiet = work.flags.quiet;
    let shown =
        |seconds: f64| if seconds < 90.0 { format!("{seconds:.1} s") } else { format!("{:.0} min", seconds / 60.0) };
    if job.parts() > 1 && !quiet {
        let seconds = pipe.forecast(job)?.as_secs_f64() * f64::from(work.flags.count);
        let (parts, time) = (job.parts(), shown(seconds));
        let smaller = work.picture.filter(|picture| picture.can_resize).and_then(|picture| smaller(pipe, picture));
        let resize =
            smaller.map_or(String::new(), |(width, height)| format!("; --resize makes it {width}x{height} first"));
        note!(
            "note: larger than this model's own pictures, so it is made in {parts} overlapping parts, in about {time}{resize}"
        );
    }
    if let (Some(told), Some(first)) = (job.settings().sigma, job.sigmas().first()) {
        // A picture with less noise than that loses more than its noise.
        if (first / told - 1.0).abs() > 0.01 {
            let text = format!(
                "noise of {told:.3} is out of this model's reach, which begins at {first:.3}: expect changes beyond it"
            );
            warn(quiet, &text)?;
        } else if !quiet && work.command == "restore" && work.told["sigma"].is_null() {
            note!("note: noise of {told:.3} is taken off, as measured in the picture; --sigma says otherwise");
        }
    }
    if quiet {
        return Ok(());
    }
    if let Some(each) = pipe.forecast_replacement(job)? {
        let time = shown(each.as_secs_f64());
        note!(
            "note: what is known is put back in pixels, which takes about {time} each time; --replace-every N does so in every Nth step"
        );
    }
    Ok(())
}

/// A model that reads text needs a prompt, and another has no use for one.
fn check_prompt(pipe: &Pipeline, work: &Work) -> Result<(), CliError> {
    // An empty one is none.
    let prompt = work.prompt.as_deref().filter(|prompt| pipe.takes_prompt() || !prompt.is_empty());
    if pipe.takes_prompt() == prompt.is_some() {
        return Ok(());
    }
    let message = if pipe.takes_prompt() {
        let input = if work.inputs.is_empty() { "" } else { " picture.png" };
        let command = work.command;
        format!("this model needs a PROMPT that says what to draw, as in headwater {command}{input} \"a red heart\"")
    } else {
        "this model reads no text: leave the prompt out".into()
    };
    Err(CliError::Usage(message))
}

/// Makes the images of some jobs together.
pub(super) fn make(
    pipe: &Pipeline,
    jobs: &[Job],
    flags: &ImageArgs,
    interrupted: &Interrupted,
) -> Result<Vec<Generated>, CliError> {
    let mut batch = pipe.start_all(jobs)?;
    let mut progress = Progress::new(jobs.len(), flags.is_quiet());
    let writer = |job: &Job, folder| StepWriter::new(folder, pipe, job);
    let writers = flags.save_steps.as_deref().map(|folder| jobs.iter().map(|job| writer(job, folder)).collect());
    let writers: Option<Vec<StepWriter>> = writers.transpose()?;
    let runs = batch.ids();
    while let Some(step) = batch.next()? {
        progress.step(&step);
        if let Some(writers) = &writers {
            let mut own = runs.iter().zip(writers).filter(|(run, _)| **run == step.run);
            own.try_for_each(|(_, writer)| writer.write(&step))?;
        }
        if interrupted.get() {
            return Err(CliError::Interrupted);
        }
    }
    progress.finish();
    let made = batch.finish()?;
    if interrupted.get() { Err(CliError::Interrupted) } else { Ok(made) }
}

/// One line on standard output.
pub(super) fn print_line(line: &str) -> Result<(), CliError> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// One line on standard output: the path, or the JSON object.
fn report(
    flags: &ImageArgs,
    saved: &Saved,
    settings: &serde_json::Value,
    generated: &Generated,
    total: f64,
    warnings: &[String],
) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let seconds = |d: std::time::Duration| (d.as_secs_f64() * 1e4).round() / 1e4;
    if flags.json {
        let mut object = settings.clone();
        object["path"] = saved.path().map_or(serde_json::Value::Null, |path| json!(path.display().to_string()));
        object["warnings"] = json!(warnings);
        object["timings"] = json!({
            "prepare": seconds(generated.timings.prepare),
            "encode": seconds(generated.timings.encode),
            "sample": seconds(generated.timings.sample),
            "decode": seconds(generated.timings.decode),
            "total": (total * 1e4).round() / 1e4,
        });
        writeln!(stdout, "{object}")?;
        return Ok(());
    }
    if !flags.quiet {
        note!("seed {}, {total:.2} s", settings["seed"]);
    }
    // Last, so that it is the last line a person sees.
    if let Some(path) = saved.path() {
        writeln!(stdout, "{}", path.display())?;
    }
    Ok(())
}

/// The words of a prompt, where there are any.
pub(super) fn prompt(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
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

/// A number above 0 on the command line.
pub(super) fn above_zero(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "it must be a number above 0".into())
}

/// Fits 32 bits: other tools that read the seed keep no more.
pub(super) fn random_seed() -> u64 {
    u64::from(rand::random::<u32>())
}
