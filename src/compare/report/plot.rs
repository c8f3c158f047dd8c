//! Error against evaluations, both logarithmic, drawn by the plotting library as SVG and PNG.

use super::canvas::{FAINT, FONT, INK, fonts};
use super::files::write_bytes;
use super::pictures::png;
use super::{ReportError, short};
use crate::compare::record::{Path as Kind, Record, slope};
use pipelines::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// One method.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub(super) label: String,
    /// Evaluations; error; lower and upper quartile, where there are several runs.
    pub(super) points: Vec<Point>,
    /// Why a method's distance is no error, of one that does not solve the ODE.
    pub(super) mark: Option<&'static str>,
    /// The order that is told in the legend.
    pub(super) slope: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) nfe: f64,
    pub(super) error: f64,
    pub(super) quartiles: Option<(f64, f64)>,
}

/// Colours that people with colour blindness tell apart (Okabe & Ito 2008), then darker ones.
const COLORS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
    RGBColor(150, 130, 0),
    RGBColor(0, 70, 110),
    RGBColor(140, 50, 0),
    RGBColor(0, 95, 70),
    RGBColor(120, 60, 100),
];

const SIZE: (u32, u32) = (960, 600);

/// Width of the legend.
const LEGEND: u32 = 280;

/// A method, why its distance is no error, and (evaluations, distance) of its cells.
type Group = (String, Option<&'static str>, Vec<(usize, f64)>);

/// The curves of a comparison: every method whose distance to the reference is known.
fn curves(records: &[Record]) -> Vec<Curve> {
    let mut groups: Vec<Group> = Vec::new();
    for record in records {
        let Some(error) = record.error_final.filter(|error| *error > 0.0) else { continue };
        let label = record.method(records);
        let mark = match record.path {
            Kind::Ode => None,
            Kind::Sde => Some("draws noise"),
            Kind::Other => Some("another path"),
        };
        match groups.iter_mut().find(|(own, ..)| *own == label) {
            Some((_, _, points)) => points.push((record.nfe, error)),
            None => groups.push((label, mark, vec![(record.nfe, error)])),
        }
    }
    groups
        .into_iter()
        .map(|(label, mark, all)| {
            let points = grouped(&all);
            let line: Vec<(f64, f64)> = points.iter().map(|point| (point.nfe, point.error)).collect();
            Curve { label, slope: slope(&line).filter(|_| mark.is_none()), points, mark }
        })
        .collect()
}

/// Median and quartiles of the errors at each number of evaluations.
fn grouped(all: &[(usize, f64)]) -> Vec<Point> {
    let mut budgets: Vec<usize> = all.iter().map(|(nfe, _)| *nfe).collect();
    budgets.sort_unstable();
    budgets.dedup();
    let one = |nfe: &usize| {
        let mut errors: Vec<f64> = all.iter().filter(|(own, _)| own == nfe).map(|(_, error)| *error).collect();
        let quantile = |errors: &mut [f64], share| crate::compare::record::quantile(errors, share);
        let quartiles = (errors.len() > 1).then(|| (quantile(&mut errors, 0.25), quantile(&mut errors, 0.75)));
        Point { nfe: *nfe as f64, error: quantile(&mut errors, 0.5), quartiles }
    };
    budgets.iter().map(one).collect()
}

pub(super) fn write(folder: &Path, records: &[Record]) -> Result<(), ReportError> {
    let curves = curves(records);
    let title = "Distance to the solution of the probability-flow ODE";
    error_plot(&folder.join("error-vs-nfe"), title, &curves)
}

/// Writes a plot as `PATH.svg` and `PATH.png`; nothing where there is nothing to show.
pub(super) fn error_plot(path: &Path, title: &str, curves: &[Curve]) -> Result<(), ReportError> {
    if curves.iter().all(|curve| curve.points.is_empty()) {
        return Ok(());
    }
    write_bytes(&path.with_extension("svg"), svg(title, curves)?.as_bytes())?;
    let (width, height) = (2 * SIZE.0, 2 * SIZE.1);
    let mut pixels = vec![255; 3 * (width * height) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        draw(&area, title, curves, 2.0)?;
        area.present().map_err(|error| failed(&error))?;
    }
    let image = RgbImage { width: width as usize, height: height as usize, pixels };
    write_bytes(&path.with_extension("png"), &png(&image, ::png::Compression::Balanced)?)
}

/// The plot as SVG.
fn svg(title: &str, curves: &[Curve]) -> Result<String, ReportError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&area, title, curves, 1.0)?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(text)
}

fn failed(error: &dyn std::fmt::Display) -> ReportError {
    ReportError::Picture(error.to_string())
}

