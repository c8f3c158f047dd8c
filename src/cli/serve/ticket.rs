//! A job as its owner sees it: where it stands, what happened so far, and its pictures.

use super::super::error::Trouble;
use super::super::image_args::Names;
use super::super::model::LoraArg;
use super::super::picture_file::Format;
use super::super::run::Work;
use super::limits::PREVIEW_BYTES;
use super::metrics::Metrics;
use axum::body::Bytes;
use pipelines::Job;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Who may see a job: whoever has the key that it was asked with, and says the same name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Owner {
    /// Which of the server's keys; none where it has no keys.
    pub(super) key: Option<usize>,
    /// What a client calls itself, to tell its jobs from those of others who have the same key.
    pub(super) client: String,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// Which pictures of a step are made for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Previews {
    #[default]
    None,
    /// The denoised image.
    Denoised,
    /// The noisy sample, too.
    Both,
}

/// What is to be made, checked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) work: Work,
    /// Which of the server's models.
    pub(super) model: usize,
    pub(super) names: Names,
    /// Without the adapters that it names.
    pub(super) prompt: String,
    pub(super) loras: Vec<LoraArg>,
    pub(super) seed: u64,
    pub(super) format: Format,
    pub(super) quality: u8,
    pub(super) previews: Previews,
    /// Whether its images are compared with the solution of the probability-flow ODE.
    pub(super) reference: bool,
    /// Whether it goes on when nobody watches any more.
    pub(super) is_detached: bool,
    /// Bytes of the pictures that it holds.
    pub(super) weight: usize,
}

impl Order {
    pub(super) fn seed_of(&self, index: u32) -> u64 {
        self.seed.wrapping_add(u64::from(index))
    }

    pub(super) fn count(&self) -> u32 {
        self.work.flags.count
    }
}

/// A picture that was made, as a file.
#[derive(Debug)]
pub(super) struct Made {
    /// Shared with the answers that send it.
    pub(super) bytes: Bytes,
    pub(super) seed: u64,
    pub(super) width: usize,
    pub(super) height: usize,
    /// What `headwater info` prints of it.
    pub(super) settings: Value,
    /// The same as AUTOMATIC1111's web UI writes it.
    pub(super) parameters: String,
    /// How far it is from the solution of the probability-flow ODE, where that was asked for, and there is one.
    pub(super) error: Option<Option<f64>>,
}

impl Made {
    /// As the own API tells it.
    fn json(&self, index: u32, url: &str) -> Value {
        let mut told = json!({
            "index": index, "seed": self.seed, "width": self.width, "height": self.height, "url": url, "settings": self.settings,
        });
        if let Some(error) = self.error {
            told["error"] = json!(error);
        }
        told
    }
}

/// Something that happened, as server-sent events tell it.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) data: Arc<str>,
}

/// The latest step of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepAt {
    /// From 0.
    pub(super) image: u32,
    /// From 0.
    pub(super) step: usize,
    /// 0 where the sampler chooses its own.
    pub(super) steps: usize,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    events: Vec<Event>,
    preview_bytes: usize,
    /// The newest preview, a JPEG file.
    preview: Option<(u32, Arc<[u8]>)>,
    latest: Option<StepAt>,
    /// Steps that were taken, of all images.
    taken: usize,
    made: Vec<Option<Arc<Made>>>,
    error: Option<String>,
    /// How the device failed, if that was it.
    trouble: Option<Trouble>,
    started: Option<Instant>,
    ended: Option<Instant>,
}

/// Who looks on.
#[derive(Debug, Default)]
struct Watchers {
    count: usize,
    /// When the last one left.
    left: Option<Instant>,
}

