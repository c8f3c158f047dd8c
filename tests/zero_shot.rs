//! Zero-shot editing: every step as it follows from the papers, and what is promised of pictures.
//!
//! `tests/goldens/make_zero_shot.py` made the steps, on checkpoints of `make_noise_pipelines.py`, `make_pipelines.py` and `make_latents.py`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use headwater::{
    Colorize, DeviceChoice, DeviceSettings, ImageToImage, Inpaint, Method, ModelFiles, Pipeline, Request, Restore,
    RgbImage, Rng, SharedDevice, Steps, Stroke, Task, Upscale, open_device, read_picture,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A grey level of rounding on either side, of values from −1 to 1.
const LARGEST_DIFFERENCE: f64 = 2.0 / 127.5;

/// The goldens have every so manieth number.
const STRIDE: usize = 13;

/// The goldens' numbers have so many digits after the point.
const ROUNDING: f64 = 0.5e-6;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn input(name: &str) -> RgbImage {
    read_picture(&goldens().join(name)).unwrap_or_else(|e| panic!("{e}"))
}

fn cases(file: &str) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(goldens().join("zero_shot").join(file)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().map(|count| usize::try_from(count).unwrap())
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

fn open(device: &SharedDevice, name: &str) -> Pipeline {
    let files = ModelFiles::folder(goldens().join("pipelines").join(name)).unwrap();
    Pipeline::from_pretrained(device, &files, Default::default()).unwrap()
}

fn task(case: &Value) -> Task {
    let image = input(case["image"].as_str().unwrap());
    let mask = case["mask"].as_str().map(input);
    let (method, sigma) = (Some(Method::Replace), case["sigmas"][0].as_f64());
    let replace_every = count(&case["replace_every"]).unwrap_or(1);
    match case["task"].as_str().unwrap() {
        "inpaint" => {
            Inpaint { method, replace_every, strength: Some(1.0), ..Inpaint::new(image, mask.unwrap()) }.into()
        }
        "colorize" => Colorize { mask, method, replace_every, ..Colorize::new(image) }.into(),
        "upscale" => Upscale { scale: case["scale"].as_f64(), method, replace_every, ..Upscale::new(image) }.into(),
        "restore" => Restore { image, sigma }.into(),
        "stroke" => Stroke { image, sigma }.into(),
        other => panic!("no task {other}"),
    }
}

fn request(case: &Value) -> Request {
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let steps = if case["sigmas"].is_null() {
        Steps::Timesteps(numbers(&case["timesteps"]))
    } else {
        Steps::Sigmas(numbers(&case["sigmas"]))
    };
    Request {
        prompt: text("prompt").unwrap_or_default(),
        negative_prompt: text("negative_prompt"),
        steps: Some(steps),
        sampler: case["sampler"].as_str().map(|name| name.parse().unwrap()),
        guidance_scale: case["guidance_scale"].as_f64(),
        class_label: count(&case["class_label"]),
        seed: case["seed"].as_u64().unwrap(),
        rng: Rng::TorchCpu,
        task: task(case),
        ..Request::default()
    }
}

/// The largest difference, and the same as a share of the largest number.
fn difference(ours: &[f32], theirs: &Value) -> (f64, f64) {
    let theirs = numbers(theirs);
    let ours: Vec<f64> = ours.iter().step_by(STRIDE).map(|v| f64::from(*v)).collect();
    assert_eq!(ours.len(), theirs.len());
    let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    (worst, worst / theirs.iter().fold(0.0, |most: f64, v| most.max(v.abs())))
}

/// Every step of every case.
fn compare_steps(device: &SharedDevice) {
    let (mut wrong, mut pipe) = (Vec::new(), None);
    for case in &cases("cases.json") {
        let model = case["pipeline"].as_str().unwrap();
        let name = format!("{model}, {}", case["name"].as_str().unwrap());
        if pipe.as_ref().is_none_or(|(of, _)| of != model) {
            pipe = Some((model.to_owned(), open(device, model)));
        }
        let (_, pipe) = pipe.as_ref().unwrap();
        let job = pipe.job(&request(case)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let asked = job.program().ops().iter().filter_map(|op| match op {
            scheduler::Op::Denoise { timestep, .. } => Some(*timestep),
            _ => None,
        });
        let close = |(a, b): (f64, f64)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(asked.zip(numbers(&case["asked"])).all(close), "{name}: {:?}", job.program());
        let mut run = pipe.start(&job).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut largest = (0.0_f64, 0.0_f64, 0.0_f64);
        for step in case["steps"].as_array().unwrap() {
            let ours = run.next().unwrap_or_else(|e| panic!("{name}: {e}")).expect("as many steps");
            let ((_, x), (off, denoised)) =
                (difference(ours.x, &step["x"]), difference(ours.denoised, &step["denoised"]));
            largest = (largest.0.max(x), largest.1.max(denoised), largest.2.max(off));
        }
        assert!(run.next().unwrap().is_none(), "{name} has more steps");
        let generated = run.finish().unwrap_or_else(|e| panic!("{name}: {e}"));
        let (off, x) = difference(&generated.sample, &case["sample"]);
        largest = (largest.0.max(x), largest.1, largest.2.max(off));
        let error = &case["f32_error"];
        let [of_x, of_denoised] = ["x", "denoised"].map(|what| error[what].as_f64().unwrap());
        let (x, denoised, off) = largest;
        println!(
            "{}, {name}: x {x:.1e} (PyTorch {of_x:.1e}), denoised {denoised:.1e} (PyTorch {of_denoised:.1e}), at most {:.4} of 255",
            device.info().name,
            off * 127.5
        );
        if x > 4.0 * of_x + ROUNDING || denoised > 4.0 * of_denoised + ROUNDING || off > LARGEST_DIFFERENCE {
            wrong.push(format!("{name}: {x:.1e} {denoised:.1e} {off:.1e}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn steps_on_the_cpu_are_algorithm_4s() {
    compare_steps(&cpu());
}

#[test]
fn steps_on_an_adapter_are_algorithm_4s() {
    compare_steps(&adapter());
}

/// Pictures by a model that knows no masks are diffusers' `RePaintPipeline`'s.
fn compare_repaint(device: &SharedDevice) {
    let pipe = open(device, "ddpm");
    let cases = cases("repaint.json");
    assert!(cases.len() >= 2);
    for case in &cases {
        let name = case["file"].as_str().unwrap();
        let (image, mask) = (input(case["image"].as_str().unwrap()), input(case["mask"].as_str().unwrap()));
        let request = Request {
            steps: count(&case["steps"]).map(Steps::Count),
            eta: case["eta"].as_f64(),
            seed: case["seed"].as_u64().unwrap(),
            rng: Rng::TorchCpu,
            task: Inpaint {
                method: Some(Method::RePaint),
                strength: Some(1.0),
                ..Inpaint::new(image.clone(), mask.clone())
            }
            .into(),
            ..Request::default()
        };
        // It starts from noise alone, whatever the picture.
        let other = RgbImage { pixels: vec![255; image.pixels.len()], ..image };
        let other = Inpaint { method: Some(Method::RePaint), strength: Some(1.0), ..Inpaint::new(other, mask) };
        let first = |request: &Request| {
            let mut run = pipe.job(request).and_then(|job| pipe.start(&job)).unwrap();
            run.next().unwrap().expect("a step").x.to_vec()
        };
        let other = Request { task: other.into(), ..request.clone() };
        assert!(first(&request) == first(&other), "{name} begins with more than noise");

        let generated = pipe.generate(&request).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (ours, theirs) = (generated.repainted.unwrap(), input(&format!("zero_shot/{name}")));
        assert_eq!((ours.width, ours.height), (theirs.width, theirs.height));
        let worst = ours.pixels.iter().zip(&theirs.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        println!("{}, {name}: {worst} of 255 in {} evaluations", device.info().name, generated.evaluations);
        assert!(worst <= 2, "{name}: {worst} of 255");
    }
}

#[test]
fn repaint_on_the_cpu_is_diffusers() {
    compare_repaint(&cpu());
}

#[test]
fn repaint_on_an_adapter_is_diffusers() {
    compare_repaint(&adapter());
}

/// Brightness as ITU-R BT.601 has it.
fn luma(pixel: &[u8]) -> f64 {
    pixel.iter().zip([0.299, 0.587, 0.114]).map(|(v, weight)| f64::from(*v) * weight).sum()
}

/// The largest difference in brightness, in levels of 255.
fn luma_difference(made: &RgbImage, known: &RgbImage) -> f64 {
    let pairs = made.pixels.chunks_exact(3).zip(known.pixels.chunks_exact(3));
    pairs.map(|(made, known)| (luma(made) - luma(known)).abs()).fold(0.0, f64::max)
}

/// The largest difference of a patch's mean from the small picture's pixel.
fn mean_difference(made: &RgbImage, small: &RgbImage) -> f64 {
    let factor = made.width / small.width;
    let mut worst: f64 = 0.0;
    for (pixel, known) in small.pixels.chunks_exact(3).enumerate() {
        let (x, y) = (pixel % small.width * factor, pixel / small.width * factor);
        for (channel, known) in known.iter().enumerate() {
            let of = |i: usize| made.pixels[((y + i / factor) * made.width + x + i % factor) * 3 + channel];
            let mean = (0..factor * factor).map(|i| f64::from(of(i))).sum::<f64>() / (factor * factor) as f64;
            worst = worst.max((mean - f64::from(*known)).abs());
        }
    }
    worst
}

/// Pixels that differ where the mask, as large as both, is black.
fn lost(made: &RgbImage, known: &RgbImage, mask: &RgbImage) -> usize {
    let pixels = made.pixels.chunks_exact(3).zip(known.pixels.chunks_exact(3)).zip(mask.pixels.chunks_exact(3));
    pixels.filter(|((made, known), mask)| luma(mask) < 127.5 && made != known).count()
}

/// Holes of no regular shape, up to the picture's edges.
fn holes(width: usize, height: usize) -> RgbImage {
    let hole = |x: usize, y: usize| (x * x / 7 + y * 3) % 19 < 7 || x + 2 > width;
    let pixels = (0..width * height).flat_map(|at| [if hole(at % width, at / width) { 255 } else { 0 }; 3]).collect();
    RgbImage { width, height, pixels }
}

/// Colours of nothing but full and empty channels, in squares of several sizes.
fn extreme(width: usize, height: usize) -> RgbImage {
    let byte = |i: usize| {
        let (x, y, channel) = (i / 3 % width, i / 3 / width, i % 3);
        let side = [1, 2, 5][channel];
        if (x / side + y / side + channel).is_multiple_of(2) { 255 } else { 0 }
    };
    RgbImage { width, height, pixels: (0..width * height * 3).map(byte).collect() }
}

/// The request that makes something of a picture with this model, in two steps.
fn quick(model: &str, task: Task) -> Request {
    let (sampler, steps) = match model {
        "consistency" => (None, Steps::Sigmas(vec![8.0, 1.0, 0.0])),
        "latent_consistency" => (None, Steps::Timesteps(vec![759.0, 259.0])),
        "inpainting" => (None, Steps::Count(2)),
        "pixels" => (Some("dpmpp_2m"), Steps::Sigmas(vec![12.0, 1.5, 0.0])),
        _ => (Some("euler"), Steps::Sigmas(vec![3.0, 0.8, 0.0])),
    };
    let prompt = if ["consistency", "ddpm"].contains(&model) { "" } else { "a red square" };
    let sampler = sampler.map(|name| name.parse().unwrap());
    Request { prompt: prompt.into(), sampler, steps: Some(steps), task, seed: 3, ..Request::default() }
}

/// Whatever the size of a picture and the kind of the model: the size stays, and what is known stays.
fn keep_what_is_known(device: &SharedDevice, pictures: &[RgbImage]) {
    for model in ["consistency", "ddpm", "pixels", "stable_diffusion", "latent_consistency", "inpainting"] {
        let pipe = open(device, model);
        for image in pictures {
            let (width, height) = (image.width, image.height);
            let make = |what: &str, request: Request| {
                let name = format!("{model}, {what} of {width}x{height}");
                pipe.generate(&request).unwrap_or_else(|e| panic!("{name}: {e}")).image.unwrap()
            };
            let same = |what: &str, task: Task| {
                let made = make(what, quick(model, task));
                assert_eq!((made.width, made.height), (width, height), "{model}, {what}");
                made
            };
            let mask = holes(width, height);
            let own = Inpaint::new(image.clone(), mask.clone());
            let mut methods = vec![None];
            if model != "inpainting" {
                methods.extend([Some(Method::Replace), Some(Method::Blend)]);
            }
            for method in methods {
                let made = same("inpainting", Inpaint { method, ..own.clone() }.into());
                assert_eq!(lost(&made, image, &mask), 0, "{model}, {width}x{height}, {method:?}");
                assert!(made != *image, "{model}, {width}x{height}, {method:?}");
            }
            let made = same("a part", Inpaint { padding: Some(3), blur: 2, grow: 1, ..own.clone() }.into());
            let grown = |x: usize, y: usize| {
                let near = |at: usize, end: usize| at.saturating_sub(1)..(at + 2).min(end);
                near(y, height).any(|y| near(x, width).any(|x| mask.pixels[(y * width + x) * 3] > 127))
            };
            let anew = (0..width * height).flat_map(|at| [if grown(at % width, at / width) { 255 } else { 0 }; 3]);
            let grown = RgbImage { pixels: anew.collect(), ..mask.clone() };
            assert_eq!(lost(&made, image, &grown), 0, "{model}, a part of {width}x{height}");

            let around = Inpaint::around(image, [3, 6, 0, 5]);
            let (wide, holes) = (around.image.clone(), around.mask.clone());
            let made = make("outpainting", quick(model, around.into()));
            assert_eq!((made.width, made.height), (width + 9, height + 5), "{model}");
            assert_eq!(lost(&made, &wide, &holes), 0, "{model}, around {width}x{height}");
            if model == "inpainting" {
                continue;
            }
            let made = same("colours", Colorize::new(image.clone()).into());
            let worst = luma_difference(&made, image);
            assert!(worst <= 1.0, "{model}, {width}x{height}: brightness differs by {worst} of 255");
            let made =
                same("a part's colours", Colorize { mask: Some(mask.clone()), ..Colorize::new(image.clone()) }.into());
            let worst = luma_difference(&made, image);
            assert!(worst <= 1.0, "{model}, {width}x{height}: brightness differs by {worst} of 255");
            assert_eq!(lost(&made, image, &mask), 0, "{model}, colours of {width}x{height}");
            for factor in [2, 3] {
                let task = Upscale { scale: Some(f64::from(factor)), ..Upscale::new(image.clone()) };
                let (made, factor) = (make("enlarging", quick(model, task.into())), factor as usize);
                assert_eq!((made.width, made.height), (factor * width, factor * height), "{model}");
                let worst = mean_difference(&made, image);
                assert!(worst <= 1.0, "{model}, {width}x{height}: means differ by {worst} of 255");
            }
            let sigma = Some(0.5);
            let steps = || Some(Steps::Sigmas(vec![0.5, 0.2, 0.0]));
            let restored = quick(model, Restore { image: image.clone(), sigma }.into());
            let made = make("restoring", Request { steps: steps(), ..restored });
            assert_eq!((made.width, made.height), (width, height), "{model}");
            same("strokes", Stroke { image: image.clone(), sigma: None }.into());
            same("another", ImageToImage { image: image.clone(), strength: None }.into());
        }
    }
}

/// Larger and smaller than what the models make, odd and even, and one pixel wide.
#[test]
fn what_is_known_stays_on_the_cpu() {
    let flat = RgbImage { width: 1, height: 9, pixels: vec![77; 27] };
    let pictures = [input("edits/waves.png"), extreme(51, 37), extreme(27, 17), extreme(16, 16), flat];
    keep_what_is_known(&cpu(), &pictures);
}

#[test]
fn what_is_known_stays_on_an_adapter() {
    keep_what_is_known(&adapter(), &[input("edits/small-waves.png")]);
}

/// Finished pictures are held to what is known whatever the model made: here noise of black and white channels.
#[test]
fn what_is_known_stays_at_the_ends_of_bytes() {
    use headwater::operators::{All, Luma, Mask, Operator, PatchMeans};
    use std::sync::Arc;
    let (width, height) = (24, 12);
    let mut state = 1_u32;
    let mut byte = |extreme: bool| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let byte = state.to_be_bytes()[0];
        if extreme { if byte < 128 { 0 } else { 255 } } else { byte }
    };
    for round in 0..40 {
        let (made_extreme, known_extreme) = (round % 2 == 0, round % 4 < 2);
        let size = width * height * 3;
        let mut picture = |extreme| RgbImage { width, height, pixels: (0..size).map(|_| byte(extreme)).collect() };
        let (made, known) = (picture(made_extreme), picture(known_extreme));
        let mut coloured = made.clone();
        Luma.finish(&mut coloured, &known);
        let worst = luma_difference(&coloured, &known);
        assert!(worst <= 1.0, "brightness differs by {worst} of 255");
        for factor in [2, 3, 4, 6] {
            let (small_width, small_height) = (width / factor, height / factor);
            let pixels = (0..small_width * small_height * 3).map(|i| known.pixels[i]).collect();
            let small = RgbImage { width: small_width, height: small_height, pixels };
            let at = |x: usize, y: usize, c: usize| small.pixels[(y / factor * small_width + x / factor) * 3 + c];
            let pixels = (0..size).map(|i| at(i / 3 % width, i / 3 / width, i % 3)).collect();
            let repeated = RgbImage { width, height, pixels };
            let mut enlarged = made.clone();
            PatchMeans { factor }.finish(&mut enlarged, &repeated);
            let worst = mean_difference(&enlarged, &small);
            assert!(worst <= 1.0, "means of {factor}x{factor} differ by {worst} of 255");
        }
        let mask = holes(width, height);
        let anew = mask.pixels.chunks_exact(3).map(|pixel| pixel[0] > 127).collect();
        let mut both = made;
        All { operators: vec![Arc::new(Luma), Arc::new(Mask { anew })], rounds: 1 }.finish(&mut both, &known);
        assert_eq!((lost(&both, &known, &mask), luma_difference(&both, &known) <= 1.0), (0, true));
    }
}

/// How much more a picture changes across some borders than across others, from a pixel to the next, by where the second pixel is.
fn seams(image: &RgbImage, borders: impl Fn(usize) -> bool, others: impl Fn(usize) -> bool) -> f64 {
    let pixel = |x: usize, y: usize| &image.pixels[(y * image.width + x) * 3..][..3];
    let change = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    let mean = |wanted: &dyn Fn(usize) -> bool| {
        let places = (0..image.width * image.height).map(|at| (at % image.width, at / image.width));
        let across = |(x, y): (usize, usize)| {
            let left = (x > 0 && wanted(x)).then(|| change(pixel(x - 1, y), pixel(x, y)));
            let above = (y > 0 && wanted(y)).then(|| change(pixel(x, y - 1), pixel(x, y)));
            left.into_iter().chain(above)
        };
        let (sum, count) = places.flat_map(across).fold((0.0, 0.0), |(sum, count), change| (sum + change, count + 1.0));
        sum / count
    };
    mean(&borders) / mean(&others)
}

/// A picture larger than the model's, made in overlapping tiles that begin and end at every 32nd pixel, has no seams there.
#[test]
fn tiles_leave_no_seams() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models/icons-64-consistency");
    let files = ModelFiles::folder(folder).unwrap();
    let pipe = Pipeline::from_pretrained(&cpu(), &files, Default::default()).unwrap();
    let smooth = |width: usize, height: usize| {
        let value = |i: usize| {
            let (x, y, c) =
                ((i / 3 % width) as f64 / width as f64, (i / 3 / width) as f64 / height as f64, (i % 3) as f64);
            (127.5 + 110.0 * (5.0 * x + 2.0 * c).sin() * (4.0 * y - c).cos()) as u8
        };
        RgbImage { width, height, pixels: (0..width * height * 3).map(value).collect() }
    };
    let (image, small) = (smooth(160, 128), smooth(80, 64));
    let mut hole = RgbImage { width: 160, height: 128, pixels: vec![255; 160 * 128 * 3] };
    hole.pixels[..160 * 3 * 20].fill(0);
    let tasks: [(&str, Task); 4] = [
        ("stroke", Stroke { image: image.clone(), sigma: None }.into()),
        ("colorize", Colorize::new(image.clone()).into()),
        ("upscale", Upscale::new(small).into()),
        ("inpaint", Inpaint::new(image.clone(), hole).into()),
    ];
    for (name, task) in tasks {
        let sigmas = if name == "stroke" { vec![5.38, 2.2, 0.0] } else { vec![40.0, 6.0, 1.0, 0.0] };
        let request = Request {
            prompt: "a red heart".into(),
            steps: Some(Steps::Sigmas(sigmas)),
            seed: 4,
            task,
            ..Request::default()
        };
        let job = pipe.job(&request).unwrap();
        assert_eq!(job.parts(), 12, "{name}");
        let generated = pipe.start(&job).and_then(headwater::Run::finish).unwrap();
        let made = generated.repainted.or(generated.image).unwrap();
        // The network makes blocks of 8 pixels, whose own borders can be seen in whole pictures, too: those inside of tiles are what the borders
        // of tiles are to be told from.
        let is_tile = |at: usize| at.is_multiple_of(32);
        let ratio = seams(&made, is_tile, |at| at.is_multiple_of(8) && !is_tile(at));
        let all = seams(&made, is_tile, |at| !is_tile(at));
        println!("{name}: {ratio:.3} of blocks' borders, {all:.3} of everything else");
        assert!(ratio <= 1.05, "{name}: {ratio:.3}");
    }
}

/// Parts know the unguided image as well: CFG++ puts back the noise that it implies.
#[test]
fn parts_have_unguided_images() {
    let pipe = open(&cpu(), "pixels");
    let walk = |sampler: &str, prompt: &str, guidance_scale: f64| {
        let request = Request {
            prompt: prompt.into(),
            negative_prompt: Some("yellow".into()),
            steps: Some(Steps::Sigmas(vec![12.0, 3.0, 1.0, 0.0])),
            sampler: Some(sampler.parse().unwrap()),
            guidance_scale: Some(guidance_scale),
            task: ImageToImage { image: input("edits/waves.png"), strength: Some(1.0) }.into(),
            ..Request::default()
        };
        let job = pipe.job(&request).unwrap();
        assert!(job.parts() > 1);
        let (mut run, mut steps) = (pipe.start(&job).unwrap(), Vec::new());
        while let Some(step) = run.next().unwrap() {
            steps.push((step.x.to_vec(), step.denoised.to_vec()));
        }
        steps
    };
    let (guided, unguided) = (walk("euler_cfg_pp", "a red square", 0.7), walk("euler", "yellow", 1.0));
    assert_eq!(guided[0].0, unguided[0].0);
    // x₁ = D + σ₁/σ₀ · (x₀ − U)
    let implied = guided[0].0.iter().zip(&guided[0].1).zip(&guided[1].0).map(|((x, d), next)| x - (next - d) * 4.0);
    let worst = implied.zip(&unguided[0].1).map(|(implied, u)| (implied - u).abs()).fold(0.0, f32::max);
    // x is of the size of σ₀ = 12, which f32 rounds to 1e-6 of it, and the difference is multiplied by 4.
    assert!(worst < 4.0 * 50.0 * f32::EPSILON * 4.0, "{worst:e}");
    let apart = guided[0].1.iter().zip(&unguided[0].1).map(|(d, u)| (d - u).abs()).fold(0.0, f32::max);
    assert!(apart > 0.01, "guidance does nothing: {apart}");
}
