//! Tables and trajectories against diffusers (`goldens/make_goldens.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common::{difference, field, numbers, trace};
use scheduler::{Field, Frame, Request, Sampling, SchedulerConfig, Steps, sampler};
use serde_json::Value;

fn plan(case: &Value) -> Sampling {
    let fields = case["config"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), field(value)));
    let class = ("_class_name".to_owned(), Field::Text(case["class"].as_str().unwrap().to_owned()));
    let config = SchedulerConfig::new(fields.chain([class])).unwrap_or_else(|e| panic!("{case}: {e}"));
    let request = &case["request"];
    let steps = match (case["steps"].as_u64(), request.get("timesteps"), request.get("sigmas")) {
        (Some(n), ..) => Steps::Count(n as usize),
        (_, Some(timesteps), _) => Steps::Timesteps(numbers(timesteps)),
        (.., Some(sigmas)) => Steps::Sigmas(numbers(sigmas)),
        _ => panic!("{case}: asks for nothing"),
    };
    let eta = case["run"].get("eta").and_then(Value::as_f64);
    let image_seq_len = request.get("mu").map(|_| 1024);
    // A case without a sampler means the class's own. The samplers of sde-dpmsolver++ have no class of their own.
    let named = case["sampler"].as_str().filter(|name| *name != case["class"].as_str().unwrap());
    let sampler = named.map(|name| sampler(name).unwrap());
    config
        .plan(&Request { steps, eta, sampler, image_seq_len, ..Request::steps(0) })
        .unwrap_or_else(|e| panic!("{case}: {e}"))
}

#[test]
fn the_first_four_samplers() {
    compare(include_str!("../goldens/diffusers.json"), 300);
}

#[test]
fn the_other_samplers() {
    compare(include_str!("../goldens/diffusers_more.json"), 150);
}

/// A checkpoint's file with another sampler than its own: what `from_config` gives.
#[test]
fn samplers_over_other_classes_files() {
    compare(include_str!("../goldens/carried_over.json"), 70);
}

fn compare(goldens: &str, at_least: usize) {
    let cases: Vec<Value> = serde_json::from_str(goldens).expect("the golden script writes JSON");
    assert!(cases.len() >= at_least);
    let mut worst = [0.0_f64; 4];
    let mut failures = Vec::new();
    for case in &cases {
        let name =
            format!("{} {} {} {} {}", case["class"], case["config"], case["steps"], case["request"], case["run"]);
        let sampling = plan(case);
        let schedule = &sampling.schedule;

        // diffusers rounds its sigmas to f32 (6e-8) after computing them from f32 tables, EDMDPMSolverMultistep even in f32,
        // where the seventh power multiplies the rounding of its base.
        let sigma_error = difference(&schedule.sigmas, &numbers(&case["sigmas"]), 1e-6);
        // f32 again, and a few units of ln σ's f32 error over its slope where timesteps are interpolated.
        let timestep_error = difference(&schedule.timesteps, &numbers(&case["timesteps"]), 1.0);
        let init = case["init_noise_sigma"].as_f64().unwrap();
        let exploding = schedule.init_noise_sigma;
        // The variance-preserving classes start from 1 in their own frame.
        let flow = schedule.frame == Frame::Flow;
        let at = |sigmas: &[f64], first: bool| if first { sigmas[0] } else { sigmas[sigmas.len() - 1] };
        let inverts = sampling.sampler.inverts;
        let preserving = if init == 1.0 && !flow { at(&schedule.sigmas, !inverts).hypot(1.0) } else { init };
        let init_error = (exploding - preserving).abs() / preserving;
        let own = trace(&sampling.program(), exploding);

        // The same steps over the golden's own table, so that only the arithmetic of the sampler can differ.
        let mut exact = sampling.clone();
        exact.schedule.sigmas = numbers(&case["sigmas"]);
        exact.schedule.timesteps = numbers(&case["timesteps"]);
        if let Some(landings) = case.get("landings") {
            let landings = numbers(landings);
            exact.schedule.landings = sampling.schedule.landings.as_ref().map(|_| landings);
        }
        if let Some(middles) = case.get("middles") {
            let pair = |pair: &Value| (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap());
            exact.settings.runge_kutta = middles.as_array().unwrap().iter().map(pair).collect();
        }
        if exact.schedule.final_scale != 1.0 {
            exact.schedule.final_scale = 1.0 / at(&exact.schedule.sigmas, inverts).hypot(1.0);
        }
        let init = if preserving == init { init } else { at(&exact.schedule.sigmas, !inverts).hypot(1.0) };
        let program = exact.program();
        let trajectory = trace(&program, init);

        let expected = numbers(&case["result"]);
        let end_error = difference(&own.result, &expected, 1.0);
        let mut step_error = difference(&trajectory.result, &expected, 1.0);
        let their_denoised: Vec<Vec<f64>> = case["denoised"].as_array().unwrap().iter().map(numbers).collect();
        for (ours, theirs) in trajectory.denoised.iter().zip(&their_denoised).take(2) {
            step_error = step_error.max(difference(ours, theirs, 1.0));
        }
        let evaluations = case["evaluations"].as_u64().unwrap() as usize;
        let draws = case["draws"].as_u64().unwrap() as usize;
        // diffusers also draws in the step to sigma 0, and multiplies by 0.
        let draws_agree = trajectory.draws == draws || trajectory.draws + 1 == draws;
        let steps = if sampling.sampler.name == "ddpm" { STEPS_OF_DDPM } else { STEPS };
        let errors = [sigma_error, timestep_error.max(init_error), end_error, step_error];
        for (worst, error) in worst.iter_mut().zip(errors) {
            *worst = worst.max(error);
        }
        if trajectory.evaluations.len() != evaluations
            || !draws_agree
            || errors.iter().zip([SIGMAS, TIMESTEPS, END, steps]).any(|(error, bound)| *error > bound || error.is_nan())
        {
            failures.push(format!(
                "{name}\n    {errors:?} evaluations {} draws {}",
                trajectory.evaluations.len(),
                trajectory.draws
            ));
        }
    }
    println!("largest differences: sigmas, timesteps, result, result over the same table {worst:?}");
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

const SIGMAS: f64 = 2e-6;
const TIMESTEPS: f64 = 2e-6;
const END: f64 = 1e-6;
const STEPS: f64 = 1e-10;
/// The noise in DDPM's last step, whose variance diffusers keeps at or above 1e-20.
const STEPS_OF_DDPM: f64 = 3e-10;
