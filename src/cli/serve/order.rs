//! A request becomes a job: its fields are parsed as the command line's, its pictures decoded, its limits kept, and its model asked whether it
//! can do that, before it waits.

use super::super::image_args::{ImageArgs, Seed};
use super::super::lora_tags;
use super::super::model::LoraArg;
use super::super::picture_file::{self, Format};
use super::super::run::{self, Work};
use super::super::{Command, colorize, error, generate, img2img, inpaint, outpaint, restore, stroke, upscale};
use super::App;
use super::fields::{self, IMAGE, MASK, Said};
use super::http::error::ApiError;
use super::limits::{PROMPT, SIDE};
use super::sent::{Sent, from_base64};
use super::ticket::{Order, Owner, Previews, Ticket};
use crate::bundled;
use pipelines::PromptSyntax;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A request in the words of the own API, whichever API it came by.
#[derive(Debug)]
pub(super) struct Asked {
    /// An image command.
    pub(super) command: String,
    /// A model's id; if absent, the one that the command itself would take, or the first.
    pub(super) model: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) sent: Sent,
    /// A box or `alpha`, in place of a picture that is the mask.
    pub(super) mask: Option<String>,
    /// Everything else by the names of the command line's flags.
    pub(super) fields: Map<String, Value>,
    pub(super) previews: Previews,
    pub(super) reference: bool,
    pub(super) is_detached: bool,
    pub(super) format: Format,
    pub(super) quality: u8,
    pub(super) task_id: Option<String>,
}

impl Asked {
    pub(super) fn new(command: &str, most_pixels: usize) -> Self {
        Self {
            command: command.to_owned(),
            model: None,
            prompt: None,
            sent: Sent::new(most_pixels),
            mask: None,
            fields: Map::new(),
            previews: Previews::None,
            reference: false,
            is_detached: false,
            format: Format::Png,
            quality: picture_file::QUALITY,
            task_id: None,
        }
    }

    /// Reads the body of the own API.
    pub(super) fn from_json(body: Map<String, Value>, most_pixels: usize) -> Result<Self, ApiError> {
        let mut asked = Self::new("generate", most_pixels);
        let text = |name: &str, value: Value| match value {
            Value::String(text) => Ok(Some(text)),
            Value::Null => Ok(None),
            _ => Err(ApiError::field(name, "must be a text")),
        };
        for (name, value) in body {
            match name.as_str() {
                "command" => asked.command = text(&name, value)?.unwrap_or_else(|| "generate".to_owned()),
                "model" => asked.model = text(&name, value)?,
                "prompt" => asked.prompt = text(&name, value)?,
                "image" => {
                    if let Some(data) = text(&name, value)? {
                        asked.sent.put(IMAGE, from_base64("image", &data)?);
                    }
                }
                "mask" => match text(&name, value)? {
                    // No picture in base64 has commas, or is as short.
                    Some(place)
                        if place == "alpha" || (place.contains(',') && place.len() < 100 && !place.contains(';')) =>
                    {
                        asked.mask = Some(place);
                    }
                    Some(data) => asked.sent.put(MASK, from_base64("mask", &data)?),
                    None => {}
                },
                "previews" => {
                    asked.previews = match value {
                        Value::Null | Value::Bool(false) => Previews::None,
                        Value::Bool(true) => Previews::Denoised,
                        Value::String(text) if text == "denoised" => Previews::Denoised,
                        Value::String(text) if text == "both" => Previews::Both,
                        _ => return Err(ApiError::field("previews", "must be true, false, \"denoised\" or \"both\"")),
                    };
                }
                "reference" => asked.reference = switch(&name, &value)?,
                "detached" => asked.is_detached = switch(&name, &value)?,
                "format" => {
                    if let Some(name) = text(&name, value)? {
                        asked.format = format(&name)?;
                    }
                }
                "quality" => asked.quality = quality(&value)?,
                _ => {
                    asked.fields.insert(name, value);
                }
            }
        }
        Ok(asked)
    }
}

