//! A comparison written down: a folder of tables, plots, contact sheets and a page.
//!
//! | file | what it holds |
//! |---|---|
//! | `steps.csv`, `steps.json` | every step in numbers ([`StepRecord`](super::StepRecord), [`Record`]) |
//! | `contact-sheet.png` | one row for every cell, columns aligned by noise level |
//! | `grid.png` | the final pictures of two axes against each other; further axes make further files |
//! | `error-vs-nfe.svg`, `.png` | error against evaluations, each method with its slope |
//! | `report.html` | one page that needs no network |
//! | `pictures/`, `steps/` | final pictures, and every step's |
//! | `cells/`, `references/`, `comparison.json` | what a comparison that was stopped goes on from |

mod canvas;
mod convergence;
mod files;
mod folder;
mod grid;
mod page;
mod pictures;
mod plot;
mod sheet;
mod tables;

#[cfg(feature = "cli")]
pub(crate) use convergence::convergence_json;
pub use convergence::{convergence_table, write_convergence};
#[cfg(feature = "cli")]
pub(crate) use files::tensor_file;
pub use folder::Recorder;
#[cfg(feature = "cli")]
pub(crate) use pictures::Preview;
#[cfg(feature = "serve")]
pub(crate) use pictures::thumbnail;

use super::record::{Record, cheapest, nearest};
use super::study::Comparison;
use std::path::PathBuf;

/// Why a comparison cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file cannot be written: a full disk, a folder that is not ours to write to.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The folder holds something else.
    #[error("the folder {} holds other files: name an empty one, or one of a comparison to go on with", folder.display())]
    NotOurs {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds a comparison of something else.
    #[error("the folder {} holds another comparison, whose {what} differs: name another folder", folder.display())]
    Other {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        what: String,
    },
    /// A picture or plot cannot be drawn.
    #[error("cannot draw: {0}")]
    Picture(String),
}

/// What is written at the end of a comparison, and at a stop.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What the comparison is of, as a heading: the prompt, say.
    pub title: &'a str,
    /// The error below which the cheapest method is looked for.
    pub within: f64,
}

impl Recorder {
    /// Writes everything that is made of all cells together: tables, sheets, plots and the page. Whatever is done by now is in them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, comparison: &Comparison, wanted: Wanted<'_>) -> Result<(), ReportError> {
        let records = self.records(comparison);
        let summary = Summary::new(comparison, &records, wanted);
        tables::write_files(self.folder(), &records, &summary)?;
        plot::write(self.folder(), &records)?;
        sheet::write(self, comparison, &records, &summary)?;
        grid::write(self, comparison, &records, &summary)?;
        page::write_page(self, comparison, &records, &summary)
    }
}

/// What all parts of a report say.
pub(super) struct Summary {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) within: f64,
    pub(super) nearest: Vec<super::Nearest>,
    pub(super) cheapest: Option<super::Nearest>,
    /// Evaluations that were taken over and not computed again, of those in the records.
    pub(super) taken_over: usize,
    pub(super) computed: usize,
    /// Cells that are not done.
    pub(super) missing: usize,
}

impl Summary {
    fn new(comparison: &Comparison, records: &[Record], wanted: Wanted<'_>) -> Self {
        let first = &comparison.cells()[0].settings;
        let settings: Vec<&super::CellSettings> = comparison.cells().iter().map(|cell| &cell.settings).collect();
        let same =
            |value: &dyn Fn(&super::CellSettings) -> String| settings.iter().all(|own| value(own) == value(first));
        let mut parts = vec![];
        if same(&|own| own.model.clone()) {
            parts.push(first.model.clone());
        }
        if same(&|own| own.guidance.to_string()) {
            parts.push(format!("guidance {}", first.guidance));
        }
        if let Some(interval) =
            first.guidance_interval.as_ref().filter(|_| same(&|own| format!("{:?}", own.guidance_interval)))
        {
            parts.push(format!("guided in {interval}"));
        }
        if let Some(cache) = first.step_cache.as_ref().filter(|_| same(&|own| format!("{:?}", own.step_cache))) {
            parts.push(cache.clone());
        }
        if same(&|own| own.seed.to_string()) {
            parts.push(format!("seed {}", first.seed));
        }
        let nfe: usize = records.iter().map(|record| record.nfe).sum();
        let taken_over = records.iter().map(|record| record.taken_over).sum();
        Self {
            title: wanted.title.to_owned(),
            subtitle: parts.join(", "),
            within: wanted.within,
            nearest: nearest(records),
            cheapest: cheapest(records, wanted.within),
            taken_over,
            computed: nfe - taken_over,
            missing: comparison.cells().len() - records.len(),
        }
    }
}

/// A number for people: three significant digits.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..5.0).contains(&magnitude) {
        return format!("{value:.1e}");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 6")]
    let decimals = (2.0 - magnitude).max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// What a row says of its cell, in two lines.
pub(super) fn caption(record: &Record) -> [String; 2] {
    use super::Path;
    let kind = match record.path {
        Path::Ode => "",
        Path::Sde => " \u{b7} noise",
        Path::Other => " \u{b7} other path",
    };
    let first = format!("{} NFE \u{b7} {} s{kind}", record.nfe, short(record.seconds));
    let distance = if record.path == Path::Ode { "error" } else { "off" };
    let mut parts = Vec::new();
    parts.extend(record.error_final.map(|error| format!("{distance} {}", short(error))));
    parts.extend(record.spread.map(|spread| format!("spread {}", short(spread))));
    [first, parts.join(", ")]
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (157.407, "157"), (14.61, "14.6"), (0.071_234, "0.0712"), (1.0, "1.00"), (2.5e-6, "2.5e-6")]
        {
            assert_eq!(short(value), text);
        }
    }
}
