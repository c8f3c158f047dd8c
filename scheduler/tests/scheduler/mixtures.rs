//! Samplers on Gaussian-mixture data in one dimension, where denoising is not linear but the score and the path are
//! still known exactly. A path keeps its quantile, because the probability flow keeps the order of points on a line.

use std::ops::ControlFlow;

use scheduler::{Draw, Frame, Outcome, SAMPLERS, Sampler, Schedule, Settings, TimestepMap, run};

/// (weight, mean, standard deviation).
const PARTS: [(f64, f64, f64); 3] = [(0.5, -1.0, 0.4), (0.3, 0.8, 0.25), (0.2, 2.0, 0.6)];

/// (weight, mean, variance) of every part at a noise level.
fn noisy(frame: Frame, sigma: f64) -> [(f64, f64, f64); 3] {
    let alpha = frame.alpha(sigma);
    PARTS.map(|(weight, mean, std)| (weight, alpha * mean, (alpha * std).powi(2) + sigma * sigma))
}

/// E[x0 | x].
fn denoise(frame: Frame, x: f64, sigma: f64) -> f64 {
    let alpha = frame.alpha(sigma);
    let (mut total, mut sum) = (0.0, 0.0);
    for ((weight, mean, variance), (_, clean, std)) in noisy(frame, sigma).into_iter().zip(PARTS) {
        let density = weight * (-0.5 * (x - mean).powi(2) / variance).exp() / variance.sqrt();
        total += density;
        sum += density * (clean + alpha * std * std / variance * (x - mean));
    }
    sum / total
}

fn denoiser(frame: Frame) -> impl FnMut(&[f64], f64, f64, &mut [f64]) -> Result<(), ()> {
    move |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = denoise(frame, *x, sigma));
        Ok(())
    }
}

/// The share of the distribution below x, or above it: whichever is the smaller, so that it is exact in both tails.
fn tail(frame: Frame, x: f64, sigma: f64, above: bool) -> f64 {
    let sign = if above { 1.0 } else { -1.0 };
    let share = |(weight, mean, variance): (f64, f64, f64)| {
        weight * 0.5 * libm::erfc(sign * (x - mean) / (2.0 * variance).sqrt())
    };
    noisy(frame, sigma).into_iter().map(share).sum()
}

