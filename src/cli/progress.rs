//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use crate::hub;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipelines::Step;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Lines that are not redrawn come at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Progress {
    /// Steps that were reported, of all images together.
    done: usize,
    images: usize,
    shown: Shown,
}

enum Shown {
    Not,
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Of so many images that are made together.
    pub(super) fn new(images: usize, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Not
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = "{bar:32} {pos}/{len} steps  {per_sec}  {eta} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: Instant::now() }
        };
        Self { done: 0, images, shown }
    }

    /// A step has its denoised image. Samplers that choose their own steps announce no total.
    pub(super) fn step(&mut self, step: &Step<'_>) {
        self.done += 1;
        let (done, steps) = (self.done, step.steps * self.images);
        match &mut self.shown {
            Shown::Not => {}
            Shown::Bar(bar) => {
                bar.set_length(steps.max(done) as u64);
                bar.set_position(done as u64);
            }
            Shown::Lines { last } => {
                if last.elapsed() >= LINE_INTERVAL || done == steps {
                    *last = Instant::now();
                    let rate = done as f64 / step.elapsed.as_secs_f64().max(1e-9);
                    let left = steps.saturating_sub(done) as f64 / rate;
                    if steps == 0 {
                        note!("step {done}, {rate:.2} it/s");
                    } else {
                        note!("step {done}/{steps}, {rate:.2} it/s, {left:.0} s left");
                    }
                }
            }
        }
    }

    pub(super) fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Downloads from a hub.
pub(super) struct Download {
    what: String,
    quiet: bool,
    started: Instant,
    last: Instant,
    bar: Option<ProgressBar>,
    received: u64,
}

impl Download {
    pub(super) fn new(what: &str, quiet: bool) -> Self {
        let unwanted = std::env::var("HF_HUB_DISABLE_PROGRESS_BARS").unwrap_or_default().to_uppercase();
        let quiet = quiet || ["1", "ON", "YES", "TRUE"].contains(&&*unwanted);
        Self { what: what.to_owned(), quiet, started: Instant::now(), last: Instant::now(), bar: None, received: 0 }
    }

    pub(super) fn show(&mut self, progress: &hub::Progress<'_>) {
        if let Some(warning) = progress.warning {
            note!("warning: {warning}");
        }
        if self.quiet {
            return;
        }
        if let Some(note) = progress.note {
            match &self.bar {
                Some(bar) => bar.suspend(|| note!("{note}")),
                None => note!("{note}"),
            }
        }
        if progress.total == 0 {
            return;
        }
        self.received = progress.done;
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
                let style = "{bar:32} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
                bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar
            });
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            if bar.message() != progress.file {
                bar.set_message(progress.file.to_owned());
            }
        } else if self.last.elapsed() >= LINE_INTERVAL {
            self.last = Instant::now();
            let (done, total) = (progress.done as f64 / 1e6, progress.total as f64 / 1e6);
            note!("{}: {done:.1} of {total:.1} MB, {}", self.what, progress.file);
        }
    }

    pub(super) fn finish(self, is_complete: bool) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if is_complete && !self.quiet && self.received > 0 {
            let seconds = self.started.elapsed().as_secs_f64();
            note!("{}: downloaded {:.1} MB in {seconds:.1} s", self.what, self.received as f64 / 1e6);
        }
    }
}
