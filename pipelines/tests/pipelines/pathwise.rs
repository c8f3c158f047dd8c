//! Samplers of the reverse SDE on one Brownian path: more steps refine the same sample.

use pipelines::noise::{Noise, Philox};
use scheduler::{Frame, Op, Outcome, SAMPLERS, Sampler, Schedule, TimestepMap, run};
use std::ops::ControlFlow;

/// Data N(0.3, 0.5²).
const DATA: (f64, f64) = (0.3, 0.5);
const ELEMENTS: usize = 64;
const FINEST: usize = 4096;

fn schedule(frame: Frame, n: usize) -> Schedule {
    let (high, low): (f64, f64) = if frame == Frame::Flow { (0.95, 0.05) } else { (10.0, 0.05) };
    let sigmas = (0..=n).map(|i| high * (low / high).powf(i as f64 / n as f64)).collect();
    Schedule::new(sigmas, frame, TimestepMap::QuarterLog).expect("descending sigmas")
}

fn sample(sampler: &Sampler, frame: Frame, n: usize, on_a_path: bool) -> Vec<f64> {
    let schedule = schedule(frame, n);
    let program = sampler.program(&schedule, &sampler.settings());
    let mut noise = Philox::new(3);
    let mut start = vec![0.0_f32; ELEMENTS];
    noise.fill(&mut start);
    let sigma = schedule.sigmas[0];
    let (mean, std) = (frame.alpha(sigma) * DATA.0, (frame.alpha(sigma) * DATA.1).hypot(sigma));
    let x: Vec<f64> = start.iter().map(|z| mean + std * f64::from(*z)).collect();
    let mut denoiser = |x: &[f64], sigma: f64, _: f64, out: &mut [f64]| -> Result<(), ()> {
        let alpha = frame.alpha(sigma);
        let gain = alpha * DATA.1 * DATA.1 / ((alpha * DATA.1).powi(2) + sigma * sigma);
        out.iter_mut().zip(x).for_each(|(out, x)| *out = DATA.0 + gain * (x - alpha * DATA.0));
        Ok(())
    };
    let mut draw = |wanted: scheduler::Draw, out: &mut [f64]| {
        let mut single = vec![0.0; out.len()];
        match wanted.between.filter(|_| on_a_path) {
            Some(interval) => noise.fill_between(interval, &mut single),
            None => noise.fill(&mut single),
        }
        out.iter_mut().zip(single).for_each(|(out, z)| *out = f64::from(z));
    };
    match run(&program, &x, &mut denoiser, &mut draw, |_| ControlFlow::Continue(())) {
        Ok(Outcome::Finished(x)) => x,
        other => panic!("{other:?}"),
    }
}

/// Root mean square distance to a run of very many steps.
fn distance(sampler: &Sampler, frame: Frame, n: usize, finest: &[f64], on_a_path: bool) -> f64 {
    let squares = sample(sampler, frame, n, on_a_path).iter().zip(finest).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    (squares / ELEMENTS as f64).sqrt()
}

fn takes_its_noise_from_a_path(sampler: &Sampler) -> bool {
    let program = sampler.program(&schedule(Frame::VarianceExploding, 4), &sampler.settings());
    program.ops().iter().any(|op| matches!(op, Op::Noise { between: Some(_), .. }))
}

#[test]
fn samplers_of_the_sde_converge_on_a_path() {
    let mut tested = 0;
    for sampler in SAMPLERS.iter().filter(|s| takes_its_noise_from_a_path(s)) {
        for frame in [Frame::VarianceExploding, Frame::Flow] {
            let finest = sample(sampler, frame, FINEST, true);
            let [coarse, fine] = [32, 256].map(|n| distance(sampler, frame, n, &finest, true));
            let order = (coarse / fine).log2() / 3.0;
            println!("{:26} {frame:?}: {coarse:.4} {fine:.4}, strong order {order:.2}", sampler.name);
            // With noise that does not depend on x, Euler-Maruyama has strong order 1 (Kloeden & Platen 1992, section 10.2), and so
            // has whatever is not worse.
            assert!(order > 0.9, "{} in {frame:?}: {coarse} with 32 steps, {fine} with 256", sampler.name);
            tested += 1;
        }
    }
    assert!(tested >= 24, "{tested}");
    // Fresh noise in every step draws another sample each time.
    let sampler = scheduler::sampler("euler_ancestral").expect("in the list");
    let finest = sample(sampler, Frame::VarianceExploding, FINEST, false);
    assert!(distance(sampler, Frame::VarianceExploding, 256, &finest, false) > 0.3);
}
