//! What was measured now beside what an earlier run wrote down.

use super::row::{Row, Spread};
use crate::cli::error::CliError;
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};

/// Fewer repeats on either side tell nothing: of two times four equal runs, one order in 35 seems to be a difference; of two times five, one in 126.
pub(super) const FEWEST: usize = 5;

/// Seconds below which waking a thread or reading a clock may be most of it.
const SHORTEST: f64 = 20e-6;

/// Rows of an earlier run.
pub(super) struct Earlier {
    file: PathBuf,
    object: Value,
    rows: Vec<EarlierRow>,
}

#[derive(Debug, PartialEq)]
struct EarlierRow {
    suite: String,
    part: String,
    group: Option<String>,
    seconds: Vec<f64>,
}

/// What two lists of repeats say of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every repeat took less than the quickest before.
    Faster,
    /// Every repeat took more than the slowest before.
    Slower,
    /// Some repeat of either lies within the other's.
    Same,
    /// One side has too few repeats.
    TooFew,
    /// It takes so little time that the clock and the threads' waking may be all of a difference.
    TooShort,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Same => "same within spread",
            Self::TooFew => "too few repeats to tell",
            Self::TooShort => "too short to tell",
        })
    }
}

/// A row of both runs.
pub(super) struct Pair {
    name: String,
    suite: String,
    before: Spread,
    now: Spread,
    pub(super) verdict: Verdict,
}

impl Pair {
    /// Above one where it is faster now.
    fn ratio(&self) -> f64 {
        self.before.median / self.now.median
    }
}

impl Earlier {
    /// Reads what `--json` wrote.
    pub(super) fn read(file: &Path) -> Result<Self, CliError> {
        let failed = |why: &str| CliError::Failed(format!("cannot compare with {}: {why}", file.display()));
        let bytes = std::fs::read(file).map_err(|error| failed(&error.to_string()))?;
        let object: Value = serde_json::from_slice(&bytes)
            .map_err(|_| failed("it is no JSON; give a file that headwater bench --json wrote"))?;
        let listed = object["rows"].as_array();
        let rows = listed.and_then(|rows| rows.iter().map(EarlierRow::read).collect::<Option<Vec<_>>>());
        let Some(rows) = rows else {
            return Err(failed("it is not what headwater bench --json writes"));
        };
        Ok(Self { file: file.to_owned(), object, rows })
    }

    /// Refuses rows that are of something else. `now` is the head of the new object.
    pub(super) fn check(&self, now: &Value) -> Result<(), CliError> {
        for key in ["model", "width", "height", "guidance", "images"] {
            let (before, now) = (&self.object[key], &now[key]);
            // Of single operations alone there is no model.
            if before != now && !before.is_null() && !now.is_null() {
                let file = self.file.display();
                return Err(CliError::Failed(format!(
                    "cannot compare with {file}: its {key} is {}, and here it is {}",
                    plain(before),
                    plain(now)
                )));
            }
        }
        Ok(())
    }

    /// What may explain a difference besides the program, and the peaks of memory.
    pub(super) fn differences(&self, now: &Value, peak_memory: Option<u64>) -> Vec<String> {
        let differ = |key: &&str| self.object[*key] != now[*key];
        let said = |key: &str| format!("{key}: {} before, {} now", plain(&self.object[key]), plain(&now[key]));
        let mut all: Vec<_> =
            ["device", "driver", "threads", "version", "debug"].into_iter().filter(differ).map(said).collect();
        if let (Some(before), Some(now)) = (self.object["peak_memory"].as_u64(), peak_memory) {
            #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
            let [before, now] = [before, now].map(|bytes| bytes as f64 / 1e6);
            all.push(format!("peak memory: {before:.1} MB before, {now:.1} MB now"));
        }
        all
    }

