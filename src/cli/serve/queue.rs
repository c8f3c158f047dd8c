//! Between the requests and the devices: jobs that wait, in order, never more than a bound.

use super::limits::{HELD_BYTES, KEPT_BYTES, KEPT_JOBS};
use super::ticket::{Owner, Phase, Ticket, lock};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Jobs that wait, run, or are over and kept for their owners.
#[derive(Debug)]
pub(super) struct Queue {
    /// Jobs that wait or run.
    most: usize,
    workers: usize,
    /// How long a job that is over is kept.
    kept_for: Duration,
    jobs: Mutex<Jobs>,
    arrived: Condvar,
    /// Told whenever a place in the queue changes.
    moved: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Jobs {
    /// With images that no worker has begun, in order.
    waiting: VecDeque<Arc<Ticket>>,
    /// All that are not over.
    live: Vec<Arc<Ticket>>,
    over: VecDeque<Arc<Ticket>>,
    is_closed: bool,
    /// Seconds that a worker takes for an image, the mean of the last ones.
    pace: f64,
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are as many as may wait; there will be room after about so many seconds.
    Full { seconds: u64 },
    /// The server ends.
    Closed,
}

/// Images of jobs that are made in one graph.
pub(super) type Together = Vec<(Arc<Ticket>, Vec<u32>)>;

impl Queue {
    pub(super) fn new(most: usize, workers: usize, kept_for: Duration) -> Self {
        Self {
            most,
            workers: workers.max(1),
            kept_for,
            jobs: Mutex::new(Jobs { pace: 1.0, ..Jobs::default() }),
            arrived: Condvar::new(),
            moved: watch::channel(0).0,
        }
    }

    /// Whether one more would be taken.
    pub(super) fn has_room(&self) -> Result<(), Refused> {
        self.room(&lock(&self.jobs), 0)
    }

