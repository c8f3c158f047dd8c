//! Edits by models that were trained for none of them, as commands: what they keep, what they say, and how they end when they cannot.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::common::{claim, copy, fail, input, model, read, run, succeed, write_mask};
use headwater::{RgbImage, read_picture};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Models of every kind: of pixels and of latents, consistency and diffusion.
const MODELS: [&str; 4] = ["model:consistency", "model:pixels", "model:latent_consistency", "model:stable_diffusion"];

/// Edits a picture in two steps, with the prompt that the model takes; what the command said as JSON, and the image.
fn edit(place: &Path, model: &str, arguments: &[&str]) -> (Value, RgbImage) {
    let mut all = arguments.to_vec();
    if ![":consistency", "ddpm", "dit"].iter().any(|name| model.ends_with(name)) {
        all.insert(2, "a red square");
    }
    all.extend(["-m", model, "--steps", "2", "-s3", "--json", "-o", "out.png", "--force"]);
    let json = serde_json::from_str(&succeed(place, &all)).unwrap();
    (json, read(place, "out.png"))
}

/// A golden model with defaults of its own, in a folder of that name.
fn with_defaults(of: &str, defaults: &Value, folder: &Path) -> String {
    copy(Path::new(&model(of)), folder);
    let index = folder.join("model_index.json");
    let mut fields: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    fields["headwater"] = defaults.clone();
    fs::write(&index, fields.to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn original(name: &str) -> RgbImage {
    read_picture(Path::new(&input(name))).unwrap()
}

#[test]
fn brightness_is_kept_by_every_model() {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        for name in ["square.png", "waves.png"] {
            let (json, image) = edit(folder.path(), model, &["colorize", &format!("input:{name}")]);
            let original = original(name);
            assert_eq!((image.width, image.height), (original.width, original.height), "{model}, {name}");
            let pairs = image.luma().into_iter().zip(original.luma());
            let worst = pairs.map(|(a, b)| a.abs_diff(b)).max().unwrap();
            assert!(worst <= 1, "{model}, {name}: {worst}");
            assert_eq!((&json["command"], &json["method"]), (&"colorize".into(), &"replace".into()));
        }
    }
}

#[test]
fn means_of_patches_are_kept_by_every_model() {
    let folder = tempfile::tempdir().unwrap();
    let small = original("small-waves.png");
    for (model, scale) in MODELS.into_iter().zip(["2", "4", "3", "2"]) {
        let (json, image) = edit(folder.path(), model, &["upscale", "input:small-waves.png", "--scale", scale]);
        let factor: usize = scale.parse().unwrap();
        assert_eq!((image.width, image.height), (small.width * factor, small.height * factor), "{model}");
        assert_eq!(json["width"], small.width * factor);
        for at in 0..small.pixels.len() {
            let (x, y, c) = (at / 3 % small.width, at / 3 / small.width, at % 3);
            let inside = (0..factor * factor).map(|i| (x * factor + i % factor, y * factor + i / factor));
            let sum: usize = inside.map(|(x, y)| usize::from(image.pixels[(y * image.width + x) * 3 + c])).sum();
            let mean = sum as f64 / (factor * factor) as f64;
            assert!((mean - f64::from(small.pixels[at])).abs() <= 1.0, "{model}, {x} {y}: {mean}");
        }
    }
}

#[test]
fn masks_keep_pixels_of_any_size_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let waves = original("waves.png");
    let inside = |x: usize, y: usize| (20..50).contains(&x) && (5..20).contains(&y);
    // Of the other kinds of network once: what is kept does not depend on what the model makes.
    let others = ["epsilon", "stable_diffusion_xl", "refiner", "pixart_alpha", "pixart_sigma", "dit"];
    let all = MODELS.into_iter().chain(["model:inpainting", "model:ddpm"]).map(|model| (model.to_owned(), 2));
    for (model, times) in all.chain(others.map(|name| (format!("model:{name}"), 1))) {
        let model = &*model;
        for more in [&[][..], &["--padding", "4", "--mask-blur", "2"]].into_iter().take(times) {
            let arguments = [&["inpaint", "input:waves.png", "--mask", "20,5,30,15"], more].concat();
            let (json, image) = edit(folder.path(), model, &arguments);
            assert_eq!((image.width, image.height), (51, 37), "{model}");
            assert_eq!((&json["width"], &json["height"]), (&51.into(), &37.into()));
            let pixels = image.pixels.chunks(3).zip(waves.pixels.chunks(3)).enumerate();
            let kept = pixels.filter(|(at, _)| !inside(at % 51, at / 51)).all(|(_, (new, old))| new == old);
            assert!(kept && image != waves, "{model} {more:?}");
            let told = more.first().map_or(Value::Null, |_| 4.into());
            assert_eq!((&json["mask"], &json["padding"]), (&"20,5,30,15".into(), &told));
        }
    }
}

