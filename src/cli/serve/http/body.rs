//! What a request holds, read within limits of size and time.

use super::super::App;
use super::super::limits::{BODY, BODY_TIMEOUT, SMALL_BODY};
use super::error::ApiError;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::timeout;

/// How long the rest of a body that is too large is read, so that its sender comes to read the answer.
const DRAINED_FOR: Duration = Duration::from_secs(5);

/// The whole body.
async fn whole(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_large = || ApiError::too_large(format!("a request may have {} MiB at most", BODY >> 20));
    if told.is_some_and(|length| length > BODY as u64) {
        drain(body).await;
        return Err(too_large());
    }
    let slow =
        |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the rest of the request did not come in time");
    let read = async {
        // As many large ones at once as there is memory for.
        let is_small = told.is_some_and(|length| length <= SMALL_BODY as u64);
        let _permit = if is_small { None } else { app.large_bodies.acquire().await.ok() };
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "bad_body", "the request broke off"))?;
            if bytes.len() + chunk.len() > BODY {
                drain(Body::from_stream(stream)).await;
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(bytes))
    };
    timeout(BODY_TIMEOUT, read).await.map_err(slow)?
}

async fn drain(body: Body) {
    let mut stream = body.into_data_stream();
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    // Whoever still sends then is cut off.
    let _ = timeout(DRAINED_FOR, rest).await;
}

/// A JSON object.
pub(super) async fn object(app: &App, request: Request) -> Result<Map<String, Value>, ApiError> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A page of another site may send text or a form without asking, but no JSON.
    if kind != "application/json" {
        drain(body).await;
        let message = "send JSON, with Content-Type: application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    let bytes = whole(app, &parts.headers, body).await?;
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", format!("this is no valid JSON: {error}"))
    })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", "the request must be a JSON object")),
    }
}

/// A part of a form.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

impl Part {
    /// As text.
    pub(super) fn text(&self) -> Result<String, ApiError> {
        String::from_utf8(self.bytes.to_vec()).map_err(|_| ApiError::field(&self.name, "is no text"))
    }
}

/// Parts of a form that are read.
const MOST_PARTS: usize = 64;

/// A form with files.
pub(super) async fn form(app: &App, request: Request) -> Result<Vec<Part>, ApiError> {
    let (mut parts, body) = request.into_parts();
    let bytes = whole(app, &parts.headers, body).await?;
    parts.headers.remove(header::CONTENT_LENGTH);
    let request = Request::from_parts(parts, Body::from(bytes));
    let bad = |error: &dyn std::fmt::Display| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_form", format!("this is no valid multipart/form-data: {error}"))
    };
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| bad(&error.body_text()))?;
    let mut found = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| bad(&error.body_text()))? {
        if found.len() >= MOST_PARTS {
            return Err(bad(&format!("it has more than {MOST_PARTS} parts")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        found.push(Part { name, bytes: field.bytes().await.map_err(|error| bad(&error.body_text()))? });
    }
    Ok(found)
}

/// A small body that is not looked at.
pub(super) async fn ignored(request: Request) {
    let _ = timeout(DRAINED_FOR, to_bytes(request.into_body(), SMALL_BODY)).await;
}
