//! `headwater generate`: text, a class or nothing but noise to an image.

use super::devices::device_settings;
use super::error::CliError;
use super::image_args::ImageArgs;
use super::interrupt;
use super::output::{Destination, Saved};
use super::progress::Progress;
use super::save_steps::StepWriter;
use pipelines::{Generated, Outcomes, Request, Rng, TextToImage};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

/// Make an image from text, or from noise alone by a model that reads none.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What the image shows; a class-conditional or unconditional model takes no prompt
    prompt: Option<String>,

    #[command(flatten)]
    image: ImageArgs,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let flags = &args.image;
    flags.check_names()?;
    let prompt = args.prompt.as_deref().unwrap_or_default();
    let class = flags.class_label.map_or_else(String::new, |label| format!("class {label}"));
    let name = args.prompt.as_deref().unwrap_or(&class);
    let destination = Destination::new(flags.output.as_deref(), name, flags.count, flags.json)?;
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
    if pipe.takes_prompt() != args.prompt.is_some() {
        let message = if pipe.takes_prompt() {
            "this model needs a PROMPT that says what to draw, as in headwater generate \"a red heart\""
        } else {
            "this model reads no text: leave the prompt out"
        };
        return Err(CliError::Usage(message.into()));
    }
    if !pipe.makes_pictures() && !destination.takes_samples() {
        let message = "this model makes latents, not pictures; give --output a name ending in .safetensors";
        return Err(CliError::Usage(message.into()));
    }
    let first_seed = flags.seed.unwrap_or_else(random_seed);
    for index in 0..flags.count {
        let seed = first_seed.wrapping_add(u64::from(index));
        let request = flags.apply(prompt, seed, pipe.defaults());
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
        let settings = settings_json(flags, &request, &generated, &device.info().name);
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

/// Everything needed to make the image again.
fn settings_json(flags: &ImageArgs, request: &Request, generated: &Generated, device: &str) -> serde_json::Value {
    let mut settings = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "command": "generate",
        "model": flags.model,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "steps": if let scheduler::Steps::Count(count) = request.steps { count } else { generated.steps },
        "sampler": generated.sampler,
        "evaluations": generated.evaluations,
        "guidance": request.guidance_scale,
        "seed": request.seed,
        "rng": flags.rng.name(),
        "dtype": flags.dtype.name(),
        "device": device,
    });
    if let Some(schedule) = generated.schedule {
        settings["schedule"] = json!(schedule);
    }
    if !flags.lora.is_empty() {
        settings["loras"] = super::model::loras_json(&flags.lora);
    }
    if let Some(vae) = &flags.vae {
        settings["vae"] = json!(vae);
    }
    if !flags.embedding.is_empty() {
        settings["embeddings"] = super::model::embeddings_json(&flags.embedding);
    }
    if let Some(variant) = &flags.variant {
        settings["variant"] = json!(variant);
    }
    if let Some(config) = &flags.config {
        settings["config"] = json!(config);
    }
    if let Some(eta) = request.eta {
        settings["eta"] = json!(eta);
    }
    if request.clip_skip > 0 {
        settings["clip_skip"] = json!(request.clip_skip);
    }
    if let Some(syntax) = request.prompt_syntax {
        settings["prompt_syntax"] = json!(syntax.name());
    }
    if let Some(label) = generated.class_label {
        settings["class_label"] = json!(label);
    }
    match &request.steps {
        scheduler::Steps::Timesteps(list) => settings["timesteps"] = json!(list),
        scheduler::Steps::Sigmas(list) => settings["sigmas"] = json!(list),
        scheduler::Steps::Count(_) => {}
    }
    settings
}

/// The text that AUTOMATIC1111's web UI and many tools read from an image.
fn parameters(request: &Request, generated: &Generated, flags: &ImageArgs) -> String {
    let mut text = request.prompt.clone();
    if !request.negative_prompt.is_empty() {
        text += &format!("\nNegative prompt: {}", request.negative_prompt);
    }
    text += &format!("\nSteps: {}, Sampler: {}", generated.steps, generated.sampler);
    if let Some(schedule) = generated.schedule {
        text += &format!(", Schedule type: {schedule}");
    }
    if let Some(eta) = request.eta {
        text += &format!(", Eta: {eta}");
    }
    if request.clip_skip > 0 {
        // There 1 is the last layer.
        text += &format!(", Clip skip: {}", request.clip_skip + 1);
    }
    if let Some(label) = generated.class_label {
        text += &format!(", Class: {label}");
    }
    let model = if flags.model.contains([',', ':', '\n']) {
        serde_json::Value::from(flags.model.as_str()).to_string()
    } else {
        flags.model.clone()
    };
    // A1111 names only what is not its own default generator, which is CUDA's.
    let rng = match flags.rng {
        Rng::TorchCpu => ", RNG: CPU",
        Rng::TorchCuda => ", RNG: NV",
        Rng::Philox => ", RNG: Philox",
    };
    text + &format!(
        ", CFG scale: {}, Seed: {}, Size: {}x{}, Model: {model}{rng}, Version: headwater {}",
        request.guidance_scale,
        request.seed,
        request.width,
        request.height,
        env!("CARGO_PKG_VERSION")
    )
}

/// Fits 32 bits: other tools that read the seed keep no more.
fn random_seed() -> u64 {
    u64::from(rand::random::<u32>())
}
