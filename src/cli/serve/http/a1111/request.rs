//! What `txt2img` and `img2img` may say, and what becomes of each field: it is honoured, it says nothing here, or it is refused by name.

use super::super::super::App;
use super::super::super::fields::{IMAGE, MASK};
use super::super::super::order::{Asked, find_model, shortened};
use super::super::super::sent::from_base64;
use super::super::super::ticket::Owner;
use super::super::error::ApiError;
use axum::http::StatusCode;
use scheduler::{NamedSampler, NamedSchedule};
use serde_json::{Map, Value, json};

/// A request, read.
pub(super) struct Wanted {
    pub(super) asked: Asked,
    pub(super) send_images: bool,
}

/// As this API calls our fields.
pub(super) const NAMES: [(&str, &str); 7] = [
    ("guidance", "cfg_scale"),
    ("sampler", "sampler_name"),
    ("schedule", "scheduler"),
    ("count", "batch_size"),
    ("strength", "denoising_strength"),
    ("image", "init_images"),
    ("padding", "inpaint_full_res_padding"),
];

/// Fields that are honoured under a name of ours, whatever their value.
const SAME: &[(&str, &str)] = &[
    ("negative_prompt", "negative_prompt"),
    ("steps", "steps"),
    ("cfg_scale", "guidance"),
    ("width", "width"),
    ("height", "height"),
    ("seed", "seed"),
];

/// Fields that say nothing without another that is refused, or that are about files which this server never writes.
const HARMLESS: &[&str] = &[
    "do_not_save_samples",
    "do_not_save_grid",
    "override_settings_restore_afterwards",
    "comments",
    "script_args",
    "image_cfg_scale",
    "subseed",
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    "hr_additional_modules",
    "hr_cfg",
    "hr_distilled_cfg",
    "distilled_cfg_scale",
    "firstphase_width",
    "firstphase_height",
    "refiner_switch_at",
    "s_tmin",
    "s_tmax",
    "user",
];

/// Fields that say nothing where there is no mask, which clients send with text to image, too.
const OF_MASKS: &[&str] = &[
    "mask_blur",
    "mask_blur_x",
    "mask_blur_y",
    "inpainting_fill",
    "inpaint_full_res",
    "inpaint_full_res_padding",
    "inpainting_mask_invert",
];

/// Fields that may only have a value that asks for nothing.
fn asks_for_nothing(name: &str, value: &Value) -> Option<bool> {
    let number = |wanted: f64| value.as_f64().is_some_and(|own| (own - wanted).abs() < 1e-9);
    let is_empty = || match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    Some(match name {
        "enable_hr" | "restore_faces" | "tiling" | "disable_extra_networks" | "save_images" | "include_init_images" => {
            *value == Value::Bool(false)
        }
        "subseed_strength" | "s_churn" | "s_min_uncond" => number(0.0),
        "s_noise" | "initial_noise_multiplier" => number(1.0),
        "seed_resize_from_h" | "seed_resize_from_w" => number(0.0) || number(-1.0),
        "styles" | "script_name" | "infotext" | "refiner_checkpoint" | "latent_mask" | "firstpass_image" => is_empty(),
        "resize_mode" => number(0.0),
        "mask_round" => *value == Value::Bool(true),
        _ => return None,
    })
}

