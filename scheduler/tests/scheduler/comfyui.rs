//! Samplers and schedules that only ComfyUI has, against a restatement of its formulas (`goldens/comfyui.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;

use crate::common::{X, denoised_of, difference, field, noise, numbers};
use scheduler::{Denoiser, Frame, Outcome, Request, Schedule, SchedulerConfig, TimestepMap, run, sampler};
use serde_json::{Value, json};

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("../goldens/comfyui.json")).unwrap()
}

/// The golden script's model, with an unguided image.
#[derive(Default)]
struct Guided {
    unguided: Vec<f64>,
}

impl Denoiser<f64, ()> for Guided {
    fn denoise(&mut self, x: &[f64], sigma: f64, _: f64, out: &mut [f64]) -> Result<(), ()> {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = denoised_of(*x, sigma));
        self.unguided = out.iter().zip(x).map(|(d, x)| 0.7 * d - 0.1 * x / (1.0 + sigma)).collect();
        Ok(())
    }

    fn unguided(&mut self, _: &[f64], out: &mut [f64]) -> Result<(), ()> {
        out.copy_from_slice(&self.unguided);
        Ok(())
    }
}

#[test]
fn trajectories() {
    let mut compared = 0;
    for case in cases() {
        let Some(name) = case["sampler"].as_str() else { continue };
        let sampler = sampler(name).unwrap();
        let sigmas = numbers(&case["sigmas"]);
        let schedule = Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
        let program = sampler.program(&schedule, &sampler.settings());
        let x = X.map(|v| v * schedule.sigmas[0]);
        let outcome = run(&program, &x, &mut Guided::default(), noise, |_| ControlFlow::Continue(()));
        let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
        let error = difference(&result, &numbers(&case["result"]), 1.0);
        // er_sde's integrals are computed by Simpson's rule here, and by adaptive quadrature in the golden script.
        let bound = if name == "er_sde" { 1e-7 } else { 1e-10 };
        assert!(error < bound, "{case}: {error} {result:?}");
        compared += 1;
    }
    assert_eq!(compared, 40);
}

#[test]
fn schedules() {
    let edm = json!({"_class_name": "EDMEulerScheduler"});
    let fields = edm.as_object().unwrap().iter().map(|(name, value)| (name.clone(), field(value)));
    let config = SchedulerConfig::new(fields).unwrap();
    let mut compared = 0;
    for case in cases() {
        let Some(table) = case["table"].as_str() else { continue };
        let n = numbers(&case["arguments"])[0] as usize;
        let request = Request { schedule: Some(table.parse().unwrap()), ..Request::steps(n) };
        let ours = config.plan(&request).unwrap().schedule.sigmas;
        let error = difference(&ours, &numbers(&case["sigmas"]), 1e-6);
        assert!(error < 1e-12, "{case}: {error} {ours:?}");
        compared += 1;
    }
    assert_eq!(compared, 8);
}
