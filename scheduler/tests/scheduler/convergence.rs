//! Measured order of convergence on Gaussian data, where the probability-flow ODE has a closed solution.

use std::ops::ControlFlow;

use scheduler::{Draw, Frame, Outcome, SAMPLERS, Sampler, Schedule, Settings, SolverType, TimestepMap, run, sampler};

/// A normal distribution.
#[derive(Debug, Clone, Copy)]
struct Normal {
    mean: f64,
    std: f64,
}

/// Independent normal data, one distribution per element.
const DATA: [Normal; 3] =
    [Normal { mean: 0.3, std: 0.5 }, Normal { mean: -1.0, std: 1.2 }, Normal { mean: 2.0, std: 0.2 }];
/// Starting points in standard deviations of the noisy data.
const START: [f64; 3] = [1.3, -0.4, 0.8];

/// E[x0 | x] for data N(mean, std²).
fn denoise(frame: Frame, x: f64, sigma: f64, Normal { mean, std }: Normal) -> f64 {
    let alpha = frame.alpha(sigma);
    let gain = alpha * std * std / (alpha * alpha * std * std + sigma * sigma);
    mean + gain * (x - alpha * mean)
}

/// Along the path the distance from the mean in standard deviations stays the same (Song et al. 2021, equation 13, for
/// a Gaussian marginal).
fn exact(frame: Frame, deviations: f64, sigma: f64, Normal { mean, std }: Normal) -> f64 {
    frame.alpha(sigma) * mean + deviations * (frame.alpha(sigma) * std).hypot(sigma)
}

/// Largest error at the last sigma, over `n` steps that crowd towards small sigmas smoothly.
///
/// A multistep method of order 3 or more begins with steps of lower order, whose error would hide that of the later
/// steps. For such methods the mesh is graded, (i/n)^order, so that the first steps are short.
fn error(sampler: &Sampler, settings: &Settings, frame: Frame, n: usize, order: u32) -> f64 {
    error_and_evaluations(sampler, settings, frame, n, order).0
}

fn error_and_evaluations(sampler: &Sampler, settings: &Settings, frame: Frame, n: usize, order: u32) -> (f64, usize) {
    let mut evaluations = 0;
    let grading = if order < 3 { 1 } else { order as i32 };
    let (high, low): (f64, f64) = match frame {
        Frame::VarianceExploding => (20.0, 0.05),
        Frame::Flow => (0.98, 0.05),
    };
    let ramp = (0..=n).map(|i| (i as f64 / n as f64).powi(grading));
    let rho = 3.0_f64;
    let sigmas = ramp.map(|t| (high.powf(1.0 / rho) * (1.0 - t) + low.powf(1.0 / rho) * t).powf(rho)).collect();
    let schedule = Schedule::new(sigmas, frame, TimestepMap::QuarterLog).expect("descending sigmas");
    let (first, last) = (schedule.sigmas[0], schedule.sigmas[n]);
    let (from, to) = if sampler.inverts { (last, first) } else { (first, last) };
    let x: Vec<f64> = DATA.iter().zip(START).map(|(data, z)| exact(frame, z, from, *data)).collect();
    let mut denoiser = |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| -> Result<(), ()> {
        evaluations += 1;
        for ((out, x), data) in out.iter_mut().zip(x).zip(DATA) {
            *out = denoise(frame, *x, sigma, data);
        }
        Ok(())
    };
    let no_noise = |_: Draw, _: &mut [f64]| panic!("a deterministic sampler drew noise");
    let program = sampler.program(&schedule, settings);
    let outcome =
        run(&program, &x, &mut denoiser, no_noise, |_| ControlFlow::Continue(())).expect("the denoiser does not fail");
    let Outcome::Finished(result) = outcome else { panic!("nobody stopped it") };
    let errors = result.iter().zip(DATA).zip(START).map(|((x, data), z)| (x - exact(frame, z, to, data)).abs());
    (errors.fold(0.0, f64::max), evaluations)
}

/// log2 of the ratio of errors when the steps are halved.
fn measured_order(sampler: &Sampler, settings: &Settings, frame: Frame, order: u32) -> f64 {
    // Numbers with the same remainder when divided by 3, because dpm_fast takes steps in groups of 3.
    let at = |n| error(sampler, settings, frame, n, order);
    (at(398) / at(797)).ln() / (797.0_f64 / 398.0).ln()
}