#[test]
fn masks_are_inverted_grown_and_read_from_transparency() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let waves = original("waves.png");
    let changed = |image: &RgbImage| -> Vec<usize> {
        let pixels = image.pixels.chunks(3).zip(waves.pixels.chunks(3)).enumerate();
        pixels.filter(|(_, (new, old))| new != old).map(|(at, _)| at).collect()
    };
    let inpaint =
        |picture: &str, more: &[&str]| edit(place, "model:consistency", &[&["inpaint", picture], more].concat()).1;
    let whole = |at: &usize| at % 51 < 30;
    let inverted = changed(&inpaint("input:waves.png", &["--mask", "30,0,21,37", "--invert"]));
    assert!(inverted.len() > 500 && inverted.iter().all(whole));
    let grown = changed(&inpaint("input:waves.png", &["--mask", "10,10,2,2", "--mask-grow", "3"]));
    let near = |at: &usize| (7..15).contains(&(at % 51)) && (7..15).contains(&(at / 51));
    assert!(grown.len() > 32 && grown.iter().all(near), "{grown:?}");
    let mut transparent =
        image::RgbaImage::from_raw(51, 37, waves.pixels.chunks(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect())
            .unwrap();
    (0..37).for_each(|y| (0..9).for_each(|x| transparent.get_pixel_mut(x, y).0[3] = 0));
    transparent.save(place.join("cut.png")).unwrap();
    let cut = changed(&inpaint("cut.png", &["--mask", "alpha"]));
    assert!(cut.len() > 100 && cut.iter().all(|at| at % 51 < 9));
    fail(
        place,
        &["inpaint", "input:waves.png", "-m", "model:consistency", "--mask", "alpha"],
        2,
        "waves.png has no transparency",
    );
}

#[test]
fn what_lies_around_a_picture_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let waves = original("waves.png");
    let margins = ["--left", "3", "--top", "10", "--bottom", "1"];
    let (_, image) = edit(folder.path(), "model:pixels", &[&["outpaint", "input:waves.png"], &margins[..]].concat());
    assert_eq!((image.width, image.height), (54, 48));
    let row = |y: usize| &image.pixels[((y + 10) * 54 + 3) * 3..][..51 * 3];
    assert!((0..37).all(|y| row(y) == &waves.pixels[y * 153..][..153]));
    fail(folder.path(), &["outpaint", "input:waves.png", "x"], 2, "--left");
}