/// One job of the server.
#[derive(Debug)]
pub(super) struct Ticket {
    /// Cannot be guessed.
    pub(super) id: String,
    pub(super) owner: Owner,
    /// What a client calls the job itself.
    pub(super) task_id: Option<String>,
    pub(super) created: SystemTime,
    asked: Instant,
    metrics: Arc<Metrics>,
    pub(super) order: Order,
    /// Of the first image: what its model makes of the order. Others differ by their seeds.
    pub(super) first: Job,
    watchers: Mutex<Watchers>,
    /// Images that no worker has begun.
    open: Mutex<VecDeque<u32>>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Ticket {
    pub(super) fn new(
        owner: Owner,
        task_id: Option<String>,
        order: Order,
        first: Job,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let count = order.count();
        Arc::new(Self {
            id: unguessable(),
            owner,
            task_id,
            created: SystemTime::now(),
            asked: Instant::now(),
            metrics: Arc::clone(metrics),
            order,
            first,
            watchers: Mutex::default(),
            open: Mutex::new((0..count).collect()),
            state: Mutex::new(State {
                phase: Phase::Queued,
                events: Vec::new(),
                preview_bytes: 0,
                preview: None,
                latest: None,
                taken: 0,
                made: (0..count).map(|_| None).collect(),
                error: None,
                trouble: None,
                started: None,
                ended: None,
            }),
            changed: watch::channel(0).0,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Steps that all images take together; none where the sampler chooses its own.
    pub(super) fn steps(&self) -> Option<usize> {
        self.first.steps().map(|steps| steps * self.order.count() as usize)
    }

    /// The images that a worker takes next, at most so many.
    pub(super) fn take(&self, most: usize) -> Vec<u32> {
        let mut open = lock(&self.open);
        let count = open.len().min(most);
        open.drain(..count).collect()
    }

    pub(super) fn open_images(&self) -> usize {
        lock(&self.open).len()
    }

    /// Asks whoever works on it to stop at the next step. Without a worker it is over at once.
    pub(super) fn cancel(&self) {
        lock(&self.open).clear();
        let mut state = self.state();
        if !state.phase.is_over() {
            self.over(&mut state, Phase::Cancelled, None);
        }
        drop(state);
        self.notify();
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    pub(super) fn begin(&self) {
        let mut state = self.state();
        if state.phase == Phase::Queued {
            state.phase = Phase::Running;
            state.started = Some(Instant::now());
            self.metrics.begun(self.asked.elapsed());
            push(&mut state, "started", &json!({ "id": self.id }));
        }
        drop(state);
        self.notify();
    }

    /// Something else happened.
    pub(super) fn tell(&self, name: &'static str, data: &Value) {
        let mut state = self.state();
        if state.phase.is_over() {
            return;
        }
        push(&mut state, name, data);
        drop(state);
        self.notify();
    }

    /// A step is done. Previews are JPEG files.
    pub(super) fn step(&self, at: StepAt, mut told: Value, denoised: Option<Vec<u8>>, noisy: Option<&[u8]>) {
        let mut state = self.state();
        if state.phase.is_over() {
            return;
        }
        state.latest = Some(at);
        state.taken += 1;
        self.metrics.step();
        for (name, preview) in [("noisy", noisy), ("preview", denoised.as_deref())] {
            let Some(bytes) = preview else { continue };
            if state.preview_bytes + bytes.len() <= PREVIEW_BYTES {
                state.preview_bytes += bytes.len();
                told[name] = json!(super::http::data_url("image/jpeg", bytes));
            }
        }
        if let Some(bytes) = denoised {
            state.preview = Some((at.image, bytes.into()));
        }
        push(&mut state, "step", &told);
        drop(state);
        self.notify();
    }

    /// An image is there.
    pub(super) fn deliver(&self, index: u32, made: Made) {
        let mut state = self.state();
        if state.phase.is_over() {
            return;
        }
        let told = made.json(index, &self.image_url(index));
        state.made[index as usize] = Some(Arc::new(made));
        self.metrics.image();
        push(&mut state, "image", &told);
        if state.made.iter().all(Option::is_some) {
            self.over(&mut state, Phase::Done, None);
        }
        drop(state);
        self.notify();
    }

    pub(super) fn fail(&self, error: &str, trouble: Option<Trouble>) {
        lock(&self.open).clear();
        let mut state = self.state();
        if !state.phase.is_over() {
            state.trouble = trouble;
            self.over(&mut state, Phase::Failed, Some(error));
        }
        drop(state);
        self.notify();
    }

    fn over(&self, state: &mut State, phase: Phase, error: Option<&str>) {
        state.phase = phase;
        state.error = error.map(str::to_owned);
        state.ended = Some(Instant::now());
        self.metrics.over(phase, state.started.map(|started| started.elapsed()));
        match error {
            Some(error) => push(state, "failed", &json!({ "error": error })),
            None => push(state, phase.name(), &json!({})),
        }
    }

    pub(super) fn image_url(&self, index: u32) -> String {
        format!("/api/jobs/{}/images/{index}", self.id)
    }

    pub(super) fn made(&self) -> Vec<Option<Arc<Made>>> {
        self.state().made.clone()
    }

    pub(super) fn error(&self) -> Option<String> {
        self.state().error.clone()
    }

    /// How the device failed, where it failed by that.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state().trouble
    }

    pub(super) fn preview(&self) -> Option<(u32, Arc<[u8]>)> {
        self.state().preview.clone()
    }

    pub(super) fn latest(&self) -> Option<StepAt> {
        self.state().latest
    }

    /// The share of its steps that was taken, and the seconds since the first began.
    pub(super) fn progress(&self) -> (f64, f64) {
        let state = self.state();
        let share = self.steps().filter(|steps| *steps > 0).map_or(0.0, |steps| state.taken as f64 / steps as f64);
        let until = state.ended.unwrap_or_else(Instant::now);
        (share.min(1.0), state.started.map_or(0.0, |started| until.duration_since(started).as_secs_f64()))
    }

    /// What happened from the event of this number on, and whether that is all that will.
    pub(super) fn events_from(&self, from: usize) -> (Vec<Event>, bool) {
        let state = self.state();
        (state.events.get(from..).unwrap_or_default().to_vec(), state.phase.is_over())
    }

    pub(super) fn ended(&self) -> Option<Instant> {
        self.state().ended
    }

    /// Bytes that it keeps when it is over.
    pub(super) fn kept_bytes(&self) -> usize {
        let state = self.state();
        let made: usize = state.made.iter().flatten().map(|made| made.bytes.len()).sum();
        made + state.events.iter().map(|event| event.data.len()).sum::<usize>()
    }

    /// Told whenever something happens.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Waits until it is over.
    pub(super) async fn wait(&self) -> Phase {
        let mut changed = self.watch();
        loop {
            let phase = self.phase();
            if phase.is_over() || changed.changed().await.is_err() {
                return phase;
            }
        }
    }

    /// Somebody looks on.
    pub(super) fn watched(&self) {
        let mut watchers = lock(&self.watchers);
        watchers.count += 1;
        watchers.left = None;
    }

    /// Somebody looks on no more.
    pub(super) fn unwatched(&self) {
        let mut watchers = lock(&self.watchers);
        watchers.count -= 1;
        watchers.left = (watchers.count == 0).then(Instant::now);
    }

    /// Whether nobody has watched for this long after somebody did, and its owner did not say that it should go on all the same.
    pub(super) fn is_left(&self, patience: Duration) -> bool {
        !self.order.is_detached && lock(&self.watchers).left.is_some_and(|left| left.elapsed() > patience)
    }

    /// As the own API tells it.
    pub(super) fn json(&self, position: Option<usize>) -> Value {
        let state = self.state();
        let images = state.made.iter().enumerate().filter_map(|(index, made)| {
            let made = made.as_ref()?;
            let index = u32::try_from(index).ok()?;
            Some(made.json(index, &self.image_url(index)))
        });
        let created = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        json!({
            "id": self.id,
            "state": state.phase.name(),
            "position": position,
            "command": self.order.work.command,
            "model": self.order.work.flags.model.to_string_lossy(),
            "prompt": self.order.work.prompt,
            "seed": self.order.seed,
            "count": self.order.count(),
            "steps": self.first.steps(),
            "steps_taken": state.taken,
            "created": created.as_secs(),
            "images": images.collect::<Vec<_>>(),
            "error": state.error,
        })
    }
}

fn push(state: &mut State, name: &'static str, data: &Value) {
    state.events.push(Event { name, data: data.to_string().into() });
}

/// 128 random bits.
fn unguessable() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// What these mutexes hold is put in or taken out whole, so one that a panicking thread left is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
