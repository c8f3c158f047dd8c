//! `report.html`: one page with everything in it, which opens from disk.

use super::files::write;
use super::folder::{Recorder, Shown};
use super::grid::moves_the_truth;
use super::pictures::{jpeg, thumbnail};
use super::tables::summary_json;
use super::{ReportError, Summary, short};
use crate::compare::record::Record;
use crate::compare::study::Comparison;
use serde_json::{Value, json};
use std::io::{self, Write};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Most pictures of steps in a page; beyond it, steps are left out evenly. Some 4 KB each.
const PICTURES: usize = 6000;

/// Most noise levels at which the reference is shown.
const LEVELS: usize = 48;

const LONGEST: usize = 128;

pub(super) fn write_page(
    recorder: &Recorder,
    comparison: &Comparison,
    records: &[Record],
    summary: &Summary,
) -> Result<(), ReportError> {
    let steps: usize = records.iter().map(|record| record.steps.len()).sum();
    let stride = (3 * steps).div_ceil(PICTURES).max(1);
    write(&recorder.folder().join("report.html"), |out| {
        let mut rest = PAGE;
        // Each mark is replaced by what it names.
        while let Some((before, after)) = rest.split_once("<!--@") {
            let (mark, after) = after.split_once("-->").unwrap_or((after, ""));
            out.write_all(before.as_bytes())?;
            match mark {
                "title" => out.write_all(escaped(&summary.title).as_bytes())?,
                "style" => out.write_all(STYLE.as_bytes())?,
                "script" => out.write_all(SCRIPT.as_bytes())?,
                "intro" => intro(out, summary, stride)?,
                "table" => table(out, recorder, comparison, records)?,
                "data" => data(out, recorder, comparison, records, summary, stride)?,
                _ => {}
            }
            rest = after;
        }
        out.write_all(rest.as_bytes())
    })
}

/// Text in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn intro(out: &mut dyn Write, summary: &Summary, stride: usize) -> io::Result<()> {
    writeln!(out, "<h1>{}</h1>\n<p class=\"faint\">{}</p>", escaped(&summary.title), escaped(&summary.subtitle))?;
    if summary.missing > 0 {
        writeln!(out, "<p role=\"status\"><strong>{} cells are not done.</strong></p>", summary.missing)?;
    }
    match &summary.cheapest {
        Some(best) => writeln!(
            out,
            "<p>The cheapest within {}: <strong>{}</strong>, {} evaluations, error {}.</p>",
            summary.within,
            escaped(&best.label),
            best.used,
            short(best.error)
        )?,
        None if summary.nearest.is_empty() => {}
        None => writeln!(out, "<p>No sampler here comes within {} of the reference.</p>", summary.within)?,
    }
    if !summary.nearest.is_empty() {
        writeln!(out, "<details><summary>Nearest the reference at each number of evaluations</summary><table><thead>")?;
        writeln!(out, "<tr><th>evaluations allowed<th>nearest<th>used<th>error</thead><tbody>")?;
        for best in &summary.nearest {
            let (label, error) = (escaped(&best.label), short(best.error));
            writeln!(out, "<tr><td>{}<td>{label}<td>{}<td>{error}", best.nfe, best.used)?;
        }
        writeln!(out, "</tbody></table></details>")?;
    }
    let mut notes =
        vec![format!("{} evaluations computed, {} shared between cells.", summary.computed, summary.taken_over)];
    if stride > 1 {
        notes.push(format!("Of the steps, only every {stride}th has pictures here; steps/ has all."));
    }
    writeln!(out, "<p class=\"faint\">{}</p>", notes.join(" "))
}

/// What is seen without JavaScript, and read by screen readers in any case: all cells with their pictures and numbers.
fn table(out: &mut dyn Write, recorder: &Recorder, comparison: &Comparison, records: &[Record]) -> io::Result<()> {
    writeln!(
        out,
        "<table id=\"all\"><caption>All cells</caption><thead><tr><th scope=\"col\">picture<th scope=\"col\">cell"
    )?;
    for name in ["evaluations", "seconds", "error", "PSNR", "SSIM", "spread", "path"] {
        write!(out, "<th scope=\"col\">{name}")?;
    }
    writeln!(out, "</thead><tbody>")?;
    let number = |value: Option<f64>| value.map_or(String::new(), short);
    for record in records {
        let label = escaped(&label(comparison, record));
        write!(out, "<tr data-id=\"{}\"><td>", escaped(&record.id))?;
        let cell = comparison.cells().iter().find(|cell| cell.id == record.id);
        let last = cell.map(|cell| recorder.shown(cell).last).filter(|last| !last.is_empty());
        if let Some(last) = last {
            write!(out, "<img alt=\"{label}: final picture\" src=\"data:image/jpeg;base64,{last}\">")?;
        }
        write!(out, "<th scope=\"row\">{label}")?;
        if let Some(reason) = &record.refused {
            writeln!(out, "<td colspan=\"7\">cannot run: {}", escaped(reason))?;
            continue;
        }
        write!(out, "<td>{}<td>{}<td>{}", record.nfe, short(record.seconds), number(record.error_final))?;
        let (psnr, ssim, spread) = (number(record.psnr), number(record.ssim), number(record.spread));
        writeln!(out, "<td>{psnr}<td>{ssim}<td>{spread}<td>{}", record.path.name())?;
    }
    writeln!(out, "</tbody></table>")
}

