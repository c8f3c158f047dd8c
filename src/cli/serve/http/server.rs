//! Listens, until it is told to end.

use super::super::super::error::CliError;
use super::super::App;
use super::super::limits::{CONNECTIONS, HEAD_TIMEOUT, PATIENCE, UNWATCHED};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// What ended the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Ended {
    /// A request to end, as service managers send it.
    Asked,
    /// Ctrl-C.
    Interrupted,
}

/// How often jobs that nobody wants any more are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// Bytes of a request's head.
const HEAD: usize = 64 << 10;

/// Answers requests until the program is told to end; then what waits is answered with an error, and answers that are under way are finished.
pub(in super::super) async fn serve(app: &Arc<App>, listener: std::net::TcpListener) -> Result<Ended, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot serve: {error}"));
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let mut ended = std::pin::pin!(told_to_end()?);
    let router = super::router(app);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    tokio::spawn(sweep(Arc::clone(app)));
    let reason = loop {
        let accepted = async {
            // Those that are too many wait with the system.
            let permit = Arc::clone(&connections).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            reason = &mut ended => break reason,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files, say: there will be fewer.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Small answers are whole.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        // Whoever takes nothing of an answer would hold it, and a connection, for as long as it likes.
        stream.set_write_timeout(Some(app.limits.write));
        let service = TowerToHyperService::new(router.clone());
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD);
        let connection = graceful.watch(server.serve_connection(TokioIo::new(Box::pin(stream)), service));
        tokio::spawn(async move {
            let _permit = permit;
            // Whatever ends a connection is its client's matter.
            let _ = connection.await;
        });
    };
    drop(listener);
    app.queue.close();
    let _ = tokio::time::timeout(PATIENCE / 2, graceful.shutdown()).await;
    Ok(reason)
}

/// Cancels jobs whose watchers left, and forgets what is old.
async fn sweep(app: Arc<App>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let left = app.queue.live().into_iter().filter(|ticket| ticket.is_left(UNWATCHED));
        left.for_each(|ticket| ticket.cancel());
        app.queue.tidy();
    }
}

#[cfg(unix)]
fn told_to_end() -> Result<impl Future<Output = Ended>, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| CliError::Failed(format!("cannot listen for signals: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Ended::Asked,
            _ = interrupt.recv() => Ended::Interrupted,
        }
    })
}

#[cfg(not(unix))]
fn told_to_end() -> Result<impl Future<Output = Ended>, CliError> {
    Ok(async {
        // Where it cannot be listened for, nothing ends the server but the system.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Ended::Interrupted
    })
}