    /// Rows of both runs, in today's order.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn pairs(&self, rows: &[Row]) -> Result<Vec<Pair>, CliError> {
        let pair = |row: &Row| {
            let suite = row.suite.to_string();
            let own = |old: &&EarlierRow| old.suite == suite && old.part == row.part && old.group == row.group;
            let old = self.rows.iter().find(own)?;
            let (before, now) = (Spread::of(&old.seconds)?, Spread::of(&row.seconds)?);
            let name = row.name();
            Some(Pair { name, suite, before, now, verdict: verdict(&old.seconds, &row.seconds) })
        };
        let pairs: Vec<Pair> = rows.iter().filter_map(pair).collect();
        if pairs.is_empty() {
            let file = self.file.display();
            return Err(CliError::Failed(format!(
                "cannot compare with {file}: nothing that was measured now is in it"
            )));
        }
        Ok(pairs)
    }
}

impl EarlierRow {
    fn read(row: &Value) -> Option<Self> {
        let text = |key: &str| Some(row[key].as_str()?.to_owned());
        let seconds = row["seconds"].as_array()?.iter().map(|seconds| seconds.as_f64().filter(|s| s.is_finite()));
        let seconds = seconds.collect::<Option<Vec<_>>>()?;
        Some(Self { suite: text("suite")?, part: text("part")?, group: text("group"), seconds })
    }
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "not known".into(),
        value => value.to_string(),
    }
}

fn verdict(before: &[f64], now: &[f64]) -> Verdict {
    if before.len() < FEWEST || now.len() < FEWEST {
        return Verdict::TooFew;
    }
    match (Spread::of(before), Spread::of(now)) {
        (Some(before), Some(now)) if before.median.max(now.median) < SHORTEST => Verdict::TooShort,
        (Some(before), Some(now)) if now.slowest < before.fastest => Verdict::Faster,
        (Some(before), Some(now)) if now.fastest > before.slowest => Verdict::Slower,
        _ => Verdict::Same,
    }
}

/// A table of them.
pub(super) fn shown(pairs: &[Pair]) -> Vec<String> {
    let mut lines =
        vec![format!("{:<50} {:>10} {:>10} {:>6}  verdict", "beside the earlier run", "before ms", "now ms", "ratio")];
    lines.extend(pairs.iter().map(|pair| {
        let (before, now) = (pair.before.median * 1e3, pair.now.median * 1e3);
        let Pair { name, verdict, .. } = pair;
        format!("{name:<50} {before:>10.3} {now:>10.3} {:>6.2}  {verdict}", pair.ratio())
    }));
    let count = |verdict| pairs.iter().filter(|pair| pair.verdict == verdict).count();
    lines.push(format!(
        "{} faster, {} slower, {} the same within spread, {} with too few repeats or too short to tell",
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::Same),
        count(Verdict::TooFew) + count(Verdict::TooShort)
    ));
    lines
}

/// The same as an object.
pub(super) fn json(earlier: &Earlier, pairs: &[Pair], differences: &[String]) -> Value {
    let rows: Vec<_> = pairs
        .iter()
        .map(|pair| {
            json!({ "suite": pair.suite, "name": pair.name, "before": pair.before.median, "now": pair.now.median,
                    "ratio": pair.ratio(), "verdict": pair.verdict.to_string() })
        })
        .collect();
    json!({ "file": earlier.file.to_string_lossy(), "differences": differences, "rows": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_repeat_contradicts_is_a_difference() {
        let before = [1.0, 1.1, 1.2, 1.3, 1.4];
        let times = |factor: f64| before.map(|seconds| seconds * factor);
        assert_eq!(verdict(&before, &before), Verdict::Same);
        assert_eq!(verdict(&before, &times(0.9)), Verdict::Same);
        assert_eq!(verdict(&before, &times(1.3)), Verdict::Same);
        assert_eq!(verdict(&before, &times(0.7)), Verdict::Faster);
        assert_eq!(verdict(&before, &times(1.5)), Verdict::Slower);
        assert_eq!(verdict(&times(1e-6), &times(5e-6)), Verdict::TooShort);
        assert_eq!(verdict(&before[..4], &times(0.1)), Verdict::TooFew);
        assert_eq!(verdict(&before, &times(0.1)[..1]), Verdict::TooFew);
    }
}
