//! AUTOMATIC1111's API, as its clients use it: `/sdapi/v1/txt2img`, `img2img`, `progress`, `interrupt`, `options` and lists.

mod extras;
mod lists;
mod progress;
mod request;

use super::super::App;
use super::super::ticket::{Made, Owner, Phase, Ticket};
use super::body;
use super::error::{ApiError, Dialect};
use super::lease::{self, Lease};
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<App>>;

/// An answer in this API's words.
type Answer = Result<Json<Value>, Refusal>;

/// A refusal in this API's words.
struct Refusal(ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.response(Dialect::A1111)
    }
}

pub(super) fn routes() -> Router<Arc<App>> {
    let lists = lists::routes();
    Router::new()
        .route("/sdapi/v1/txt2img", post(txt2img))
        .route("/sdapi/v1/img2img", post(img2img))
        .route("/sdapi/v1/extra-single-image", post(extras::single))
        .route("/sdapi/v1/png-info", post(extras::png_info))
        .route("/sdapi/v1/progress", get(progress::progress))
        .route("/sdapi/v1/interrupt", post(progress::interrupt))
        .route("/sdapi/v1/skip", post(progress::interrupt))
        .route("/internal/progress", post(progress::of_task))
        .route("/internal/pending-tasks", get(progress::pending))
        .merge(lists)
}

async fn txt2img(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, Refusal> {
    images(app, owner, request, false).await
}

async fn img2img(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, Refusal> {
    images(app, owner, request, true).await
}

async fn images(app: Arc<App>, owner: Owner, request: Request, from_picture: bool) -> Result<Response, Refusal> {
    let fields = body::object(&app, request).await?;
    let parameters = request::echo(&fields);
    let wanted = request::read(&app, &owner, fields, from_picture)?;
    let lease = Lease::of(&app, wanted.asked, owner).await.map_err(|error| error.renamed(&request::NAMES))?;
    let phase = lease.wait().await;
    // Whoever interrupts a job still gets what was finished.
    if phase != Phase::Done && phase != Phase::Cancelled {
        return Err(lease::ended(&app, &lease).into());
    }
    let made: Vec<Arc<Made>> = lease.made().into_iter().flatten().collect();
    let info = info(&lease, &made).to_string();
    let images: Vec<String> =
        if wanted.send_images { made.iter().map(|made| STANDARD.encode(&made.bytes)).collect() } else { Vec::new() };
    Ok(Json(json!({ "images": images, "parameters": parameters, "info": info })).into_response())
}

/// What clients read of how images were made.
fn info(ticket: &Ticket, made: &[Arc<Made>]) -> Value {
    let (settings, order) = (ticket.first.settings(), &ticket.order);
    let count = made.len();
    let sampler = ticket.first.sampling().sampler;
    let (width, height) = made.first().map_or((settings.width, settings.height), |made| (made.width, made.height));
    let prompt = order.work.prompt.clone().unwrap_or_default();
    let seeds: Vec<u64> = made.iter().map(|made| made.seed).collect();
    let created = ticket.created.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    json!({
        "prompt": prompt, "all_prompts": vec![&prompt; count],
        "negative_prompt": settings.negative_prompt, "all_negative_prompts": vec![&settings.negative_prompt; count],
        "seed": settings.seed, "all_seeds": seeds,
        "subseed": settings.seed, "all_subseeds": seeds, "subseed_strength": 0.0,
        "width": width, "height": height,
        "sampler_name": sampler.aliases.a1111.first().unwrap_or(&sampler.name),
        "cfg_scale": settings.guidance_scale,
        "steps": ticket.first.steps(),
        "batch_size": count,
        "restore_faces": false, "face_restoration_model": null,
        "sd_model_name": order.work.flags.model.to_string_lossy(), "sd_model_hash": "", "sd_vae_name": null, "sd_vae_hash": null,
        "seed_resize_from_w": 0, "seed_resize_from_h": 0,
        "denoising_strength": settings.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": made.iter().map(|made| made.parameters.as_str()).collect::<Vec<_>>(),
        "styles": [],
        "job_timestamp": created.as_secs().to_string(),
        "clip_skip": settings.clip_skip + 1,
        "is_using_inpainting_conditioning": false,
        "version": concat!("headwater ", env!("CARGO_PKG_VERSION")),
    })
}