    fn room(&self, jobs: &Jobs, weight: usize) -> Result<(), Refused> {
        let live = || jobs.live.iter().filter(|ticket| !ticket.phase().is_over());
        let held: usize = live().map(|ticket| ticket.order.weight).sum();
        // Whatever a single job holds is within its own limits.
        let is_heavy = held > 0 && held + weight > HELD_BYTES;
        if jobs.is_closed {
            Err(Refused::Closed)
        } else if live().count() >= self.most || is_heavy {
            let images: usize = jobs.waiting.iter().map(|ticket| ticket.open_images()).sum();
            let seconds = (images.max(1) as f64 * jobs.pace / self.workers as f64).clamp(1.0, 60.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 60")]
            Err(Refused::Full { seconds: seconds.ceil() as u64 })
        } else {
            Ok(())
        }
    }

    /// Takes a job, if there is room.
    pub(super) fn push(&self, ticket: &Arc<Ticket>) -> Result<(), Refused> {
        let mut jobs = lock(&self.jobs);
        self.room(&jobs, ticket.order.weight)?;
        jobs.live.push(Arc::clone(ticket));
        jobs.waiting.push_back(Arc::clone(ticket));
        drop(jobs);
        self.arrived.notify_one();
        self.told();
        Ok(())
    }

    /// Waits for the next images that can be made together: those of the first job, and of others that fit into its graph. Nothing when the
    /// server ends.
    pub(super) fn next(&self, most: usize) -> Option<Together> {
        let mut jobs = lock(&self.jobs);
        loop {
            if jobs.is_closed {
                return None;
            }
            if let Some(first) = jobs.waiting.pop_front() {
                let together = together(&mut jobs.waiting, first, most);
                if together.is_empty() {
                    continue;
                }
                drop(jobs);
                self.told();
                return Some(together);
            }
            jobs = self.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker made so many images in this time.
    pub(super) fn made(&self, images: usize, took: Duration) {
        let mut jobs = lock(&self.jobs);
        let each = took.as_secs_f64() / images.max(1) as f64;
        jobs.pace = 0.8 * jobs.pace + 0.2 * each;
    }

    /// Sorts out the jobs that are over, of which only some are kept, and not for ever.
    pub(super) fn tidy(&self) {
        let mut jobs = lock(&self.jobs);
        let (over, live): (Vec<_>, Vec<_>) = jobs.live.drain(..).partition(|ticket| ticket.phase().is_over());
        jobs.live = live;
        let is_changed = !over.is_empty();
        jobs.waiting.retain(|ticket| !ticket.phase().is_over());
        jobs.over.extend(over);
        let mut bytes: usize = jobs.over.iter().map(|ticket| ticket.kept_bytes()).sum();
        let now = Instant::now();
        while let Some(oldest) = jobs.over.front() {
            let is_old = oldest.ended().is_some_and(|ended| now.duration_since(ended) > self.kept_for);
            if jobs.over.len() <= KEPT_JOBS && bytes <= KEPT_BYTES && !is_old {
                break;
            }
            bytes -= oldest.kept_bytes();
            jobs.over.pop_front();
        }
        drop(jobs);
        if is_changed {
            self.told();
        }
    }

    /// Forgets a job whose answer was given.
    pub(super) fn forget(&self, ticket: &Ticket) {
        let mut jobs = lock(&self.jobs);
        jobs.live.retain(|own| own.id != ticket.id || !own.phase().is_over());
        jobs.waiting.retain(|own| own.id != ticket.id);
        jobs.over.retain(|own| own.id != ticket.id);
    }

    /// How many jobs come before this one; none where it does not wait.
    pub(super) fn position(&self, ticket: &Ticket) -> Option<usize> {
        lock(&self.jobs).waiting.iter().position(|own| own.id == ticket.id)
    }

    /// The jobs of an owner, the newest last.
    pub(super) fn of(&self, owner: &Owner) -> Vec<Arc<Ticket>> {
        let jobs = lock(&self.jobs);
        jobs.over.iter().chain(&jobs.live).filter(|ticket| ticket.owner == *owner).cloned().collect()
    }

    /// The owner's job of this name.
    pub(super) fn find(&self, owner: &Owner, id: &str) -> Option<Arc<Ticket>> {
        self.of(owner).into_iter().find(|ticket| ticket.id == id)
    }

    /// All jobs that are not over.
    pub(super) fn live(&self) -> Vec<Arc<Ticket>> {
        lock(&self.jobs).live.clone()
    }

    /// How many jobs wait, and how many run.
    pub(super) fn counts(&self) -> (usize, usize) {
        let jobs = lock(&self.jobs);
        let count = |phase| jobs.live.iter().filter(|ticket| ticket.phase() == phase).count();
        (count(Phase::Queued), count(Phase::Running))
    }

    /// Told whenever a place changes.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    fn told(&self) {
        self.moved.send_modify(|version| *version += 1);
    }

    /// Takes no more, lets workers go, and answers what waits with an error.
    pub(super) fn close(&self) {
        let mut jobs = lock(&self.jobs);
        jobs.is_closed = true;
        jobs.waiting.clear();
        let live = jobs.live.clone();
        drop(jobs);
        self.arrived.notify_all();
        live.iter().for_each(|ticket| ticket.fail("the server ended before the job did", None));
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.jobs).is_closed
    }
}

/// Images of a job, and of those behind it that fit where they fill a batch: each number of images has a plan of its own, and few are kept. A job
/// whose images are not all taken stays first, for another worker or the next turn.
fn together(waiting: &mut VecDeque<Arc<Ticket>>, first: Arc<Ticket>, most: usize) -> Together {
    let own = first.take(most);
    if own.is_empty() {
        return Vec::new();
    }
    let mut room = most - own.len();
    let fitting = || waiting.iter().filter(|other| fits(&first, other));
    let fills = fitting().map(|other| other.open_images()).sum::<usize>() >= room;
    let others: Vec<Arc<Ticket>> = if fills { fitting().cloned().collect() } else { Vec::new() };
    let mut together = vec![(Arc::clone(&first), own)];
    for other in others {
        let images = other.take(room);
        room -= images.len();
        if !images.is_empty() {
            together.push((other, images));
        }
    }
    waiting.retain(|other| other.open_images() > 0);
    if first.open_images() > 0 {
        waiting.push_front(first);
    }
    together
}

/// Whether two jobs are made together: by one graph, and over as many evaluations, so that neither waits for the other's end.
fn fits(first: &Ticket, other: &Ticket) -> bool {
    let evaluations = first.first.evaluations();
    first.order.model == other.order.model
        && first.order.loras == other.order.loras
        // Nobody waits for a solution that another asked for.
        && first.order.reference == other.order.reference
        && evaluations.is_some()
        && evaluations == other.first.evaluations()
        && first.first.runs_with(&other.first)
}
