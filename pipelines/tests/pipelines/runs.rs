//! Runs are resumed by their caller: one after the other, in turn, dropped, or on several threads.

use crate::common::{adapter, counting, cpu, limited, pipeline, request};
use pipelines::{ImageToImage, Inpaint, Pipeline, Request, RgbImage, Rng, Run, StartingNoise, nhwc_from_nchw};
use std::collections::HashSet;

fn is_send<T: Send>() {}

#[test]
fn a_job_says_what_a_run_does() {
    is_send::<Pipeline>();
    is_send::<Run>();
    let pipe = pipeline(&cpu(), "pixels");
    let job = pipe.job(&Request { sampler: Some("heun".parse().unwrap()), ..request("a red square", 4) }).unwrap();
    let mut run = pipe.start(&job).unwrap();
    let (mut sigmas, mut evaluations) = (Vec::new(), Vec::new());
    let id = run.id();
    while let Some(step) = run.next().unwrap() {
        assert_eq!((step.run, step.index, step.steps), (id, sigmas.len(), 4));
        assert_eq!((step.x.len(), step.denoised.len()), (job.shape().numel(), job.shape().numel()));
        sigmas.push(step.sigma);
        evaluations.push(step.evaluations);
    }
    assert!(run.next().unwrap().is_none(), "the end stays the end");
    let generated = run.finish().unwrap();
    assert_eq!((Some(generated.steps), Some(generated.evaluations)), (job.steps(), job.evaluations()));
    assert_eq!(sigmas, job.sigmas());
    assert!(evaluations.windows(2).all(|pair| pair[0] < pair[1]), "{evaluations:?}");
}

/// Two prompts of one size use one plan in turn; two sizes keep one each.
#[test]
fn runs_that_take_turns_make_the_same_pictures() {
    let (device, counts) = counting();
    let pipe = pipeline(&device, "stable_diffusion");
    let image = RgbImage { width: 32, height: 32, pixels: vec![90; 32 * 32 * 3] };
    let mut mask = RgbImage { pixels: vec![0; 32 * 32 * 3], ..image.clone() };
    mask.pixels[..32 * 16 * 3].fill(255);
    let requests = [
        request("a red square", 3),
        Request { seed: 5, sampler: Some("euler_ancestral".parse().unwrap()), ..request("a blue square", 4) },
        Request { width: Some(64), ..request("a green square", 2) },
        Request { task: Inpaint::new(image, mask).into(), ..request("a red square", 3) },
    ];
    let alone: Vec<_> = requests.iter().map(|request| pipe.generate(request).unwrap()).collect();
    counts.take();
    let jobs: Vec<_> = requests.iter().map(|request| pipe.job(request).unwrap()).collect();
    let mut runs: Vec<Run> = jobs.iter().map(|job| pipe.start(job).unwrap()).collect();
    assert_eq!(runs.iter().map(Run::id).collect::<HashSet<_>>().len(), 4, "every run has a name of its own");
    let mut going = true;
    while going {
        going = false;
        for run in &mut runs {
            going |= run.next().unwrap().is_some();
        }
    }
    for (run, alone) in runs.into_iter().zip(&alone) {
        let generated = run.finish().unwrap();
        assert_eq!(generated.sample, alone.sample);
        assert_eq!(generated.image, alone.image);
    }
    let (denoisers, ..) = counts.take();
    assert!(denoisers <= 2, "{denoisers} plans for two sizes");
}

#[test]
fn a_dropped_run_leaves_nothing_behind() {
    let pipe = pipeline(&cpu(), "pixels");
    let (job, other) = (pipe.job(&request("a red square", 4)).unwrap(), request("a blue square", 3));
    let before = pipe.generate(&other).unwrap();
    let mut run = pipe.start(&job).unwrap();
    run.next().unwrap().unwrap();
    drop(run);
    assert_eq!(pipe.generate(&other).unwrap().sample, before.sample);
}