#[test]
fn noise_is_taken_off_and_strokes_become_pictures() {
    let folder = tempfile::tempdir().unwrap();
    for (command, first) in [("restore", 0.3), ("stroke", 5.38)] {
        for model in MODELS {
            let sigma = if command == "restore" { &["--sigma", "0.3"][..] } else { &[] };
            let (json, image) = edit(folder.path(), model, &[&[command, "input:waves.png"], sigma].concat());
            assert_eq!((image.width, image.height), (51, 37), "{model}");
            let sigmas = json["sigmas"].as_array().unwrap();
            // A model's own schedule may end below it.
            let share = sigmas[0].as_f64().unwrap() / first;
            assert!((0.8..1.0 + 1e-9).contains(&share) && sigmas.len() == 3, "{model}: {json}");
        }
    }
    // A checkpoint may say how much of a picture's noise its autoencoder leaves in latents.
    let with = |share: f64| {
        let defaults = serde_json::json!({ "restore_noise": share });
        with_defaults("stable_diffusion", &defaults, &folder.path().join(format!("{share}-diffusion")))
    };
    let restore = ["restore", "input:square.png", "--sigma", "2", "--sampler", "euler"];
    let first = |model: &str| edit(folder.path(), model, &restore).0["sigmas"][0].as_f64().unwrap();
    assert!((first("model:stable_diffusion") - 2.0).abs() < 1e-9 && (first(&with(0.25)) - 0.5).abs() < 1e-9);
    let wrong = ["restore", "input:square.png", "x", "--sigma", "2", "-m"];
    fail(folder.path(), &[&wrong[..], &[&with(0.0)]].concat(), 1, "restore_noise must be a number above 0");
    // Noise is measured where nobody says how much there is.
    fs::write(folder.path().join("flat.png"), fs::read(input("square.png")).unwrap()).unwrap();
    image::RgbImage::from_pixel(32, 32, image::Rgb([90, 90, 90])).save(folder.path().join("flat.png")).unwrap();
    fail(folder.path(), &["restore", "flat.png", "-m", "model:consistency"], 2, "no noise can be seen in the picture");
}

#[test]
fn methods_are_chosen_by_the_model_and_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let method = |model: &str, more: &[&str]| {
        let (json, _) = edit(place, model, &[&["inpaint", "input:square.png", "--mask", "8,8,9,9"], more].concat());
        json["method"].as_str().map(str::to_owned)
    };
    for (model, more, wanted) in [
        ("model:consistency", &[][..], Some("replace")),
        ("model:stable_diffusion", &[], Some("blend")),
        ("model:stable_diffusion", &["--method", "replace", "--replace-every", "2"], Some("replace")),
        ("model:ddpm", &["--method", "repaint"], Some("repaint")),
        ("model:ddpm", &["--method", "predictor-corrector"], Some("predictor-corrector")),
        ("model:ddpm", &["--sampler", "repaint"], Some("repaint")),
        ("model:inpainting", &[], None),
    ] {
        assert_eq!(method(model, more).as_deref(), wanted, "{model} {more:?}");
    }
    for (model, wanted) in [
        (
            "model:consistency",
            serde_json::json!({ "inpaint": "replace", "outpaint": "replace", "colorize": "replace", "upscale": "replace" }),
        ),
        (
            "model:stable_diffusion",
            serde_json::json!({ "inpaint": "blend", "outpaint": "blend", "colorize": "replace", "upscale": "replace" }),
        ),
        ("model:inpainting", serde_json::json!({ "inpaint": null, "outpaint": null })),
        ("model:upscaler", serde_json::json!({ "upscale": null })),
    ] {
        let info: Value = serde_json::from_str(&succeed(place, &["info", model, "--json"])).unwrap();
        assert_eq!(info["edits"], wanted, "{model}");
    }
    // A checkpoint may name its own; a sampler that is a method goes before it, and a name that is none is told when the checkpoint is read.
    let named = |method: &str| {
        let defaults = serde_json::json!({ "inpaint_method": method });
        with_defaults("ddpm", &defaults, &place.join(format!("{method}-ddpm")))
    };
    let repaint = named("repaint");
    assert_eq!(method(&repaint, &[]).as_deref(), Some("repaint"));
    assert_eq!(method(&repaint, &["--method", "replace"]).as_deref(), Some("replace"));
    assert_eq!(method(&repaint, &["--sampler", "predictor_corrector"]).as_deref(), Some("predictor-corrector"));
    let wrong = ["inpaint", "input:square.png", "--mask", "8,8,9,9", "-m"];
    fail(place, &[&wrong[..], &[&named("magic")]].concat(), 1, "the block \"headwater\" is wrong: magic is no method");
    let inpaint = ["inpaint", "input:square.png", "--mask", "8,8,9,9", "--steps", "2", "-m"];
    for (more, part) in [
        (&["model:consistency", "--method", "repaint"][..], "a consistency model was not trained for"),
        (&["model:ddpm", "--method", "repaint", "--sampler", "heun"], "heun cannot be taken with it"),
        (
            &["model:ddpm", "--method", "magic"],
            "magic is no method (there are replace, repaint, predictor-corrector, blend)",
        ),
    ] {
        fail(place, &[&inpaint[..], more].concat(), 2, part);
    }
    fail(
        place,
        &["inpaint", "input:square.png", "x", "--mask", "8,8,9,9", "-m", "model:inpainting", "--method", "blend"],
        2,
        "trained to see masks",
    );
    fail(
        place,
        &["colorize", "input:square.png", "x", "-m", "model:stable_diffusion", "--method", "blend"],
        2,
        "only whole pixels can be blended",
    );
}

