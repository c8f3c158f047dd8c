//! `contact-sheet.png`: one row for every cell, its denoised images in columns by noise level, the picture last.

use super::canvas::{Align, Canvas, FAINT, INK, Text, fitted};
use super::files::write_bytes;
use super::folder::Recorder;
use super::pictures::{self, png};
use super::{ReportError, Summary, caption, short};
use crate::compare::axes::AxisName;
use crate::compare::cells::Cell;
use crate::compare::record::{Record, StepRecord};
use crate::compare::study::Comparison;
use plotters::style::RGBColor;

/// Most columns of noise levels.
const COLUMNS: usize = 9;

/// Most rows of one sheet; more make further sheets.
const ROWS: usize = 40;

/// Most sheets; what is beyond is told.
const SHEETS: usize = 12;

const LABEL: usize = 208;
const GAP: usize = 6;
const HEAD: usize = 92;
const BLOCK: usize = 30;
const FOOT: usize = 30;

/// A row that is shown.
struct Row<'a> {
    cell: &'a Cell,
    record: &'a Record,
    /// What stands above the first row of a block.
    block: String,
}

pub(super) fn write(
    recorder: &Recorder,
    comparison: &Comparison,
    records: &[Record],
    summary: &Summary,
) -> Result<(), ReportError> {
    let rows = rows(comparison, records);
    let sheets: Vec<&[Row<'_>]> = rows.chunks(ROWS).collect();
    let shown = sheets.len().min(SHEETS);
    for (i, rows) in sheets.iter().take(SHEETS).enumerate() {
        let more = match (i + 1 < shown, sheets.len() > SHEETS) {
            (true, _) => format!("goes on in {}", name(i + 1)),
            (false, true) => {
                let left: usize = sheets[SHEETS..].iter().map(|rows| rows.len()).sum();
                format!("{left} more rows are left out here; report.html and steps.csv have all")
            }
            (false, false) => String::new(),
        };
        let image = draw(recorder, comparison, rows, summary, &more)?;
        write_bytes(&recorder.folder().join(name(i)), &png(&image, ::png::Compression::Balanced)?)?;
    }
    Ok(())
}

fn name(sheet: usize) -> String {
    if sheet == 0 { "contact-sheet.png".into() } else { format!("contact-sheet-{}.png", sheet + 1) }
}

/// Samplers beside each other within a block of all else.
fn rows<'a>(comparison: &'a Comparison, records: &'a [Record]) -> Vec<Row<'a>> {
    let varied: Vec<AxisName> =
        comparison.axes().iter().filter(|axis| axis.values().len() > 1).map(|axis| axis.name()).collect();
    let inner = if varied.contains(&AxisName::Sampler) { Some(AxisName::Sampler) } else { varied.first().copied() };
    let mut rows: Vec<Row<'_>> = records
        .iter()
        .filter_map(|record| {
            let cell = comparison.cells().iter().find(|cell| cell.id == record.id)?;
            let outer = cell.values.iter().filter(|v| Some(v.axis()) != inner && varied.contains(&v.axis()));
            let block = outer.map(|value| value.heading()).collect::<Vec<_>>().join(", ");
            Some(Row { cell, record, block })
        })
        .collect();
    // Blocks in the order of their first cells; the cells keep theirs.
    let mut order: Vec<String> = Vec::new();
    for row in &rows {
        if !order.contains(&row.block) {
            order.push(row.block.clone());
        }
    }
    rows.sort_by_key(|row| order.iter().position(|block| *block == row.block));
    rows
}

/// The noise levels of the columns: those of the row with the most steps, or some of them, the first and the last among them.
fn levels(rows: &[Row<'_>]) -> Vec<f64> {
    let longest = rows.iter().map(|row| &row.record.steps).max_by_key(|steps| steps.len());
    let all: Vec<f64> = longest.into_iter().flatten().map(|step| step.sigma).filter(|sigma| *sigma > 0.0).collect();
    let mut distinct = all;
    distinct.dedup_by(|a, b| (*a / *b - 1.0).abs() < 1e-6);
    if distinct.len() <= COLUMNS {
        return distinct;
    }
    (0..COLUMNS).map(|i| distinct[i * (distinct.len() - 1) / (COLUMNS - 1)]).collect()
}

/// For each column, the step of a row that is nearest to it, of those to which no other column is nearer.
fn placed(steps: &[StepRecord], levels: &[f64]) -> Vec<Option<usize>> {
    let distance = |a: f64, b: f64| (a.ln() - b.ln()).abs();
    let nearest = |sigma: f64| {
        (0..levels.len()).min_by(|a, b| distance(sigma, levels[*a]).total_cmp(&distance(sigma, levels[*b])))
    };
    let mut places: Vec<Option<(f64, usize)>> = vec![None; levels.len()];
    for step in steps.iter().filter(|step| step.sigma > 0.0) {
        let Some(column) = nearest(step.sigma) else { continue };
        let off = distance(step.sigma, levels[column]);
        if places[column].is_none_or(|(known, _)| off < known) {
            places[column] = Some((off, step.step));
        }
    }
    places.into_iter().map(|place| place.map(|(_, step)| step)).collect()
}

fn draw(
    recorder: &Recorder,
    comparison: &Comparison,
    rows: &[Row<'_>],
    summary: &Summary,
    more: &str,
) -> Result<pipelines::RgbImage, ReportError> {
    let levels = levels(rows);
    let first = rows.iter().find_map(|row| pictures::read(&recorder.picture_path(&row.record.id)));
    let longest = first.map_or(64, |image| image.width.max(image.height));
    // Small pictures by whole multiples; large ones smaller.
    let target = if rows.len() <= 6 { 128 } else { 80 };
    let side = if longest <= target { longest * (target / longest) } else { target }.max(56);
    let blocks = blocks(rows);
    let columns = levels.len() + 1;
    let width = (LABEL + columns * (side + GAP) + 2 * GAP + 12).max(720);
    let reference_rows = usize::from(rows.iter().any(|row| row.cell.reference().is_some()));
    let height = HEAD + (rows.len() + reference_rows) * (side + GAP) + blocks * BLOCK + FOOT + 16;
    let mut canvas = Canvas::new(width, height);
    let line = |canvas: &mut Canvas, x, y, size: f64, bold, color, text: &str, most| {
        let text = fitted(text, size, bold, most);
        canvas.text(&Text { x, y, size, bold, color, align: Align::Left, text });
    };
    line(&mut canvas, 12, 22, 20.0, true, INK, &summary.title, width - 24);
    line(&mut canvas, 12, 46, 14.0, false, FAINT, &summary.subtitle, width - 24);
    let head = |canvas: &mut Canvas, column: usize, text: String| {
        let x = LABEL + column * (side + GAP) + side / 2;
        canvas.text(&Text { x, y: HEAD - 14, size: 13.0, bold: false, color: INK, align: Align::Centre, text });
    };
    levels.iter().enumerate().for_each(|(i, sigma)| head(&mut canvas, i, format!("\u{3c3} {}", short(*sigma))));
    head(&mut canvas, levels.len(), "picture".into());
    canvas.rectangle(12, HEAD - 4, width - 24, 1, RGBColor(218, 220, 226));

    let mut y = HEAD + 4;
    let place = |column: usize| LABEL + column * (side + GAP);
    // Of several references the one that starts at the highest level.
    let start = |row: &&Row<'_>| row.record.steps.first().map_or(0.0, |step| step.sigma);
    let compared = rows.iter().filter(|row| row.cell.reference().is_some());
    if let Some(row) = compared.max_by(|a, b| start(a).total_cmp(&start(b))) {
        let id = row.cell.reference().unwrap_or_default();
        canvas.rectangle(6, y - GAP / 2, width - 12, side + GAP, RGBColor(244, 246, 250));
        line(&mut canvas, 12, y + side / 2 - 10, 14.0, true, INK, "reference", LABEL - 20);
        line(&mut canvas, 12, y + side / 2 + 10, 12.0, false, FAINT, "the ODE, by rk45", LABEL - 20);
        let at = comparison.cells().iter().position(|cell| cell.id == row.cell.id).unwrap_or(0);
        let steps = recorder.reference_steps(comparison, at, &levels);
        for (column, image) in steps.iter().enumerate().filter_map(|(i, image)| Some((i, image.as_ref()?))) {
            canvas.picture(image, place(column), y, side);
        }
        if let Some(image) = recorder.reference_picture(id) {
            canvas.picture(&image, place(levels.len()), y, side);
        }
        y += side + GAP;
    }
    let mut block = "";
    for row in rows {
        if row.block != block {
            block = &row.block;
            line(&mut canvas, 12, y + BLOCK / 2, 15.0, true, INK, block, width - 24);
            y += BLOCK;
        }
        let labels = label(row);
        let [first, second] = caption(row.record);
        let middle = y + side / 2;
        line(&mut canvas, 12, middle - 18, 14.0, true, INK, &labels, LABEL - 20);
        if let Some(reason) = &row.record.refused {
            line(&mut canvas, 12, middle + 2, 12.0, false, FAINT, "cannot run:", LABEL - 20);
            line(&mut canvas, LABEL, middle, 13.0, false, FAINT, reason, width - LABEL - 12);
        } else {
            line(&mut canvas, 12, middle + 1, 12.0, false, FAINT, &first, LABEL - 20);
            line(&mut canvas, 12, middle + 18, 12.0, false, INK, &second, LABEL - 20);
        }
        for (column, step) in placed(&row.record.steps, &levels).into_iter().enumerate() {
            let image = step.and_then(|step| pictures::read(&recorder.step_path(&row.record.id, step, "denoised.png")));
            match image {
                Some(image) => canvas.picture(&image, place(column), y, side),
                // No step of this row is near this level.
                None if row.record.refused.is_none() => {
                    canvas.rectangle(place(column), middle, side, 1, RGBColor(218, 220, 226));
                }
                None => {}
            }
        }
        if let Some(image) = pictures::read(&recorder.picture_path(&row.record.id)) {
            canvas.picture(&image, place(levels.len()), y, side);
        }
        y += side + GAP;
    }
    let missing = (summary.missing > 0).then(|| format!("{} cells are not done", summary.missing));
    let shared = (summary.taken_over > 0).then(|| format!("{} evaluations shared", summary.taken_over));
    let note = "denoised image of the step nearest to each noise level";
    let foot: Vec<String> = [Some(note.to_owned()), missing, shared, Some(more.to_owned())]
        .into_iter()
        .flatten()
        .filter(|s| !s.is_empty())
        .collect();
    line(&mut canvas, 12, y + FOOT / 2, 12.0, false, FAINT, &foot.join("; "), width - 24);
    Ok(canvas.finish())
}

fn blocks(rows: &[Row<'_>]) -> usize {
    let mut count = 0;
    let mut before = "";
    for row in rows {
        count += usize::from(row.block != before);
        before = &row.block;
    }
    count
}

/// What a row is called in its block.
fn label(row: &Row<'_>) -> String {
    let named = row.cell.value(AxisName::Sampler).map(|value| value.label());
    let name = named.unwrap_or_else(|| row.record.settings.sampler.clone());
    if row.record.settings.budget.is_some() { format!("{name}, {} steps", row.record.settings.steps) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_to_the_nearest_column() {
        let step = |step, sigma| StepRecord {
            step,
            sigma,
            nfe: step,
            seconds: 0.0,
            error_x: None,
            error_denoised: None,
            change: None,
        };
        let steps = [step(1, 100.0), step(2, 12.0), step(3, 9.0), step(4, 0.1)];
        assert_eq!(placed(&steps, &[100.0, 10.0, 1.0, 0.1]), [Some(1), Some(3), None, Some(4)]);
        assert_eq!(placed(&steps, &[]), []);
    }
}
