//! The same seed, noise and sampler as diffusers give the same picture, on the CPU and on a graphics adapter.
//!
//! `tests/goldens/make_pipelines.py`, `make_pictures.py`, `make_latents.py` and
//! `make_noise_pipelines.py` made the checkpoints and pictures, `make_step_caches.py` those where values are kept from step to step.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use headwater::bundled::{BUNDLED, find};
use headwater::{DeviceChoice, DeviceSettings, ModelFiles, Pipeline, Request, Rng, SharedDevice, Steps, open_device};
use std::path::{Path, PathBuf};

/// A grey level of rounding on either side.
const LARGEST_DIFFERENCE: i32 = 2;

/// Number of pictures of each bundled model that are also made on an adapter. A software adapter takes seconds for a
/// step.
const BUNDLED_ON_ADAPTER: usize = 4;

#[derive(Debug)]
struct Case {
    name: String,
    request: Request,
    timesteps: Vec<f64>,
    /// Evaluations with values of others, where some are kept.
    reused: Option<u64>,
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn cases(folder: &Path) -> Vec<Case> {
    let text =
        std::fs::read_to_string(folder.join("cases.json")).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases: Vec<Case> = list.as_array().unwrap().iter().map(|case| read_case(folder, case)).collect();
    assert!(!cases.is_empty(), "{} has no cases", folder.display());
    cases
}

fn read_case(folder: &Path, case: &serde_json::Value) -> Case {
    let text = |key: &str| case[key].as_str().unwrap_or_else(|| panic!("{key} in {case}")).to_owned();
    let count = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
    let (width, height, pixels) = read_png(&folder.join(text("file")));
    Case {
        name: text("file"),
        request: Request {
            prompt: text("prompt"),
            negative_prompt: Some(text("negative_prompt")),
            width: Some(count("width")),
            height: Some(count("height")),
            steps: Some(match case["explicit_timesteps"].as_array() {
                Some(list) => Steps::Timesteps(list.iter().map(|t| t.as_f64().unwrap()).collect()),
                None => Steps::Count(count("steps")),
            }),
            sampler: case["sampler"].as_str().map(|name| name.parse().unwrap()),
            guidance_scale: case["guidance_scale"].as_f64(),
            seed: case["seed"].as_u64().unwrap(),
            rng: Rng::TorchCpu,
            prompt_syntax: case["prompt_syntax"].as_str().map(|name| name.parse().unwrap()),
            clip_skip: case["clip_skip"].as_u64().map_or(0, |n| usize::try_from(n).unwrap()),
            step_cache: case["step_cache"].as_str().map(|cache| cache.parse().unwrap()),
            class_label: case["class_label"].as_u64().map(|label| usize::try_from(label).unwrap()),
            ..Request::default()
        },
        reused: case["reused"].as_u64(),
        timesteps: case["timesteps"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect(),
        width,
        height,
        pixels,
    }
}

fn read_png(path: &Path) -> (usize, usize, Vec<u8>) {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut decoder = png::Decoder::new(std::io::BufReader::new(file));
    // Writers may choose a palette when a picture has few colours.
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(frame.color_type, png::ColorType::Rgb, "{}", path.display());
    pixels.truncate(frame.buffer_size());
    (frame.width as usize, frame.height as usize, pixels)
}

fn cpu() -> SharedDevice {
    open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).expect("the CPU is always there")
}

fn adapter() -> SharedDevice {
    // Kernels are checked here, because a test should find a wrong index.
    let settings = DeviceSettings { checked: true, ..Default::default() };
    open_device(&DeviceChoice::Adapter("gpu".into()), &settings)
        .unwrap_or_else(|error| panic!("{error} (`cargo xtask test` sets one up)"))
}

/// Makes every case, compares it, and prints the largest difference.
fn compare(device: &SharedDevice, files: &ModelFiles, cases: &[Case], what: &str) {
    let pipe = Pipeline::from_pretrained(device, files, Default::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut wrong = Vec::new();
    for case in cases {
        let job = pipe.job(&case.request).unwrap_or_else(|e| panic!("{what}, {}: {e}", case.name));
        check_timesteps(job.program(), case, what);
        let run = pipe.start(&job).unwrap_or_else(|e| panic!("{what}, {}: {e}", case.name));
        let generated = run.finish().unwrap_or_else(|e| panic!("{what}, {}: {e}", case.name));
        assert_eq!(generated.reused as u64, case.reused.unwrap_or(0), "{what}, {}: reused", case.name);
        let image = generated.image.expect("a picture");
        assert_eq!((image.width, image.height), (case.width, case.height), "{what}, {}", case.name);
        let differences = image.pixels.iter().zip(&case.pixels).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs());
        let worst = differences.max().expect("a picture has pixels");
        println!("{what}, {}: {worst} of 255", case.name);
        if worst > LARGEST_DIFFERENCE {
            wrong.push(format!("{}: {worst}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{what} differs from diffusers by more than {LARGEST_DIFFERENCE} of 255: {wrong:?}");
}

/// The model must be asked at diffusers' own timesteps, in order.
fn check_timesteps(program: &scheduler::Program, case: &Case, what: &str) {
    let ours: Vec<f64> = program
        .ops()
        .iter()
        .filter_map(|op| if let scheduler::Op::Denoise { timestep, .. } = op { Some(*timestep) } else { None })
        .collect();
    assert_eq!(ours.len(), case.timesteps.len(), "{what}, {}: {ours:?} {:?}", case.name, case.timesteps);
    for (ours, theirs) in ours.iter().zip(&case.timesteps) {
        // diffusers keeps timesteps in f32.
        let close = (ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0);
        assert!(close, "{what}, {}: timestep {ours}, diffusers {theirs}", case.name);
    }
}

fn tiny_pipelines() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(goldens().join("pipelines")).expect("golden pipelines");
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("pictures").is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 5, "there are five golden pipelines");
    folders
}

#[test]
fn tiny_checkpoints_on_the_cpu() {
    let device = cpu();
    for folder in tiny_pipelines() {
        let files = ModelFiles::folder(&folder).unwrap();
        let what = format!("cpu, {}", folder.file_name().unwrap().display());
        compare(&device, &files, &cases(&folder.join("pictures")), &what);
    }
}

#[test]
fn tiny_checkpoints_on_an_adapter() {
    let device = adapter();
    for folder in tiny_pipelines() {
        let files = ModelFiles::folder(&folder).unwrap();
        let what = format!("{}, {}", device.info().name, folder.file_name().unwrap().display());
        compare(&device, &files, &cases(&folder.join("pictures")), &what);
    }
}

#[test]
fn bundled_models_on_the_cpu() {
    for model in BUNDLED {
        let cases = cases(&goldens().join("bundled").join(model.name));
        compare(&cpu(), &model.files(), &cases, &format!("cpu, {}", model.name));
    }
}

/// What lies in `assets/models` and is no part of the program.
#[test]
fn models_beside_the_program_on_the_cpu() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models");
    for entry in std::fs::read_dir(goldens().join("bundled")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap();
        if find(name).is_none() {
            let files = ModelFiles::folder(models.join(name)).unwrap();
            compare(&cpu(), &files, &cases(&folder), &format!("cpu, {name}"));
        }
    }
}

#[test]
fn bundled_models_on_an_adapter() {
    let device = adapter();
    for model in BUNDLED {
        let mut cases = cases(&goldens().join("bundled").join(model.name));
        // The cheapest: fewest evaluations, smallest picture, no guidance.
        cases.sort_by_key(|case| {
            let guided = if case.request.guidance_scale.is_some_and(|scale| scale > 1.0) { 2 } else { 1 };
            case.timesteps.len() * guided * case.width * case.height
        });
        cases.truncate(BUNDLED_ON_ADAPTER);
        compare(&device, &model.files(), &cases, &format!("{}, {}", device.info().name, model.name));
    }
}

/// At guidance 0 the prompt has no effect, and the image is that of the negative prompt. The noise of CFG++ always
/// comes from the negative prompt.
#[test]
fn cfg_plus_plus_takes_its_noise_from_the_negative_prompt() {
    let (device, files) = (cpu(), ModelFiles::folder(goldens().join("pipelines/pixels")).unwrap());
    let pipe = Pipeline::from_pretrained(&device, &files, Default::default()).unwrap();
    let draw = |sampler: &str, prompt: &str, negative_prompt: &str, guidance_scale: f64| {
        let request = Request {
            sampler: Some(sampler.parse().unwrap()),
            prompt: prompt.to_owned(),
            negative_prompt: Some(negative_prompt.to_owned()),
            guidance_scale: Some(guidance_scale),
            steps: Some(Steps::Count(4)),
            ..Request::default()
        };
        pipe.generate(&request).unwrap().sample
    };
    let (red, blue) = ("a red square on a white background", "a blue square on a green background");
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let plain = draw("euler", blue, "", 1.0);
    assert!(differ(&plain, &draw("euler", red, "", 1.0)) > 0.1, "the prompts make different pictures");
    assert!(differ(&plain, &draw("euler_cfg_pp", red, blue, 0.0)) < 1e-4);
    assert!(differ(&draw("euler", red, "", 1.0), &draw("euler_cfg_pp", red, red, 0.5)) < 1e-4);
}

/// What diffusers, DeepCache and T-GATE make where values are kept from step to step, and in how many evaluations they used them.
fn step_caches(device: &SharedDevice, name: &str) {
    let entries = std::fs::read_dir(goldens().join("step_caches")).expect("golden pictures");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders {
        let checkpoint = folder.file_name().unwrap();
        let files = ModelFiles::folder(goldens().join("pipelines").join(checkpoint)).unwrap();
        compare(device, &files, &cases(&folder), &format!("{name}, {}", checkpoint.display()));
    }
}

#[test]
fn step_caches_on_the_cpu() {
    step_caches(&cpu(), "cpu");
}

#[test]
fn step_caches_on_an_adapter() {
    let device = adapter();
    step_caches(&device, &device.info().name.clone());
}