/// A power of ten, as people read it.
fn decade(value: f64) -> String {
    if value < 0.009 {
        format!("{value:.0e}")
    } else {
        short(value).trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// The range of some positive numbers, a little wider.
fn range(values: impl Iterator<Item = f64>, wider: f64) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| *v > 0.0 && v.is_finite())
        .fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    (low / wider, high * wider)
}

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    curves: &[Curve],
    scale: f64,
) -> Result<(), ReportError> {
    fonts();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let px = |length: f64| (length * scale) as i32;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (left, right) = range(points().map(|point| point.nfe), 1.1);
    let all = points().flat_map(|point| {
        let (low, high) = point.quartiles.unwrap_or((point.error, point.error));
        [point.error, low, high]
    });
    let (low, high) = range(all, 1.3);
    // From a power of ten on: the library labels whole decades.
    let low = 10.0_f64.powf(low.log10().floor());
    let (width, _) = area.dim_in_pixel();
    let (plot, legend) = area.split_horizontally(width as i32 - px(f64::from(LEGEND)));
    let text = |size: f64| (FONT, size * scale);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, text(19.0).into_font().color(&INK))
        .margin(px(12.0))
        .x_label_area_size(px(46.0))
        .y_label_area_size(px(70.0))
        .build_cartesian_2d((left..right).log_scale().base(2.0), (low..high).log_scale())
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc("evaluations of the model (NFE)")
        .y_desc("root mean square of the difference")
        .label_style(text(13.0).into_font().color(&INK))
        .axis_desc_style(text(14.0).into_font().color(&INK))
        .max_light_lines(1)
        .light_line_style(RGBColor(240, 240, 242))
        .bold_line_style(RGBColor(218, 220, 226))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| decade(*value))
        .draw()
        .map_err(|error| failed(&error))?;
    for (i, curve) in curves.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let line: Vec<(f64, f64)> = curve.points.iter().map(|point| (point.nfe, point.error)).collect();
        let style = color.stroke_width(if curve.mark.is_some() { px(1.0) as u32 } else { px(2.0) as u32 });
        let drawn = if curve.mark.is_some() {
            chart.draw_series(DashedLineSeries::new(line.clone(), px(6.0) as u32, px(4.0) as u32, style)).map(|_| ())
        } else {
            chart.draw_series(LineSeries::new(line.clone(), style)).map(|_| ())
        };
        drawn.map_err(|error| failed(&error))?;
        let filled = if curve.mark.is_some() { color.stroke_width(px(1.5) as u32) } else { color.filled() };
        let dots = line.iter().map(|at| Circle::new(*at, px(4.0), filled));
        chart.draw_series(dots).map_err(|error| failed(&error))?;
        let bars = curve.points.iter().filter_map(|point| {
            let (low, high) = point.quartiles?;
            Some(PathElement::new(vec![(point.nfe, low), (point.nfe, high)], color.stroke_width(px(1.0) as u32)))
        });
        chart.draw_series(bars).map_err(|error| failed(&error))?;
    }
    draw_legend(&legend, curves, scale)
}

fn draw_legend<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    curves: &[Curve],
    scale: f64,
) -> Result<(), ReportError> {
    let px = |length: f64| (length * scale) as i32;
    let (_, height) = area.dim_in_pixel();
    // A line for each, closer where there are many.
    let room = f64::from(height) / scale - 80.0;
    let pitch = (room / curves.len().max(1) as f64).clamp(9.0, 30.0);
    let size = (pitch * 0.75).min(14.0);
    for (i, curve) in curves.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let y = 50.0 + i as f64 * pitch;
        let filled = if curve.mark.is_some() { color.stroke_width(px(1.5) as u32) } else { color.filled() };
        area.draw(&Circle::new((px(14.0), px(y + size / 2.0)), px(4.0), filled)).map_err(|error| failed(&error))?;
        let label = match (curve.mark, curve.slope) {
            (Some(mark), _) => format!("{}: {mark}", curve.label),
            (None, Some(slope)) => format!("{}: slope {slope:.1}", curve.label),
            (None, None) => curve.label.clone(),
        };
        let most = f64::from(LEGEND) - 36.0;
        let label = super::canvas::fitted(&label, size, false, most as usize);
        let style = (FONT, size * scale).into_font().color(if curve.mark.is_some() { &FAINT } else { &INK });
        area.draw(&plotters::element::Text::new(label, (px(26.0), px(y)), style)).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_svg_and_png_and_any_count_is_drawn() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let curve = |i: usize| Curve {
            label: format!("sampler <{i}> & more"),
            points: [4.0, 8.0, 16.0]
                .map(|nfe: f64| Point { nfe, error: 1.0 / (nfe + i as f64), quartiles: Some((0.01, 0.3)) })
                .into(),
            mark: i.is_multiple_of(3).then_some("draws noise"),
            slope: i.is_multiple_of(2).then_some(1.5),
        };
        for count in [1, 50] {
            let curves: Vec<Curve> = (0..count).map(curve).collect();
            let path = folder.path().join("plot");
            error_plot(&path, "a title", &curves).expect("draws");
            let svg = std::fs::read_to_string(path.with_extension("svg")).expect("written");
            assert!(svg.starts_with("<svg") && svg.contains("&lt;1&gt;") == (count > 1), "{count}");
            assert!(super::super::pictures::read(&path.with_extension("png")).is_some());
        }
    }

    #[test]
    fn one_budget_and_equal_errors_make_a_plot() {
        let points = vec![Point { nfe: 8.0, error: 0.1, quartiles: None }];
        let curve = Curve { label: "euler".into(), points, mark: None, slope: None };
        assert!(svg("one point", &[curve]).expect("draws").contains("euler"));
    }
}
