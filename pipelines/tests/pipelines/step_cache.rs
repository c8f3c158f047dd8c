//! Values kept from step to step: where none is used nothing changes, and where some are, it is told how many. What they make is compared with
//! their authors' pictures in `tests/parity.rs`.

use crate::common::{adapter, counting, cpu, pipeline, request};
use pipelines::{Generated, GuidanceInterval, ImageToImage, Memo, Pipeline, Request, RgbImage, SharedDevice};

fn cached(sampler: &str, cache: Option<&str>) -> Request {
    Request {
        sampler: Some(sampler.parse().unwrap()),
        guidance_scale: Some(3.0),
        negative_prompt: Some("blue".into()),
        step_cache: cache.map(|cache| cache.parse().unwrap()),
        seed: 3,
        ..request("a red square", 6)
    }
}

fn make(pipe: &Pipeline, sampler: &str, cache: Option<&str>) -> Generated {
    pipe.generate(&cached(sampler, cache)).unwrap()
}

/// Caches that are asked for and never used.
const UNUSED: [(&str, &str); 4] = [
    ("pixels", "first-block:0"),
    ("pixels", "t-gate:100000"),
    ("stable_diffusion", "t-gate:100000"),
    ("stable_diffusion", "deep:1"),
];

fn unused_changes_nothing(device: &SharedDevice, samplers: &[&str]) {
    for (name, cache) in UNUSED {
        let pipe = pipeline(device, name);
        for sampler in samplers {
            let (plain, own) = (make(&pipe, sampler, None), make(&pipe, sampler, Some(cache)));
            let counts = |made: &Generated| (made.evaluations, made.predictions, made.reused);
            assert_eq!(counts(&own), counts(&plain), "{name}, {cache}, {sampler}");
            assert!(own.sample == plain.sample, "{name}, {cache}, {sampler}: bits differ");
        }
    }
}

#[test]
fn an_unused_cache_changes_no_bit() {
    unused_changes_nothing(&cpu(), &["euler", "heun", "dpmpp_2m", "euler_ancestral_cfg_pp", "lms", "rk45"]);
}

#[test]
fn an_unused_cache_changes_no_bit_on_an_adapter() {
    unused_changes_nothing(&adapter(), &["dpmpp_2m"]);
}

/// The noisy samples that every step starts from.
fn steps(pipe: &Pipeline, request: &Request) -> Vec<Vec<f32>> {
    let mut run = pipe.start(&pipe.job(request).unwrap()).unwrap();
    let mut all = Vec::new();
    while let Some(step) = run.next().unwrap() {
        all.push(step.x.to_vec());
    }
    all
}

#[test]
fn until_values_are_used_a_run_is_as_without_them() {
    for (name, cache, whole) in
        [("pixels", "t-gate:3", 3), ("stable_diffusion", "t-gate:2", 2), ("stable_diffusion", "deep:2", 1)]
    {
        let pipe = pipeline(&cpu(), name);
        let (plain, own) = (steps(&pipe, &cached("euler", None)), steps(&pipe, &cached("euler", Some(cache))));
        // A step starts from what the one before it made.
        assert!(plain[..=whole] == own[..=whole], "{name}, {cache}");
        assert!(plain[whole + 1] != own[whole + 1], "{name}, {cache}");
    }
}

#[test]
fn what_is_used_again_is_told_and_planned_once() {
    // (checkpoint, sampler, cache, evaluations, predictions, of them with values of others, graphs).
    for (name, sampler, cache, evaluations, predictions, reused, graphs) in [
        ("pixels", "euler", "t-gate:4", 6, 10, 2, 2),
        ("stable_diffusion", "heun", "t-gate:4", 11, 15, 7, 2),
        ("stable_diffusion", "heun", "deep:3", 11, 22, 7, 2),
        ("stable_diffusion", "euler", "deep:2", 6, 12, 3, 2),
        ("pixels", "euler", "first-block:1000", 6, 12, 5, 3),
        ("stable_diffusion", "euler", "t-gate:6", 6, 12, 0, 1),
    ] {
        let (device, counts) = counting();
        let pipe = pipeline(&device, name);
        for planned in [graphs, 0] {
            let job = pipe.job(&cached(sampler, Some(cache))).unwrap();
            let made = pipe.start(&job).unwrap().finish().unwrap();
            let told = (made.evaluations, made.predictions, made.reused);
            assert_eq!(told, (evaluations, predictions, reused), "{name}, {cache}");
            assert_eq!(job.predictions(), Some(predictions), "{name}, {cache}: told before");
            assert_eq!(counts.take().0, planned, "{name}, {cache}: graphs");
            let estimate = pipe.estimate(&job, 1).unwrap().denoiser;
            let held = pipe.memory().weights;
            assert!(estimate.weights > 0 && estimate.weights <= held, "{name}, {cache}: {estimate:?} of {held}");
        }
    }
}