#[test]
fn deterministic_samplers_have_the_order_they_state() {
    for sampler in SAMPLERS.iter().filter(|s| !s.stochastic && !s.is_adaptive() && !restarts(s)) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            let order = measured_order(sampler, &Settings::default(), frame, sampler.order);
            println!("{:20} {frame:?}: {order:.2}", sampler.name);
            let stated = f64::from(sampler.order);
            assert!((order - stated).abs() < 0.25, "{} in {frame:?}: order {order}, not {stated}", sampler.name);
        }
    }
}

#[test]
fn dpmpp_2m_in_all_its_variants() {
    for (solver_order, solver_type) in
        [(1, SolverType::Midpoint), (2, SolverType::Midpoint), (2, SolverType::Heun), (3, SolverType::Heun)]
    {
        let settings = Settings { solver_order, solver_type, ..Settings::default() };
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            let order = measured_order(sampler("dpmpp_2m").unwrap(), &settings, frame, solver_order as u32);
            println!("dpmpp_2m {solver_order} {solver_type:?} {frame:?}: {order:.2}");
            // The published third-order update weighs its second difference by half of what it should, and is of order 2.
            let expected = solver_order.min(2) as f64;
            assert!((order - expected).abs() < 0.25, "{solver_order} {solver_type:?} {frame:?}: {order}");
        }
    }
}

/// Adaptive samplers keep their error in proportion to their tolerance, and use more evaluations for less of it.
#[test]
fn adaptive_samplers_keep_their_tolerance() {
    for sampler in SAMPLERS.iter().filter(|s| s.is_adaptive() && !s.stochastic) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            let mut before = 0;
            for tolerance in [1e-2, 1e-4, 1e-6] {
                let settings =
                    Settings { absolute_tolerance: tolerance, relative_tolerance: tolerance, ..sampler.settings() };
                let (error, evaluations) = error_and_evaluations(sampler, &settings, frame, 10, 1);
                println!(
                    "{:13} {frame:?} tolerance {tolerance:.0e}: error {error:.1e}, {evaluations} evaluations",
                    sampler.name
                );
                // dpm_adaptive's tolerance holds for one step; errors of many add up.
                let bound = if sampler.name == "rk45" { tolerance } else { 20.0 * tolerance };
                assert!(error < bound, "{} in {frame:?}: {error} with tolerance {tolerance}", sampler.name);
                assert!(evaluations > before, "{} in {frame:?} does not work harder for {tolerance}", sampler.name);
                before = evaluations;
            }
        }
    }
}

