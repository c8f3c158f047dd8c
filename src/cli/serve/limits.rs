//! How much one request may ask for, and how long it may take.

use std::time::Duration;

/// What a server accepts.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Pixels of a picture that is sent or made.
    pub(super) pixels: usize,
    /// Steps of an image, and noise levels of an explicit schedule.
    pub(super) steps: usize,
    /// Images of one job.
    pub(super) images: u32,
    /// Images that are made together.
    pub(super) batch: usize,
    /// Jobs that wait or run.
    pub(super) queue: usize,
    /// How long a job that is over is kept.
    pub(super) kept_for: Duration,
    /// How long a client may take nothing of its answer.
    pub(super) write: Duration,
}

/// Bytes of a request. Two pictures of sixteen million pixels fit where they compress at all.
pub(super) const BODY: usize = 32 << 20;

/// Bytes of a request that is no upload: many may be read at once.
pub(super) const SMALL_BODY: usize = 64 << 10;

/// Larger requests that are read at once.
pub(super) const LARGE_BODIES: usize = 8;

/// Connections at once.
pub(super) const CONNECTIONS: usize = 256;

/// Requests that are decoded and checked at once: each may hold pictures of some hundred megabytes while it is.
pub(super) const CHECKED_AT_ONCE: usize = 4;

/// Bytes of pictures that the jobs of the queue hold together.
pub(super) const HELD_BYTES: usize = 512 << 20;

/// Characters of a prompt: some two thousand tokens.
pub(super) const PROMPT: usize = 8000;

/// A side of an image.
pub(super) const SIDE: usize = 16_384;

/// The longest side of a preview, in pixels.
pub(super) const PREVIEW_SIDE: usize = 512;

/// Bytes of the previews that a job keeps.
pub(super) const PREVIEW_BYTES: usize = 24 << 20;

/// Bytes of a solution of the ODE, which holds two samples for each step of its solver: some hundred of them.
pub(super) const PATH_BYTES: usize = 256 << 20;

/// Bytes of the solutions that a device keeps.
pub(super) const PATHS_BYTES: usize = 256 << 20;

/// Noise levels of a solution of which there are pictures, about.
pub(super) const LEVELS: usize = 24;

/// How often a job is told how far its solution is.
pub(super) const SOLVING_TOLD: Duration = Duration::from_millis(150);

/// Bytes of the jobs that are over and whose pictures are kept, and how many of those jobs there are.
pub(super) const KEPT_BYTES: usize = 256 << 20;

/// See [`KEPT_BYTES`].
pub(super) const KEPT_JOBS: usize = 500;

/// For the head of a request to arrive.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// For the rest of it.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a job goes on that was watched and has nobody watching: a browser that lost its connection comes back sooner.
pub(super) const UNWATCHED: Duration = Duration::from_secs(10);

/// How long the program waits for a step to end when it is told to.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
