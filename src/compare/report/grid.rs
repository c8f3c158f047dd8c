//! `grid.png`: final pictures, one axis against another. Further axes make further files.

use super::canvas::{Align, Canvas, FAINT, INK, Text, fitted};
use super::files::write_bytes;
use super::folder::Recorder;
use super::pictures::{self, png};
use super::{ReportError, Summary, caption};
use crate::compare::axes::{AxisName, Value};
use crate::compare::cells::Cell;
use crate::compare::record::Record;
use crate::compare::study::Comparison;

/// Most pictures along a side, and most files; the rest is told.
const MOST: usize = 24;
const FILES: usize = 24;

const LABEL: usize = 150;
const GAP: usize = 14;
const HEAD: usize = 92;
/// Two lines under each picture.
const CAPTION: usize = 34;
const FOOT: usize = 28;

pub(super) fn write(
    recorder: &Recorder,
    comparison: &Comparison,
    records: &[Record],
    summary: &Summary,
) -> Result<(), ReportError> {
    let axes = comparison.axes();
    let varied: Vec<usize> = (0..axes.len()).filter(|i| axes[*i].values().len() > 1).collect();
    // Rows and columns are the first two that vary; a single axis is a row.
    let (down, along, rest) = match varied[..] {
        [] => (None, None, &varied[..]),
        [along] => (None, Some(along), &varied[1..]),
        [down, along, ..] => (Some(down), Some(along), &varied[2..]),
    };
    let mut pages: Vec<Vec<&Value>> = vec![Vec::new()];
    for axis in rest {
        let values = axes[*axis].values();
        pages = pages.iter().flat_map(|page| values.iter().map(move |value| [&page[..], &[value]].concat())).collect();
    }
    let values = |axis: Option<usize>| -> Vec<Option<&Value>> {
        axis.map_or(vec![None], |axis| axes[axis].values().iter().map(Some).collect())
    };
    let (downs, alongs) = (values(down), values(along));
    let count = pages.len();
    for (i, page) in pages.iter().take(FILES).enumerate() {
        let grid = Grid { recorder, comparison, records, downs: &downs, alongs: &alongs, page };
        let mut foot = summary.subtitle.clone();
        for (what, all) in [("rows", downs.len()), ("columns", alongs.len())] {
            if all > MOST {
                foot += &format!("; {} more {what} are in report.html", all - MOST);
            }
        }
        if count > FILES && i + 1 == FILES {
            foot += &format!("; {} more grids are left out here", count - FILES);
        }
        let image = grid.draw(&summary.title, &foot)?;
        let name = if i == 0 { "grid.png".to_owned() } else { format!("grid-{}.png", i + 1) };
        write_bytes(&recorder.folder().join(name), &png(&image, ::png::Compression::Balanced)?)?;
    }
    Ok(())
}

/// Whether cells that differ in this have different references.
pub(super) fn moves_the_truth(value: &Value) -> bool {
    use AxisName::{Guidance, GuidanceInterval, Model, Prompt, Seed};
    matches!(value.axis(), Guidance | GuidanceInterval | Model | Prompt | Seed)
}

struct Grid<'a> {
    recorder: &'a Recorder,
    comparison: &'a Comparison,
    records: &'a [Record],
    downs: &'a [Option<&'a Value>],
    alongs: &'a [Option<&'a Value>],
    page: &'a [&'a Value],
}

