//! Jobs under way: taken from lines while there is room, and put away when they are over.

use super::super::super::error::{CliError, Trouble};
use super::super::super::interrupt::Interrupted;
use super::super::App;
use super::super::http::error::ApiError;
use super::super::order;
use super::super::ticket::{Owner, Phase, Ticket};
use super::book::{Book, Record, Standing};
use super::id::{Id, Key};
use super::job::{self, Line};
use super::share::Share;
use super::shelf::{Product, Shelf};
use super::{Args, Lines};
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use std::collections::{HashSet, VecDeque};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon a request to stop is heard.
const TICK: Duration = Duration::from_millis(50);

/// A job that a device has, or will have.
struct Under {
    id: Id,
    line: u64,
    ticket: Arc<Ticket>,
}

/// What became of a line.
enum Taken {
    /// It is settled, or under way.
    Yes,
    /// There is no room: again when a job is over.
    NoRoom(Line),
}

/// How many jobs of this share ended how.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    done: u64,
    /// Of them by an earlier process.
    before: u64,
    failed: u64,
    /// By the device's doing.
    retry: u64,
}

pub(super) struct Floor<'a> {
    args: &'a Args,
    share: Share,
    app: Arc<App>,
    book: Book,
    shelf: Shelf,
    /// Ids of this run, to know the second line of one.
    seen: HashSet<Key>,
    tally: Tally,
    /// Of jobs that a device failed at before: they come last, so that whatever is wrong with them keeps nobody else waiting.
    later: VecDeque<Line>,
    /// A device that is in no state for more.
    broken: Option<String>,
    started: Instant,
    is_stdout_open: bool,
}

type Running = FuturesUnordered<Pin<Box<dyn Future<Output = Under>>>>;

impl<'a> Floor<'a> {
    pub(super) fn new(args: &'a Args, share: Share, app: Arc<App>, book: Book, shelf: Shelf) -> Self {
        Self {
            args,
            share,
            app,
            book,
            shelf,
            seen: HashSet::new(),
            tally: Tally::default(),
            later: VecDeque::new(),
            broken: None,
            started: Instant::now(),
            is_stdout_open: args.json,
        }
    }

    /// Works until all lines are settled, or until it is told to stop.
    pub(super) async fn work(mut self, mut lines: Lines, interrupted: &Interrupted) -> Result<(), CliError> {
        let mut running = Running::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beat = Instant::now();
        // A line that found no room; whether there are more; when the last job must be over.
        let (mut ahead, mut is_read, mut until) = (None, false, None);
        loop {
            if until.is_none() && (interrupted.get() || self.broken.is_some()) {
                let grace = if self.broken.is_some() { 0 } else { u64::from(self.args.grace) };
                until = Some(Instant::now() + Duration::from_secs(grace));
                self.cancel(|phase| phase == Phase::Queued);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                self.cancel(|_| true);
            }
            if until.is_none() && is_read && ahead.is_none() {
                ahead = self.later.pop_front();
            }
            let is_last = is_read && ahead.is_none();
            if running.is_empty() && (until.is_some() || is_last) {
                return self.end(until.is_some());
            }
            if let Some(line) = ahead.take_if(|_| until.is_none() && self.app.queue.has_room().is_ok()) {
                match self.take(line, is_read, &mut running)? {
                    Taken::Yes => {}
                    Taken::NoRoom(line) => ahead = Some(line),
                }
            }
            let beats = u64::from(self.args.heartbeat);
            if beats > 0 && beat.elapsed() >= Duration::from_secs(beats) {
                beat = Instant::now();
                self.beat(running.len());
            }
            tokio::select! {
                biased;
                Some(under) = running.next(), if !running.is_empty() => self.settle(&under)?,
                line = lines.recv(), if !is_read && ahead.is_none() && until.is_none() => match line {
                    Some(Ok(line)) => ahead = Some(line),
                    Some(Err(error)) => {
                        self.cancel(|_| true);
                        return Err(CliError::TryAgain(format!("cannot read {}: {error}", self.args.jobs.display())));
                    }
                    None => is_read = true,
                },
                _ = tick.tick() => {}
            }
        }
    }

