//! The server's own API: jobs that are submitted, watched, cancelled, listed, and whose pictures are fetched.

use super::super::super::picture_file::Format;
use super::super::App;
use super::super::fields::COMMANDS;
use super::super::order::{self, Asked};
use super::super::ticket::{Owner, Ticket};
use super::error::{ApiError, Dialect};
use super::lease::Lease;
use super::{body, events, file, openapi};
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<App>>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response(Dialect::OpenAi)
    }
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/jobs", get(list).post(submit))
        .route("/api/jobs/{id}", get(show).delete(cancel))
        .route("/api/jobs/{id}/events", get(watch))
        .route("/api/jobs/{id}/images/{index}", get(image))
        .route("/api/models", get(models))
        .route("/api/samplers", get(samplers))
        .route("/api/info", get(info))
        .route("/api/openapi.json", get(async |State(app): Shared| Json(openapi::document(&app.limits))))
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
}

async fn metrics(State(app): Shared) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(&app)).into_response()
}

fn told(app: &App, ticket: &Ticket) -> Value {
    ticket.json(app.queue.position(ticket))
}

async fn submit(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, ApiError> {
    let object = body::object(&app, request).await?;
    let pixels = app.limits.pixels;
    let asked = Asked::from_json(object, pixels)?;
    let ticket = Lease::of(&app, asked, owner).await?.keep();
    let place = format!("/api/jobs/{}", ticket.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(told(&app, &ticket))).into_response())
}

async fn list(State(app): Shared, Extension(owner): Extension<Owner>) -> Json<Value> {
    let jobs: Vec<Value> = app.queue.of(&owner).iter().map(|ticket| told(&app, ticket)).collect();
    Json(json!({ "jobs": jobs }))
}

/// Of the one who asks: somebody else's is not there.
fn find(app: &App, owner: &Owner, id: &str) -> Result<Arc<Ticket>, ApiError> {
    app.queue.find(owner, id).ok_or_else(|| ApiError::not_found("there is no such job: it may be over for long"))
}

async fn show(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let ticket = find(&app, &owner, &id)?;
    Ok(Json(told(&app, &ticket)))
}

async fn cancel(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let ticket = find(&app, &owner, &id)?;
    if !ticket.phase().is_over() {
        ticket.cancel();
        app.queue.tidy();
    }
    Ok(Json(told(&app, &ticket)))
}

async fn watch(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ticket = find(&app, &owner, &id)?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let from = last.map_or(0, |last| last.saturating_add(1));
    let (left, is_over) = ticket.events_from(from);
    if is_over && left.is_empty() {
        // A browser that comes back when all is told stops at this.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(events::response(events::all(app, ticket, from).map(events::own)))
}

async fn image(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    Path((id, index)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let ticket = find(&app, &owner, &id)?;
    let missing = || ApiError::not_found("this job has no such image, or does not have it yet");
    let index: usize = index.parse().map_err(|_| missing())?;
    let made = ticket.made().get(index).cloned().flatten().ok_or_else(missing)?;
    Ok(file(media(ticket.order.format), made.bytes.clone()))
}

/// A format's media type.
pub(super) fn media(format: Format) -> &'static str {
    match format {
        Format::Png => "image/png",
        Format::Jpeg => "image/jpeg",
        Format::WebP => "image/webp",
    }
}

async fn models(State(app): Shared) -> Result<Json<Value>, ApiError> {
    let mut list = Vec::new();
    for (index, model) in app.models.all().iter().enumerate() {
        let pipe = app.sites[0].pipeline(&app.models, index, &[])?;
        let own = pipe.defaults();
        let steps = if let Some(scheduler::Steps::Count(count)) = own.steps { Some(count) } else { None };
        let takes = |command: &&&str| order::find_model(&app, None, command).is_ok_and(|own| own == index);
        let default_of: Vec<&&str> = COMMANDS.iter().filter(takes).collect();
        list.push(json!({
            "id": model.id, "summary": model.summary, "default": index == 0, "default_of": default_of, "takes_prompt": pipe.takes_prompt(),
            "classes": pipe.classes(), "makes_pixels": pipe.samples_are_pictures(),
            "defaults": { "width": own.width, "height": own.height, "steps": steps, "guidance": own.guidance_scale },
        }));
    }
    Ok(Json(json!({ "models": list })))
}

async fn samplers() -> Json<Value> {
    let schedules: Vec<&str> = scheduler::SCHEDULES.iter().map(|(schedule, _)| schedule.name()).collect();
    Json(json!({ "samplers": super::super::super::samplers::list(), "schedules": schedules }))
}

async fn info(State(app): Shared) -> Json<Value> {
    let devices = app.sites.iter().map(|site| {
        let (info, memory) = (site.device().info(), site.device().memory());
        json!({ "name": info.name, "kind": info.kind.to_string(), "weights": memory.weights, "activations": memory.activations })
    });
    let limits = &app.limits;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "devices": devices.collect::<Vec<_>>(),
        "live": app.queue.live().len(),
        "loras": app.loras(),
        "limits": {
            "pixels": limits.pixels, "steps": limits.steps, "count": limits.images, "queue": limits.queue,
            "batch": limits.batch, "prompt": super::super::limits::PROMPT, "body": super::super::limits::BODY,
        },
    }))
}