impl Grid<'_> {
    fn cell(&self, down: Option<&Value>, along: Option<&Value>) -> Option<&Cell> {
        let wanted: Vec<&Value> = self.page.iter().copied().chain(down).chain(along).collect();
        self.comparison.cells().iter().find(|cell| wanted.iter().all(|value| cell.values.contains(value)))
    }

    fn draw(&self, title: &str, foot: &str) -> Result<pipelines::RgbImage, ReportError> {
        let (rows, columns) = (self.downs.len().min(MOST), self.alongs.len().min(MOST));
        let first = self.records.iter().find_map(|record| pictures::read(&self.recorder.picture_path(&record.id)));
        let longest = first.map_or(64, |image| image.width.max(image.height));
        let side = if longest <= 128 { longest * (128 / longest) } else { 160 }.max(96);
        // The reference stands beside a row whose cells have all the same, or else below a column.
        let beside = self.alongs[0].is_none_or(|value| !moves_the_truth(value));
        let below = !beside && self.downs[0].is_none_or(|value| !moves_the_truth(value));
        let width = (LABEL + (columns + usize::from(beside)) * (side + GAP) + GAP).max(480);
        let height = HEAD + (rows + usize::from(below)) * (side + CAPTION + GAP) + FOOT;
        let mut canvas = Canvas::new(width, height);
        let page: Vec<String> = self.page.iter().map(|value| value.heading()).collect();
        let heading = if page.is_empty() { title.to_owned() } else { format!("{title}: {}", page.join(", ")) };
        let mut line = |x: usize, y: usize, size: f64, bold: bool, align, text: &str, most: usize| {
            let color = if bold { INK } else { FAINT };
            canvas.text(&Text { x, y, size, bold, color, align, text: fitted(text, size, bold, most) });
        };
        line(12, 22, 20.0, true, Align::Left, &heading, width - 24);
        line(12, 46, 13.0, false, Align::Left, foot, width - 24);
        let place = |column: usize| LABEL + column * (side + GAP);
        for (i, value) in self.alongs.iter().take(columns).enumerate() {
            let text = value.map_or(String::new(), Value::heading);
            line(place(i) + side / 2, HEAD - 14, 14.0, true, Align::Centre, &text, side);
        }
        if beside {
            line(place(columns) + side / 2, HEAD - 14, 14.0, true, Align::Centre, "reference", side);
        }
        if below {
            let y = HEAD + rows * (side + CAPTION + GAP) + side / 2;
            line(12, y, 14.0, true, Align::Left, "reference", LABEL - 20);
        }
        for (j, down) in self.downs.iter().take(rows).enumerate() {
            let y = HEAD + j * (side + CAPTION + GAP);
            if let Some(down) = down {
                canvas.text(&Text {
                    x: 12,
                    y: y + side / 2,
                    size: 14.0,
                    bold: true,
                    color: INK,
                    align: Align::Left,
                    text: fitted(&down.heading(), 14.0, true, LABEL - 20),
                });
            }
            let cells: Vec<&Cell> =
                self.alongs.iter().take(columns).filter_map(|along| self.cell(*down, *along)).collect();
            for (i, cell) in cells.iter().enumerate() {
                self.draw_cell(&mut canvas, cell, place(i), y, side);
            }
            let reference = |cell: &Cell| self.recorder.reference_picture(cell.reference()?);
            if let Some(image) = cells.iter().find_map(|cell| reference(cell)).filter(|_| beside) {
                canvas.picture(&image, place(columns), y, side);
            }
            if below && j + 1 == rows {
                for (i, image) in cells.iter().enumerate().filter_map(|(i, cell)| Some((i, reference(cell)?))) {
                    canvas.picture(&image, place(i), y + side + CAPTION + GAP, side);
                }
            }
        }
        Ok(canvas.finish())
    }

    fn draw_cell(&self, canvas: &mut Canvas, cell: &Cell, x: usize, y: usize, side: usize) {
        let record = self.records.iter().find(|record| record.id == cell.id);
        if let Some(image) = pictures::read(&self.recorder.picture_path(&cell.id)).filter(|_| record.is_some()) {
            canvas.picture(&image, x, y, side);
        }
        let lines = match record {
            None => ["not done".to_owned(), String::new()],
            Some(record) => match &record.refused {
                Some(reason) => ["cannot run:".into(), reason.clone()],
                None => caption(record),
            },
        };
        for (i, text) in lines.iter().enumerate() {
            canvas.text(&Text {
                x: x + side / 2,
                y: y + side + 9 + 14 * i,
                size: 10.5,
                bold: false,
                color: if i == 0 { FAINT } else { INK },
                align: Align::Centre,
                text: fitted(text, 10.5, false, side + GAP - 4),
            });
        }
    }
}
