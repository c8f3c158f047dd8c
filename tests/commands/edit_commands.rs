//! Commands that take pictures: what they write, and how they end when they cannot.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::common::{claim, copy, fail, input, model, read, run, succeed, write_mask};
use headwater::read_picture;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A golden latent pipeline without some of its autoencoder's tensors.
fn without(prefix: &str, to: &Path) {
    copy(Path::new(&model("stable_diffusion")), to);
    let file = to.join("vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.iter().filter(|(name, _)| !name.starts_with(prefix));
    fs::write(file, safetensors::serialize(kept, None).unwrap()).unwrap();
}

const IMG2IMG: [&str; 6] = ["img2img", "input:waves.png", "a red square", "-m", "model:stable_diffusion", "-s3"];

/// Latents of a small autoencoder are decoded at every step: the last step's picture is the finished one, since no noise is left after it.
#[test]
fn every_step_of_latents_is_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let steps = ["--sampler", "euler", "--steps", "3", "--save-steps", "steps", "-o", "made.png"];
    succeed(place, &[&["generate", "a red square", "-m", "model:stable_diffusion", "-s3"][..], &steps].concat());
    let made = read(place, "made.png");
    for step in 1..=3 {
        for what in ["x", "denoised"] {
            let shown = read(place, &format!("steps/3-step-00{step}-{what}.png"));
            assert_eq!((shown.width, shown.height), (made.width, made.height), "{step} {what}");
        }
    }
    let last = read(place, "steps/3-step-003-denoised.png");
    assert!(last.pixels.iter().zip(&made.pixels).all(|(a, b)| a.abs_diff(*b) <= 1));
    assert!(read(place, "steps/3-step-001-denoised.png").pixels != last.pixels);
}

/// Without a model's name, pictures are edited by the bundled diffusion model. The consistency model takes one step, of
/// which a strength below 1 leaves none.
#[test]
fn a_picture_is_edited_by_the_bundled_diffusion_model() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        &["img2img", "input:square.png", "a fox"][..],
        &["inpaint", "input:square.png", "a fox", "--mask", "input:mask.png"],
    ] {
        let size = ["-W", "64", "-H", "64", "--json"];
        let json: serde_json::Value =
            serde_json::from_str(&succeed(folder.path(), &[command, &size].concat())).unwrap();
        assert_eq!((&json["model"], &json["steps"]), (&"icons-64".into(), &20.into()), "{command:?}");
    }
}