    /// Takes a line: whatever is wrong with it is written, and it is passed over. `is_late` where all lines were seen.
    fn take(&mut self, line: Line, is_late: bool, running: &mut Running) -> Result<Taken, CliError> {
        let (id, fields) = match line.parse() {
            Ok(parsed) => parsed,
            // Without an id, whose share a line is follows from its number.
            Err(_) if !self.share.takes_line(line.number) => return Ok(Taken::Yes),
            Err(why) => return self.bad(line.number, &why),
        };
        if !self.share.takes(&id) {
            return Ok(Taken::Yes);
        }
        // One that was put off, or found no room, was seen before.
        if !is_late && self.seen.contains(&id.key()) {
            return self.bad(line.number, &format!("an earlier line has its id, {}", id.text()));
        }
        self.seen.insert(id.key());
        match self.book.standing(&id) {
            Some(Standing::Done) => {
                self.tally.done += 1;
                self.tally.before += 1;
                return Ok(self.told(&id));
            }
            // Its result comes with those of its tar.
            None if self.shelf.holds(&id) => {
                self.tally.done += 1;
                self.tally.before += 1;
                return Ok(Taken::Yes);
            }
            Some(Standing::Failed) if !self.args.retry_failed => {
                self.tally.failed += 1;
                return Ok(self.told(&id));
            }
            // Whoever deals jobs out waits for an answer to each.
            Some(Standing::Retry) if !is_late && self.args.name.is_none() => {
                self.later.push_back(line);
                return Ok(Taken::Yes);
            }
            _ => {}
        }
        let asked = match job::asked(&id, fields, self.app.limits.pixels) {
            Ok(asked) => asked,
            Err(why) => return self.failed(&id, line.number, why, false),
        };
        // A panic is a fault of ours, and ends this job alone.
        let accepted = catch_unwind(AssertUnwindSafe(|| order::accept(&self.app, asked, Owner::default())));
        match accepted.unwrap_or_else(|_| Err(fault())) {
            Ok(ticket) => {
                let line = line.number;
                running.push(Box::pin(async move {
                    ticket.wait().await;
                    Under { id, line, ticket }
                }));
                Ok(Taken::Yes)
            }
            Err(error) if error.status == StatusCode::TOO_MANY_REQUESTS => {
                self.seen.remove(&id.key());
                Ok(Taken::NoRoom(line))
            }
            Err(error) => self.failed(&id, line.number, error.message, error.code == "device"),
        }
    }

    /// Says again what was written of a job: whoever reads standard output waits for an answer to every line.
    fn told(&mut self, id: &Id) -> Taken {
        if let Some(line) = self.is_stdout_open.then(|| self.book.line(id)).flatten() {
            self.say(&line);
        }
        Taken::Yes
    }

    /// A line of this share that makes no job.
    fn bad(&mut self, number: u64, why: &str) -> Result<Taken, CliError> {
        self.tally.failed += 1;
        let record = Record::failed(None, number, why.to_owned(), false);
        if !self.book.has_line(number) || self.args.retry_failed {
            self.add(&record)?;
        } else {
            self.say(&record.line());
        }
        Ok(Taken::Yes)
    }

    fn failed(&mut self, id: &Id, line: u64, why: String, is_of_device: bool) -> Result<Taken, CliError> {
        if is_of_device {
            self.tally.retry += 1;
        } else {
            self.tally.failed += 1;
        }
        self.add(&Record::failed(Some(id), line, why, is_of_device))?;
        Ok(Taken::Yes)
    }

