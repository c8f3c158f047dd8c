//! RePaint against diffusers, jumps and all (`goldens/repaint.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;

use crate::common::{X, denoised_of, difference, field, noise, numbers};
use scheduler::{Denoiser, Draw, Field, Outcome, Request, Sampling, SchedulerConfig, run};
use serde_json::Value;

/// The formula model, which knows the image where the mask is 1.
struct Model {
    mask: Vec<f64>,
    image: Vec<f64>,
}

impl Denoiser<f64, ()> for Model {
    fn denoise(&mut self, x: &[f64], sigma: f64, _: f64, out: &mut [f64]) -> Result<(), ()> {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = denoised_of(*x, sigma));
        Ok(())
    }

    /// In the variance-exploding frame of discrete schedules.
    fn constrain(&mut self, x: &[f64], noise: &[f64], sigma: f64, out: &mut [f64]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = x[i] + self.mask[i] * (self.image[i] + sigma * noise[i] - x[i]);
        }
    }
}

fn plan(case: &Value) -> Sampling {
    let fields = case["config"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), field(value)));
    let class = ("_class_name".to_owned(), Field::Text(case["class"].as_str().unwrap().to_owned()));
    let config = SchedulerConfig::new(fields.chain([class])).unwrap();
    let sampler = scheduler::sampler("repaint").ok();
    let request =
        Request { sampler, eta: case["eta"].as_f64(), ..Request::steps(case["steps"].as_u64().unwrap() as usize) };
    let mut sampling = config.plan(&request).unwrap();
    sampling.settings.jump_length = case["jump_length"].as_u64().unwrap() as usize;
    sampling.settings.jump_n_sample = case["jump_n_sample"].as_u64().unwrap() as usize;
    // Where nothing is known, the sampler itself must do without.
    sampling.settings.constrained = numbers(&case["mask"]).iter().any(|share| *share > 0.0);
    sampling
}

/// x before every step and at the end, in the model's variance-preserving scale, and the number of draws.
fn trajectory(sampling: &Sampling, case: &Value) -> (Vec<Vec<f64>>, usize) {
    let mut model = Model { mask: numbers(&case["mask"]), image: numbers(&case["image"]) };
    let x = X.map(|v| v * sampling.schedule.init_noise_sigma);
    let (mut samples, mut draws) = (Vec::new(), 0);
    let counted = |draw: Draw, out: &mut [f64]| {
        draws += 1;
        noise(draw, out);
    };
    let outcome = run(&sampling.program(), &x, &mut model, counted, |event| {
        samples.push(event.x.iter().map(|v| v / event.sigma.hypot(1.0)).collect());
        ControlFlow::Continue(())
    });
    let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
    samples.push(result);
    (samples, draws)
}

#[test]
fn steps_and_jumps_are_diffusers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../goldens/repaint.json")).unwrap();
    assert!(cases.len() >= 14);
    for case in &cases {
        let name = format!("{} {} {} eta {}", case["class"], case["config"], case["steps"], case["eta"]);
        let sampling = plan(case);
        let expected: Vec<Vec<f64>> = case["samples"].as_array().unwrap().iter().map(numbers).collect();
        let worst = |ours: &[Vec<f64>]| {
            assert_eq!(ours.len(), expected.len(), "{name}");
            ours.iter().zip(&expected).map(|(a, b)| difference(a, b, 1.0)).fold(0.0, f64::max)
        };

        // Over diffusers' own table only the arithmetic of the steps can differ.
        let mut exact = sampling.clone();
        exact.schedule.sigmas = numbers(&case["sigmas"]);
        if !case["betas"].is_null() {
            exact.settings.betas = numbers(&case["betas"]);
        }
        exact.schedule.init_noise_sigma = exact.schedule.sigmas[0].hypot(1.0);
        let (samples, draws) = trajectory(&exact, case);
        let step_error = worst(&samples);
        assert_eq!(draws, case["draws"].as_u64().unwrap() as usize, "{name}");

        // Over ours, which is f32 as theirs: as far as diffusers in f32 is from itself, or a rounding of the result where that happens to be
        // nothing.
        let (samples, _) = trajectory(&sampling, case);
        let end_error = difference(&samples[samples.len() - 1], &expected[expected.len() - 1], 1.0);
        let single = case["f32_error"].as_f64().unwrap().max(f64::from(f32::EPSILON));
        println!("{name}: {step_error:.1e} over one table, {end_error:.1e} over two, f32 {single:.1e}");
        assert!(step_error < 1e-10, "{name}: {step_error:e}");
        assert!(end_error < 4.0 * single, "{name}: {end_error:e}, f32 itself {single:e}");
    }
}

/// The share of noise of a file of the class, which a request overrides; diffusers' pipeline always does.
#[test]
fn the_file_says_eta() {
    let fields = [("_class_name", Field::Text("RePaintScheduler".to_owned())), ("eta", Field::Number(0.25))];
    let config = SchedulerConfig::new(fields.map(|(name, value)| (name.to_owned(), value))).unwrap();
    let plan = |eta| config.plan(&Request { eta, ..Request::steps(20) }).unwrap();
    assert_eq!((plan(None).sampler.name, plan(None).settings.eta), ("repaint", 0.25));
    assert_eq!(plan(Some(1.0)).settings.eta, 1.0);
    assert_eq!((plan(None).settings.jump_length, plan(None).settings.jump_n_sample), (10, 10));
    assert!(!plan(None).program().is_constrained());
}
