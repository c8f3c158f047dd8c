//! Runs that start from an image, and runs that keep a part of it, against diffusers' (`goldens/strength.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common::{X, denoised_of, difference, field, noise, numbers};
use scheduler::{Denoiser, Field, Frame, Outcome, Request, Sampling, SchedulerConfig, run};
use serde_json::Value;
use std::ops::ControlFlow;

const IMAGE: [f64; 3] = [0.4, -0.7, 0.1];
/// The element that is kept.
const KEPT: usize = 1;
/// diffusers' tables are f32.
const END: f64 = 2e-6;

struct Model {
    frame: Frame,
    keeps: bool,
    timesteps: Vec<f64>,
}

impl Denoiser<f64, ()> for Model {
    fn denoise(&mut self, x: &[f64], sigma: f64, timestep: f64, out: &mut [f64]) -> Result<(), ()> {
        self.timesteps.push(timestep);
        for (out, x) in out.iter_mut().zip(x) {
            *out = denoised_of(*x, sigma);
        }
        Ok(())
    }

    fn hold(&mut self, x: &mut [f64], sigma: f64) {
        if self.keeps {
            x[KEPT] = self.frame.alpha(sigma) * IMAGE[KEPT] + sigma * X[KEPT];
        }
    }
}

fn config(class: &str, fields: &Value) -> SchedulerConfig {
    let fields = fields.as_object().unwrap().iter().map(|(name, value)| (name.clone(), field(value)));
    SchedulerConfig::new(fields.chain([("_class_name".to_owned(), Field::Text(class.to_owned()))])).unwrap()
}

fn finish(sampling: &Sampling, keeps: bool) -> (Vec<f64>, Vec<f64>) {
    let mut model = Model { frame: sampling.schedule.frame, keeps, timesteps: Vec::new() };
    let (alpha, sigma) = sampling.noising();
    let x: Vec<f64> = IMAGE.iter().zip(X).map(|(image, noise)| alpha * image + sigma * noise).collect();
    let outcome = run(&sampling.program(), &x, &mut model, noise, |_| ControlFlow::Continue(())).unwrap();
    let Outcome::Finished(mut result) = outcome else { panic!("nobody stopped it") };
    if keeps {
        result[KEPT] = IMAGE[KEPT];
    }
    (result, model.timesteps)
}

#[test]
fn tails_are_diffusers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../goldens/strength.json")).unwrap();
    assert!(cases.len() >= 150);
    let mut failures = Vec::new();
    for case in &cases {
        let name = format!("{} {} {} {}", case["class"], case["steps"], case["strength"], case["keeps"]);
        let request = Request::steps(case["steps"].as_u64().unwrap() as usize);
        let (strength, distilled) = (case["strength"].as_f64().unwrap(), case["distilled"].as_bool().unwrap());
        let sampling = config(case["class"].as_str().unwrap(), &case["config"])
            .plan_for_strength(&request, strength, distilled)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let (result, timesteps) = finish(&sampling, case["keeps"].as_bool().unwrap());
        let theirs = numbers(&case["timesteps"]);
        // In the middle of a step, KDPM2 gives the model another timestep than the one in its list.
        let asked = timesteps.len() == theirs.len() && difference(&timesteps[..1], &theirs[..1], 1.0) < 2e-6;
        let error = difference(&result, &numbers(&case["result"]), 1.0);
        if !asked || error.is_nan() || error > END {
            failures.push(format!("{name} {}: {error:e}, {timesteps:?} {theirs:?}", case["config"]));
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn impossible_strengths_are_refused() {
    let config = config("LCMScheduler", &serde_json::json!({}));
    for (steps, strength, distilled, part) in [
        (4, 1.5, false, "between 0 and 1"),
        (4, f64::NAN, true, "between 0 and 1"),
        (4, 0.1, false, "leaves no steps"),
        (4, 0.05, true, "2 of the 50 steps that the model was distilled at, fewer than 4"),
    ] {
        let error = config.plan_for_strength(&Request::steps(steps), strength, distilled).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
