//! How far jobs are, and stopping them.

use super::super::super::App;
use super::super::super::ticket::{Owner, Phase, Ticket};
use super::super::{body, data_url};
use super::{Answer, Shared};
use axum::Json;
use axum::extract::{Extension, Query, Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// The job of an owner that runs, or else the one that waits longest.
fn current(app: &App, owner: &Owner) -> Option<Arc<Ticket>> {
    let own: Vec<Arc<Ticket>> = app.queue.of(owner).into_iter().filter(|ticket| !ticket.phase().is_over()).collect();
    own.iter().find(|ticket| ticket.phase() == Phase::Running).or_else(|| own.first()).cloned()
}

/// Seconds until the end, if it goes on as it went.
fn seconds_left(share: f64, seconds: f64) -> f64 {
    if share > 0.0 { seconds * (1.0 - share) / share } else { 0.0 }
}

pub(super) async fn progress(
    State(app): Shared,
    Extension(owner): Extension<Owner>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let wants_image = query.get("skip_current_image").is_none_or(|skip| skip != "true");
    if wants_image {
        app.looks(&owner);
    }
    let Some(ticket) = current(&app, &owner) else {
        let state = json!({
            "skipped": false, "interrupted": false, "stopping_generation": false, "job": "", "job_count": 0, "job_timestamp": "0",
            "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
        });
        return Json(
            json!({ "progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": null, "textinfo": null }),
        );
    };
    let (share, seconds) = ticket.progress();
    let latest = ticket.latest();
    let created = ticket.created.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let image = ticket.preview().filter(|_| wants_image).map(|(_, bytes)| STANDARD.encode(bytes));
    Json(json!({
        // Some clients take none for no job.
        "progress": share.clamp(0.01, 1.0),
        "eta_relative": seconds_left(share, seconds),
        "state": {
            "skipped": false, "interrupted": false, "stopping_generation": false,
            "job": ticket.task_id.as_deref().unwrap_or(&ticket.id),
            "job_count": ticket.order.count(),
            "job_timestamp": created.as_secs().to_string(),
            "job_no": latest.map_or(0, |latest| latest.image),
            "sampling_step": latest.map_or(0, |latest| latest.step + 1),
            "sampling_steps": latest.map_or(0, |latest| latest.steps),
        },
        "current_image": image,
        "textinfo": null,
    }))
}

/// Stops the jobs of whoever asks.
pub(super) async fn interrupt(State(app): Shared, Extension(owner): Extension<Owner>, request: Request) -> Json<Value> {
    body::ignored(request).await;
    if let Some(ticket) = current(&app, &owner) {
        ticket.cancel();
        app.queue.tidy();
    }
    Json(json!({}))
}

/// Of the job that a client gave this id.
pub(super) async fn of_task(State(app): Shared, Extension(owner): Extension<Owner>, request: Request) -> Answer {
    let fields = body::object(&app, request).await?;
    let id = fields.get("id_task").and_then(Value::as_str).unwrap_or_default();
    let wants_image = fields.get("live_preview").and_then(Value::as_bool).unwrap_or(true);
    let seen = fields.get("id_live_preview").and_then(Value::as_i64).unwrap_or(-1);
    if wants_image {
        app.looks(&owner);
    }
    let ticket =
        app.queue.of(&owner).into_iter().rev().find(|ticket| ticket.task_id.as_deref() == Some(id) || ticket.id == id);
    let Some(ticket) = ticket else {
        return Ok(Json(json!({
            "active": false, "queued": false, "completed": false, "progress": null, "eta": null, "live_preview": null,
            "id_live_preview": seen, "textinfo": "Waiting...",
        })));
    };
    let phase = ticket.phase();
    let (share, seconds) = ticket.progress();
    let number = ticket.latest().map_or(-1, |latest| i64::from(latest.image) * 10_000 + latest.step as i64);
    let preview =
        ticket.preview().filter(|_| wants_image && number != seen).map(|(_, bytes)| data_url("image/jpeg", &bytes));
    let textinfo = (phase == Phase::Queued).then(|| {
        let before = app.queue.position(&ticket).unwrap_or(0);
        format!("In queue: {before} before")
    });
    Ok(Json(json!({
        "active": phase == Phase::Running, "queued": phase == Phase::Queued, "completed": phase.is_over(),
        "progress": share, "eta": seconds_left(share, seconds),
        "id_live_preview": number, "live_preview": preview, "textinfo": textinfo,
    })))
}

/// Jobs that wait.
pub(super) async fn pending(State(app): Shared, Extension(owner): Extension<Owner>) -> Json<Value> {
    let own = app.queue.of(&owner).into_iter().filter(|ticket| ticket.phase() == Phase::Queued);
    let tasks: Vec<String> = own.map(|ticket| ticket.task_id.clone().unwrap_or_else(|| ticket.id.clone())).collect();
    Json(json!({ "size": tasks.len(), "tasks": tasks }))
}
