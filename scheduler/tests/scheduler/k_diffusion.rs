//! Sigmas and trajectories against k-diffusion (`goldens/make_goldens.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common::{difference, numbers, trace};
use scheduler::{Frame, Schedule, SolverType, TimestepMap, sampler, sigmas};
use serde_json::Value;

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("../goldens/k_diffusion.json")).unwrap()
}

#[test]
fn sigmas_by_formula() {
    let mut compared = 0;
    for case in cases() {
        let Some(table) = case["table"].as_str() else { continue };
        let arguments = numbers(&case["arguments"]);
        let n = arguments[0] as usize;
        let ours = match (table, &arguments[1..]) {
            ("karras", &[low, high, rho]) => sigmas::karras(n, low, high, rho),
            ("exponential", &[low, high]) => sigmas::exponential(n, low, high),
            ("polyexponential", &[low, high, rho]) => sigmas::polyexponential(n, low, high, rho),
            ("vp", &[beta_d, beta_min, eps_s]) => sigmas::vp(n, beta_d, beta_min, eps_s),
            other => panic!("{other:?}"),
        };
        // k-diffusion computes them in f32: exp(10) - 1 and seventh powers multiply its rounding, and near t = 0 `vp` subtracts
        // nearly equal numbers (1e-3 · 0.1 from 1 leaves four digits fewer).
        let bound = if table == "vp" { 4e-4 } else { 3e-6 };
        let error = difference(&ours.unwrap(), &numbers(&case["sigmas"]), 1e-9);
        assert!(error < bound, "{case}: {error}");
        compared += 1;
    }
    assert_eq!(compared, 16);
}

#[test]
fn trajectories() {
    let mut compared = 0;
    for case in cases() {
        let Some(name) = case["sampler"].as_str() else { continue };
        let options = &case["options"];
        let churn = options["s_churn"].as_f64();
        let sampler = sampler(if churn.is_some() && name == "heun" { "edm_heun" } else { name }).unwrap();
        let mut settings = sampler.settings();
        settings.eta = options["eta"].as_f64().unwrap_or(settings.eta);
        settings.s_noise = options["s_noise"].as_f64().unwrap_or(1.0);
        settings.s_churn = churn.unwrap_or(0.0);
        settings.s_tmin = options["s_tmin"].as_f64().unwrap_or(0.0);
        settings.s_tmax = f64::INFINITY;
        if options["solver_type"] == "heun" {
            settings.solver_type = SolverType::Heun;
        }
        let sigmas = numbers(&case["sigmas"]);
        let schedule = Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
        let ours = trace(&sampler.program(&schedule, &settings), schedule.sigmas[0]);
        let asked: Vec<f64> = ours.evaluations.iter().map(|(sigma, _)| *sigma).collect();
        let error = difference(&ours.result, &numbers(&case["result"]), 1.0);
        let sigma_error = difference(&asked, &numbers(&case["evaluations"]), 1e-9);
        assert!(error < 1e-10 && sigma_error < 1e-12, "{case}: {error} {sigma_error} {:?}", ours.result);
        compared += 1;
    }
    assert!(compared >= 15, "{compared}");
}

#[test]
fn adaptive_trajectories() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../goldens/k_diffusion_adaptive.json")).unwrap();
    for case in &cases {
        let sampler = sampler("dpm_adaptive").unwrap();
        let mut settings = sampler.settings();
        settings.absolute_tolerance = case["options"]["atol"].as_f64().unwrap_or(settings.absolute_tolerance);
        settings.relative_tolerance = case["options"]["rtol"].as_f64().unwrap_or(settings.relative_tolerance);
        let schedule =
            Schedule::new(numbers(&case["sigmas"]), Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
        let ours = trace(&sampler.program(&schedule, &settings), schedule.sigmas[0]);
        // An accepted step takes three evaluations. A rejected one takes two, because its first is kept.
        let (accepted, rejected) = (case["accepted"].as_u64().unwrap(), case["rejected"].as_u64().unwrap());
        assert_eq!(ours.evaluations.len() as u64, 3 * accepted + 2 * rejected, "{case}");
        let error = difference(&ours.result, &numbers(&case["result"]), 1.0);
        assert!(error < 1e-9, "{case}: {error} {:?}", ours.result);
    }
    assert_eq!(cases.len(), 6);
}