/// The fields that a client sent, without the pictures, which it has.
pub(super) fn echo(fields: &Map<String, Value>) -> Value {
    let pictures = ["init_images", "mask"];
    let kept = fields.iter().filter(|(name, _)| !pictures.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>().into()
}

pub(super) fn read(
    app: &App,
    owner: &Owner,
    mut fields: Map<String, Value>,
    from_picture: bool,
) -> Result<Wanted, ApiError> {
    fields.retain(|_, value| !value.is_null());
    let mut asked = Asked::new(if from_picture { "img2img" } else { "generate" }, app.limits.pixels);
    asked.model = app.chosen(owner).map(|index| app.models.id(index).to_owned());
    let mut take = |name: &str| fields.remove(name);
    asked.prompt = text("prompt", take("prompt"))?;
    asked.task_id = text("force_task_id", take("force_task_id"))?.map(|id| shortened(&id));
    for (theirs, own) in SAME {
        if let Some(value) = take(theirs) {
            asked.fields.insert((*own).to_owned(), value);
        }
    }
    let count = whole("batch_size", take("batch_size"))?.unwrap_or(1) * whole("n_iter", take("n_iter"))?.unwrap_or(1);
    asked.fields.insert("count".into(), json!(count));
    // The older name of the same field.
    let older = text("sampler_index", take("sampler_index"))?;
    let sampler = text("sampler_name", take("sampler_name"))?.or(older).filter(|name| !name.is_empty());
    let sampler_takes_eta = named(&mut asked, sampler, text("scheduler", take("scheduler"))?)?;
    if let Some(eta) = take("eta") {
        // Clients send that of other samplers with those that have none, too.
        let is_usual = eta.as_f64().is_some_and(|eta| eta.abs() < 1e-9 || (eta - 1.0).abs() < 1e-9);
        if sampler_takes_eta || !is_usual {
            asked.fields.insert("eta".into(), eta);
        }
    }
    if let Some(layers) = take("clip_skip") {
        asked.fields.insert("clip_skip".into(), clip_skip("clip_skip", &layers)?);
    }
    override_settings(app, &mut asked, take("override_settings"))?;
    let send_images = flag("send_images", take("send_images").as_ref())?.unwrap_or(true);
    if let Some(scripts) = take("alwayson_scripts") {
        no_scripts(&scripts)?;
    }
    let strength = take("denoising_strength");
    if from_picture {
        pictures(app, &mut asked, &mut fields, strength)?;
    } else {
        OF_MASKS.iter().for_each(|name| drop(fields.remove(*name)));
    }
    HARMLESS.iter().for_each(|name| drop(fields.remove(*name)));
    for (name, value) in fields {
        match asks_for_nothing(&name, &value) {
            Some(true) => {}
            Some(false) => {
                return Err(ApiError::field(&name, "asks for something that is not done here: leave it out"));
            }
            None => return Err(ApiError::field(&name, "is no field that is known here")),
        }
    }
    Ok(Wanted { asked, send_images })
}

/// Sampler and schedule by their names; tells whether the sampler has an eta.
fn named(asked: &mut Asked, sampler: Option<String>, schedule: Option<String>) -> Result<bool, ApiError> {
    let refused = |field: &str, why: &dyn std::fmt::Display| ApiError {
        // As this API does it.
        status: StatusCode::BAD_REQUEST,
        ..ApiError::field(field, &format!("is refused: {why}"))
    };
    let mut takes_eta = false;
    if let Some(name) = sampler.filter(|name| !name.eq_ignore_ascii_case("automatic")) {
        let found = name.parse::<NamedSampler>().map_err(|error| refused("sampler_name", &error))?;
        takes_eta = found.sampler.eta.is_some();
        asked.fields.insert("sampler".into(), json!(name));
    }
    if let Some(name) = schedule.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("automatic")) {
        name.parse::<NamedSchedule>().map_err(|error| refused("scheduler", &error))?;
        asked.fields.insert("schedule".into(), json!(name));
    }
    Ok(takes_eta)
}

/// There 1 is the last layer.
fn clip_skip(name: &str, layers: &Value) -> Result<Value, ApiError> {
    match layers.as_u64() {
        Some(layers @ 1..) => Ok(json!(layers - 1)),
        _ => Err(ApiError::field(name, "must be a whole number from 1 on")),
    }
}

/// Settings for one request: the model, and how many layers of CLIP are left out.
fn override_settings(app: &App, asked: &mut Asked, value: Option<Value>) -> Result<(), ApiError> {
    let Some(value) = value else { return Ok(()) };
    let Value::Object(settings) = value else { return Err(ApiError::field("override_settings", "must be an object")) };
    for (name, value) in settings {
        match (name.as_str(), &value) {
            (_, Value::Null) => {}
            ("sd_model_checkpoint", Value::String(id)) => {
                let found = app
                    .models
                    .find(id)
                    .ok_or_else(|| ApiError::unknown_model(&format!("{:?} is not served here", shortened(id))))?;
                asked.model = Some(app.models.id(found).to_owned());
            }
            ("CLIP_stop_at_last_layers", value) => {
                asked.fields.insert("clip_skip".into(), clip_skip("CLIP_stop_at_last_layers", value)?);
            }
            _ => return Err(ApiError::field(&name, "is no setting that can be overridden here")),
        }
    }
    Ok(())
}

fn no_scripts(scripts: &Value) -> Result<(), ApiError> {
    match scripts {
        Value::Object(scripts) => match scripts.keys().next() {
            Some(name) => Err(ApiError::field(
                "alwayson_scripts",
                &format!("names {}, and there are no scripts here", shortened(name)),
            )),
            None => Ok(()),
        },
        _ => Err(ApiError::field("alwayson_scripts", "must be an object")),
    }
}