    /// Puts away what became of a job.
    fn settle(&mut self, under: &Under) -> Result<(), CliError> {
        let Under { id, line, ticket } = under;
        match ticket.phase() {
            Phase::Done => {
                let product = Product {
                    id: id.clone(),
                    line: *line,
                    seconds: ticket.progress().1,
                    prompt: ticket.order.work.prompt.clone(),
                    ending: ticket.order.format.ending(),
                    images: ticket.made().into_iter().flatten().collect(),
                };
                let records = self.shelf.put(&product)?;
                records.iter().try_for_each(|record| self.add(record))?;
                self.tally.done += 1;
            }
            Phase::Failed => {
                let (why, trouble) = (ticket.error().unwrap_or_default(), ticket.trouble());
                if trouble == Some(Trouble::Broken) {
                    self.broken = Some(why.clone());
                }
                self.failed(id, *line, why, trouble.is_some())?;
            }
            // It is begun anew another time.
            Phase::Queued | Phase::Running | Phase::Cancelled => {}
        }
        self.app.queue.forget(ticket);
        Ok(())
    }

    fn cancel(&self, which: impl Fn(Phase) -> bool) {
        self.app.queue.live().iter().filter(|ticket| which(ticket.phase())).for_each(|ticket| ticket.cancel());
    }

    fn add(&mut self, record: &Record) -> Result<(), CliError> {
        self.book.add(record)?;
        if self.args.json {
            self.say(&record.line());
        }
        Ok(())
    }

    /// A line on standard output. Whoever read it may have enough; the pictures are wanted all the same.
    fn say(&mut self, line: &str) {
        if self.is_stdout_open {
            let mut stdout = std::io::stdout().lock();
            self.is_stdout_open = writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_ok();
        }
    }

    fn beat(&mut self, running: usize) {
        let Tally { done, before, failed, retry } = self.tally;
        let seconds = self.started.elapsed().as_secs_f64();
        let pace = (done - before) as f64 / seconds;
        if self.args.json {
            let beat = json!({
                "type": "heartbeat", "seconds": (seconds * 10.0).round() / 10.0, "done": done, "done_before": before, "failed": failed,
                "retry": retry, "running": running, "per_second": (pace * 1e3).round() / 1e3,
            });
            self.say(&beat.to_string());
        } else if !self.args.quiet {
            note!(
                "{done} done ({before} of them before), {} failed, {running} under way, {pace:.2} a second",
                failed + retry
            );
        }
    }

    /// All is settled, or it was told to stop.
    fn end(mut self, is_stopped: bool) -> Result<(), CliError> {
        if !is_stopped {
            let records = self.shelf.close()?;
            records.iter().try_for_each(|record| self.add(record))?;
        }
        self.book.finish()?;
        let Tally { done, before, failed, retry } = self.tally;
        let path = self.book.path.display().to_string();
        let result = if let Some(why) = &self.broken {
            Err(CliError::TryAgain(format!("{why}; run it again to go on")))
        } else if is_stopped {
            Err(CliError::TryAgain(format!("stopped with {done} jobs done: run it again to go on")))
        } else if retry > 0 {
            let message =
                format!("a device failed at {retry} jobs, and {path} says how: run it again to try them again");
            Err(CliError::TryAgain(message))
        } else if failed > 0 {
            Err(CliError::Usage(format!("{failed} jobs cannot be made, and {path} says why; {done} are done")))
        } else {
            Ok(())
        };
        if self.args.json {
            let code = result.as_ref().err().map_or(0, CliError::exit_code);
            let seconds = (self.started.elapsed().as_secs_f64() * 1e4).round() / 1e4;
            let end = json!({
                "type": "end", "seconds": seconds, "done": done, "done_before": before, "failed": failed, "retry": retry, "code": code,
            });
            self.say(&end.to_string());
        } else if !self.args.quiet {
            note!("{done} done ({before} of them before), {} failed; {path}", failed + retry);
        }
        result
    }
}

fn fault() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "the program failed at this; please report it")
}