#[test]
fn large_pictures_are_made_in_parts_without_seams() {
    let folder = tempfile::tempdir().unwrap();
    let photo = image::RgbImage::from_fn(150, 101, |x, y| image::Rgb([(x + 50) as u8, (y + 90) as u8, 90]));
    photo.save(folder.path().join("photo.png")).unwrap();
    let output = run(
        folder.path(),
        &["colorize", "photo.png", "a cat", "-m", "model:pixels", "--steps", "2", "-o", "out.png", "--force"],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("overlapping parts"), "{said}");
    let made = read(folder.path(), "out.png");
    assert_eq!((made.width, made.height), (150, 101));
}

#[test]
fn ways_between_seeds_and_pictures_become_frames_and_animations() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let way = |ends: [&'static str; 2], more: &[&'static str]| {
        let model = ["a red square", "-m", "model:pixels", "--steps", "2", "--frames", "3"];
        succeed(place, &[&["interpolate"], &ends[..], &model, more].concat())
    };
    for (name, more) in
        [("a.gif", &["-o", "a.gif"][..]), ("b.webp", &["-o", "b.webp", "--fps", "20"]), ("frames", &["-o", "frames"])]
    {
        assert_eq!(way(["3", "9"], more), name);
    }
    // The ends are the seeds' own pictures.
    for (seed, frame) in [("3", "0000"), ("9", "0002")] {
        succeed(
            place,
            &["generate", "a red square", "-m", "model:pixels", "--steps", "2", "-s", seed, "-o", "own.png", "--force"],
        );
        assert_eq!(read(place, "own.png"), read(place, &format!("frames/frame-{frame}.png")));
    }
    assert_eq!(fs::read_dir(place.join("frames")).unwrap().count(), 3);
    assert!(
        way(["input:square.png", "input:waves.png"], &["-o", "between", "--json"]).contains("\"path\":\"between\"")
    );
    let ways =
        |arguments: &[&'static str], code, part| fail(place, &[&["interpolate"], arguments].concat(), code, part);
    ways(&["3", "input:square.png", "x"], 2, "two seeds or two pictures");
    ways(&["3", "9", "x", "-o", "frames"], 2, "frames exists");
    ways(&["3", "9", "x", "-o", "a.mp4"], 2, "must end in .gif or .webp");
    ways(&["3", "9", "x", "--frames", "1"], 2, "from 2");
    ways(&["3", "9"], 2, "needs a PROMPT");
    ways(&["3", "9", "x", "-s", "1"], 2, "leave --seed out");
    ways(&["3", "9", "x", "-o", "-"], 2, "no standard output");
    ways(
        &["input:square.png", "input:waves.png", "-m", "model:consistency"],
        2,
        "there is no path back from a picture",
    );
}

