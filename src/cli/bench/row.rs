//! One line of what was measured.

use super::ceiling::Ceiling;
use serde_json::{Value, json};
use std::fmt;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// Single operations.
    Micro,
    /// Parts of a model.
    Meso,
    /// Whole pictures.
    Macro,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Micro => "micro",
            Self::Meso => "meso",
            Self::Macro => "macro",
        })
    }
}

/// Something that was timed several times.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) suite: Suite,
    /// "step", "latent decode", …
    pub(super) part: String,
    /// Some of its operations: those of one name, or of one path in the checkpoint. None is all of it.
    pub(super) group: Option<String>,
    /// Operations that it stands for; 0 where they are not counted.
    pub(super) count: usize,
    /// Every repeat.
    pub(super) seconds: Vec<f64>,
    /// Of one repeat; 0 where it is not known.
    pub(super) flops: u64,
    pub(super) bytes: u64,
    /// Share of all threads' time in which they worked.
    pub(super) busy: Option<f64>,
}

/// The middle of a list and where it begins and ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) fastest: f64,
    pub(super) slowest: f64,
}

impl Spread {
    /// None of nothing.
    pub(super) fn of(seconds: &[f64]) -> Option<Self> {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (fastest, slowest) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: low.midpoint(high), fastest, slowest })
    }
}

/// The heading of [`Row::shown`].
pub(super) fn heading(what: &str) -> String {
    format!(
        "{what:<50} {:>6} {:>10} {:>21} {:>9} {:>5} {:>8} {:>5} {:>5}",
        "count", "ms", "fastest..slowest", "GFLOP/s", "%", "GB/s", "%", "busy"
    )
}

impl Row {
    pub(super) fn spread(&self) -> Spread {
        Spread::of(&self.seconds).unwrap_or(Spread { median: 0.0, fastest: 0.0, slowest: 0.0 })
    }

    /// Work in a second, where it is known.
    #[allow(clippy::cast_precision_loss, reason = "counts of operations, far below 2⁵³")]
    fn rate(&self, work: u64) -> Option<f64> {
        let median = self.spread().median;
        (work > 0 && median > 0.0).then(|| work as f64 / median)
    }

    /// What it is called where only one name has room.
    pub(super) fn name(&self) -> String {
        match &self.group {
            Some(group) => format!("{}: {group}", self.part),
            None => self.part.clone(),
        }
    }

    /// Whether it computed so much faster than the machine was seen to that one of both was disturbed. (Caches may give more bytes than memory.)
    pub(super) fn is_beyond(&self, ceiling: &Ceiling) -> bool {
        self.rate(self.flops).is_some_and(|rate| rate > 1.25 * ceiling.flops_per_second)
    }

    /// One line, shares beside the ceiling in it.
    pub(super) fn shown(&self, ceiling: &Ceiling) -> String {
        let Spread { median, fastest, slowest } = self.spread();
        let name = self.group.as_ref().map_or_else(|| self.part.clone(), |group| format!("  {group}"));
        let count = if self.count > 0 { self.count.to_string() } else { String::new() };
        let range = format!("{:.3}..{:.3}", fastest * 1e3, slowest * 1e3);
        let rate = |work, best: f64| {
            let rate = self.rate(work);
            let shown = rate.map_or(String::new(), |rate| format!("{:.1}", rate / 1e9));
            (shown, rate.map_or(String::new(), |rate| format!("{:.0}", rate / best * 100.0)))
        };
        let (flops, of_flops) = rate(self.flops, ceiling.flops_per_second);
        let (bytes, of_bytes) = rate(self.bytes, ceiling.bytes_per_second);
        let busy = self.busy.map_or(String::new(), |busy| format!("{:.0}%", busy * 100.0));
        let line = format!(
            "{name:<50} {count:>6} {:>10.3} {range:>21} {flops:>9} {of_flops:>5} {bytes:>8} {of_bytes:>5} {busy:>5}",
            median * 1e3
        );
        line.trim_end().to_owned()
    }

    /// Everything of it.
    pub(super) fn json(&self, ceiling: &Ceiling) -> Value {
        let Spread { median, fastest, slowest } = self.spread();
        let (flops, bytes) = (self.rate(self.flops), self.rate(self.bytes));
        json!({
            "suite": self.suite.to_string(), "part": self.part, "group": self.group, "count": self.count,
            "median": median, "fastest": fastest, "slowest": slowest, "seconds": self.seconds,
            "flops": self.flops, "bytes": self.bytes,
            "gflops": flops.map(|rate| rate / 1e9), "share_of_flops": flops.map(|rate| rate / ceiling.flops_per_second),
            "gbytes_per_second": bytes.map(|rate| rate / 1e9),
            "share_of_bytes": bytes.map(|rate| rate / ceiling.bytes_per_second),
            "busy": self.busy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0, 5.0]), Some(Spread { median: 2.5, fastest: 1.0, slowest: 5.0 }));
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).map(|spread| spread.median), Some(2.0));
        assert_eq!(Spread::of(&[]), None);
    }
}