fn switch(name: &str, value: &Value) -> Result<bool, ApiError> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(*value),
        _ => Err(ApiError::field(name, "must be true or false")),
    }
}

/// A format by its name.
pub(super) fn format(name: &str) -> Result<Format, ApiError> {
    match name {
        "png" => Ok(Format::Png),
        "jpeg" | "jpg" => Ok(Format::Jpeg),
        "webp" => Ok(Format::WebP),
        _ => Err(ApiError::field("format", "must be png, jpeg or webp")),
    }
}

/// Of JPEG.
fn quality(value: &Value) -> Result<u8, ApiError> {
    match value {
        Value::Null => Ok(picture_file::QUALITY),
        value => {
            let number = value.as_u64().and_then(|number| u8::try_from(number).ok()).filter(|n| (1..=100).contains(n));
            number.ok_or_else(|| ApiError::field("quality", "must be a whole number from 1 to 100"))
        }
    }
}

/// Checks a request, and puts its job into the queue. Decodes pictures: for a thread that may be kept waiting.
pub(super) fn accept(app: &App, asked: Asked, owner: Owner) -> Result<Arc<Ticket>, ApiError> {
    // Before anything is decoded in vain.
    app.queue.has_room()?;
    let task_id = asked.task_id.clone();
    let order = order(app, asked)?;
    // What a job is does not depend on the device that will run it.
    let pipe = app.sites[0].pipeline(&app.models, order.model, &order.loras);
    let pipe =
        pipe.map_err(|error| if order.loras.is_empty() { error.into() } else { misfit(&error, &order.loras) })?;
    run::check(&pipe, &order.work)?;
    if !pipe.makes_pictures() {
        return Err(ApiError::field("model", "makes latents, not pictures: serve it with its autoencoder"));
    }
    let request = run::request(&pipe, &order.work, &order.prompt, order.names, order.seed);
    limit_size(app, request.width, request.height)?;
    let first = pipe.job(&request)?;
    let settings = first.settings();
    limit_size(app, Some(settings.width), Some(settings.height))?;
    if first.steps().is_some_and(|steps| steps > app.limits.steps) {
        return Err(ApiError::field("steps", &format!("must be {} at most", app.limits.steps)));
    }
    let ticket = Ticket::new(owner, task_id, order, first, &app.metrics);
    app.queue.push(&ticket)?;
    Ok(ticket)
}

fn order(app: &App, asked: Asked) -> Result<Order, ApiError> {
    let Asked { command, prompt, sent, fields, previews, reference, is_detached, format, quality, .. } = asked;
    if reference && command != "generate" {
        return Err(ApiError::field("reference", "is for generate alone: its images begin with noise"));
    }
    let model = find_model(app, asked.model.as_deref(), &command)?;
    for (name, text) in
        [("prompt", prompt.as_deref()), ("negative_prompt", fields.get("negative_prompt").and_then(Value::as_str))]
    {
        if text.is_some_and(|text| text.chars().count() > PROMPT) {
            return Err(ApiError::field(name, &format!("has more than {PROMPT} characters")));
        }
    }
    let mask = if sent.has(MASK) { Some(MASK) } else { asked.mask.as_deref() };
    let said = Said {
        command: &command,
        model: app.models.id(model),
        dtype: app.dtype.name(),
        prompt: prompt.as_deref(),
        has_image: sent.has(IMAGE),
        mask,
    };
    let parsed = fields::parse(&said, &fields)?;
    let work = match &parsed {
        Command::Generate(args) => Ok(generate::work(args)),
        Command::Img2img(args) => img2img::work(args, &sent),
        Command::Inpaint(args) => inpaint::work(args, &sent),
        Command::Outpaint(args) => outpaint::work(args, &sent),
        Command::Colorize(args) => colorize::work(args, &sent),
        Command::Upscale(args) => upscale::work(args, &sent),
        Command::Restore(args) => restore::work(args, &sent),
        Command::Stroke(args) => stroke::work(args, &sent),
        _ => return Err(ApiError::field("command", "makes no images")),
    }?;
    limit_flags(app, &work.flags, work.told["scale"].as_f64())?;
    let names = work.flags.names()?;
    let plain = work.flags.prompt_syntax == Some(PromptSyntax::Plain);
    let (prompt, loras) = match &work.prompt {
        Some(prompt) if !plain => {
            lora_tags::take(prompt, app.lora_dir.as_deref()).map_err(|error| without_path(&error))?
        }
        prompt => (prompt.clone().unwrap_or_default(), Vec::new()),
    };
    let seed = match work.flags.seed {
        Some(Seed::Given(seed)) => seed,
        Some(Seed::Random) | None => run::random_seed(),
    };
    let weight = weight(&work);
    Ok(Order { work, model, names, prompt, loras, seed, format, quality, previews, reference, is_detached, weight })
}

