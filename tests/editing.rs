//! Pictures made from pictures: the same as diffusers', on the CPU and on a graphics adapter.
//!
//! `tests/goldens/make_edits.py` made them, on checkpoints of `make_latents.py` and `make_edited_pipelines.py`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use headwater::{
    DeviceChoice, DeviceSettings, ImageToImage, Inpaint, ModelFiles, Pipeline, Request, RgbImage, Rng, SharedDevice,
    Steps, Task, Upscale, open_device, read_picture,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A grey level of rounding on either side.
const LARGEST_DIFFERENCE: i32 = 2;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn picture(path: &Path) -> RgbImage {
    read_picture(path).unwrap_or_else(|e| panic!("{e}"))
}

fn input(name: &str) -> RgbImage {
    picture(&goldens().join("edits").join(name))
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn task(case: &Value) -> Task {
    let (image, strength) = (input(case["image"].as_str().unwrap()), case["strength"].as_f64());
    match case["task"].as_str().unwrap() {
        "img2img" => ImageToImage { image, strength }.into(),
        "inpaint" => Inpaint { strength, ..Inpaint::new(image, input(case["mask_image"].as_str().unwrap())) }.into(),
        "upscale" => Upscale { noise_level: Some(count(&case["noise_level"])), ..Upscale::new(image) }.into(),
        other => panic!("no task {other}"),
    }
}

/// The request of a case. Sizes and everything else that it does not give are the defaults for the model and the
/// picture.
fn request(case: &Value) -> Request {
    let text = |key: &str| case[key].as_str().unwrap().to_owned();
    Request {
        prompt: text("prompt"),
        negative_prompt: Some(text("negative_prompt")),
        width: case["width"].as_u64().map(|_| count(&case["width"])),
        height: case["height"].as_u64().map(|_| count(&case["height"])),
        steps: Some(Steps::Count(count(&case["steps"]))),
        sampler: case["sampler"].as_str().map(|name| name.parse().unwrap()),
        guidance_scale: case["guidance_scale"].as_f64(),
        seed: case["seed"].as_u64().unwrap(),
        rng: Rng::TorchCpu,
        task: task(case),
        ..Request::default()
    }
}

/// Every folder of pictures made from pictures.
fn edited_pipelines() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(goldens().join("pipelines")).expect("golden pipelines");
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("edits").is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 3, "there are three golden pipelines");
    folders
}

