//! `--dry-run`: what would be done, before anything is computed.

use super::error::CliError;
use super::image_args::ImageArgs;
use graph::MemoryUse;
use pipelines::{Job, Pipeline};
use serde_json::json;
use std::io::Write;

/// Prints how this job's image would be made, and those of the other seeds.
pub(super) fn print(pipe: &Pipeline, job: &Job, seeds: &[u64], flags: &ImageArgs) -> Result<(), CliError> {
    let settings = job.settings();
    let together = seeds.len().min(flags.batch as usize);
    let estimate = pipe.estimate(job, together)?;
    let (sampler, sigmas, shape) = (job.sampling().sampler.name, job.sigmas(), job.shape());
    let parts = [("text", estimate.text), ("denoiser", estimate.denoiser), ("decoder", estimate.decoder)];
    let mut stdout = std::io::stdout().lock();
    if flags.json {
        let bytes = |memory: MemoryUse| json!({ "weights": memory.weights, "activations": memory.activations });
        let object = json!({
            "width": settings.width, "height": settings.height,
            "sample": [shape.height, shape.width, shape.channels],
            "seeds": seeds, "batch": together,
            "sampler": sampler, "schedule": settings.schedule.map(|schedule| schedule.name()),
            "steps": job.steps(), "evaluations": job.evaluations(), "predictions": job.predictions(),
            "sigmas": sigmas,
            "guidance": settings.guidance_scale, "guidance_interval": settings.guidance_interval.map(|own| own.to_string()),
            "step_cache": settings.step_cache.map(|own| own.to_string()),
            "strength": settings.strength, "class_label": settings.class_label,
            "noise_level": settings.noise_level, "parts": job.parts(), "method": settings.method.map(|method| method.name()), "tokens_dropped": job.tokens_dropped(),
            "warnings": job.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "memory": parts.iter().map(|(name, memory)| ((*name).to_owned(), bytes(*memory))).collect::<serde_json::Map<_, _>>(),
            "device": pipe.device().info().name,
        });
        writeln!(stdout, "{object}")?;
        return Ok(());
    }
    let counted = |count: Option<usize>| count.map_or("as many as it takes".to_owned(), |count| count.to_string());
    let shown = |sigma: &f64| format!("{sigma:.4}").trim_end_matches('0').trim_end_matches('.').to_owned();
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    writeln!(stdout, "images       {} of {}x{}, {together} at once", seeds.len(), settings.width, settings.height)?;
    writeln!(stdout, "sample       {}x{}, {} channels", shape.width, shape.height, shape.channels)?;
    let schedule = settings.schedule.map_or(String::new(), |schedule| format!(", schedule {}", schedule.name()));
    writeln!(stdout, "sampler      {sampler}{schedule}")?;
    writeln!(stdout, "steps        {}", counted(job.steps()))?;
    writeln!(stdout, "evaluations  {} for each image", counted(job.evaluations()))?;
    if job.parts() > 1 {
        writeln!(stdout, "parts        {} that overlap, each evaluated by itself", job.parts())?;
    }
    if let Some(method) = settings.method {
        writeln!(stdout, "method       {method}")?;
    }
    if settings.guidance_interval.is_some() || settings.step_cache.is_some() {
        writeln!(stdout, "predictions  {} for each image", counted(job.predictions()))?;
    }
    if let Some(cache) = settings.step_cache {
        writeln!(stdout, "step cache   {cache}")?;
    }
    let interval = settings.guidance_interval.map_or(String::new(), |own| format!(", in the interval {own}"));
    writeln!(stdout, "guidance     {}{interval}", settings.guidance_scale)?;
    if job.steps().is_some() {
        writeln!(stdout, "sigmas       {}", sigmas.iter().map(shown).collect::<Vec<_>>().join(" "))?;
    }
    for (name, memory) in parts.iter().filter(|(_, memory)| *memory != MemoryUse::default()) {
        let (weights, activations) = (mib(memory.weights), mib(memory.activations));
        writeln!(stdout, "memory       {name}: {weights} MiB weights, {activations} MiB activations")?;
    }
    writeln!(stdout, "device       {}", pipe.device().info().name)?;
    Ok(())
}