/// What a cell is called: the values that vary.
fn label(comparison: &Comparison, record: &Record) -> String {
    let Some(cell) = comparison.cells().iter().find(|cell| cell.id == record.id) else { return record.id.clone() };
    let varied = cell.values.iter().filter(|value| varies(comparison, value));
    let parts: Vec<String> = varied.map(crate::compare::Value::heading).collect();
    if parts.is_empty() { record.settings.sampler.clone() } else { parts.join(", ") }
}

/// A JSON text inside a script element, where no `<` may stand.
fn script_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn data(
    out: &mut dyn Write,
    recorder: &Recorder,
    comparison: &Comparison,
    records: &[Record],
    summary: &Summary,
    stride: usize,
) -> io::Result<()> {
    write!(out, "{{\"summary\":{},\"cells\":[", script_json(&summary_json(summary)))?;
    for (i, record) in records.iter().enumerate() {
        // One cell's pictures at a time are in memory.
        let cell = comparison.cells().iter().find(|cell| cell.id == record.id);
        let shown = cell.map(|cell| recorder.shown(cell)).unwrap_or_default();
        let comma = if i == 0 { "" } else { "," };
        write!(out, "{comma}{}", script_json(&cell_json(comparison, records, record, shown, stride)))?;
    }
    write!(out, "],\"references\":[")?;
    let mut known: Vec<String> = Vec::new();
    for (at, cell) in comparison.cells().iter().enumerate() {
        // Samplers may start a hair apart, each with a reference of its own that looks the same: one is shown.
        let own: Vec<&crate::compare::Value> = cell.values.iter().filter(|value| moves_the_truth(value)).collect();
        let own: Vec<&&crate::compare::Value> = own.iter().filter(|value| varies(comparison, value)).collect();
        let heading = |value: &crate::compare::Value| match (value, &cell.reference) {
            // A student's reference is its teacher's.
            (crate::compare::Value::Model(_), Some(reference)) => comparison.models()[reference.model].name.clone(),
            _ => value.heading(),
        };
        let label = own.iter().map(|value| heading(value)).collect::<Vec<_>>().join(", ");
        let Some(id) = cell.reference().filter(|_| !known.contains(&label)) else { continue };
        let Some(picture) = recorder.reference_picture(id) else { continue };
        let sigmas = levels(records, id);
        let small = |image: Option<pipelines::RgbImage>| image.and_then(|image| jpeg(&thumbnail(&image, LONGEST)));
        let denoised: Vec<_> = recorder.reference_steps(comparison, at, &sigmas).into_iter().map(small).collect();
        let last = small(Some(picture));
        let json = json!({ "label": label, "sigmas": sigmas, "denoised": denoised, "last": last });
        let comma = if known.is_empty() { "" } else { "," };
        write!(out, "{comma}{}", script_json(&json))?;
        known.push(label);
    }
    write!(out, "]}}")
}

fn varies(comparison: &Comparison, value: &crate::compare::Value) -> bool {
    comparison.axes().iter().any(|axis| axis.name() == value.axis() && axis.values().len() > 1)
}

/// The noise levels at which cells with this reference step, or some of them.
fn levels(records: &[Record], reference: &str) -> Vec<f64> {
    let own = records.iter().filter(|record| record.reference.as_deref() == Some(reference));
    let mut all: Vec<f64> =
        own.flat_map(|record| record.steps.iter().map(|step| step.sigma)).filter(|s| *s > 0.0).collect();
    all.sort_by(|a, b| b.total_cmp(a));
    all.dedup_by(|a, b| (*a / *b - 1.0).abs() < 1e-3);
    if all.len() <= LEVELS {
        return all;
    }
    (0..LEVELS).map(|i| all[i * (all.len() - 1) / (LEVELS - 1)]).collect()
}

fn cell_json(comparison: &Comparison, records: &[Record], record: &Record, shown: Shown, stride: usize) -> Value {
    let count = record.steps.len();
    let kept = |i: usize| i.is_multiple_of(stride) || i + 1 == count;
    let thin = |all: Vec<String>| -> Vec<Option<String>> {
        all.into_iter().enumerate().map(|(i, text)| kept(i).then_some(text)).collect()
    };
    json!({
        "id": record.id,
        "label": label(comparison, record),
        "method": record.method(records),
        "path": record.path.name(),
        "refused": record.refused,
        "nfe": record.nfe,
        "seconds": record.seconds,
        "error": record.error_final,
        "psnr": record.psnr,
        "ssim": record.ssim,
        "spread": record.spread,
        "sigma": record.steps.iter().map(|step| step.sigma).collect::<Vec<_>>(),
        "evaluations": record.steps.iter().map(|step| step.nfe).collect::<Vec<_>>(),
        "time": record.steps.iter().map(|step| step.seconds).collect::<Vec<_>>(),
        "error_x": record.steps.iter().map(|step| step.error_x).collect::<Vec<_>>(),
        "change": record.steps.iter().map(|step| step.change).collect::<Vec<_>>(),
        "x": thin(shown.x),
        "denoised": thin(shown.denoised),
        "difference": thin(shown.difference),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_stays_text() {
        assert_eq!(escaped("<b>\"a\" & b</b>"), "&lt;b&gt;&quot;a&quot; &amp; b&lt;/b&gt;");
        assert_eq!(script_json(&json!("</script>")), "\"\\u003c/script>\"");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_names_every_mark() {
        for text in [PAGE, STYLE, SCRIPT] {
            // But for the name of SVG, which nothing loads.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("@import"));
        }
        for mark in ["title", "style", "script", "intro", "table", "data"] {
            assert!(PAGE.contains(&format!("<!--@{mark}-->")), "{mark}");
        }
    }
}