fn compare_all(device: &SharedDevice) {
    let mut wrong = Vec::new();
    for folder in edited_pipelines() {
        let what = folder.file_name().unwrap().display().to_string();
        let files = ModelFiles::folder(&folder).unwrap();
        let pipe = Pipeline::from_pretrained(device, &files, Default::default()).unwrap();
        let text = std::fs::read_to_string(folder.join("edits/cases.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert!(!cases.is_empty(), "{what} has no cases");
        for case in &cases {
            let name = format!("{what}, {}", case["file"].as_str().unwrap());
            let theirs = picture(&folder.join("edits").join(case["file"].as_str().unwrap()));
            let mut request = request(case);
            // Ours has the picture's own size where nobody asks for another; diffusers' is rounded down.
            (request.width, request.height) = (Some(theirs.width), Some(theirs.height));
            let job = pipe.job(&request).unwrap_or_else(|e| panic!("{name}: {e}"));
            check_timesteps(job.program(), case, &name);
            let run = pipe.start(&job).unwrap_or_else(|e| panic!("{name}: {e}"));
            let generated = run.finish().unwrap_or_else(|e| panic!("{name}: {e}"));
            // diffusers returns the whole picture from the model when inpainting, without the kept pixels put back.
            let ours = generated.repainted.or(generated.image).expect("a picture");
            assert_eq!((ours.width, ours.height), (theirs.width, theirs.height), "{name}");
            let worst = difference(&ours, &theirs);
            println!("{}, {name}: {worst} of 255", device.info().name);
            if worst > LARGEST_DIFFERENCE {
                wrong.push(format!("{name}: {worst}"));
            }
        }
    }
    assert!(wrong.is_empty(), "differ from diffusers by more than {LARGEST_DIFFERENCE} of 255: {wrong:#?}");
}

fn difference(ours: &RgbImage, theirs: &RgbImage) -> i32 {
    let pairs = ours.pixels.iter().zip(&theirs.pixels);
    pairs.map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).max().expect("a picture has pixels")
}

/// The network must be asked at diffusers' own timesteps, in order.
fn check_timesteps(program: &scheduler::Program, case: &Value, name: &str) {
    let ours = program.ops().iter().filter_map(|op| match op {
        scheduler::Op::Denoise { timestep, .. } => Some(*timestep),
        _ => None,
    });
    let ours: Vec<f64> = ours.collect();
    let theirs: Vec<f64> = case["timesteps"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
    assert!(ours.len() == theirs.len() && ours.iter().zip(&theirs).all(close), "{name}: {ours:?} {theirs:?}");
}

fn cpu() -> SharedDevice {
    open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).expect("the CPU is always there")
}

#[test]
fn edits_on_the_cpu_are_diffusers() {
    compare_all(&cpu());
}

#[test]
fn edits_on_an_adapter_are_diffusers() {
    // Kernels are checked here, because a test should find a wrong index.
    let settings = DeviceSettings { checked: true, ..Default::default() };
    let device = open_device(&DeviceChoice::Adapter("gpu".into()), &settings)
        .unwrap_or_else(|error| panic!("{error} (`cargo xtask test` sets one up)"));
    compare_all(&device);
}

/// The defaults of each task equal those of diffusers' pipeline.
#[test]
fn defaults_are_diffusers() {
    let device = cpu();
    let image = input("square.png");
    let from = Task::from(ImageToImage { image: image.clone(), strength: None });
    let part = Task::from(Inpaint::new(image.clone(), input("mask.png")));
    let larger = Task::from(Upscale::new(image));
    for (name, task, steps, guidance_scale) in [
        ("stable_diffusion", &from, 50, 7.5),
        ("stable_diffusion", &part, 50, 7.5),
        ("stable_diffusion_xl", &from, 50, 5.0),
        ("stable_diffusion_xl", &part, 50, 7.5),
        ("latent_consistency", &from, 4, 8.5),
        ("upscaler", &larger, 75, 9.0),
    ] {
        let files = ModelFiles::folder(goldens().join("pipelines").join(name)).unwrap();
        let pipe = Pipeline::from_pretrained(&device, &files, Default::default()).unwrap();
        let defaults = pipe.defaults_for(task.clone());
        let theirs = (Some(Steps::Count(steps)), Some(guidance_scale));
        assert_eq!((defaults.steps, defaults.guidance_scale), theirs, "{name}");
    }
}

/// If the encoder does not fit beside the network, parts are dropped and loaded again.
#[test]
fn a_device_with_little_memory_makes_the_same_pictures() {
    let make = |max_memory: Option<u64>| {
        let settings = DeviceSettings { max_memory, ..Default::default() };
        let device = open_device(&DeviceChoice::Cpu, &settings).unwrap();
        let files = ModelFiles::folder(goldens().join("pipelines/stable_diffusion")).unwrap();
        let pipe = Pipeline::from_pretrained(&device, &files, Default::default()).unwrap();
        let mut images = Vec::new();
        for (name, prompt) in [("square.png", "a red square"), ("mask.png", "a blue square"), ("square.png", "")] {
            let task = ImageToImage { image: input(name), strength: None }.into();
            let request = Request { prompt: prompt.into(), steps: Some(Steps::Count(4)), task, ..Request::default() };
            let generated = pipe.generate(&request).unwrap_or_else(|e| panic!("{max_memory:?}: {e}"));
            images.push(generated.image.unwrap());
        }
        let memory = pipe.memory();
        (images, memory.weights + memory.activations)
    };
    let (all, memory) = make(None);
    let (some, held) = make(Some(memory * 9 / 10));
    assert!(held <= memory * 9 / 10, "{held} of {memory}");
    assert_eq!(all, some);
}

#[test]
fn pictures_are_read_whatever_their_format() {
    let read = |name: &str| input(&format!("formats/{name}"));
    let upright = read("upright.png");
    for name in ["palette.png", "lossless.webp", "transparent.png", "turned.png", "turned.webp"] {
        assert_eq!(read(name), upright, "{name}");
    }
    let jpeg = read("turned.jpg");
    assert_eq!((jpeg.width, jpeg.height), (upright.width, upright.height));
    assert!(difference(&jpeg, &upright) <= 8, "{}", difference(&jpeg, &upright));
    assert_eq!(read("grey-16.png"), read("grey.png"));
    assert_eq!(read("grey.png").pixels[..9], [0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

/// diffusers has no image-to-image pipeline for networks that work on pixels. A small strength must change the picture
/// little, and full strength a lot.
#[test]
fn networks_on_pixels_start_from_pictures() {
    let (device, files) = (cpu(), ModelFiles::folder(goldens().join("pipelines/epsilon")).unwrap());
    let pipe = Pipeline::from_pretrained(&device, &files, Default::default()).unwrap();
    let changed = |strength: f64| {
        let task = ImageToImage { image: input("square.png"), strength: Some(strength) }.into();
        let prompt = "a red square on a white background".to_owned();
        let request = Request { prompt, steps: Some(Steps::Count(20)), task, ..Request::default() };
        let generated = pipe.generate(&request).unwrap();
        assert_eq!(generated.steps, (20.0 * strength) as usize);
        let (image, original) = (generated.image.unwrap(), input("square.png"));
        let pairs = image.pixels.iter().zip(&original.pixels);
        pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum::<f64>() / image.pixels.len() as f64
    };
    let (little, half, all) = (changed(0.05), changed(0.5), changed(1.0));
    assert!(little < 4.0 && little < half && half < all && all > 30.0, "{little} {half} {all}");
}

/// A caller of the library can set a picture's fields to any values.
#[test]
fn pictures_and_masks_without_all_their_pixels_are_refused() {
    let device = cpu();
    let open = |name: &str| {
        let files = ModelFiles::folder(goldens().join("pipelines").join(name)).unwrap();
        Pipeline::from_pretrained(&device, &files, Default::default()).unwrap()
    };
    let (plain, upscaler, whole) = (open("stable_diffusion"), open("upscaler"), input("square.png"));
    let (width, height, pixels) = (whole.width, whole.height, &whole.pixels);
    for (width, height, pixels, part) in [
        (0, 0, Vec::new(), "no pixels"),
        (0, height, Vec::new(), "no pixels"),
        (width, 0, Vec::new(), "no pixels"),
        (width, height, Vec::new(), "has 0 bytes"),
        (width, height, pixels[1..].to_vec(), "which are not 32x32 pixels"),
        (width, height, [&pixels[..], &[0]].concat(), "which are not 32x32 pixels"),
        (width, height + 1, pixels.clone(), "which are not 32x33 pixels"),
        (usize::MAX, 2, pixels.clone(), "which are not"),
    ] {
        let broken = RgbImage { width, height, pixels };
        let (image, mask, strength) = (broken.clone(), whole.clone(), None);
        let cases = [
            (&plain, Task::from(ImageToImage { image: image.clone(), strength }), "the picture "),
            (&plain, Inpaint { strength, ..Inpaint::new(image.clone(), mask) }.into(), "the picture "),
            (&plain, Inpaint { strength, ..Inpaint::new(whole.clone(), broken) }.into(), "the mask "),
            (&upscaler, Upscale::new(image).into(), "the picture "),
        ];
        for (pipe, task, what) in cases {
            let request = Request { width: Some(32), height: Some(32), task, ..Request::default() };
            let error = pipe.job(&request).expect_err("no picture").to_string();
            assert!(error.starts_with(what) && error.contains(part), "{error}");
        }
    }
}

/// Two pictures of different shape but with equal pixel data are different pictures.
#[test]
fn a_picture_of_other_extents_is_another() {
    let device = cpu();
    let open = || {
        let files = ModelFiles::folder(goldens().join("pipelines/stable_diffusion")).unwrap();
        Pipeline::from_pretrained(&device, &files, Default::default()).unwrap()
    };
    let make = |pipe: &Pipeline, width: usize, height: usize| {
        let image = RgbImage { width, height, pixels: vec![90; width * height * 3] };
        let task = ImageToImage { image, strength: None }.into();
        let steps = Some(Steps::Count(2));
        let request = Request { prompt: "a red square".into(), steps, task, ..Request::default() };
        pipe.generate(&request).unwrap().image.unwrap()
    };
    let pipe = open();
    for (width, height) in [(32, 64), (64, 32), (32, 64)] {
        assert!(make(&pipe, width, height) == make(&open(), width, height), "{width}x{height}");
    }
}