/// Messages about adapters name the server's own folder, which is nobody's business.
fn without_path(error: &error::CliError) -> ApiError {
    let message = error.to_string();
    let message = message.split(" is not there: ").next().unwrap_or_default().to_owned();
    let message = message.split(": give the folder").next().unwrap_or_default().to_owned();
    ApiError::field("prompt", &format!("asks for an adapter that this server does not have ({message})"))
}

/// An adapter that is there, but not for this model, or damaged. Paths of either are nobody's business.
fn misfit(error: &error::CliError, loras: &[LoraArg]) -> ApiError {
    let message = loras.iter().fold(error.to_string(), |message, lora| lora.without_folder(&message));
    let message = message.split(", are not in ").next().unwrap_or_default().to_owned();
    ApiError::field("prompt", &format!("asks for an adapter that does not fit: {message}"))
}

/// By its id, or what the command itself would take.
pub(super) fn find_model(app: &App, id: Option<&str>, command: &str) -> Result<usize, ApiError> {
    match id {
        Some(id) => app.models.find(id).ok_or_else(|| {
            let known: Vec<&str> = app.models.all().iter().map(|model| model.id.as_str()).collect();
            ApiError::unknown_model(&format!("{:?} is not served here; there are {}", shortened(id), known.join(", ")))
        }),
        None if ["img2img", "inpaint", "outpaint"].contains(&command) => {
            Ok(app.models.find(bundled::DIFFUSION).unwrap_or(0))
        }
        None => Ok(0),
    }
}

/// The start of a text that may be of any length.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn limit_flags(app: &App, flags: &ImageArgs, scale: Option<f64>) -> Result<(), ApiError> {
    let limits = &app.limits;
    if flags.steps.is_some_and(|steps| steps as usize > limits.steps) {
        return Err(ApiError::field("steps", &format!("must be {} at most", limits.steps)));
    }
    for (name, list) in [("sigmas", &flags.sigmas), ("timesteps", &flags.timesteps)] {
        if list.len() > limits.steps {
            return Err(ApiError::field(name, &format!("may have {} numbers at most", limits.steps)));
        }
    }
    if flags.count > limits.images {
        return Err(ApiError::field("count", &format!("must be {} at most", limits.images)));
    }
    if scale.is_some_and(|scale| scale > 16.0) {
        return Err(ApiError::field("scale", "must be 16 at most"));
    }
    limit_size(app, flags.width, flags.height)
}

/// Refuses sizes that are too large before anything takes room for them.
fn limit_size(app: &App, width: Option<usize>, height: Option<usize>) -> Result<(), ApiError> {
    for (name, side) in [("width", width), ("height", height)] {
        if side.is_some_and(|side| side > SIDE) {
            return Err(ApiError::field(name, &format!("must be {SIDE} at most")));
        }
    }
    if width.unwrap_or(1) * height.unwrap_or(1) > app.limits.pixels {
        let message =
            format!("the image would have more than {} pixels, which is the most that is made here", app.limits.pixels);
        return Err(ApiError::invalid(Some("width"), message));
    }
    Ok(())
}

/// Bytes of the pictures that a job holds while it waits, with what the model's task made of them: some three times as many.
fn weight(work: &Work) -> usize {
    work.picture.map_or(0, |picture| picture.width * picture.height * 3 * 3)
}
