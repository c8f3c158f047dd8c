//! What a comparison found, in numbers.

use super::cells::Cell;

/// What kind of path a cell's sampler takes, and so what its distance to the reference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Path {
    /// It solves the probability-flow ODE: the distance to the reference is its error.
    Ode,
    /// It draws noise on the way: it ends elsewhere by design, and its spread over draws says how far.
    Sde,
    /// It follows another path: a consistency model, or guidance inside the step (CFG++).
    Other,
}

impl Path {
    /// One word for a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ode => "ode",
            Self::Sde => "sde",
            Self::Other => "other",
        }
    }
}

/// One step of one cell.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "report", derive(serde::Serialize, serde::Deserialize))]
pub struct StepRecord {
    /// Counts from 1.
    pub step: usize,
    /// Noise level of x.
    pub sigma: f64,
    /// How often the model has run so far.
    pub nfe: usize,
    /// Since the first step began; evaluations that were taken over from another cell count what they took there.
    pub seconds: f64,
    /// Root mean square of x minus the reference at this noise level.
    pub error_x: Option<f64>,
    /// The same of the denoised image.
    pub error_denoised: Option<f64>,
    /// Root mean square of what the denoised image changed since the step before.
    pub change: Option<f64>,
}

/// One cell, when it is done.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "report", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// Names the cell in its comparison, and its files.
    pub id: String,
    /// What was decided for it.
    pub settings: CellSettings,
    /// What kind of path it takes.
    pub path: Path,
    /// Why it could not run, if it could not; all that follows is then empty.
    pub refused: Option<String>,
    /// Its steps.
    pub steps: Vec<StepRecord>,
    /// How often the model ran.
    pub nfe: usize,
    /// How many of these were taken over from other cells, and not computed again.
    pub taken_over: usize,
    /// Seconds of all steps.
    pub seconds: f64,
    /// Root mean square of the final sample minus the reference's.
    pub error_final: Option<f64>,
    /// Of the final picture against the reference's, in decibels.
    pub psnr: Option<f64>,
    /// Of the final picture against the reference's.
    pub ssim: Option<f64>,
    /// Of a sampler that draws noise: the standard deviation of the final sample's elements over several draws from one start (root mean square over elements).
    pub spread: Option<f64>,
    /// Names the reference path.
    pub reference: Option<String>,
}

/// What was decided for a cell, as a table shows it.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "report", derive(serde::Serialize, serde::Deserialize))]
pub struct CellSettings {
    /// The model's name in the comparison.
    pub model: String,
    /// What the picture shows.
    pub prompt: String,
    /// The sampler.
    pub sampler: String,
    /// The schedule that was asked for; empty for the checkpoint's own.
    pub schedule: String,
    /// Steps that were asked for; of a sampler that chooses its own, a hint.
    pub steps: usize,
    /// The budget of evaluations, where one was asked for.
    pub budget: Option<usize>,
    /// Weight of the prompt.
    pub guidance: f64,
    /// Noise levels at which guidance acts, where that was asked for.
    #[cfg_attr(feature = "report", serde(default))]
    pub guidance_interval: Option<String>,
    /// What is kept from one step for the next, where something is.
    #[cfg_attr(feature = "report", serde(default))]
    pub step_cache: Option<String>,
    /// The share of fresh noise that was asked for.
    pub eta: Option<f64>,
    /// Seed of the noise.
    pub seed: u64,
}

/// Which sampler is nearest the truth for a budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Evaluations that the budget allows.
    pub nfe: usize,
    /// The best cell's label.
    pub label: String,
    /// Evaluations that it used.
    pub used: usize,
    /// Its error, in the middle (median) over all cells that differ from it in nothing but prompt and seed.
    pub error: f64,
}

impl Record {
    /// Nothing yet.
    pub(super) fn new(cell: &Cell) -> Self {
        Self {
            id: cell.id.clone(),
            settings: cell.settings.clone(),
            path: cell.path,
            refused: None,
            steps: Vec::new(),
            nfe: 0,
            taken_over: 0,
            seconds: 0.0,
            error_final: None,
            psnr: None,
            ssim: None,
            spread: None,
            reference: cell.reference().map(str::to_owned),
        }
    }

    /// Whether its error says how well it solves the ODE.
    #[must_use]
    pub fn is_ranked(&self) -> bool {
        self.path == Path::Ode && self.refused.is_none() && self.error_final.is_some()
    }

    /// What it does, without where it starts and how many steps it takes: the sampler, and of all else what differs between these cells.
    #[must_use]
    pub fn method(&self, among: &[Record]) -> String {
        let own = &self.settings;
        let varies = |value: &dyn Fn(&CellSettings) -> String| among.iter().any(|r| value(&r.settings) != value(own));
        let mut method = own.sampler.clone();
        if !own.schedule.is_empty() {
            method += &format!(" {}", own.schedule);
        }
        if varies(&|own| own.guidance.to_string()) {
            method += &format!(", guidance {}", own.guidance);
        }
        if varies(&|own| format!("{:?}", own.guidance_interval)) {
            method += &format!(", guided in {}", own.guidance_interval.as_deref().unwrap_or("all"));
        }
        if let Some(cache) = own.step_cache.as_ref().filter(|_| varies(&|own| format!("{:?}", own.step_cache))) {
            method += &format!(", {cache}");
        }
        if let Some(eta) = own.eta.filter(|_| varies(&|own| format!("{:?}", own.eta))) {
            method += &format!(", eta {eta}");
        }
        if varies(&|own| own.model.clone()) {
            method += &format!(", {}", own.model);
        }
        method
    }
}