/// The position at the level `to` of the path that is at `x` at the level `from`.
fn exact(frame: Frame, x: f64, from: f64, to: f64) -> f64 {
    let above = tail(frame, x, from, true) < 0.5;
    let wanted = tail(frame, x, from, above);
    let (mut low, mut high) = (-100.0, 100.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if (tail(frame, middle, to, above) > wanted) == above { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

fn ends(frame: Frame) -> (f64, f64) {
    if frame == Frame::Flow { (0.96, 0.08) } else { (12.0, 0.08) }
}

/// Steps that crowd towards small sigmas, and towards the start for a method that begins with steps of lower order.
fn schedule(frame: Frame, n: usize, order: u32) -> Schedule {
    let grading = if order < 3 { 1 } else { order as i32 };
    let (high, low) = ends(frame);
    let ramp = (0..=n).map(|i| (i as f64 / n as f64).powi(grading));
    let rho = 3.0_f64;
    let sigmas = ramp.map(|t| (high.powf(1.0 / rho) * (1.0 - t) + low.powf(1.0 / rho) * t).powf(rho)).collect();
    Schedule::new(sigmas, frame, TimestepMap::QuarterLog).expect("descending sigmas")
}

/// Starting points, in standard deviations of the noise.
const STARTS: [f64; 5] = [-1.4, -0.5, 0.1, 0.6, 1.7];

/// Largest error of five paths.
fn path_error(sampler: &Sampler, settings: &Settings, frame: Frame, n: usize) -> f64 {
    let schedule = schedule(frame, n, sampler.order);
    let (first, last) = (schedule.sigmas[0], schedule.sigmas[n]);
    let starts = STARTS.map(|z| first * z);
    let (x, goals) = if sampler.inverts {
        (starts.map(|x| exact(frame, x, first, last)), starts)
    } else {
        (starts, starts.map(|x| exact(frame, x, first, last)))
    };
    let program = sampler.program(&schedule, settings);
    let no_noise = |_: Draw, _: &mut [f64]| panic!("a deterministic sampler drew noise");
    let outcome = run(&program, &x, &mut denoiser(frame), no_noise, |_| ControlFlow::Continue(()));
    let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
    result.iter().zip(goals).map(|(x, goal)| (x - goal).abs()).fold(0.0, f64::max)
}

fn follows_the_path(sampler: &Sampler) -> bool {
    !sampler.stochastic && sampler.name != "one_step"
}

#[test]
fn deterministic_samplers_have_the_order_they_state() {
    let mut wrong = Vec::new();
    for sampler in SAMPLERS.iter().filter(|s| follows_the_path(s) && !s.is_adaptive()) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            // Numbers with the same remainder when divided by 3, because dpm_fast takes steps in groups of 3. The lower
            // order of the first steps of a method of order 4 remains visible up to more steps.
            let counts: [usize; 2] = if sampler.order < 4 { [398, 797] } else { [1598, 3197] };
            let [coarse, fine] = counts.map(|n| path_error(sampler, &Settings::default(), frame, n));
            let order = (coarse / fine).ln() / (counts[1] as f64 / counts[0] as f64).ln();
            println!("{:26} {frame:?}: {order:.2}", sampler.name);
            if (order - f64::from(sampler.order)).abs() > 0.25 {
                wrong.push(format!("{} in {frame:?}: order {order:.2}, not {}", sampler.name, sampler.order));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// RK45's error at the end stays below its tolerance, which is for the whole run. dpm_adaptive estimates the error of
/// its second-order part, and comes near its tolerance.
#[test]
fn adaptive_samplers_keep_their_tolerance() {
    for sampler in SAMPLERS.iter().filter(|s| follows_the_path(s) && s.is_adaptive()) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            for tolerance in [1e-3, 1e-5, 1e-7] {
                // A tolerance relative to x would be relative to the noise at the start.
                let settings =
                    Settings { absolute_tolerance: tolerance, relative_tolerance: 0.0, ..sampler.settings() };
                let error = path_error(sampler, &settings, frame, 20);
                println!("{:13} {frame:?} tolerance {tolerance:.0e}: error {error:.1e}", sampler.name);
                let bound = if sampler.name == "rk45" { tolerance } else { 3.0 * tolerance };
                assert!(error < bound, "{} in {frame:?}: {error:e} with tolerance {tolerance:e}", sampler.name);
            }
        }
    }
}

/// Box-Muller on a 64-bit congruential generator (Knuth's MMIX constants): enough for means of 20,000.
struct Normals(u64);

impl Normals {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// Mean, variance and the share of every part's neighbourhood, against the exact distribution at the last noise level.
#[test]
fn stochastic_samplers_reach_the_mixture() {
    const SAMPLES: usize = 20_000;
    let mut wrong = Vec::new();
    for sampler in SAMPLERS.iter().filter(|s| s.stochastic && !restarts(s)) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            let schedule = schedule(frame, 150, 1);
            let (first, last) = (schedule.sigmas[0], schedule.sigmas[150]);
            let mut normals = Normals(7);
            // From the exact distribution at the first level.
            let draw_start = |normals: &mut Normals| {
                let parts = noisy(frame, first);
                let u = normals.uniform();
                let (_, mean, variance) = if u < PARTS[0].0 {
                    parts[0]
                } else if u < PARTS[0].0 + PARTS[1].0 {
                    parts[1]
                } else {
                    parts[2]
                };
                mean + variance.sqrt() * normals.next()
            };
            let x: Vec<f64> = (0..SAMPLES).map(|_| draw_start(&mut normals)).collect();
            // Every step of repaint twice is enough to see that its jumps keep the distribution.
            let settings = Settings { s_noise: 1.0, jump_n_sample: 2, ..sampler.settings() };
            let program = sampler.program(&schedule, &settings);
            let noise = |_: Draw, out: &mut [f64]| out.iter_mut().for_each(|v| *v = normals.next());
            let outcome = run(&program, &x, &mut denoiser(frame), noise, |_| ControlFlow::Continue(()));
            let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };

            let parts = noisy(frame, last);
            let mean = parts.iter().map(|(weight, mean, _)| weight * mean).sum::<f64>();
            let square = parts.iter().map(|(weight, mean, variance)| weight * (mean * mean + variance)).sum::<f64>();
            let of = |f: &dyn Fn(f64) -> f64| result.iter().map(|x| f(*x)).sum::<f64>() / SAMPLES as f64;
            let found_mean = of(&|x| x);
            let found_variance = of(&|x| (x - mean).powi(2));
            let mut errors =
                vec![found_mean - mean, (found_variance - (square - mean * mean)) / (square - mean * mean)];
            for edge in [-0.2, 1.3].map(|edge: f64| edge * frame.alpha(last)) {
                errors.push(of(&|x| f64::from(u8::from(x > edge))) - tail(frame, edge, last, true));
            }
            let worst = errors.iter().fold(0.0_f64, |worst, e| worst.max(e.abs()));
            println!("{:26} {frame:?}: mean, variance, shares off by {errors:.3?}", sampler.name);
            // Four standard errors of the mean and of the shares are 0.03 and 0.014; the rest is the step size, and
            // that of the Langevin steps, which annealed Langevin dynamics does not correct.
            let bound = if sampler.name == "ald" { 0.1 } else { 0.05 };
            if worst > bound || worst.is_nan() {
                wrong.push(format!("{} in {frame:?}: {errors:.3?}", sampler.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Samplers of consistency models, which go to the clean image in every step.
fn restarts(sampler: &Sampler) -> bool {
    matches!(sampler.name, "lcm" | "consistency" | "tcd")
}

/// Without guidance, the CFG++ samplers equal the samplers they are named after.
#[test]
fn cfg_pp_without_guidance_is_the_plain_sampler() {
    let plain: Vec<_> = SAMPLERS.iter().filter_map(|s| Some((s.name.strip_suffix("_cfg_pp")?, *s))).collect();
    assert_eq!(plain.len(), 6);
    for (name, guided) in plain {
        let sampler = scheduler::sampler(name).expect("the plain sampler");
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            let results = [sampler, guided].map(|sampler| {
                let schedule = schedule(frame, 7, 1);
                let program = sampler.program(&schedule, &sampler.settings());
                assert_eq!(program.wants_unguided(), sampler == guided);
                let mut normals = Normals(3);
                let noise = |_: Draw, out: &mut [f64]| out.iter_mut().for_each(|v| *v = normals.next());
                let outcome = run(&program, &STARTS, &mut denoiser(frame), noise, |_| ControlFlow::Continue(()));
                let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
                result
            });
            let differ = results[0].iter().zip(&results[1]).any(|(a, b)| (a - b).abs() > 1e-12);
            assert!(!differ, "{name} in {frame:?}: {results:?}");
        }
    }
}
