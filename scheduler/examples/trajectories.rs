//! Paths of several samplers on data that is a mixture of two Gaussians, drawn as an SVG: from noise on the left to data on the right,
//! each in ten steps, over the exact paths.
//!
//!     cargo run -p headwater-scheduler --example trajectories -- trajectories.svg

use std::fmt::Write as _;
use std::ops::ControlFlow;

use scheduler::{Draw, Frame, Schedule, TimestepMap, run, sampler, sigmas};

const SAMPLERS: [&str; 6] = ["euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde", "predictor_corrector"];
const STEPS: usize = 10;
const PATHS: usize = 21;
const SIGMA_MIN: f64 = 0.02;
const SIGMA_MAX: f64 = 20.0;
/// A panel's inner size in pixels, and the space around it.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 190.0;
const MARGIN: f64 = 26.0;

/// (weight, mean, standard deviation) of the data.
const PARTS: [(f64, f64, f64); 2] = [(0.6, -0.9, 0.25), (0.4, 1.1, 0.35)];

/// E[x0 | x].
fn denoised(x: f64, sigma: f64) -> f64 {
    let (mut total, mut sum) = (0.0, 0.0);
    for (weight, mean, std) in PARTS {
        let variance = std * std + sigma * sigma;
        let density = weight * (-0.5 * (x - mean).powi(2) / variance).exp() / variance.sqrt();
        total += density;
        sum += density * (mean + std * std / variance * (x - mean));
    }
    sum / total
}

/// Points (σ, x) from noise to data.
type Path = Vec<(f64, f64)>;

fn paths(name: &str, steps: usize, starts: &[f64]) -> Result<Vec<Path>, Box<dyn std::error::Error>> {
    let levels = sigmas::karras(steps, SIGMA_MIN, SIGMA_MAX, 7.0)?;
    let schedule = Schedule::new(levels, Frame::VarianceExploding, TimestepMap::QuarterLog)?;
    let sampler = sampler(name)?;
    let program = sampler.program(&schedule, &sampler.settings());
    let mut paths = vec![Path::new(); starts.len()];
    let mut denoiser = |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| -> Result<(), std::convert::Infallible> {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = denoised(*x, sigma));
        Ok(())
    };
    // Any numbers with mean 0 and variance 1 show what noise does.
    let noise = |draw: Draw, out: &mut [f64]| {
        let wave = |i: usize| (1.3 + 2.1 * i as f64 + 4.7 * draw.index as f64 + 0.9 * (i * draw.index) as f64).sin();
        out.iter_mut().enumerate().for_each(|(i, v)| *v = 2.0_f64.sqrt() * wave(i));
    };
    let outcome = run(&program, starts, &mut denoiser, noise, |event| {
        paths.iter_mut().zip(event.x).for_each(|(path, x)| path.push((event.sigma, *x)));
        ControlFlow::Continue(())
    })?;
    if let scheduler::Outcome::Finished(result) = outcome {
        paths.iter_mut().zip(result).for_each(|(path, x)| path.push((0.7 * SIGMA_MIN, x)));
    }
    Ok(paths)
}

/// Where a point lies in its panel: ln σ to the right, and x relative to the spread of noise and data together.
fn place((sigma, x): (f64, f64)) -> (f64, f64) {
    let right = (SIGMA_MAX / sigma).ln() / (SIGMA_MAX / (0.7 * SIGMA_MIN)).ln();
    (WIDTH * right, HEIGHT * (0.5 - 0.19 * x / sigma.hypot(1.0)))
}

fn polyline(svg: &mut String, path: &[(f64, f64)], style: &str) -> std::fmt::Result {
    let points: Vec<String> = path.iter().map(|point| place(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(svg, r#"<polyline points="{}" fill="none" {style}/>"#, points.join(" "))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "trajectories.svg".to_owned());
    // Equally spaced between -2 and 2 standard deviations.
    let starts: Vec<f64> = (0..PATHS).map(|i| SIGMA_MAX * (4.0 * i as f64 / (PATHS - 1) as f64 - 2.0)).collect();
    let exact = paths("heun", 400, &starts)?;
    let (columns, rows) = (3, SAMPLERS.len() / 3);
    let (panel_width, panel_height) = (WIDTH + MARGIN, HEIGHT + 2.0 * MARGIN);
    let (width, height) = (columns as f64 * panel_width + MARGIN, rows as f64 * panel_height + MARGIN);
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">"#
    )?;
    writeln!(svg, r##"<rect width="100%" height="100%" fill="#fff"/>"##)?;
    for (i, name) in SAMPLERS.iter().enumerate() {
        let (x, y) = (MARGIN + (i % columns) as f64 * panel_width, 2.0 * MARGIN + (i / columns) as f64 * panel_height);
        writeln!(svg, r#"<text x="{x}" y="{}">{name}, {STEPS} steps</text>"#, y - 8.0)?;
        // A nested drawing, so that lines beyond the panel are cut off.
        writeln!(svg, r#"<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}">"#)?;
        writeln!(svg, r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#f6f6f4"/>"##)?;
        for path in &exact {
            polyline(&mut svg, path, r##"stroke="#b8b8b0" stroke-width="1""##)?;
        }
        for (k, path) in paths(name, STEPS, &starts)?.iter().enumerate() {
            let hue = 220 + 140 * k / PATHS;
            polyline(&mut svg, path, &format!(r#"stroke="hsl({hue} 65% 45%)" stroke-width="1.3""#))?;
        }
        writeln!(svg, "</svg>")?;
    }
    writeln!(svg, "</svg>")?;
    std::fs::write(&file, svg)?;
    println!("{file}");
    Ok(())
}