/// (method, evaluations, median error) of all cells that solve the ODE; those that differ in prompt and seed alone count as one.
#[must_use]
pub fn ranked(records: &[Record]) -> Vec<(String, usize, f64)> {
    let mut groups: Vec<(String, usize, Vec<f64>)> = Vec::new();
    for record in records.iter().filter(|record| record.is_ranked()) {
        let (method, nfe, error) = (record.method(records), record.nfe, record.error_final.unwrap_or(f64::NAN));
        match groups.iter_mut().find(|(own, n, _)| *own == method && *n == nfe) {
            Some((_, _, errors)) => errors.push(error),
            None => groups.push((method, nfe, vec![error])),
        }
    }
    groups.into_iter().map(|(method, nfe, mut errors)| (method, nfe, median(&mut errors))).collect()
}

/// The middle of some numbers.
pub(super) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile by linear interpolation between order statistics; sorts.
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = share * last as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
    let low = position as usize;
    let high = (low + 1).min(last);
    values[low] + (values[high] - values[low]) * (position - low as f64)
}

/// For every number of evaluations that some cell used, the cell nearest the truth among those that used no more.
#[must_use]
pub fn nearest(records: &[Record]) -> Vec<Nearest> {
    let cells = ranked(records);
    let mut budgets: Vec<usize> = cells.iter().map(|(_, nfe, _)| *nfe).collect();
    budgets.sort_unstable();
    budgets.dedup();
    let best = |budget: usize| {
        let within = cells.iter().filter(|(_, nfe, _)| *nfe <= budget);
        let (label, used, error) = within.min_by(|a, b| a.2.total_cmp(&b.2))?.clone();
        Some(Nearest { nfe: budget, label, used, error })
    };
    budgets.into_iter().filter_map(best).collect()
}

/// The cell with the fewest evaluations whose error is at most this large; of several the nearest.
#[must_use]
pub fn cheapest(records: &[Record], within: f64) -> Option<Nearest> {
    let mut cells = ranked(records);
    cells.retain(|(_, _, error)| *error <= within);
    cells.sort_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2)));
    cells.into_iter().next().map(|(label, used, error)| Nearest { nfe: used, label, used, error })
}

/// The order with which a method's error falls: minus the slope of the line through (ln NFE, ln error), by least squares over all its cells;
/// none where there are fewer than two budgets.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let points: Vec<(f64, f64)> =
        points.iter().filter(|(nfe, error)| *nfe > 0.0 && *error > 0.0).map(|(n, e)| (n.ln(), e.ln())).collect();
    let n = points.len() as f64;
    let mean = |value: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let together: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    (spread > 1e-9).then(|| -together / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sampler: &str, nfe: usize, error: f64, path: Path) -> Record {
        let settings = CellSettings { sampler: sampler.into(), ..CellSettings::default() };
        Record {
            id: String::new(),
            settings,
            path,
            refused: None,
            steps: Vec::new(),
            nfe,
            taken_over: 0,
            seconds: 0.0,
            error_final: Some(error),
            psnr: None,
            ssim: None,
            spread: None,
            reference: None,
        }
    }

    #[test]
    fn the_nearest_and_the_cheapest() {
        let records = [
            record("euler", 8, 0.3, Path::Ode),
            record("heun", 7, 0.2, Path::Ode),
            record("heun", 15, 0.01, Path::Ode),
            record("euler", 16, 0.15, Path::Ode),
            // Two seeds of one method: the middle counts.
            record("deis", 8, 0.05, Path::Ode),
            record("deis", 8, 0.15, Path::Ode),
            record("euler_ancestral", 8, 0.001, Path::Sde),
        ];
        let found: Vec<(usize, String, usize)> =
            nearest(&records).into_iter().map(|n| (n.nfe, n.label, n.used)).collect();
        let own = |nfe, label: &str, used| (nfe, label.to_owned(), used);
        assert_eq!(found, [own(7, "heun", 7), own(8, "deis", 8), own(15, "heun", 15), own(16, "heun", 15)]);
        assert_eq!(cheapest(&records, 0.12).expect("there is one").label, "deis");
        assert_eq!(cheapest(&records, 0.02).expect("there is one").label, "heun");
        assert!(cheapest(&records, 1e-5).is_none());
    }

    #[test]
    fn slopes() {
        let points: Vec<(f64, f64)> = [4.0, 8.0, 16.0_f64].iter().map(|n| (*n, 3.0 / (n * n))).collect();
        assert!((slope(&points).expect("three budgets") - 2.0).abs() < 1e-12);
        assert!(slope(&points[..1]).is_none() && slope(&[(4.0, 0.1), (4.0, 0.2)]).is_none());
    }

    #[test]
    fn quantiles() {
        assert!((quantile(&mut [4.0, 1.0, 3.0, 2.0], 0.25) - 1.75).abs() < 1e-12);
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
    }
}
