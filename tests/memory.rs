//! A device with little memory holds the parts of a model one after the other, and makes the same picture.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use headwater::{DeviceChoice, DeviceSettings, ModelFiles, Pipeline, Request, open_device};
use std::path::Path;

struct Made {
    pixels: Vec<u8>,
    memory: u64,
}

fn make(max_memory: Option<u64>) -> Result<Made, headwater::PipelineError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pipelines/stable_diffusion");
    let settings = DeviceSettings { max_memory, ..Default::default() };
    let device = open_device(&DeviceChoice::Cpu, &settings)?;
    let pipe = Pipeline::from_pretrained(&device, &ModelFiles::folder(folder)?, Default::default())?;
    let request = Request { prompt: "a red square".into(), seed: 5, ..Request::default() };
    let mut pixels = Vec::new();
    // When the second picture of the same prompt begins, some parts have been dropped.
    for _ in 0..2 {
        pixels.push(pipe.generate(&request)?.image.unwrap().pixels);
    }
    assert_eq!(pixels[0], pixels[1]);
    let memory = pipe.memory();
    Ok(Made { pixels: pixels.remove(0), memory: memory.weights + memory.activations })
}

#[test]
fn parts_that_do_not_fit_together_are_dropped_in_turn() {
    let all = make(None).unwrap();
    let limit = all.memory * 9 / 10;
    let some = make(Some(limit)).unwrap();
    assert!(some.memory <= limit, "{} of {limit}", some.memory);
    assert_eq!(some.pixels, all.pixels, "nothing was decoded in tiles");
    let error = make(Some(1 << 10)).err().expect("a kilobyte is too little").to_string();
    assert!(error.contains("out of memory") && !error.contains('\n'), "{error}");
}
