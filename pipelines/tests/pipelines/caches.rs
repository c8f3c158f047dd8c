//! What is kept from one picture to the next depends on nothing else than it must: plans on size and guidance, encoded prompts on the prompts.

use crate::common::{counting, pipeline, request};
use pipelines::{ImageToImage, Request, RgbImage, Rng, StartingNoise};
use scheduler::{NamedSchedule, Steps};

#[test]
fn a_change_makes_again_only_what_depends_on_it() {
    let (device, counts) = counting();
    let pipe = pipeline(&device, "stable_diffusion");
    let base = || Request { guidance_scale: Some(5.0), ..request("a red square", 2) };
    let image = RgbImage { width: 32, height: 32, pixels: vec![90; 32 * 32 * 3] };
    let sampler = |name: &str| Some(name.parse().unwrap());
    // Each after the one before: (what changes, the request, denoisers planned, text encoders planned, prompts encoded).
    let changes: Vec<(&str, Request, (usize, usize, usize))> = vec![
        ("the first picture", base(), (1, 1, 2)),
        ("nothing", base(), (0, 0, 0)),
        ("the seed", Request { seed: 9, ..base() }, (0, 0, 0)),
        ("the generator", Request { rng: Rng::TorchCpu, ..base() }, (0, 0, 0)),
        ("the starting noise", Request { noise: StartingNoise::Slerp { to: 3, share: 0.5 }, ..base() }, (0, 0, 0)),
        ("the steps", Request { steps: Some(Steps::Count(3)), ..base() }, (0, 0, 0)),
        ("the sampler", Request { sampler: sampler("dpm++ 2m"), ..base() }, (0, 0, 0)),
        ("the schedule", Request { schedule: Some(NamedSchedule::Karras), ..base() }, (0, 0, 0)),
        ("to a CFG++ sampler", Request { sampler: sampler("euler_cfg_pp"), ..base() }, (0, 0, 0)),
        (
            "to one with little guidance",
            Request { sampler: sampler("euler_cfg_pp"), guidance_scale: Some(0.6), ..base() },
            (0, 0, 0),
        ),
        ("the amount of guidance", Request { guidance_scale: Some(3.0), ..base() }, (0, 0, 0)),
        (
            "a picture to start from",
            Request { task: ImageToImage { image, strength: None }.into(), ..base() },
            (0, 0, 0),
        ),
        ("the prompt", Request { prompt: "a blue square".into(), ..base() }, (0, 0, 1)),
        ("the negative prompt", Request { negative_prompt: Some("red".into()), ..base() }, (0, 0, 1)),
        ("back to earlier prompts", base(), (0, 0, 0)),
        ("no guidance", Request { guidance_scale: Some(1.0), ..base() }, (1, 0, 0)),
        ("guidance again", base(), (1, 0, 0)),
        ("the size", Request { width: Some(64), ..base() }, (1, 0, 0)),
        ("layers of CLIP left out", Request { width: Some(64), clip_skip: 1, ..base() }, (0, 1, 2)),
        ("as before", Request { width: Some(64), ..base() }, (0, 0, 0)),
    ];
    for (change, request, wanted) in changes {
        pipe.generate(&request).unwrap();
        assert_eq!(counts.take(), wanted, "{change}: (denoisers planned, text encoders planned, prompts encoded)");
    }
}
