//! What happens to a job, as server-sent events.

use super::super::App;
use super::super::ticket::{Event, Ticket};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A line that says nothing comes this often, so that nobody takes a long step for a broken connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Looks on for as long as it lives.
struct Watching(Arc<Ticket>);

impl Watching {
    fn new(ticket: Arc<Ticket>) -> Self {
        ticket.watched();
        Self(ticket)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.unwatched();
    }
}

/// One thing that a watcher is told.
pub(super) enum Told {
    /// How many jobs come before.
    Position(usize),
    /// With its number, from 0.
    Event(usize, Event),
}

struct Stand {
    app: Arc<App>,
    watching: Watching,
    next: usize,
    position: Option<usize>,
    ready: VecDeque<Event>,
    is_over: bool,
}

/// Everything from the event of this number on, as it happens.
pub(super) fn all(app: Arc<App>, ticket: Arc<Ticket>, from: usize) -> impl Stream<Item = Told> + Send {
    let stand = Stand {
        app,
        watching: Watching::new(ticket),
        next: from,
        position: None,
        ready: VecDeque::new(),
        is_over: false,
    };
    stream::unfold(stand, async |mut stand| {
        let ticket = Arc::clone(&stand.watching.0);
        // Before looking, so that nothing is missed that happens in between.
        let (mut changed, mut moved) = (ticket.watch(), stand.app.queue.watch());
        loop {
            if let Some(event) = stand.ready.pop_front() {
                let number = stand.next;
                stand.next += 1;
                return Some((Told::Event(number, event), stand));
            }
            if stand.is_over {
                return None;
            }
            let position = stand.app.queue.position(&ticket);
            if let Some(now) = position
                && stand.position != position
                && stand.next == 0
            {
                stand.position = position;
                return Some((Told::Position(now), stand));
            }
            let (events, is_over) = ticket.events_from(stand.next);
            stand.is_over = is_over;
            if !events.is_empty() {
                stand.ready = events.into();
            } else if !is_over {
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = moved.changed(), if position.is_some() => {}
                }
            }
        }
    })
}

/// A response that goes on until its stream ends.
pub(super) fn response(stream: impl Stream<Item = Sent> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;
    let events = stream.map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies must not wait for the end.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

/// As the own API tells it. A client that comes back says which was the last that it had.
pub(super) fn own(told: Told) -> Sent {
    match told {
        Told::Position(position) => Sent::default().event("queued").data(json!({ "position": position }).to_string()),
        Told::Event(number, event) => Sent::default().id(number.to_string()).event(event.name).data(&*event.data),
    }
}
