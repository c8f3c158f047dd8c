//! Runs that share the model's answers, and jobs with other steps or other draws than the request's.

use crate::common::{cpu, pipeline, request};
use pipelines::{Memo, Request};
use scheduler::{Sampling, Schedule, sampler, sigmas};

fn with_sampler(name: &str, steps: usize) -> Request {
    Request { sampler: Some(name.parse().unwrap()), seed: 3, ..request("a red square", steps) }
}

/// The first evaluation is the same for all; Euler's method under two names asks for the same all the way.
#[test]
fn shared_answers_change_no_picture() {
    let pipe = pipeline(&cpu(), "pixels");
    let memo = Memo::new(1 << 20);
    for (name, steps, wanted) in
        [("euler", 4, 0), ("heun", 4, 1), ("lms", 4, 1), ("euler", 4, 4), ("euler_cfg_pp", 4, 0)]
    {
        let job = pipe.job(&with_sampler(name, steps)).unwrap();
        let alone = pipe.start(&job).unwrap().finish().unwrap();
        let mut run = pipe.start_sharing(&job, &memo).unwrap();
        while run.next().unwrap().is_some() {}
        let (taken_over, saved) = run.taken_over();
        assert!(taken_over >= wanted, "{name}: {taken_over}");
        assert_eq!(taken_over > 0, !saved.is_zero(), "{name}");
        let shared = run.finish().unwrap();
        assert_eq!((shared.evaluations, shared.sample), (alone.evaluations, alone.sample), "{name}");
    }
    // Another prompt asks something else.
    let job = pipe.job(&Request { prompt: "a blue disc".into(), ..with_sampler("euler", 4) }).unwrap();
    let mut run = pipe.start_sharing(&job, &memo).unwrap();
    while run.next().unwrap().is_some() {}
    assert_eq!(run.taken_over().0, 0);
}

#[test]
fn other_draws_start_from_the_same_noise() {
    let pipe = pipeline(&cpu(), "pixels");
    for (name, draws) in [("euler", false), ("euler_ancestral", true)] {
        let job = pipe.job(&with_sampler(name, 3)).unwrap();
        let other = job.with_other_draws(99).unwrap();
        let first = |job| {
            let mut run = pipe.start(job).unwrap();
            let x = run.next().unwrap().unwrap().x.to_vec();
            (x, run.finish().unwrap().sample)
        };
        let ((x, sample), (other_x, other_sample)) = (first(&job), first(&other));
        assert_eq!(x, other_x, "{name}");
        assert_eq!(sample != other_sample, draws, "{name}");
    }
}

#[test]
fn a_job_can_step_otherwise() {
    let pipe = pipeline(&cpu(), "pixels");
    let job = pipe.job(&with_sampler("euler", 3)).unwrap();
    let own = job.sampling();
    let levels = sigmas::exponential(6, 0.05, own.schedule.sigmas[0]).unwrap();
    let mut schedule = Schedule::new(levels, own.schedule.frame, own.schedule.map.clone()).unwrap();
    schedule.init_noise_sigma = own.schedule.init_noise_sigma;
    let heun = sampler("heun").unwrap();
    let other = job.with_sampling(Sampling { sampler: heun, schedule, ..own.clone() });
    let mut run = pipe.start(&other).unwrap();
    let mut before = pipe.start(&job).unwrap();
    assert_eq!(run.next().unwrap().unwrap().x, before.next().unwrap().unwrap().x, "the same start");
    assert_eq!(run.finish().unwrap().steps, 6);
    // A step's image is decoded as the final one is.
    let made = pipe.start(&job).unwrap().finish().unwrap();
    assert_eq!(pipe.decode(&job, &made.sample).unwrap(), made.image);
    assert!(pipe.decode(&job, &[0.0]).is_err());
}