#[test]
fn an_image_of_a_picture_has_its_size_and_tells_its_strength() {
    let folder = tempfile::tempdir().unwrap();
    let json = succeed(folder.path(), &[&IMG2IMG[..], &["--steps", "4", "--strength", "0.5", "--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for (key, value) in [("command", "img2img"), ("path", "a-red-square-3.png")] {
        assert_eq!(json[key], value);
    }
    assert_eq!((&json["strength"], &json["width"], &json["height"]), (&0.5.into(), &51.into(), &37.into()));
    assert!(json["image"].as_str().unwrap().ends_with("waves.png"), "{json}");
    let image = read(folder.path(), "a-red-square-3.png");
    assert_eq!((image.width, image.height), (51, 37));
    let info = succeed(folder.path(), &["info", "a-red-square-3.png"]);
    assert!(info.contains("Steps: 4, ") && info.contains(", Denoising strength: 0.5, "), "{info}");

    succeed(folder.path(), &[&IMG2IMG[..], &["--steps", "2", "-W", "32", "-H", "64", "-o", "b.png"]].concat());
    let image = read(folder.path(), "b.png");
    assert_eq!((image.width, image.height), (32, 64));

    // Without a prompt, the result is named after the input picture.
    succeed(
        folder.path(),
        &["img2img", "input:square.png", "-m", "model:ddpm", "--steps", "2", "-s1", "--strength", "1"],
    );
    assert_eq!(read(folder.path(), "square-1.png").width, 32);
}

const PALETTE: &str = "89504e470d0a1a0a0000000d494844520000001800000010010300000036ea2dd600000022504c5445c8283c1e5adcca19a391000000124944415478\
da63f8ff8181898101272604007bc1c72fb3780000001b4944415478da6364600001247088b30c1309c60fb8243806d05500";

#[test]
fn bad_pictures_and_strengths_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    fs::write(place.join("garbage.png"), "this is no picture").unwrap();
    fs::write(place.join("empty"), "").unwrap();
    fs::write(place.join("half.webp"), &fs::read(input("formats/lossless.webp")).unwrap()[..40]).unwrap();
    fs::write(place.join("old.gif"), "GIF89a\u{1}\u{0}\u{1}\u{0}\u{0}\u{0}\u{0}").unwrap();
    // A palette of a colour and a byte, at which a decoder panics.
    let palette: Vec<u8> = PALETTE
        .as_bytes()
        .chunks(2)
        .map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap())
        .collect();
    fs::write(place.join("palette.png"), palette).unwrap();
    // A chunk of metadata that claims 4 GiB.
    let mut metadata = fs::read(input("formats/turned.webp")).unwrap();
    let exif = metadata.windows(4).position(|name| name == b"EXIF").unwrap();
    metadata[exif + 4..exif + 8].fill(0xff);
    fs::write(place.join("metadata.webp"), metadata).unwrap();
    claim(&place.join("huge.png"), 60_000, 60_000);
    claim(&place.join("large.png"), 30_000, 30_000);
    for (picture, part) in [
        ("nowhere.png", "cannot read nowhere.png: No such file"),
        (".", ". is a folder, not a picture"),
        ("garbage.png", "garbage.png is not a picture that can be read (PNG, JPEG, WebP, BMP, GIF or TIFF)"),
        ("empty", "empty is not a picture that can be read (PNG, JPEG, WebP, BMP, GIF or TIFF)"),
        ("half.webp", "half.webp is not a picture that can be read"),
        ("palette.png", "palette.png is not a picture that can be read"),
        ("metadata.webp", "metadata.webp is not a picture that can be read"),
        ("old.gif", "old.gif is not a picture that can be read"),
        ("huge.png", "huge.png is too large a picture"),
        ("large.png", "large.png is too large a picture"),
    ] {
        fail(place, &["img2img", picture, "x", "-m", "model:stable_diffusion"], 1, part);
    }
    for (more, part) in [
        (&["--strength", "1.5"][..], "between 0 and 1"),
        (&["--strength", "-0.5"], "between 0 and 1"),
        (&["--strength", "nan"], "between 0 and 1"),
        (&["--strength", "0"], "strength 0 of 50 steps leaves no steps"),
        (&["--steps", "3", "--strength", "0.3"], "strength 0.3 of 3 steps leaves no steps"),
        (&["-W", "31"], "width 31 is not possible"),
        (&["-W", "400000", "-H", "400000"], "is too large"),
        (&["--sampler", "nosuch"], "nosuch"),
    ] {
        fail(place, &[&IMG2IMG[..], more].concat(), 2, part);
    }
    fail(place, &["img2img", "input:square.png", "-m", "model:stable_diffusion"], 2, "needs a PROMPT");
    fail(place, &["img2img", "input:square.png", "x", "-m", "model:ddpm"], 2, "leave the prompt out");
    fail(place, &["img2img"], 2, "required");
}

#[test]
fn a_model_without_an_encoder_still_generates() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    without("encoder.", &place.join("half"));
    succeed(place, &["generate", "x", "-m", "half", "--steps", "1", "-s1"]);
    fail(place, &["img2img", "input:square.png", "x", "-m", "half"], 1, "vae: is missing encoder.conv_in.bias");

    fs::remove_dir_all(place.join("half")).unwrap();
    without("nothing", &place.join("half"));
    let index = place.join("half/model_index.json");
    let mut fields: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    fields.as_object_mut().unwrap().remove("vae");
    fs::write(&index, fields.to_string()).unwrap();
    let arguments = ["img2img", "input:square.png", "x", "-m", "half", "-o", "x.safetensors"];
    fail(place, &arguments, 2, "this model cannot start from a picture");
}

const INPAINT: [&str; 8] = ["inpaint", "input:square.png", "a red square", "--mask", "mask.png", "-s3", "--steps", "4"];

