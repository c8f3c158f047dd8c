//! What an image says of how it was made.

use super::model::LoraArg;
use super::run::Work;
use pipelines::{Generated, Job, Rng};
use serde_json::json;

/// Everything needed to make the image again.
pub(super) fn settings_json(
    work: &Work,
    job: &Job,
    generated: &Generated,
    loras: &[LoraArg],
    device: &str,
) -> serde_json::Value {
    let (flags, request) = (&work.flags, job.settings());
    let (width, height) = size(job, generated);
    let mut settings = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "command": work.command,
        "model": flags.model.to_string_lossy(),
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": width,
        "height": height,
        "steps": if let scheduler::Steps::Count(count) = request.steps { count } else { generated.steps },
        "sampler": job.sampling().sampler.name,
        "evaluations": generated.evaluations,
        "predictions": generated.predictions,
        "reused": generated.reused,
        "guidance": request.guidance_scale,
        "seed": request.seed,
        "rng": flags.rng.name(),
        "dtype": flags.dtype.name(),
        "device": device,
    });
    if let Some(schedule) = request.schedule {
        settings["schedule"] = json!(schedule.name());
    }
    if !loras.is_empty() {
        settings["loras"] = super::model::loras_json(loras);
    }
    if let Some(vae) = &flags.vae {
        settings["vae"] = json!(vae.to_string_lossy());
    }
    if !flags.embedding.is_empty() {
        settings["embeddings"] = super::model::embeddings_json(&flags.embedding);
    }
    if let Some(variant) = &flags.variant {
        settings["variant"] = json!(variant);
    }
    if let Some(config) = &flags.config {
        settings["config"] = json!(config.to_string_lossy());
    }
    if let Some(interval) = request.guidance_interval {
        settings["guidance_interval"] = json!(interval.to_string());
    }
    if let Some(cache) = request.step_cache {
        settings["step_cache"] = json!(cache.to_string());
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
    if let Some(label) = request.class_label {
        settings["class_label"] = json!(label);
    }
    if let Some(strength) = request.strength {
        settings["strength"] = json!(strength);
    }
    if let Some(level) = request.noise_level {
        settings["noise_level"] = json!(level);
    }
    if let Some(sigma) = request.sigma {
        settings["sigma"] = json!(sigma);
    }
    if let Some(method) = request.method {
        settings["method"] = json!(method.name());
    }
    if let (Some(settings), Some(told)) = (settings.as_object_mut(), work.told.as_object()) {
        settings
            .extend(told.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())));
    }
    for (what, path) in &work.inputs {
        settings[*what] = json!(path.to_string_lossy());
    }
    match &request.steps {
        scheduler::Steps::Timesteps(list) => settings["timesteps"] = json!(list),
        scheduler::Steps::Sigmas(list) => settings["sigmas"] = json!(list),
        scheduler::Steps::Count(_) => {}
    }
    settings
}

/// Of the image, which may be a part of what the model made.
fn size(job: &Job, generated: &Generated) -> (usize, usize) {
    let made = generated.image.as_ref().map(|image| (image.width, image.height));
    made.unwrap_or((job.settings().width, job.settings().height))
}

/// The text that AUTOMATIC1111's web UI and many tools read from an image.
pub(super) fn parameters(work: &Work, job: &Job, generated: &Generated) -> String {
    let (flags, request) = (&work.flags, job.settings());
    // With the adapters that it names.
    let mut text = work.prompt.clone().unwrap_or_default();
    if !request.negative_prompt.is_empty() {
        text += &format!("\nNegative prompt: {}", request.negative_prompt);
    }
    // A1111 counts the steps that a strength leaves out.
    let steps = match request.steps {
        scheduler::Steps::Count(count) if request.strength.is_some() => count,
        _ => generated.steps,
    };
    // In A1111's spelling where it has the sampler or the schedule: other readers know no other.
    let sampler = job.sampling().sampler;
    text += &format!("\nSteps: {steps}, Sampler: {}", sampler.aliases.a1111.first().unwrap_or(&sampler.name));
    if let Some(schedule) = request.schedule {
        text += &format!(", Schedule type: {}", schedule.a1111().unwrap_or(schedule.name()));
    }
    if let Some(eta) = request.eta {
        text += &format!(", Eta: {eta}");
    }
    if request.clip_skip > 0 {
        // There 1 is the last layer.
        text += &format!(", Clip skip: {}", request.clip_skip + 1);
    }
    if let Some(label) = request.class_label {
        text += &format!(", Class: {label}");
    }
    if let Some(strength) = request.strength {
        text += &format!(", Denoising strength: {strength}");
    }
    let model = flags.model.to_string_lossy();
    let model = if model.contains([',', ':', '\n']) {
        serde_json::Value::from(&*model).to_string()
    } else {
        model.into_owned()
    };
    // A1111 names only what is not its own default generator, which is CUDA's.
    let rng = match flags.rng {
        Rng::TorchCpu => ", RNG: CPU",
        Rng::TorchCuda => ", RNG: NV",
        Rng::Philox => ", RNG: Philox",
    };
    let (width, height) = size(job, generated);
    text + &format!(
        ", CFG scale: {}, Seed: {}, Size: {}x{}, Model: {model}{rng}, Version: headwater {}",
        request.guidance_scale,
        request.seed,
        width,
        height,
        env!("CARGO_PKG_VERSION")
    )
}