/// The stochastic samplers are linear in x and in their noise on Gaussian data, so the mean and covariance of what they give follow
/// exactly from their response to each: no random number is drawn here.
#[test]
fn stochastic_samplers_have_the_weak_order_they_state() {
    let mut wrong = Vec::new();
    for sampler in SAMPLERS.iter().filter(|s| s.stochastic && !restarts(s) && !equilibrates(s)) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            for eta in [1.0, 0.5] {
                // EDM's own s_noise adds slightly too much noise, and the marginals are exact only without it.
                let settings = Settings { eta, s_noise: 1.0, s_tmin: 0.0, ..sampler.settings() };
                let at = |n| weak_error(sampler, &settings, frame, n);
                // The lower order of the first steps of three-step methods remains visible up to more steps.
                let n = if matches!(sampler.name, "dpmpp_3m_sde" | "er_sde") { 800 } else { 200 };
                let order = (at(n) / at(2 * n)).log2();
                println!("{:20} {frame:?} eta {eta}: weak order {order:.2}", sampler.name);
                let stated = f64::from(sampler.order);
                if (order - stated).abs() > 0.25 {
                    wrong.push(format!("{} in {frame:?}, eta {eta}: weak order {order}, not {stated}", sampler.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Samplers of consistency models go to the clean image in every step, so they have no order.
fn restarts(sampler: &Sampler) -> bool {
    matches!(sampler.name, "lcm" | "consistency" | "tcd" | "one_step")
}

/// How close samplers with Langevin steps come to the data depends on their step size, not on the number of noise
/// levels.
fn equilibrates(sampler: &Sampler) -> bool {
    matches!(sampler.name, "ald" | "predictor_corrector")
}

#[test]
fn langevin_samplers_reach_the_data() {
    for sampler in SAMPLERS.iter().filter(|s| equilibrates(s)) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            let high: f64 = if frame == Frame::Flow { 0.98 } else { 20.0 };
            let n = 200;
            let sigmas = (0..=n).map(|i| high * (0.05 / high).powf(i as f64 / n as f64)).collect();
            let schedule = Schedule::new(sigmas, frame, TimestepMap::QuarterLog).expect("descending sigmas");
            let data = Normal { mean: 0.8, std: 0.6 };
            let mut denoiser = |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| -> Result<(), ()> {
                out.iter_mut().zip(x).for_each(|(out, x)| *out = denoise(frame, *x, sigma, data));
                Ok(())
            };
            let mut state = 1;
            let mut normal = |out: &mut [f64]| out.iter_mut().for_each(|v| *v = pseudo_normal(&mut state));
            let mut x = vec![0.0; 20_000];
            normal(&mut x);
            let alpha = frame.alpha(high);
            x.iter_mut().for_each(|v| *v = alpha * data.mean + (alpha * data.std).hypot(high) * *v);
            let program = sampler.program(&schedule, &sampler.settings());
            let outcome = run(&program, &x, &mut denoiser, |_, out| normal(out), |_| ControlFlow::Continue(()));
            let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
            let mean = result.iter().sum::<f64>() / x.len() as f64;
            let variance = result.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let (exact_mean, exact) =
                (frame.alpha(0.05) * data.mean, (frame.alpha(0.05) * data.std).powi(2) + 0.05 * 0.05);
            println!(
                "{:20} {frame:?}: mean {:.3}, variance {:.3} of the data's",
                sampler.name,
                mean / exact_mean,
                variance / exact
            );
            // Five standard errors of 20,000 values, and what a Langevin step of finite size adds.
            assert!((mean / exact_mean - 1.0).abs() < 0.04, "{} in {frame:?}: mean {mean}", sampler.name);
            assert!((variance / exact - 1.0).abs() < 0.08, "{} in {frame:?}: variance {variance}", sampler.name);
        }
    }
}

/// Box-Muller on a multiplicative congruential generator (Park & Miller 1988): enough for means and variances.
fn pseudo_normal(state: &mut u64) -> f64 {
    let mut uniform = || {
        *state = *state * 48_271 % 2_147_483_647;
        *state as f64 / 2_147_483_647.0
    };
    let (u, v) = (uniform(), uniform());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A consistency function, here the exact one of Gaussian data, is sampled exactly in any number of steps.
#[test]
fn consistency_samplers_are_exact() {
    for sampler in ["lcm", "consistency", "one_step"].map(|name| sampler(name).expect("in the list")) {
        for n in [1, 2, 7] {
            let sigmas: Vec<f64> = (0..=n).map(|i| 20.0 * (1.0 - i as f64 / n as f64)).collect();
            let schedule =
                Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::QuarterLog).expect("descending");
            let data = Normal { mean: 0.4, std: 0.7 };
            let function = |x: f64, sigma: f64| data.mean + (x - data.mean) * data.std / data.std.hypot(sigma);
            let start = Normal { mean: data.mean, std: data.std.hypot(20.0) };
            let (mean, variance) = moments(sampler, &sampler.settings(), &schedule, start, function);
            assert!(
                (mean - data.mean).abs() < 1e-12 && (variance - data.std * data.std).abs() < 1e-12,
                "{} {n}",
                sampler.name
            );
        }
    }
}

/// Correlated normal data in the plane: its mean and covariance.
const PLANE: ([f64; 2], [[f64; 2]; 2]) = ([2.0, -1.0], [[0.63, 0.555], [0.555, 1.06]]);

type Matrix = [[f64; 2]; 2];

/// share·m + diagonal·1.
fn shifted(m: Matrix, share: f64, diagonal: f64) -> Matrix {
    [[share * m[0][0] + diagonal, share * m[0][1]], [share * m[1][0], share * m[1][1] + diagonal]]
}

fn product(a: Matrix, b: Matrix) -> Matrix {
    [0, 1].map(|i| [0, 1].map(|j| a[i][0] * b[0][j] + a[i][1] * b[1][j]))
}

fn inverse(m: Matrix) -> Matrix {
    let determinant = m[0][0] * m[1][1] - m[0][1] * m[1][0];
    [[m[1][1], -m[0][1]], [-m[1][0], m[0][0]]].map(|row| row.map(|v| v / determinant))
}

/// Largest error of mean and covariance at the last sigma, from the exact marginal at the first.
///
/// Pairs of elements are points of the plane: pair 0 starts at the mean, pairs 1 and 2 a column of the covariance's Cholesky factor above
/// it, and of the two pairs after them that belong to draw k of noise, each gets it as 1 in one coordinate.
fn weak_error(sampler: &Sampler, settings: &Settings, frame: Frame, n: usize) -> f64 {
    let (high, low): (f64, f64) = match frame {
        Frame::VarianceExploding => (20.0, 0.05),
        Frame::Flow => (0.98, 0.05),
    };
    let rho = 3.0_f64;
    let sigmas = (0..=n)
        .map(|i| i as f64 / n as f64)
        .map(|t| (high.powf(1.0 / rho) * (1.0 - t) + low.powf(1.0 / rho) * t).powf(rho));
    let schedule = Schedule::new(sigmas.collect(), frame, TimestepMap::QuarterLog).expect("descending sigmas");
    let (mean, covariance) = PLANE;
    let marginal = |sigma: f64| {
        let alpha = frame.alpha(sigma);
        (mean.map(|m| alpha * m), shifted(covariance, alpha * alpha, sigma * sigma))
    };
    let mut denoiser = |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| -> Result<(), ()> {
        let (centre, noisy) = marginal(sigma);
        let gain = product(shifted(covariance, frame.alpha(sigma), 0.0), inverse(noisy));
        for (out, x) in out.chunks_mut(2).zip(x.chunks(2)) {
            let off = [x[0] - centre[0], x[1] - centre[1]];
            (0..2).for_each(|i| out[i] = mean[i] + gain[i][0] * off[0] + gain[i][1] * off[1]);
        }
        Ok(())
    };
    let program = sampler.program(&schedule, settings);
    let (centre, start) = marginal(schedule.sigmas[0]);
    let mut x: Vec<f64> = centre.into_iter().cycle().take(2 * (3 + 2 * program.draws())).collect();
    let root = start[0][0].sqrt();
    let below = start[0][1] / root;
    x[2] += root;
    x[3] += below;
    x[5] += (start[1][1] - below * below).sqrt();
    let unit = |draw: Draw, out: &mut [f64]| {
        out.fill(0.0);
        let pair = 3 + 2 * draw.index;
        (out[2 * pair], out[2 * pair + 3]) = (1.0, 1.0);
    };
    let outcome = run(&program, &x, &mut denoiser, unit, |_| ControlFlow::Continue(()));
    let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
    let (exact_mean, exact) = marginal(schedule.sigmas[n]);
    let mut worst = (result[0] - exact_mean[0]).abs().max((result[1] - exact_mean[1]).abs());
    for (i, j) in [(0, 0), (0, 1), (1, 1)] {
        let found: f64 = result.chunks(2).skip(1).map(|point| (point[i] - result[i]) * (point[j] - result[j])).sum();
        worst = worst.max((found - exact[i][j]).abs());
    }
    worst
}

/// Mean and variance of the result when x starts with the given mean and standard deviation. Element 0 of the run starts at the mean
/// with no noise, element 1 one standard deviation above it, element 2 + k gets draw k as 1.
fn moments(
    sampler: &Sampler,
    settings: &Settings,
    schedule: &Schedule,
    start: Normal,
    denoise: impl Fn(f64, f64) -> f64,
) -> (f64, f64) {
    let program = sampler.program(schedule, settings);
    let mut x = vec![start.mean; 2 + program.draws()];
    x[1] += start.std;
    let mut denoiser = |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| -> Result<(), ()> {
        for (out, x) in out.iter_mut().zip(x) {
            *out = denoise(*x, sigma);
        }
        Ok(())
    };
    let unit = |draw: Draw, out: &mut [f64]| {
        out.fill(0.0);
        out[2 + draw.index] = 1.0;
    };
    let outcome = run(&program, &x, &mut denoiser, unit, |_| ControlFlow::Continue(()));
    let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
    let variance = result[1..].iter().map(|v| (v - result[0]).powi(2)).sum();
    (result[0], variance)
}