#[test]
fn what_a_mask_keeps_is_kept_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let anew = |x: usize, y: usize| (7..25).contains(&x) && (3..20).contains(&y);
    write_mask(&place.join("mask.png"), 32, 32, anew);
    let original = read_picture(Path::new(&input("square.png"))).unwrap();
    for model in ["model:stable_diffusion", "model:inpainting", "model:latent_consistency"] {
        let json = succeed(place, &[&INPAINT[..], &["-m", model, "-o", "out.png", "--force", "--json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["command"], &json["mask"]), (&"inpaint".into(), &"mask.png".into()));
        let image = read(place, "out.png");
        let mut changed = 0;
        for (i, (new, old)) in image.pixels.chunks(3).zip(original.pixels.chunks(3)).enumerate() {
            if anew(i % 32, i / 32) {
                changed += usize::from(new != old);
            } else {
                assert_eq!(new, old, "{model}, pixel {i}");
            }
        }
        assert!(changed > 100, "{model}: {changed}");
    }
    let info = succeed(place, &["info", "out.png"]);
    assert!(info.contains(", Denoising strength: 1, "), "{info}");
    // A mask of another size is resized: here the lower half.
    write_mask(&place.join("mask.png"), 10, 10, |_, y| y >= 5);
    succeed(place, &[&INPAINT[..], &["-m", "model:epsilon", "-o", "out.png", "--force", "--strength", "0.5"]].concat());
    let image = read(place, "out.png");
    assert_eq!(image.pixels[..image.pixels.len() / 2], original.pixels[..original.pixels.len() / 2]);
    assert_ne!(image.pixels, original.pixels);
}

#[test]
fn bad_masks_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let inpaint = |more: &[&'static str]| [&INPAINT[..], &["-m", "model:stable_diffusion"], more].concat();
    fail(place, &inpaint(&[]), 1, "cannot read mask.png: No such file");
    fs::write(place.join("mask.png"), "white").unwrap();
    fail(place, &inpaint(&[]), 1, "mask.png is not a picture that can be read");
    write_mask(&place.join("mask.png"), 32, 32, |_, _| false);
    fail(place, &inpaint(&[]), 2, "the mask is black everywhere, so nothing would change");
    write_mask(&place.join("mask.png"), 32, 32, |_, _| true);
    fail(place, &inpaint(&[]), 2, "the mask is white everywhere, so nothing of the picture would be kept");
    write_mask(&place.join("mask.png"), 7, 10, |_, y| y >= 5);
    fail(place, &inpaint(&[]), 2, "mask.png has 7x10 pixels and the picture 32x32");
    write_mask(&place.join("mask.png"), 32, 32, |x, _| x > 9);
    fail(place, &inpaint(&["--strength", "0.1"]), 2, "strength 0.1 of 4 steps leaves no steps");
    fail(place, &inpaint(&["--strength", "2"]), 2, "between 0 and 1");
    fail(place, &inpaint(&["-W", "33"]), 2, "width 33 is not possible");
    fail(place, &["inpaint", "input:square.png", "x", "-m", "model:stable_diffusion"], 2, "--mask <FILE");

    let part = "this model makes a part of a picture anew: give it a picture and a mask (headwater inpaint)";
    fail(place, &["generate", "x", "-m", "model:inpainting"], 2, part);
    fail(place, &["img2img", "input:square.png", "x", "-m", "model:inpainting"], 2, part);
}

#[test]
fn pictures_are_made_larger_by_models_trained_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let upscale = |more: &[&'static str]| [&["upscale", "input:small-waves.png", "--steps", "2", "-s3"], more].concat();
    let json = succeed(place, &upscale(&["-m", "model:upscaler", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["command"], &json["path"]), (&"upscale".into(), &"small-waves-3.png".into()));
    assert_eq!((&json["noise_level"], &json["width"], &json["height"]), (&20.into(), &108.into(), &68.into()));
    let image = read(place, "small-waves-3.png");
    assert_eq!((image.width, image.height), (108, 68));
    let bytes = fs::read(place.join("small-waves-3.png")).unwrap();

    // The noise level changes the details, and the size can be chosen.
    succeed(place, &upscale(&["-m", "model:upscaler", "--noise-level", "80", "-o", "more.png"]));
    assert_ne!(read(place, "more.png"), image);
    succeed(place, &upscale(&["-m", "model:upscaler", "-W", "64", "-o", "narrow.png"]));
    assert_eq!(read(place, "narrow.png").width, 64);
    succeed(place, &upscale(&["-m", "model:upscaler", "--scale", "2.4", "-o", "less.png"]));
    let image = read(place, "less.png");
    // The size before the enlargement by four is 27 by 17, rounded down to the model's multiple.
    assert_eq!((image.width, image.height), (64, 32));
    assert!(!String::from_utf8_lossy(&bytes).contains("Denoising strength"));

    let part = "noise level 91 is not possible: this model takes 0 to 90";
    fail(place, &upscale(&["-m", "model:upscaler", "--noise-level", "91"]), 2, part);
    fail(place, &upscale(&["-m", "model:upscaler", "--noise-level", "-1"]), 2, "--noise-level");
    fail(place, &upscale(&["-m", "model:upscaler", "--scale", "0"]), 2, "it must be a number above 0");
    fail(place, &upscale(&["-m", "model:upscaler", "--scale", "1e300"]), 2, "is too large");
    fail(place, &upscale(&["-m", "model:upscaler", "--scale", "2", "-W", "64"]), 2, "cannot be used with");
    fail(place, &upscale(&["-m", "model:upscaler", "-W", "62"]), 2, "multiples of 4 pixels");
    fail(place, &["generate", "x", "-m", "model:upscaler"], 2, "this model makes pictures larger: give it one");
    fail(place, &["img2img", "input:square.png", "x", "-m", "model:upscaler"], 2, "this model makes pictures larger");
    fail(place, &["upscale", "nowhere.png"], 1, "cannot read nowhere.png");
}

/// Where every colour of a mask is alike, its transparency is the drawing: what is opaque is made anew, whatever its colour.
#[test]
fn masks_may_be_drawn_in_transparency() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let (width, height) = (32, 32);
    let save = |name: &str, pixel: &dyn Fn(u32, u32) -> [u8; 4]| {
        image::RgbaImage::from_fn(width, height, |x, y| image::Rgba(pixel(x, y))).save(place.join(name)).unwrap();
    };
    let top = |y: u32| if y < 16 { 255 } else { 0 };
    save("white.png", &|_, y| [255, 255, 255, top(y)]);
    save("black.png", &|_, y| [0, 0, 0, top(y)]);
    save("both.png", &|x, y| if x < 16 { [255, 255, 255, top(y)] } else { [0, 0, 0, top(y)] });
    let inpaint = |mask: &str| {
        let output = run(
            place,
            &[
                &["inpaint", "input:square.png", "a red square", "-s3", "--steps", "4"][..],
                &["--mask", mask, "-m", "model:stable_diffusion", "-o", "out.png", "--force"],
            ]
            .concat(),
        );
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        (read(place, "out.png"), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let original = read_picture(Path::new(&input("square.png"))).unwrap();
    for mask in ["white.png", "black.png"] {
        let (made, said) = inpaint(mask);
        assert!(said.contains("its opaque part is made anew"), "{said}");
        let half = original.pixels.len() / 2;
        assert!(
            made.pixels[half..] == original.pixels[half..] && made.pixels[..half] != original.pixels[..half],
            "{mask}"
        );
    }
    assert!(inpaint("both.png").1.contains("the transparency of both.png is ignored"));
}

#[test]
fn pictures_of_other_formats_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let original = image::open(input("square.png")).unwrap().into_rgb8();
    for name in ["square.bmp", "square.tiff", "square.gif", "SQUARE.PNG"] {
        original.save(folder.path().join(name)).unwrap();
        let read = read(folder.path(), name);
        // GIF has a palette.
        let close = read
            .pixels
            .iter()
            .zip(original.as_raw())
            .all(|(a, b)| a.abs_diff(*b) <= if name.ends_with("gif") { 8 } else { 0 });
        assert!(close && (read.width, read.height) == (32, 32), "{name}");
    }
}

/// A picture that is much larger than what the model draws: what to expect is said, and it can be made smaller first.
#[test]
fn large_pictures_are_told_of_and_resized() {
    let folder = tempfile::tempdir().unwrap();
    let photo = image::RgbImage::from_fn(300, 200, |x, y| image::Rgb([(x % 256) as u8, (y % 256) as u8, 90]));
    photo.save(folder.path().join("photo.png")).unwrap();
    let make = |more: &[&str]| {
        let arguments =
            ["img2img", "photo.png", "a cat", "-m", "model:pixels", "--steps", "2", "-o", "out.png", "--force"];
        let output = run(folder.path(), &[&arguments[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let made = read(folder.path(), "out.png");
        (made.width, made.height, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (width, height, said) = make(&["--resize"]);
    assert!(width * height <= 2 * 32 * 32 && width > height && !said.contains("parts"), "{width}x{height}: {said}");
    let (.., said) = make(&[]);
    assert!(said.contains("is made in ") && said.contains("overlapping parts") && said.contains("--resize"), "{said}");
    let (.., said) = make(&["-W", "32", "-H", "32"]);
    assert!(!said.contains("parts"), "{said}");
}

/// `bench` times the steps of models that need a picture as well.
#[test]
fn steps_of_editing_models_are_timed() {
    let folder = tempfile::tempdir().unwrap();
    for model in ["model:inpainting", "model:upscaler", "model:stable_diffusion"] {
        let printed = succeed(folder.path(), &["bench", "-m", model, "--steps", "2", "-n", "2", "--json"]);
        let object: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert!(object["step_seconds"].as_f64().unwrap() > 0.0 && object["images"] == 2, "{printed}");
    }
}

/// Flags that would have no effect on a model.
#[test]
fn flags_that_say_nothing_of_a_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let one = place.join("one.safetensors");
    let convert = ["convert", "model:stable_diffusion", "one.safetensors"];
    let made = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args([convert[0], &model("stable_diffusion"), convert[2]])
        .current_dir(place)
        .output();
    assert!(made.unwrap().status.success() && one.is_file());
    let config = model("stable_diffusion");
    for (arguments, code, part) in [
        (&["-m", "model:ddpm", "--prompt-syntax", "plain"][..], 2, "the syntax plain is not possible"),
        (&["-m", "model:ddpm", "--negative-prompt", "x"], 2, "this model reads no text"),
        (&["-m", "model:ddpm", "--clip-skip", "1"], 2, "clip_skip = 1 is not possible"),
        (&["-m", "model:ddpm", "--guidance", "2"], 2, "guidance 2 is not possible"),
        (&["-m", "model:ddpm", "--class-label", "1"], 2, "this model has no classes"),
        (&["-m", "model:ddpm", "--variant", "fp16"], 1, "has no weights of the variant fp16"),
        (&["-m", "model:ddpm", "--vae", "input:square.png"], 1, "has no vae"),
        (&["x", "-m", "model:latent_consistency", "--negative-prompt", "y"], 2, "a negative prompt is not possible"),
        (&["x", "-m", "model:stable_diffusion", "--variant", "fp16"], 1, "has no weights of the variant fp16"),
        (&["x", "-m", "model:stable_diffusion", "--config", &config], 2, "--config is for single files"),
        (&["x", "-m", "one.safetensors", "--variant", "fp16"], 1, "so there are none of the variant fp16"),
        (&["x", "--variant", "fp16"], 1, "so there are none of the variant fp16"),
        (&["x", "--config", &config], 2, "--config is for single files, and icons-64-consistency is none"),
    ] {
        fail(place, &[&["generate"], arguments].concat(), code, part);
    }
}

/// On Linux, a file name may consist of any bytes.
#[cfg(unix)]
#[test]
fn files_whose_names_are_no_text_are_files() {
    use std::os::unix::ffi::OsStrExt;
    let name = |text: &[u8]| std::ffi::OsStr::from_bytes(text).to_owned();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let (picture, whole, made) = (name(b"\xff.png"), name(b"m\xff"), name(b"\xfe.safetensors"));
    write_mask(&place.join(&picture), 32, 32, |x, _| x > 3);
    let run = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        let output = command.args(arguments).current_dir(place).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let words = |text: &str| -> Vec<std::ffi::OsString> { text.split(' ').map(Into::into).collect() };
    let golden = model("stable_diffusion");
    let quick = words("-q --device cpu --steps 2 -s1 --strength 1");
    let cases = [
        vec![words(&format!("convert {golden}")), vec![whole.clone()]],
        vec![words("convert"), vec![whole.clone(), made.clone()]],
        vec![words("info"), vec![whole.clone()]],
        vec![words("info"), vec![made.clone()]],
        vec![words("info"), vec![picture.clone()]],
        vec![words("img2img"), vec![picture.clone()], words("x -o a.png -m"), vec![whole.clone()], quick.clone()],
        vec![
            words("inpaint"),
            vec![picture.clone()],
            words("x -o b.png --mask"),
            vec![picture.clone()],
            words("-m"),
            vec![made],
            quick.clone(),
        ],
        vec![
            words(&format!("img2img {} x -o c.png -m {golden} --vae", input("square.png"))),
            vec![whole],
            quick.clone(),
        ],
    ];
    for case in cases {
        let case = case.concat();
        let case: Vec<&std::ffi::OsStr> = case.iter().map(|word| &**word).collect();
        assert_eq!(run(&case), (Some(0), String::new()), "{case:?}");
    }
    let info = succeed(place, &["info", "--json", "b.png"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        (&info["headwater"]["image"], &info["headwater"]["mask"]),
        (&"\u{fffd}.png".into(), &"\u{fffd}.png".into())
    );
    // Flags whose value contains more than a file name, or makes several names, need text.
    for flag in ["--lora", "--embedding", "--output"] {
        let case = [words("generate x"), words(flag), vec![picture.clone()]].concat();
        let case: Vec<&std::ffi::OsStr> = case.iter().map(|word| &**word).collect();
        let (code, message) = run(&case);
        assert!(
            code == Some(2) && message.starts_with("error: ") && !message.contains("panicked"),
            "{flag}: {message}"
        );
    }
}
