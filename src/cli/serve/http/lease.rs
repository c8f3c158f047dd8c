//! A job for as long as somebody waits for it.

use super::super::App;
use super::super::order::{self, Asked};
use super::super::ticket::{Made, Owner, Phase, Ticket};
use super::error::ApiError;
use axum::http::StatusCode;
use std::ops::Deref;
use std::sync::Arc;

/// Cancels its job when it is dropped: its client went away.
#[derive(Debug)]
pub(super) struct Lease {
    app: Arc<App>,
    ticket: Arc<Ticket>,
    is_kept: bool,
}

impl Deref for Lease {
    type Target = Arc<Ticket>;

    fn deref(&self) -> &Arc<Ticket> {
        &self.ticket
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_kept {
            self.ticket.cancel();
            self.app.queue.forget(&self.ticket);
        }
    }
}

impl Lease {
    /// Checks what is asked, and puts its job into the queue.
    pub(super) async fn of(app: &Arc<App>, asked: Asked, owner: Owner) -> Result<Self, ApiError> {
        // Refused at once, and not after all that wait to be checked.
        app.queue.has_room()?;
        let permit = Arc::clone(&app.checked_at_once).acquire_owned().await;
        let app = Arc::clone(app);
        // Dropped with its answer where nobody waits for that any more.
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let ticket = order::accept(&app, asked, owner)?;
            Ok(Self { app, ticket, is_kept: false })
        });
        let failed = |_| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "the program failed at this; please report it")
        };
        checked.await.map_err(failed)?
    }

    /// Leaves the job to itself, and to whoever knows its id.
    pub(super) fn keep(mut self) -> Arc<Ticket> {
        self.is_kept = true;
        Arc::clone(&self.ticket)
    }

    /// All pictures, when they are there.
    pub(super) async fn pictures(&self) -> Result<Vec<Arc<Made>>, ApiError> {
        match self.ticket.wait().await {
            Phase::Done => Ok(self.ticket.made().into_iter().flatten().collect()),
            _ => Err(ended(&self.app, &self.ticket)),
        }
    }
}

/// Why a job has no pictures.
pub(super) fn ended(app: &App, ticket: &Ticket) -> ApiError {
    match ticket.error() {
        Some(message) if app.queue.is_closed() => {
            ApiError { retry_after: Some(10), ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "closing", message) }
        }
        Some(message) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message),
        None => ApiError::new(StatusCode::CONFLICT, "cancelled", "the job was cancelled"),
    }
}