/// The picture that is started from, with its mask.
fn pictures(
    app: &App,
    asked: &mut Asked,
    fields: &mut Map<String, Value>,
    strength: Option<Value>,
) -> Result<(), ApiError> {
    let mut take = |name: &str| fields.remove(name);
    let Some(Value::Array(images)) = take("init_images") else {
        return Err(ApiError::field("init_images", "must be a list of one picture in base64"));
    };
    let [Value::String(image)] = images.as_slice() else {
        return Err(ApiError::field("init_images", "must have one picture in base64"));
    };
    asked.sent.put(IMAGE, from_base64("init_images", image)?);
    let starts_from_noise = strength.as_ref().and_then(Value::as_f64).is_some_and(|strength| strength >= 1.0);
    if let Some(strength) = strength {
        asked.fields.insert("strength".into(), strength);
    }
    let mask = text("mask", take("mask"))?.filter(|mask| !mask.is_empty());
    let blur = whole("mask_blur", take("mask_blur"))?;
    let (across, down) = (whole("mask_blur_x", take("mask_blur_x"))?, whole("mask_blur_y", take("mask_blur_y"))?);
    let fill = whole("inpainting_fill", take("inpainting_fill"))?;
    let only_masked = take("inpaint_full_res");
    let padding = whole("inpaint_full_res_padding", take("inpaint_full_res_padding"))?;
    let invert = take("inpainting_mask_invert");
    // All of them are about the mask.
    let Some(mask) = mask else { return Ok(()) };
    asked.command = "inpaint".into();
    asked.sent.put(MASK, from_base64("mask", &mask)?);
    let blur = match (across, down) {
        (None, None) => blur,
        (Some(across), Some(down)) if across == down => Some(across),
        _ => return Err(ApiError::field("mask_blur_x", "must be as much as mask_blur_y")),
    };
    if let Some(blur) = blur {
        asked.fields.insert("mask_blur".into(), json!(blur));
    }
    let inverts = match invert {
        None => false,
        Some(value) => match (value.as_u64(), value.as_bool()) {
            (Some(0), _) | (_, Some(false)) => false,
            (Some(1), _) | (_, Some(true)) => true,
            _ => return Err(ApiError::field("inpainting_mask_invert", "must be 0 or 1")),
        },
    };
    asked.fields.insert("invert".into(), json!(inverts));
    let only_masked = match only_masked {
        None => true,
        Some(value) => match (value.as_u64(), value.as_bool()) {
            (Some(0), _) | (_, Some(false)) => false,
            (Some(1), _) | (_, Some(true)) => true,
            _ => return Err(ApiError::field("inpaint_full_res", "must be true or false")),
        },
    };
    if only_masked {
        made_at_own_size(app, asked)?;
        asked.fields.insert("padding".into(), json!(padding.unwrap_or(0)));
    }
    match fill.unwrap_or(0) {
        // From pure noise, nothing of what lies under the mask is left.
        _ if starts_from_noise => {}
        0 => asked.sent.fill = Some(inverts),
        1 => {}
        _ => {
            let message = "can only be 0 (fill) or 1 (original) where denoising_strength is below 1";
            return Err(ApiError::field("inpainting_fill", message));
        }
    }
    Ok(())
}

/// Where only the part around the mask is made, width and height are those of that part, and the picture keeps its own. Here the part has the
/// size that the model was trained on.
fn made_at_own_size(app: &App, asked: &mut Asked) -> Result<(), ApiError> {
    let model = find_model(app, asked.model.as_deref(), "inpaint")?;
    let own = app.sites[0].pipeline(&app.models, model, &[])?.defaults();
    for (name, own) in [("width", own.width), ("height", own.height)] {
        let told = asked.fields.remove(name).and_then(|side| side.as_u64());
        if told.is_some_and(|told| Some(told) != own.map(|own| own as u64)) {
            let own = own.map_or_else(String::new, |own| format!(", {own}"));
            let message = format!(
                "with inpaint_full_res must be the model's own{own}: the part around the mask is made at that size"
            );
            return Err(ApiError::field(name, &message));
        }
    }
    Ok(())
}

fn text(name: &str, value: Option<Value>) -> Result<Option<String>, ApiError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::field(name, "must be a text")),
    }
}

fn flag(name: &str, value: Option<&Value>) -> Result<Option<bool>, ApiError> {
    match value {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(ApiError::field(name, "must be true or false")),
    }
}

fn whole(name: &str, value: Option<Value>) -> Result<Option<u64>, ApiError> {
    match value {
        None => Ok(None),
        Some(value) => {
            let number = value.as_u64().filter(|number| *number <= 65_536);
            number.map(Some).ok_or_else(|| ApiError::field(name, "must be a whole number from 0 to 65536"))
        }
    }
}
