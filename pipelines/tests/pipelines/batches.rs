//! Samples that run together are the samples that they are alone.

use crate::common::{adapter, cpu, limited, pipeline, request};
use pipelines::{Generated, ImageToImage, Inpaint, Job, Pipeline, Request, RgbImage, SharedDevice, Upscale};

/// A picture whose colours differ from number to number.
fn picture(number: u8) -> RgbImage {
    let pixels = (0..32 * 32).flat_map(|i| [number * 40, (i / 32 * 8) as u8, (i % 32 * 8) as u8]).collect();
    RgbImage { width: 32, height: 32, pixels }
}

fn worst(one: &Generated, other: &Generated) -> u8 {
    let (one, other) = (one.image.as_ref().unwrap(), other.image.as_ref().unwrap());
    assert_eq!((one.width, one.height), (other.width, other.height));
    one.pixels.iter().zip(&other.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn jobs(pipe: &Pipeline, requests: &[Request]) -> Vec<Job> {
    requests.iter().map(|request| pipe.job(request).unwrap()).collect()
}

/// Runs them together on this device, and each alone on the CPU.
fn compare(device: &SharedDevice, name: &str, requests: &[Request]) {
    let (alone, pipe) = (pipeline(&cpu(), name), pipeline(device, name));
    let batch = pipe.start_all(&jobs(&pipe, requests)).unwrap();
    let ids = batch.ids();
    let together = batch.finish().unwrap();
    assert_eq!(together.iter().map(|generated| generated.run).collect::<Vec<_>>(), ids);
    for (i, (request, together)) in requests.iter().zip(&together).enumerate() {
        let alone = alone.generate(request).unwrap();
        let worst = worst(&alone, together);
        println!("{}, {name}, sample {i}: {worst} of 255", device.info().name);
        assert!(worst <= 1, "{name}, sample {i}: {worst} of 255");
        let counts = |made: &Generated| (made.steps, made.evaluations, made.predictions, made.reused);
        assert_eq!(counts(&alone), counts(together), "{name}, sample {i}");
    }
}

fn cases() -> Vec<(&'static str, Vec<Request>)> {
    let seeds = |base: Request| (0..3).map(|seed| Request { seed, ..base.clone() }).collect::<Vec<_>>();
    let sampler = |name: &str| Some(name.parse().unwrap());
    let mut mask = picture(0);
    mask.pixels.fill(0);
    mask.pixels[..32 * 20 * 3].fill(255);
    let inpaint = |number| Inpaint { strength: Some(0.8), ..Inpaint::new(picture(number), mask.clone()) }.into();
    vec![
        ("pixels", seeds(Request { guidance_scale: Some(4.0), ..request("a red square", 3) })),
        // Each draws its own noise, and its own share of CFG++'s unguided images.
        (
            "stable_diffusion",
            seeds(Request { sampler: sampler("euler_ancestral_cfg_pp"), guidance_scale: Some(0.7), ..request("a", 3) }),
        ),
        // Prompts, guidance, samplers and steps of their own: all of it is an input of one graph.
        (
            "stable_diffusion",
            vec![
                Request { seed: 1, guidance_scale: Some(3.0), ..request("a red square", 2) },
                Request { seed: 2, guidance_scale: Some(7.0), sampler: sampler("heun"), ..request("a blue square", 3) },
                Request { seed: 3, guidance_scale: Some(2.0), sampler: sampler("rk45"), ..request("", 2) },
            ],
        ),
        // Guidance acts on some of them and rests on others.
        (
            "stable_diffusion",
            [("0,1", "euler"), ("1,inf", "euler_cfg_pp"), ("0.5,4", "heun")]
                .map(|(interval, name)| Request {
                    guidance_interval: interval.parse().ok(),
                    guidance_scale: Some(3.0),
                    sampler: sampler(name),
                    ..request("a red square", 4)
                })
                .into(),
        ),
        // Each keeps other values from step to step, and one none.
        (
            "stable_diffusion",
            [(Some("deep:2"), "euler"), (Some("t-gate:2"), "heun"), (None, "dpmpp_2m"), (Some("t-gate:1"), "euler")]
                .map(|(cache, name)| Request {
                    step_cache: cache.and_then(|cache| cache.parse().ok()),
                    guidance_scale: Some(3.0),
                    sampler: sampler(name),
                    ..request("a red square", 4)
                })
                .into(),
        ),
        (
            "pixels",
            seeds(Request {
                step_cache: "first-block:0.3".parse().ok(),
                guidance_scale: Some(3.0),
                ..request("a red square", 6)
            }),
        ),
        (
            "stable_diffusion",
            (1..4)
                .map(|i| Request {
                    seed: u64::from(i),
                    task: ImageToImage { image: picture(i), strength: Some(0.6) }.into(),
                    ..request("a red square", 5)
                })
                .collect(),
        ),
        ("stable_diffusion", (1..4).map(|i| Request { seed: 1, task: inpaint(i), ..request("a", 4) }).collect()),
        (
            "upscaler",
            (1..3)
                .map(|i| Request {
                    task: Upscale::new(RgbImage { width: 16, height: 16, pixels: vec![i * 50; 16 * 16 * 3] }).into(),
                    ..request("", 2)
                })
                .collect(),
        ),
        ("latent_consistency", seeds(request("a red square", 2))),
    ]
}

#[test]
fn together_as_alone_on_the_cpu() {
    for (name, requests) in cases() {
        compare(&cpu(), name, &requests);
    }
}

#[test]
fn together_as_alone_on_an_adapter() {
    let device = adapter();
    for (name, requests) in
        cases().into_iter().enumerate().filter(|(i, _)| [0, 1, 4, 5].contains(i)).map(|(_, case)| case)
    {
        compare(&device, name, &requests);
    }
}

#[test]
fn a_batch_is_split_where_memory_is_short() {
    let whole = pipeline(&cpu(), "pixels");
    let requests: Vec<Request> = (0..5).map(|seed| Request { seed, ..request("a red square", 2) }).collect();
    let jobs_ = jobs(&whole, &requests);
    // Room for two at once, not for five.
    let memory = whole.estimate(&jobs_[0], 2).unwrap().denoiser;
    let device = limited(memory.weights + memory.activations * 5 / 4);
    let pipe = pipeline(&device, "pixels");
    let batch = pipe.start_all(&jobs(&pipe, &requests)).unwrap();
    assert_eq!(batch.samples_at_once(), 2);
    drop(batch);
    compare(&device, "pixels", &requests);
}

#[test]
fn one_of_a_batch_can_be_stopped() {
    let pipe = pipeline(&cpu(), "pixels");
    let requests: Vec<Request> = (0..3).map(|seed| Request { seed, ..request("a red square", 3) }).collect();
    let mut batch = pipe.start_all(&jobs(&pipe, &requests)).unwrap();
    let ids = batch.ids();
    let mut steps = 0;
    while let Some(step) = batch.next().unwrap() {
        let (run, index) = (step.run, step.index);
        steps += 1;
        if run == ids[1] && index == 0 {
            batch.stop(run);
        }
    }
    assert_eq!(steps, 3 + 1 + 3);
    let made: Vec<_> = batch.finish().unwrap().iter().map(|generated| generated.run).collect();
    assert_eq!(made, [ids[0], ids[2]]);
}

#[test]
fn jobs_of_other_sizes_do_not_run_together() {
    let pipe = pipeline(&cpu(), "pixels");
    let one = pipe.job(&request("a", 2)).unwrap();
    let other = pipe.job(&Request { guidance_scale: Some(1.0), ..request("a", 2) }).unwrap();
    let wanted = pipe.job(&Request { guidance_scale: Some(3.0), ..request("a", 2) }).unwrap();
    assert!(pipe.start_all(&[one.clone(), one]).is_ok());
    let error = pipe.start_all(&[other, wanted]).unwrap_err().to_string();
    assert_eq!(error, "jobs that run together must have one size, and be guided or not alike");
    assert!(pipe.start_all(&[]).unwrap_err().is_usage());
}
