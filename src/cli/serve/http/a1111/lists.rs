//! What there is to choose from, and the options of whoever asks.

use super::super::super::App;
use super::super::super::order::shortened;
use super::super::super::ticket::Owner;
use super::super::body;
use super::super::error::ApiError;
use super::{Answer, Shared, extras};
use axum::extract::{Extension, Request, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use scheduler::{SAMPLERS, SCHEDULES};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/sdapi/v1/samplers", get(async || Json(samplers())))
        .route("/sdapi/v1/schedulers", get(async || Json(schedulers())))
        .route("/sdapi/v1/sd-models", get(models))
        .route("/sdapi/v1/options", get(options).post(choose))
        .route("/sdapi/v1/upscalers", get(async || Json(extras::upscalers())))
        .route("/sdapi/v1/cmd-flags", get(async || Json(json!({ "api": true }))))
        .route("/sdapi/v1/scripts", get(async || Json(json!({ "txt2img": [], "img2img": [] }))))
        .route("/sdapi/v1/embeddings", get(async || Json(json!({ "loaded": {}, "skipped": {} }))))
        .route("/sdapi/v1/loras", get(loras))
        .route("/sdapi/v1/memory", get(memory));
    // Things that there are none of here.
    for name in [
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "prompt-styles",
        "latent-upscale-modes",
        "sd-vae",
        "script-info",
    ] {
        router = router.route(&format!("/sdapi/v1/{name}"), get(async || Json(json!([]))));
    }
    // The lists are what they were at the start.
    for name in ["refresh-checkpoints", "refresh-vae", "refresh-loras", "unload-checkpoint", "reload-checkpoint"] {
        router = router.route(&format!("/sdapi/v1/{name}"), post(nothing));
    }
    router
}

async fn nothing(request: Request) -> Json<Value> {
    body::ignored(request).await;
    Json(json!({}))
}

fn samplers() -> Value {
    let one = |sampler: &scheduler::Sampler| {
        let theirs = sampler.aliases.a1111.first().unwrap_or(&sampler.name);
        json!({ "name": theirs, "aliases": [sampler.name], "options": {} })
    };
    SAMPLERS.iter().filter(|sampler| !sampler.inverts).map(|sampler| one(sampler)).collect()
}

fn schedulers() -> Value {
    let automatic = json!({ "name": "automatic", "label": "Automatic", "aliases": [], "default_rho": -1.0, "need_inner_model": false });
    let one = |(schedule, names): &(scheduler::NamedSchedule, &[&str])| {
        json!({
            "name": schedule.name(), "label": schedule.a1111().unwrap_or(schedule.name()), "aliases": names, "default_rho": -1.0,
            "need_inner_model": false,
        })
    };
    std::iter::once(automatic).chain(SCHEDULES.iter().map(|(schedule, names)| one(&(*schedule, *names)))).collect()
}

async fn models(State(app): Shared) -> Json<Value> {
    let one = |id: &str| json!({ "title": id, "model_name": id, "hash": null, "sha256": null, "filename": id, "config": null });
    Json(app.models.all().iter().map(|model| one(&model.id)).collect())
}

async fn loras(State(app): Shared) -> Json<Value> {
    // Where they lie is nobody's business.
    let one =
        |name: &String| json!({ "name": name, "alias": name, "path": format!("{name}.safetensors"), "metadata": {} });
    Json(app.loras().iter().map(one).collect())
}

fn options_of(app: &App, owner: &Owner) -> Map<String, Value> {
    let model = app.chosen(owner).unwrap_or(0);
    let options = json!({
        "sd_model_checkpoint": app.models.id(model), "sd_checkpoint_hash": "", "sd_vae": "Automatic", "samples_format": "png",
        "CLIP_stop_at_last_layers": 1, "enable_pnginfo": true, "live_previews_enable": true, "img2img_fix_steps": false,
    });
    if let Value::Object(options) = options { options } else { Map::new() }
}

async fn options(State(app): Shared, Extension(owner): Extension<Owner>) -> Json<Value> {
    Json(options_of(&app, &owner).into())
}

/// Clients send back all options that they were told, with another model in them.
async fn choose(State(app): Shared, Extension(owner): Extension<Owner>, request: Request) -> Answer {
    let told = body::object(&app, request).await?;
    let own = options_of(&app, &owner);
    let mut chosen = None;
    for (name, value) in &told {
        if name == "sd_model_checkpoint" {
            let Some(id) = value.as_str() else { return Err(ApiError::field(name, "must be a text").into()) };
            let found = app.models.find(id);
            chosen =
                Some(found.ok_or_else(|| ApiError::unknown_model(&format!("{:?} is not served here", shortened(id))))?);
        } else if !value.is_null() && own.get(name) != Some(value) {
            return Err(ApiError::field(name, "cannot be changed here").into());
        }
    }
    if let Some(model) = chosen {
        app.choose(&owner, model);
    }
    Ok(Json(Value::Null))
}

async fn memory(State(app): Shared) -> Json<Value> {
    let used: u64 =
        app.sites.iter().map(|site| site.device().memory()).map(|memory| memory.weights + memory.activations).sum();
    Json(json!({ "ram": { "used": used }, "cuda": { "error": "unavailable" } }))
}
