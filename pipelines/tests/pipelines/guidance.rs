//! Guidance in a limited interval: what lies outside it costs one prediction and not two, and an interval of everything changes nothing.

use crate::common::{counting, cpu, pipeline, request};
use pipelines::{GuidanceInterval, ImageToImage, Memo, Request, RgbImage};
use std::sync::atomic::Ordering;

fn guided(sampler: &str, interval: Option<&str>) -> Request {
    Request {
        sampler: Some(sampler.parse().unwrap()),
        guidance_scale: Some(4.0),
        guidance_interval: interval.map(|interval| interval.parse().unwrap()),
        negative_prompt: Some("blue".into()),
        seed: 3,
        ..request("a red square", 5)
    }
}

#[test]
fn everything_and_nothing_are_guidance_and_none_to_the_bit() {
    let (device, counts) = counting();
    let pipe = pipeline(&device, "stable_diffusion");
    for sampler in ["euler", "heun", "euler_ancestral_cfg_pp", "rk45"] {
        let make = |request: &Request| {
            counts.rows.store(0, Ordering::Relaxed);
            let made = pipe.generate(request).unwrap();
            assert_eq!(made.predictions, counts.rows.load(Ordering::Relaxed), "{sampler}: what ran is what is told");
            made
        };
        let plain = make(&guided(sampler, None));
        let all = make(&guided(sampler, Some("0,inf")));
        assert_eq!((&all.sample, all.predictions), (&plain.sample, 2 * plain.evaluations), "{sampler}");
        // Above all levels of the schedule. CFG++ is the plain sampler where there is no guidance.
        let name = sampler.trim_end_matches("_cfg_pp");
        let without = make(&Request { guidance_scale: Some(1.0), ..guided(name, None) });
        let nowhere = make(&guided(sampler, Some("1000,inf")));
        assert_eq!(nowhere.predictions, nowhere.evaluations, "{sampler}");
        assert_eq!(nowhere.sample, without.sample, "{sampler}");
        assert_ne!(nowhere.sample, plain.sample, "{sampler}");
    }
}

#[test]
fn outside_the_interval_the_network_predicts_once() {
    let (device, counts) = counting();
    let pipe = pipeline(&device, "stable_diffusion");
    let whole = pipe.generate(&guided("euler", None)).unwrap();
    let sigmas = pipe.job(&guided("euler", None)).unwrap().sigmas();
    counts.take();
    for (low, high, within) in [(0.0, sigmas[2], 3), (sigmas[2], f64::INFINITY, 2), (sigmas[3], sigmas[1], 2)] {
        let interval = Some(GuidanceInterval::new(low, high).unwrap());
        let job = pipe.job(&Request { guidance_interval: interval, ..guided("euler", None) }).unwrap();
        counts.rows.store(0, Ordering::Relaxed);
        let made = pipe.start(&job).unwrap().finish().unwrap();
        assert_eq!((made.evaluations, made.predictions, job.predictions()), (5, 5 + within, Some(5 + within)));
        assert_eq!(counts.rows.load(Ordering::Relaxed), 5 + within, "what ran is what is told");
        assert_ne!(made.sample, whole.sample);
    }
    assert_eq!(
        counts.take().0,
        1,
        "both plans stay where they are: the one with guidance was there, the other came once"
    );
}

/// A run that shares answers asks for others where its interval is another.
#[test]
fn answers_with_and_without_guidance_are_not_mixed_up() {
    let pipe = pipeline(&cpu(), "pixels");
    let memo = Memo::new(1 << 20);
    for interval in [None, Some("0,1"), Some("1,inf"), Some("0,inf")] {
        for sampler in ["euler", "euler_cfg_pp"] {
            let job = pipe.job(&guided(sampler, interval)).unwrap();
            let alone = pipe.start(&job).unwrap().finish().unwrap();
            let shared = pipe.start_sharing(&job, &memo).unwrap().finish().unwrap();
            assert_eq!(shared.sample, alone.sample, "{sampler}, {interval:?}");
        }
    }
}

#[test]
fn large_pictures_are_guided_in_the_interval_in_all_their_parts() {
    let pipe = pipeline(&cpu(), "pixels");
    let task = || ImageToImage {
        image: RgbImage { width: 96, height: 64, pixels: vec![90; 96 * 64 * 3] },
        strength: Some(0.8),
    };
    let make = |interval, guidance_scale| {
        let request =
            Request { task: task().into(), guidance_scale: Some(guidance_scale), ..guided("euler", interval) };
        let job = pipe.job(&request).unwrap();
        assert!(job.parts() > 1);
        pipe.start(&job).unwrap().finish().unwrap()
    };
    let (plain, without) = (make(None, 4.0), make(None, 1.0));
    assert_eq!(make(Some("0,inf"), 4.0).sample, plain.sample);
    assert_eq!(make(Some("1000,inf"), 4.0).sample, without.sample);
    let some = make(Some("1,inf"), 4.0);
    assert!(some.evaluations < some.predictions && some.predictions < plain.predictions);
}

#[test]
fn models_without_such_guidance_refuse_an_interval() {
    let pipe = pipeline(&cpu(), "latent_consistency");
    let error = pipe.job(&Request { guidance_interval: "0,1".parse().ok(), ..request("a", 2) }).unwrap_err();
    assert!(error.is_usage());
    let wanted = "a guidance interval is not possible: this model takes guidance as an input, and predicts once anyway";
    assert_eq!(error.to_string(), wanted);
}
