//! What a comparison says while it runs, and at its end.

use super::args::Metric;
use crate::compare::{Comparison, Event, Path, Record, cheapest, nearest};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Lines that are not redrawn come at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Progress over the whole grid, counted in evaluations of the model.
pub(super) struct Progress {
    started: Instant,
    last: Instant,
    bar: Option<ProgressBar>,
    quiet: bool,
    /// Evaluations of the run that goes on.
    current: usize,
    done: usize,
    cells: usize,
}

impl Progress {
    pub(super) fn new(comparison: &Comparison, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = "{bar:32} {pos}/{len} evaluations  {eta} left  {msg}";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_length(comparison.evaluations_to_come() as u64);
            bar
        });
        let now = Instant::now();
        Self { started: now, last: now, bar, quiet, current: 0, done: 0, cells: comparison.cells().len() }
    }

    pub(super) fn show(&mut self, comparison: &Comparison, event: &Event) {
        if self.quiet {
            return;
        }
        let what = match event {
            Event::Solving { evaluations, .. } => {
                self.current = *evaluations;
                "reference".to_owned()
            }
            Event::Step { cell, step, .. } => {
                self.current = step.nfe;
                comparison.cells()[*cell].id.clone()
            }
            Event::Drawing { cell } => format!("{}, other draws", comparison.cells()[*cell].id),
            Event::Solved { .. } | Event::Done { .. } => {
                self.current = 0;
                String::new()
            }
        };
        if matches!(event, Event::Done { .. }) {
            self.done += 1;
        }
        let (computed, shared) = comparison.evaluations();
        let so_far = computed + shared + self.current;
        let all = (computed + shared + comparison.evaluations_to_come()).max(so_far);
        if let Some(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(so_far as u64);
            if !what.is_empty() {
                bar.set_message(what);
            }
        } else if self.last.elapsed() >= LINE_INTERVAL {
            self.last = Instant::now();
            let left = self.started.elapsed().as_secs_f64() * (all - so_far) as f64 / so_far.max(1) as f64;
            note!(
                "{} of {} cells done, {so_far} of about {all} evaluations, {left:.0} s left; {what}",
                self.done,
                self.cells
            );
        }
    }

    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// One line for each cell.
pub(super) fn table(records: &[Record], metrics: &[Metric]) {
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let width = records.iter().map(|record| record.id.chars().count()).max().unwrap_or(0).max(4);
    let mut head = format!("{:width$}  {:>5}  {:>7}  {:>8}", "cell", "nfe", "seconds", "error");
    for metric in metrics {
        head += match metric {
            Metric::Psnr => "   psnr",
            Metric::Ssim => "   ssim",
        };
    }
    note!("{head}");
    for record in records {
        if let Some(reason) = &record.refused {
            note!("{:width$}  cannot run: {reason}", record.id);
            continue;
        }
        let mut line = format!(
            "{:width$}  {:>5}  {:>7.2}  {:>8}",
            record.id,
            record.nfe,
            record.seconds,
            number(record.error_final, 4)
        );
        for metric in metrics {
            line += &match metric {
                Metric::Psnr => format!("  {:>5}", number(record.psnr, 1)),
                Metric::Ssim => format!("  {:>5}", number(record.ssim, 3)),
            };
        }
        line += match record.path {
            Path::Ode => "",
            Path::Sde => "  draws noise",
            Path::Other => "  another path",
        };
        if let Some(spread) = record.spread {
            line += &format!(", spread {spread:.3}");
        }
        note!("{line}");
    }
}

/// The lines that most people came for.
pub(super) fn summary(records: &[Record], within: f64, (computed, shared): (usize, usize)) {
    let mut before = None;
    for best in nearest(records) {
        // More evaluations that help nobody are not worth a line.
        if before.replace((best.label.clone(), best.used)) == Some((best.label.clone(), best.used)) {
            continue;
        }
        note!("nearest with {:>3} evaluations: {}, error {:.4}", best.nfe, best.label, best.error);
    }
    match cheapest(records, within) {
        Some(best) => {
            note!("cheapest within {within}: {}, {} evaluations, error {:.4}", best.label, best.used, best.error);
        }
        None if records.iter().any(Record::is_ranked) => note!("nothing here comes within {within}"),
        None => {}
    }
    note!("{computed} evaluations computed, {shared} shared between cells");
}
