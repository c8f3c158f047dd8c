//! Why a request is refused, in the words of each API.

use super::super::super::error::{CliError, one_line};
use super::super::queue::Refused;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipelines::PipelineError;
use serde_json::{Value, json};

/// A refusal: one sentence, and which field it is about.
#[derive(Debug, Clone)]
pub(in super::super) struct ApiError {
    pub(in super::super) status: StatusCode,
    /// A word for programs.
    pub(in super::super) code: &'static str,
    pub(in super::super) field: Option<String>,
    pub(in super::super) message: String,
    /// Seconds until another try may succeed.
    pub(in super::super) retry_after: Option<u64>,
}

/// Which API's form an error has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Dialect {
    /// `{"error": {message, type, param, code}}`: OpenAI's, and our own.
    OpenAi,
    /// `{"detail", "error", "errors", "body"}`: AUTOMATIC1111's.
    A1111,
}

impl Dialect {
    /// By the path of a request.
    pub(in super::super) fn of(path: &str) -> Self {
        if path.starts_with("/sdapi/") || path.starts_with("/internal/") { Self::A1111 } else { Self::OpenAi }
    }
}

impl ApiError {
    pub(in super::super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = one_line(&message.into());
        Self { status, code, field: None, message, retry_after: None }
    }

    /// A field has a value that it cannot have: 422.
    pub(in super::super) fn field(field: &str, why: &str) -> Self {
        let shown = super::super::order::shortened(field);
        Self::invalid(Some(field), format!("{shown} {why}"))
    }

    /// The request makes no sense: 422.
    pub(in super::super) fn invalid(field: Option<&str>, message: String) -> Self {
        let field = field.map(super::super::order::shortened);
        Self { field, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", message) }
    }

    /// There is no such model: 404.
    pub(in super::super) fn unknown_model(why: &str) -> Self {
        let message = format!("model {why}");
        Self { field: Some("model".into()), ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// There is no such thing: 404.
    pub(in super::super) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// Too many bytes or pixels: 413.
    pub(in super::super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// The same as another API calls the field.
    pub(in super::super) fn renamed(mut self, names: &[(&str, &str)]) -> Self {
        if let Some(field) = &self.field
            && let Some((own, theirs)) = names.iter().find(|(own, _)| own == field)
        {
            self.message = self.message.replacen(own, theirs, 1);
            self.field = Some((*theirs).to_owned());
        }
        self
    }

    /// The body in an API's form.
    pub(in super::super) fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => {
                let kind = match self.status.as_u16() {
                    401 => "authentication_error",
                    429 => "rate_limit_error",
                    500.. => "server_error",
                    _ => "invalid_request_error",
                };
                json!({ "error": { "message": self.message, "type": kind, "param": self.field, "code": self.code } })
            }
            Dialect::A1111 => {
                json!({ "error": self.code, "detail": self.message, "body": "", "errors": self.message })
            }
        }
    }

    /// The response in an API's form.
    pub(in super::super) fn response(&self, dialect: Dialect) -> Response {
        let mut response = (self.status, Json(self.body(dialect))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // A browser asks for a password, which is the key.
            let ways = HeaderValue::from_static("Basic realm=\"headwater\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, ways);
        }
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full { seconds } => Self {
                retry_after: Some(seconds),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", "as many jobs wait as may: try again later")
            },
            Refused::Closed => Self {
                retry_after: Some(10),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the server is about to end")
            },
        }
    }
}

impl From<CliError> for ApiError {
    /// Of what a job asks for.
    fn from(error: CliError) -> Self {
        match error {
            CliError::TooLarge(message) => Self::too_large(message),
            CliError::Usage(message) | CliError::Failed(message) => Self::invalid(None, in_fields(&message)),
            CliError::Device(message, _) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "device", message),
            CliError::Interrupted | CliError::TryAgain(_) | CliError::Pipe => Refused::Closed.into(),
        }
    }
}

impl From<PipelineError> for ApiError {
    fn from(error: PipelineError) -> Self {
        CliError::from(error).into()
    }
}

/// A message of the command line, in which flags have the names of fields.
fn in_fields(message: &str) -> String {
    let word = |word: &str| match word.strip_prefix("--") {
        Some(flag) if flag.starts_with(|c: char| c.is_ascii_lowercase()) => flag.replace('-', "_"),
        _ => word.to_owned(),
    };
    message.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_fields() {
        assert_eq!(
            in_fields("--replace-every is for latents -- leave --steps, out"),
            "replace_every is for latents -- leave steps, out"
        );
    }
}
