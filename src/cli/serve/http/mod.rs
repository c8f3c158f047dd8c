//! Requests and responses.

pub(super) mod a1111;
mod body;
pub(super) mod error;
mod events;
pub(super) mod guard;
mod jobs;
mod lease;
mod openai;
mod openapi;
mod page;
pub(super) mod server;

use super::App;
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use error::{ApiError, Dialect};
use std::sync::Arc;

/// All routes, behind the checks of who asks.
pub(super) fn router(app: &Arc<App>) -> Router {
    let routes = Router::new()
        .merge(page::routes())
        .merge(jobs::routes())
        .merge(openai::routes())
        .merge(a1111::routes())
        .fallback(async |uri: axum::http::Uri| {
            ApiError::not_found("there is nothing at this address").response(Dialect::of(uri.path()))
        })
        .method_not_allowed_fallback(async |uri: axum::http::Uri| {
            let error = ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this address takes another method",
            );
            error.response(Dialect::of(uri.path()))
        })
        .with_state(Arc::clone(app));
    // Bodies are read, and limited, in one place of our own.
    routes.layer(DefaultBodyLimit::disable()).layer(from_fn_with_state(Arc::clone(app), guard::check))
}

/// A file in a URL.
pub(super) fn data_url(media: &str, bytes: &[u8]) -> String {
    format!("data:{media};base64,{}", STANDARD.encode(bytes))
}

/// A file as a response.
fn file(media: &'static str, bytes: Bytes) -> Response {
    ([(axum::http::header::CONTENT_TYPE, HeaderValue::from_static(media))], bytes).into_response()
}
