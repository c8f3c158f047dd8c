//! What a server counts, as Prometheus reads it (the OpenMetrics text format).

use super::super::memory;
use super::App;
use super::ticket::Phase;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// One label with one of few values: each is a series of its own, kept for ever.
type Label<T> = [(&'static str, T); 1];

/// Counters, and what is read when somebody asks.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    waiting: Gauge,
    running: Gauge,
    jobs: Family<Label<&'static str>, Counter>,
    images: Counter,
    steps: Counter,
    waited: Histogram,
    took: Histogram,
    responses: Family<Label<u16>, Counter>,
    resident: Gauge,
    weights: Family<Label<String>, Gauge>,
    activations: Family<Label<String>, Gauge>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        // From 10 ms to 11 minutes, by factors of 2.
        let seconds = || Histogram::new(exponential_buckets(0.01, 2.0, 17));
        let metrics = Self {
            registry: Registry::default(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            jobs: Family::default(),
            images: Counter::default(),
            steps: Counter::default(),
            waited: seconds(),
            took: seconds(),
            responses: Family::default(),
            resident: Gauge::default(),
            weights: Family::default(),
            activations: Family::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        all.register("headwater", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        all.register("headwater_jobs_waiting", "Jobs that wait for a device", self.waiting.clone());
        all.register("headwater_jobs_running", "Jobs whose images are being made", self.running.clone());
        all.register("headwater_jobs", "Jobs that are over, by how they ended", self.jobs.clone());
        all.register("headwater_images", "Images that were made", self.images.clone());
        all.register("headwater_steps", "Steps that were taken, of all images", self.steps.clone());
        all.register("headwater_job_wait_seconds", "From a job's request to its first image", self.waited.clone());
        all.register(
            "headwater_job_seconds",
            "From the beginning of a job's first image to the end of its last, of jobs that were done",
            self.took.clone(),
        );
        all.register("headwater_http_responses", "Answers by their status code", self.responses.clone());
        all.register("process_resident_memory_bytes", "Memory that the process holds", self.resident.clone());
        all.register("headwater_device_weights_bytes", "Of models, on a device", self.weights.clone());
        all.register("headwater_device_activations_bytes", "Of plans, on a device", self.activations.clone());
        // A series that is not there yet is no 0 to whoever adds them up.
        for phase in [Phase::Done, Phase::Failed, Phase::Cancelled] {
            drop(self.jobs.get_or_create(&[("state", phase.name())]));
        }
        self
    }

    /// A job begins that waited for so long.
    pub(super) fn begun(&self, waited: Duration) {
        self.waited.observe(waited.as_secs_f64());
    }

    pub(super) fn step(&self) {
        self.steps.inc();
    }

    pub(super) fn image(&self) {
        self.images.inc();
    }

    /// A job is over, so long after it began, if it did.
    pub(super) fn over(&self, phase: Phase, took: Option<Duration>) {
        self.jobs.get_or_create(&[("state", phase.name())]).inc();
        if let (Phase::Done, Some(took)) = (phase, took) {
            self.took.observe(took.as_secs_f64());
        }
    }

    pub(super) fn response(&self, status: u16) {
        self.responses.get_or_create(&[("code", status)]).inc();
    }

    /// As text.
    pub(super) fn text(&self, app: &App) -> String {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (waiting, running) = app.queue.counts();
        self.waiting.set(whole(waiting as u64));
        self.running.set(whole(running as u64));
        self.resident.set(memory::resident().map_or(0, whole));
        for (index, site) in app.sites.iter().enumerate() {
            // Several may be of one kind.
            let (name, memory) = (format!("{index} {}", site.device().info().name), site.device().memory());
            self.weights.get_or_create(&[("device", name.clone())]).set(whole(memory.weights));
            self.activations.get_or_create(&[("device", name)]).set(whole(memory.activations));
        }
        let mut text = String::new();
        // Writing into a text cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
