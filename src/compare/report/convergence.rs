//! `converge.csv`, `converge.json` and the plot beside them.

use super::files::{make_folder, write};
use super::plot::{Curve, Point, error_plot};
use super::{ReportError, short};
use crate::compare::converge::Convergence;
use serde_json::{Value, json};
use std::path::Path;

/// Writes a convergence's table and plot into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_convergence(folder: &Path, title: &str, found: &[Convergence]) -> Result<(), ReportError> {
    make_folder(folder)?;
    write(&folder.join("converge.csv"), |out| {
        writeln!(out, "method,steps,nfe,error_lower,error_median,error_upper,order_stated,order_measured,weak,note")?;
        for own in found {
            let order = measured(own).map_or(String::new(), |order| format!("{order:.3}"));
            let note = super::tables::quoted(own.note.as_deref().unwrap_or_default());
            let label = super::tables::quoted(&own.label);
            let tail = format!("{},{order},{},{note}", own.stated, own.is_weak);
            if own.points.is_empty() {
                writeln!(out, "{label},,,,,,{tail}")?;
            }
            for point in &own.points {
                let (steps, nfe) = (point.steps, point.nfe);
                writeln!(out, "{label},{steps},{nfe},{},{},{},{tail}", point.lower, point.median, point.upper)?;
            }
        }
        Ok(())
    })?;
    let json: Vec<Value> = found.iter().map(convergence_json).collect();
    write(&folder.join("converge.json"), |out| Ok(serde_json::to_writer_pretty(out, &json)?))?;
    let curves: Vec<Curve> = found.iter().filter(|own| !own.points.is_empty()).map(curve).collect();
    error_plot(&folder.join("error-vs-nfe"), title, &curves)
}

/// The order that is shown: of a path on analytic data and of a distribution, where steps are many, the last two points'; of a model the whole line's.
pub(crate) fn measured(own: &Convergence) -> Option<f64> {
    let is_asymptotic = own.points.last().is_some_and(|point| point.steps >= 200);
    if is_asymptotic { own.last_order() } else { own.order() }
}

pub(crate) fn convergence_json(own: &Convergence) -> Value {
    let points = own.points.iter().map(|point| {
        json!({ "steps": point.steps, "nfe": point.nfe, "lower": point.lower, "median": point.median, "upper": point.upper })
    });
    json!({
        "method": own.label,
        "order_stated": own.stated,
        "order_measured": measured(own),
        "weak": own.is_weak,
        "note": own.note,
        "points": points.collect::<Vec<_>>(),
    })
}

fn curve(own: &Convergence) -> Curve {
    let points = own.points.iter().map(|point| Point {
        nfe: point.nfe as f64,
        error: point.median,
        quartiles: Some((point.lower, point.upper)).filter(|(low, high)| low < high),
    });
    let points = points.filter(|point| point.error > 0.0).collect();
    Curve { label: own.label.clone(), points, mark: own.note.as_ref().map(|_| "no error"), slope: measured(own) }
}

/// A line for each method: order stated and measured, and the median error at each number of steps.
#[must_use]
pub fn convergence_table(found: &[Convergence]) -> String {
    let mut steps: Vec<usize> = found.iter().flat_map(|own| own.points.iter().map(|point| point.steps)).collect();
    steps.sort_unstable();
    steps.dedup();
    let width = found.iter().map(|own| own.label.chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!("{:width$}  stated  measured", "method");
    steps.iter().for_each(|steps| text += &format!("  {steps:>8}"));
    for own in found {
        let order = measured(own).filter(|_| own.note.is_none()).map_or("-".into(), |order| format!("{order:.2}"));
        text += &format!("\n{:width$}  {:>6}  {order:>8}", own.label, own.stated);
        for steps in &steps {
            let point = own.points.iter().find(|point| point.steps == *steps);
            text += &format!("  {:>8}", point.map_or(String::new(), |point| short(point.median)));
        }
        if let Some(note) = &own.note {
            text += &format!("  {note}");
        }
    }
    text
}