#[test]
fn noise_is_the_seeds_or_given_or_between_two_seeds() {
    let pipe = pipeline(&cpu(), "pixels");
    // Every step draws, so that draws after the first count too.
    let base = || Request { sampler: Some("euler_ancestral".parse().unwrap()), seed: 3, ..request("a red square", 3) };
    let make = |request: &Request| pipe.generate(request).unwrap().sample;
    let own = make(&base());
    let shape = pipe.job(&base()).unwrap().shape();
    let mut first = vec![0.0; shape.numel()];
    Rng::Philox.stream(3).fill(&mut first);
    let given = StartingNoise::Given(nhwc_from_nchw(&first, shape).into());
    assert_eq!(make(&Request { noise: given, ..base() }), own, "the seed's own first draw, given");
    let other = make(&Request { seed: 4, ..base() });
    let slerp = |share| make(&Request { noise: StartingNoise::Slerp { to: 4, share }, ..base() });
    assert_eq!(slerp(0.0), own);
    assert_eq!(slerp(1.0), other);
    assert!(slerp(0.5) != own && slerp(0.5) != other);
    for noise in [
        StartingNoise::Given(vec![0.0; 5].into()),
        StartingNoise::Given(vec![f32::NAN; shape.numel()].into()),
        StartingNoise::Slerp { to: 4, share: f64::NAN },
    ] {
        let error = pipe.job(&Request { noise, ..base() }).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("noise"), "{error}");
    }
}

/// Two pipelines on two threads share a device and make the pictures that each makes alone.
fn two_threads(device: &pipelines::SharedDevice, steps: usize) {
    let names = ["pixels", "stable_diffusion"];
    let alone = names.map(|name| pipeline(&cpu(), name).generate(&request("a red square", steps)).unwrap());
    let pipes = names.map(|name| pipeline(device, name));
    let together = std::thread::scope(|scope| {
        let threads =
            pipes.each_ref().map(|pipe| scope.spawn(|| pipe.generate(&request("a red square", steps)).unwrap()));
        threads.map(|thread| thread.join().unwrap())
    });
    for (alone, together) in alone.iter().zip(&together) {
        let (alone, together) = (alone.image.as_ref().unwrap(), together.image.as_ref().unwrap());
        let pairs = alone.pixels.iter().zip(&together.pixels);
        let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 1, "{worst} of 255");
    }
}

#[test]
fn two_pipelines_on_two_threads_of_the_cpu() {
    two_threads(&cpu(), 6);
}

#[test]
fn two_pipelines_on_two_threads_of_an_adapter() {
    two_threads(&adapter(), 2);
}

/// Where both do not fit, each makes room by letting the other's plans go, and both end.
#[test]
fn two_pipelines_on_two_threads_where_one_has_room() {
    let needs = ["pixels", "stable_diffusion"].map(|name| {
        let pipe = pipeline(&cpu(), name);
        pipe.generate(&request("a red square", 2)).unwrap();
        let memory = pipe.memory();
        memory.weights + memory.activations
    });
    let room = needs[0].max(needs[1]) * 11 / 10;
    assert!(room < needs[0] + needs[1], "{needs:?} fit together");
    let device = limited(room);
    two_threads(&device, 6);
    assert!(device.memory().weights + device.memory().activations <= room);
}

#[test]
fn a_picture_to_start_from_is_prepared_once() {
    let pipe = pipeline(&cpu(), "stable_diffusion");
    let image = RgbImage { width: 40, height: 33, pixels: vec![7; 40 * 33 * 3] };
    let job =
        pipe.job(&Request { task: ImageToImage { image, strength: Some(0.5) }.into(), ..request("a", 4) }).unwrap();
    let settings = job.settings();
    // Each side rounded up to what the model makes; the result is cut to the picture's own.
    assert_eq!((settings.width, settings.height, settings.strength, job.steps()), (40, 34, Some(0.5), Some(2)));
}