/// Adaptive samplers ask as often as they like.
#[test]
fn samplers_that_choose_their_own_steps_use_values_again() {
    for (name, cache) in [("pixels", "first-block:0.2"), ("pixels", "t-gate:3"), ("stable_diffusion", "deep:3")] {
        let pipe = pipeline(&cpu(), name);
        let made = make(&pipe, "rk45", Some(cache));
        assert!(made.reused > 0 && made.reused < made.evaluations, "{name}, {cache}: {}", made.reused);
    }
}

#[test]
fn guidance_that_rests_and_values_that_are_kept_go_together() {
    for (name, cache) in [("pixels", "first-block:1000"), ("pixels", "t-gate:5"), ("stable_diffusion", "deep:100")] {
        let pipe = pipeline(&cpu(), name);
        let plain = cached("euler", Some(cache));
        let sigmas = pipe.job(&plain).unwrap().sigmas();
        let interval = GuidanceInterval::new(sigmas[4], sigmas[1]).unwrap();
        let job = pipe.job(&Request { guidance_interval: Some(interval), ..plain }).unwrap();
        let (inside, turns) = ([false, true, true, true, false, false], 2);
        let made = pipe.start(&job).unwrap().finish().unwrap();
        if cache.starts_with("t-gate") {
            let guided = inside[..5].iter().filter(|inside| **inside).count();
            assert_eq!((made.predictions, made.reused), (6 + guided, 1), "{name}, {cache}");
        } else {
            // Values of an evaluation with guidance are none for one without.
            assert_eq!(made.reused, 6 - 1 - turns, "{name}, {cache}");
        }
        assert_eq!(job.predictions(), Some(made.predictions), "{name}, {cache}");
    }
}

/// Plans are shared; what is kept belongs to a run.
#[test]
fn runs_that_take_turns_keep_their_own_values() {
    for (name, caches) in [
        ("pixels", ["t-gate:2", "t-gate:3", "first-block:0.3", "first-block:0.3"]),
        ("stable_diffusion", ["t-gate:2", "deep:2", "deep:3", "t-gate:2"]),
    ] {
        let pipe = pipeline(&cpu(), name);
        let requests: Vec<Request> = (caches.iter().zip(["a red square", "a blue square", "green", ""]))
            .map(|(cache, prompt)| Request { prompt: prompt.into(), ..cached("euler", Some(cache)) })
            .collect();
        let alone: Vec<Generated> = requests.iter().map(|request| pipe.generate(request).unwrap()).collect();
        let start = |request| pipe.start(&pipe.job(request).unwrap()).unwrap();
        let mut runs: Vec<_> = requests.iter().map(start).collect();
        for _ in 0..6 {
            runs.iter_mut().for_each(|run| assert!(run.next().unwrap().is_some()));
        }
        for ((run, alone), cache) in runs.into_iter().zip(&alone).zip(caches) {
            let made = run.finish().unwrap();
            assert!(made.sample == alone.sample && made.reused == alone.reused, "{name}, {cache}");
        }
    }
}

/// An answer with values of others depends on what was asked before.
#[test]
fn no_answers_are_shared() {
    let pipe = pipeline(&cpu(), "pixels");
    let memo = Memo::new(1 << 20);
    for cache in [None, Some("t-gate:2"), None, Some("first-block:0.3"), Some("t-gate:3")] {
        let job = pipe.job(&cached("euler", cache)).unwrap();
        let alone = pipe.start(&job).unwrap().finish().unwrap();
        let shared = pipe.start_sharing(&job, &memo).unwrap().finish().unwrap();
        assert!(shared.sample == alone.sample, "{cache:?}");
    }
}

#[test]
fn what_a_network_cannot_do_is_refused() {
    let refused = |name: &str, cache: &str, request: Request| {
        let error = pipeline(&cpu(), name).job(&Request { step_cache: cache.parse().ok(), ..request }).unwrap_err();
        assert!(error.is_usage(), "{error}");
        error.to_string()
    };
    let plain = || request("a red square", 4);
    let unet = "the step cache first-block:0.1 is not possible: this model is no transformer of several blocks";
    assert_eq!(refused("stable_diffusion", "first-block:0.1", plain()), unet);
    let transformer = "the step cache deep:3 is not possible: this model is no UNet whose levels it could skip";
    assert_eq!(refused("pixels", "deep:3", plain()), transformer);
    let classes = "the step cache t-gate:3 is not possible: this model attends to no text";
    assert_eq!(refused("dit", "t-gate:3", request("", 4)), classes);
    let large = RgbImage { width: 96, height: 64, pixels: vec![90; 96 * 64 * 3] };
    let task = ImageToImage { image: large, strength: Some(0.8) }.into();
    let parts = "the step cache t-gate:3 is not possible: a picture this large is denoised in parts";
    assert_eq!(refused("pixels", "t-gate:3", Request { task, ..plain() }), parts);
}
