//! What the golden tests share: the formula model and noise of `goldens/make_goldens.py`, and JSON.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ops::ControlFlow;

use scheduler::{Draw, Field, Outcome, Program, run};
use serde_json::Value;

/// The starting x before it is scaled.
pub(crate) const X: [f64; 3] = [0.9, -1.6, 0.25];

/// D(x; sigma) of the golden script.
pub(crate) fn denoised_of(x: f64, sigma: f64) -> f64 {
    1.5 * (x / (1.0 + sigma)).tanh() + 0.2 * x / (1.0 + sigma * sigma)
}

/// The noise of the golden script.
pub(crate) fn noise(draw: Draw, out: &mut [f64]) {
    for (j, value) in out.iter_mut().enumerate() {
        *value = 2.0_f64.sqrt() * (1.0 + 12.9898 * draw.index as f64 + 78.233 * j as f64).sin();
    }
}

/// A run and what the model was asked on the way.
pub(crate) struct Trace {
    pub(crate) result: Vec<f64>,
    /// (sigma, timestep) of every evaluation.
    pub(crate) evaluations: Vec<(f64, f64)>,
    pub(crate) denoised: Vec<Vec<f64>>,
    /// Draws of noise, of all segments of an adaptive sampler.
    pub(crate) draws: usize,
}

pub(crate) fn trace(program: &Program, init_noise_sigma: f64) -> Trace {
    let mut evaluations = Vec::new();
    let mut all_denoised = Vec::new();
    let mut denoiser = |x: &[f64], sigma: f64, timestep: f64, out: &mut [f64]| -> Result<(), ()> {
        evaluations.push((sigma, timestep));
        for (out, x) in out.iter_mut().zip(x) {
            *out = denoised_of(*x, sigma);
        }
        all_denoised.push(out.to_vec());
        Ok(())
    };
    let x = X.map(|v| v * init_noise_sigma);
    let mut draws = 0;
    let counted = |draw: Draw, out: &mut [f64]| {
        draws += 1;
        noise(draw, out);
    };
    let outcome = run(program, &x, &mut denoiser, counted, |_| ControlFlow::Continue(())).unwrap();
    let Outcome::Finished(result) = outcome else { panic!("nobody stopped it") };
    Trace { result, evaluations, denoised: all_denoised, draws }
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}")).iter().map(|v| v.as_f64().unwrap()).collect()
}

pub(crate) fn field(value: &Value) -> Field {
    match value {
        Value::Null => Field::Null,
        Value::Bool(b) => Field::Bool(*b),
        Value::Number(n) => Field::Number(n.as_f64().unwrap()),
        Value::String(s) => Field::Text(s.clone()),
        Value::Array(a) => Field::List(a.iter().map(field).collect()),
        Value::Object(_) => panic!("no scheduler has an object in its configuration"),
    }
}

/// Largest difference, relative to the larger of 1 (or `floor`) and the value.
pub(crate) fn difference(ours: &[f64], theirs: &[f64], floor: f64) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "{ours:?} and {theirs:?}");
    let error = |(a, b): (&f64, &f64)| (a - b).abs() / b.abs().max(floor);
    ours.iter().zip(theirs).map(error).fold(0.0, |worst, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) })
}
