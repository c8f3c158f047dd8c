//! Convergence: error against evaluations over many seeds, and the order with which it falls.

use super::analytic::Analytic;
use super::record::{Path, Record, quantile, slope};
use scheduler::Sampler;

/// How one method's error falls.
#[derive(Debug, Clone, PartialEq)]
pub struct Convergence {
    /// The sampler, with its schedule or whatever else varies.
    pub label: String,
    /// The order that the list of samplers states.
    pub stated: u32,
    /// From the fewest steps to the most.
    pub points: Vec<ConvergencePoint>,
    /// Whether it is the distribution's error and not a path's.
    pub is_weak: bool,
    /// Why there are no points, or none that say anything.
    pub note: Option<String>,
}

/// The error at one number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvergencePoint {
    /// Steps.
    pub steps: usize,
    /// Evaluations of the model.
    pub nfe: usize,
    /// Quarter of the seeds below it.
    pub lower: f64,
    /// Half of them.
    pub median: f64,
    /// Three quarters.
    pub upper: f64,
}

/// Errors below this are those of adding numbers in double precision, and fall no further.
const ROUNDING: f64 = 1e-11;

impl ConvergencePoint {
    fn new(steps: usize, nfe: usize, errors: &mut [f64]) -> Self {
        let mut at = |share| quantile(errors, share);
        let (lower, median, upper) = (at(0.25), at(0.5), at(0.75));
        Self { steps, nfe, lower, median, upper }
    }
}

impl Convergence {
    /// The order of the last two points that rounding does not hide: how fast the error falls in the end.
    #[must_use]
    pub fn last_order(&self) -> Option<f64> {
        let seen: Vec<(f64, f64)> = self
            .points
            .iter()
            .filter(|point| point.median > ROUNDING)
            .map(|point| (point.steps as f64, point.median))
            .collect();
        slope(&seen[seen.len().checked_sub(2)?..])
    }

    /// The order over all points, by least squares.
    #[must_use]
    pub fn order(&self) -> Option<f64> {
        let points: Vec<(f64, f64)> = self.points.iter().map(|point| (point.nfe as f64, point.median)).collect();
        slope(&points)
    }
}

/// A sampler on analytic data, at these numbers of steps, over these seeds.
///
/// # Errors
/// When steps make no schedule.
pub fn converge(
    data: Analytic,
    sampler: &Sampler,
    steps: &[usize],
    seeds: &[u64],
) -> Result<Convergence, scheduler::Error> {
    let mut found = Convergence {
        label: sampler.name.into(),
        stated: sampler.order,
        points: Vec::new(),
        is_weak: sampler.stochastic,
        note: no_order(data, sampler).map(str::to_owned),
    };
    for &steps in steps.iter().filter(|_| found.note.is_none()) {
        let point = if sampler.stochastic {
            // No seed has a part in it.
            let (error, nfe) = Analytic::weak_error(sampler, steps)?;
            ConvergencePoint::new(steps, nfe, &mut [error])
        } else {
            let errors =
                seeds.iter().map(|seed| data.path_error(sampler, steps, *seed)).collect::<Result<Vec<_>, _>>()?;
            let nfe = errors.first().map_or(0, |(_, nfe)| *nfe);
            ConvergencePoint::new(steps, nfe, &mut errors.into_iter().map(|(error, _)| error).collect::<Vec<_>>())
        };
        found.points.push(point);
    }
    Ok(found)
}

/// Why a sampler has no order to measure on such data.
fn no_order(data: Analytic, sampler: &Sampler) -> Option<&'static str> {
    match sampler.name {
        "lcm" | "tcd" | "consistency" | "one_step" => Some("is for consistency models: it starts anew in every step"),
        "ald" | "predictor_corrector" => {
            Some("has Langevin steps: how near it comes depends on their size, not on their number")
        }
        _ if sampler.inverts => Some("leads from an image to noise"),
        _ if sampler.is_adaptive() => Some("chooses its own steps"),
        _ if sampler.stochastic && data == Analytic::Mixture => {
            Some("draws noise: its order is of the distribution, which analytic:gaussian tells exactly")
        }
        _ => None,
    }
}

/// The convergence of every method in a comparison's records; seeds and prompts are the sample.
#[must_use]
pub fn convergence(records: &[Record]) -> Vec<Convergence> {
    let mut all: Vec<Convergence> = Vec::new();
    let mut errors: Vec<(usize, usize, usize, Vec<f64>)> = Vec::new();
    for record in records {
        let label = record.method(records);
        let at = all.iter().position(|own| own.label == label).unwrap_or_else(|| {
            let stated = scheduler::sampler(&record.settings.sampler).map_or(0, |sampler| sampler.order);
            let note = match (&record.refused, record.path) {
                (Some(reason), _) => Some(reason.clone()),
                (None, Path::Sde) => Some("draws noise: its distance to the ODE's path is no error".into()),
                (None, Path::Other) => Some("follows another path: its distance is no error".into()),
                (None, Path::Ode) => None,
            };
            all.push(Convergence { label, stated, points: Vec::new(), is_weak: false, note });
            all.len() - 1
        });
        let Some(error) = record.error_final else { continue };
        let (steps, nfe) = (record.settings.steps, record.nfe);
        match errors.iter_mut().find(|(own, s, n, _)| (*own, *s, *n) == (at, steps, nfe)) {
            Some((.., list)) => list.push(error),
            None => errors.push((at, steps, nfe, vec![error])),
        }
    }
    for (at, steps, nfe, mut list) in errors {
        all[at].points.push(ConvergencePoint::new(steps, nfe, &mut list));
    }
    all.iter_mut().for_each(|own| own.points.sort_by_key(|point| point.nfe));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler::SAMPLERS;

    /// Every sampler's measured order is the one that `headwater samplers` states, at fewer steps than the scheduler's own tests take.
    #[test]
    fn measured_orders_agree_with_the_list() {
        let mut wrong = Vec::new();
        for data in [Analytic::Mixture, Analytic::Gaussian] {
            for sampler in SAMPLERS {
                // A remainder of 2 when divided by 3, because dpm_fast takes steps in threes.
                let steps: &[usize] = match (sampler.order, sampler.stochastic) {
                    (_, true) => &[398, 797],
                    (4, _) => &[1598, 3197],
                    _ => &[398, 797],
                };
                let found = converge(data, sampler, steps, &[1, 2]).expect("a schedule");
                let Some(order) = found.last_order() else {
                    assert!(found.note.is_some(), "{} on {data}", sampler.name);
                    continue;
                };
                if (order - f64::from(sampler.order)).abs() > 0.3 {
                    wrong.push(format!("{} on {data}: {order:.2}, not {}", sampler.name, sampler.order));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