#[test]
fn bad_pictures_are_one_sentence_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    image::RgbImage::new(1, 1).save(place.join("dot.png")).unwrap();
    claim(&place.join("huge.png"), 20_000, 20_000);
    fs::write(place.join("text.png"), "not a picture").unwrap();
    let mut jpeg = Vec::new();
    image::RgbImage::new(64, 64).write_to(&mut std::io::Cursor::new(&mut jpeg), image::ImageFormat::Jpeg).unwrap();
    fs::write(place.join("half.jpg"), &jpeg[..jpeg.len() / 3]).unwrap();
    fs::write(place.join("most.jpg"), &jpeg[..jpeg.len() - 9]).unwrap();
    write_mask(&place.join("mask.png"), 5, 32, |_, _| true);
    let before = fs::read_dir(place).unwrap().count();
    for command in ["colorize", "upscale", "restore", "stroke"] {
        for (picture, part) in [
            ("dot.png", "dot.png has 1x1 pixels, which is too little"),
            ("huge.png", "huge.png is "),
            ("text.png", "text.png is not a picture"),
            ("half.jpg", "half.jpg is not a picture that can be read"),
            ("most.jpg", "it is cut off"),
        ] {
            fail(place, &[command, picture, "-m", "model:consistency"], 1, part);
        }
    }
    for (arguments, part) in [
        (
            &["colorize", "input:square.png", "x", "-m", "model:inpainting"][..],
            "this model makes a part of a picture anew",
        ),
        (&["stroke", "input:square.png", "x", "-m", "model:upscaler"], "this model makes pictures larger"),
        (&["upscale", "input:square.png", "-m", "model:consistency", "--scale", "2.5"], "2.5 times is not possible"),
        (&["upscale", "input:square.png", "-m", "model:consistency", "--scale", "17"], "17 times is not possible"),
        (&["upscale", "input:square.png", "-m", "model:consistency", "-W", "64"], "a size is not possible"),
        (&["restore", "input:square.png", "-m", "model:consistency", "--sigma", "0"], "above 0"),
        (
            &["restore", "input:square.png", "-m", "model:ddpm", "--sigma", "0.3", "--schedule", "karras"],
            "noise levels of its own",
        ),
        (&["colorize", "input:square.png", "-m", "model:ddpm", "--replace-every", "2"], "is for models of latents"),
        (&["restore", "input:square.png", "-m", "model:ddpm", "--sigma", "0.3", "-W", "64"], "has other noise"),
        (
            &["inpaint", "input:waves.png", "-m", "model:ddpm", "--mask", "1,1,9,9", "--padding", "3", "-W", "32"],
            "with a size",
        ),
        (&["outpaint", "input:square.png", "-m", "model:ddpm", "--left", "16384", "--top", "16384"], "is too large"),
        (&["inpaint", "input:square.png", "-m", "model:consistency", "--mask", "40,0,3,3"], "lies outside the picture"),
        (&["inpaint", "input:square.png", "-m", "model:consistency", "--mask", "0,0,32,32"], "white everywhere"),
        (&["inpaint", "input:square.png", "-m", "model:consistency", "--mask", "mask.png"], "mask.png has 5x32 pixels"),
    ] {
        fail(place, arguments, 2, part);
    }
    assert_eq!(fs::read_dir(place).unwrap().count(), before);
}

#[test]
fn of_an_animation_the_first_frame_is_taken_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    for name in ["a.gif", "a.webp"] {
        succeed(
            place,
            &["interpolate", "3", "9", "x", "-m", "model:pixels", "--steps", "1", "--frames", "2", "-o", name],
        );
        let output =
            run(place, &["colorize", name, "x", "-m", "model:pixels", "--steps", "1", "-o", "out.png", "--force"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && said.contains(&format!("{name} is animated: its first frame is taken")),
            "{said}"
        );
    }
}
