//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipelines::Event;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Lines that are not redrawn come at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

pub(super) enum Progress {
    Quiet,
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            Progress::Quiet
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = "{bar:32} {pos}/{len} steps  {per_sec}  {eta} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            Progress::Bar(bar)
        } else {
            Progress::Lines { last: Instant::now() }
        }
    }

    /// A step has its denoised image. Samplers that choose their own steps announce no total.
    pub(super) fn step(&mut self, event: &Event<'_>) {
        let done = event.index + 1;
        match self {
            Progress::Quiet => {}
            Progress::Bar(bar) => {
                bar.set_length(event.steps.max(done) as u64);
                bar.set_position(done as u64);
            }
            Progress::Lines { last } => {
                if last.elapsed() >= LINE_INTERVAL || done == event.steps {
                    *last = Instant::now();
                    let rate = done as f64 / event.elapsed.as_secs_f64().max(1e-9);
                    let left = event.steps.saturating_sub(done) as f64 / rate;
                    if event.steps == 0 {
                        eprintln!("step {done}, {rate:.2} it/s");
                    } else {
                        eprintln!("step {done}/{}, {rate:.2} it/s, {left:.0} s left", event.steps);
                    }
                }
            }
        }
    }

    pub(super) fn finish(self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
