//! The page in a real browser: headless Chromium, where there is one.

use super::browser::Browser;
use super::common::{goldens, model};
use super::support::{Server, command, from_base64, pixels};
use serde_json::json;
use std::process::{Command, Stdio};

/// A server and a browser that shows its page.
pub(super) fn open() -> Option<(Server, Browser)> {
    open_with(&[])
}

/// The same of a server with these flags.
pub(super) fn open_with(arguments: &[&str]) -> Option<(Server, Browser)> {
    let mut browser = Browser::start()?;
    let server = Server::start(arguments);
    // What is dragged over must be in sight.
    let desk = json!({ "width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    browser.call("Emulation.setDeviceMetricsOverride", &desk);
    browser.open(&format!("http://{}/", server.address));
    browser.until("known.models.length > 0");
    Some((server, browser))
}

/// Submits the form, and waits until its job is over.
fn generate(browser: &mut Browser) {
    browser.click("#generate");
    browser.until("!isBusy");
    assert_eq!(browser.shown("problem"), "");
    assert_eq!(browser.shown("status"), "Done");
}

/// A file that the page holds, by an expression whose value is a Blob or a promise of one.
pub(super) fn blob(browser: &mut Browser, expression: &str) -> Vec<u8> {
    let url = browser.text(&format!("(async () => dataUrl(await {expression}))()"));
    from_base64(url.split_once(',').unwrap().1)
}

pub(super) const RESULT: &str = "image().blob";

#[test]
fn a_picture_is_made_scrubbed_kept_and_restored() {
    let Some((_server, mut browser)) = open() else { return };
    let folder = tempfile::tempdir().unwrap();
    // Quotes for the shell, and letters that no tEXt chunk holds.
    let prompt = "it's a red heart \u{2764}";
    browser.fill("prompt", prompt);
    browser.fill("seed", "18446744073709551615");
    browser.fill("steps", "3");
    generate(&mut browser);

    let made = blob(&mut browser, RESULT);
    let arguments = ["generate", prompt, "--seed", "18446744073709551615", "--steps", "3", "-o", "command.png", "-q"];
    assert!(made == command(folder.path(), &arguments, "command.png"), "the command's very file");

    // Every step is in the filmstrip, and the result after them.
    assert_eq!(browser.eval("document.querySelectorAll('#strip img').length"), 4);
    let result = browser.text("document.getElementById('shown').src");
    browser.fill("scrub", "0");
    let first = browser.text("document.getElementById('shown').src");
    assert!(first.starts_with("data:image/jpeg;base64,") && result.starts_with("blob:"), "{first:.40} {result}");
    let spoken = browser.text("document.getElementById('scrub').getAttribute('aria-valuetext')");
    assert!(spoken.starts_with("step 1, noise level "), "{spoken}");
    browser.click("[data-view=noisy]");
    let noisy = browser.text("document.getElementById('shown').src");
    assert!(noisy.starts_with("data:image/jpeg;base64,") && noisy != first);

    // The command that is copied, run by a shell, makes the same file.
    browser.eval("globalThis.copied = null; navigator.clipboard.writeText = async (text) => { copied = text; }");
    browser.click("#copy");
    browser.until("copied");
    let line = browser.text("copied").replacen("headwater", "\"$0\"", 1);
    let status = Command::new("sh")
        .args(["-c", &format!("{line} --device cpu -q -o copied.png"), env!("CARGO_BIN_EXE_headwater")])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{line}");
    assert!(std::fs::read(folder.path().join("copied.png")).unwrap() == made, "{line}");

    // The file alone brings all of it back.
    browser.click("#start-over");
    assert_eq!(browser.text("document.getElementById('prompt').value"), "");
    browser.drop_file("made.png", "image/png", &made);
    browser.until("document.getElementById('status').textContent.includes('restored')");
    assert_eq!(browser.text("document.getElementById('prompt').value"), prompt);
    assert_eq!(browser.text("document.getElementById('seed').value"), "18446744073709551615");
    assert_eq!(browser.text("document.getElementById('model').value"), "icons-64-consistency");
    generate(&mut browser);
    assert!(pixels(&blob(&mut browser, RESULT)) == pixels(&made), "the same picture again");

    // Both are in the history, also after a reload, with their steps.
    let address = browser.text("location.href");
    browser.open(&address);
    browser.click("#tab-history");
    browser.until("document.querySelectorAll('#shelf li').length === 2");
    browser.click("#shelf li:last-child .open");
    browser.until("!document.getElementById('create').hidden && image().url");
    assert_eq!(browser.eval("document.querySelectorAll('#strip img').length"), 4);
    assert!(blob(&mut browser, RESULT) == made);
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn a_job_is_cancelled_and_what_is_refused_is_said() {
    let Some((server, mut browser)) = open() else { return };
    browser.fill("prompt", "a red heart");
    browser.fill("model", "icons-64");
    browser.fill("steps", "900");
    browser.click("#generate");
    browser.until("run && run.images[0].steps.length > 1");
    browser.call("Input.dispatchKeyEvent", &json!({ "type": "keyDown", "key": "Escape", "code": "Escape" }));
    browser.until("!isBusy");
    assert_eq!(browser.shown("status"), "Cancelled");
    let client = browser.text("kept.get('client')");
    let jobs = server.send("GET", "/api/jobs", &[("X-Headwater-Client", client.as_str())], b"").json();
    assert_eq!(jobs["jobs"][0]["state"], "cancelled", "{jobs}");

    assert_eq!(browser.wrong, Vec::<String>::new());
    browser.fill("steps", "5000");
    browser.click("#generate");
    browser.until("!isBusy");
    assert_eq!(browser.shown("problem"), "Steps must be 1000 at most");
    assert_eq!(browser.text("document.getElementById('steps').getAttribute('aria-invalid')"), "true");
    // Chromium itself writes of an answer of 422 to the console.
    assert!(browser.wrong.len() == 1 && browser.wrong[0].contains("422"), "{:?}", browser.wrong);
    // A job is asked for by what has no control of its own, too.
    browser.fill("steps", "2");
    browser.fill("sampler", "ddim");
    browser.fill("extra", "rng=torch-cpu\neta=0.5");
    generate(&mut browser);
    assert_eq!(browser.eval("[image().told.settings.rng, image().told.settings.eta]"), json!(["torch-cpu", 0.5]));
}

#[test]
fn what_the_brush_paints_is_made_anew_and_the_rest_kept() {
    let Some((_server, mut browser)) = open() else { return };
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/bundled/icons-64/ddim.png");
    let picture = std::fs::read(golden).unwrap();
    browser.click("[value=inpaint]");
    browser.drop_file("picture.png", "image/png", &picture);
    browser.until("given && !document.getElementById('mask').hidden");
    browser.fill("prompt", "a yellow star");
    browser.fill("steps", "4");
    browser.fill("brush", "25");

    // Without a mask nothing is sent.
    browser.click("#generate");
    browser.until("!isBusy");
    assert!(browser.shown("problem").starts_with("Paint over"), "{}", browser.shown("problem"));

    browser.drag("mask", [0.3, 0.4], [0.7, 0.6]);
    let drawn = pixels(&blob(&mut browser, "mask.file()"));
    // Keys paint, too, and each stroke can be taken back.
    browser.eval("document.getElementById('mask').focus()");
    for (key, code) in [("ArrowUp", "ArrowUp"); 8].into_iter().chain([(" ", "Space")]) {
        browser.call("Input.dispatchKeyEvent", &json!({ "type": "keyDown", "key": key, "code": code }));
    }
    assert!(pixels(&blob(&mut browser, "mask.file()")) != drawn, "a dot above");
    browser.click("#invert");
    let inverted = pixels(&blob(&mut browser, "mask.file()"));
    browser.click("#undo");
    browser.click("#undo");
    assert!(pixels(&blob(&mut browser, "mask.file()")) == drawn);

    generate(&mut browser);
    let (before, after) = (pixels(&picture), pixels(&blob(&mut browser, RESULT)));
    assert_eq!((after.width, after.height), (before.width, before.height));
    let (mut changed, mut painted) = (0, 0);
    for at in 0..before.width * before.height {
        let of = |image: &headwater::RgbImage| <[u8; 3]>::try_from(&image.pixels[3 * at..3 * at + 3]).unwrap();
        assert!([[0; 3], [255; 3]].contains(&of(&drawn)), "a mask is black and white");
        if of(&drawn) == [0; 3] {
            assert_eq!(of(&before), of(&after), "pixel {at} is kept");
        } else {
            painted += 1;
            changed += usize::from(of(&before) != of(&after));
            assert!(of(&inverted) == [0; 3], "inverted at {at}");
        }
    }
    // A quarter of the side wide, half of it long.
    assert!(painted > 400 && painted < 1200 && changed > painted / 2, "{changed} of {painted}");

    // Noise is taken off, and strokes become pictures, as by the commands.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("picture.png"), &picture).unwrap();
    browser.fill("seed", "3");
    for (task, sigma) in [("restore", "0.4"), ("stroke", "2.5")] {
        browser.click(&format!("[value={task}]"));
        browser.fill("sigma", sigma);
        browser.fill("steps", "2");
        generate(&mut browser);
        let arguments =
            [task, "picture.png", "a yellow star", "--sigma", sigma, "--steps", "2", "-s", "3", "-o", "made.png", "-q"];
        let own = command(folder.path(), &arguments, "made.png");
        assert!(pixels(&blob(&mut browser, RESULT)) == pixels(&own), "{task}");
    }
    browser.fill("seed", "");
    browser.fill("steps", "4");

    // The other tasks on the same picture; those of the sides show the room that they make.
    browser.click("[value=outpaint]");
    browser.fill("left", "8");
    browser.fill("right", "0");
    generate(&mut browser);
    assert_eq!(browser.eval("[image().told.width, image().told.height]"), json!([before.width + 8, before.height]));
    browser.click("[value=colorize]");
    generate(&mut browser);
    browser.click("[value=upscale]");
    browser.fill("steps", "1");
    generate(&mut browser);
    assert_eq!(browser.eval("[image().told.width, image().told.height]"), json!([2 * before.width, 2 * before.height]));
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn it_fits_a_phone_and_names_every_control() {
    let Some((_server, mut browser)) = open() else { return };
    let phone = json!({ "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", &phone);
    browser.eval("document.getElementById('more').open = document.getElementById('c-more').open = true");
    for (tab, command) in [
        ("create", "generate"),
        ("create", "inpaint"),
        ("create", "outpaint"),
        ("create", "stroke"),
        ("compare", ""),
        ("history", ""),
    ] {
        browser.click(&format!("#tab-{tab}"));
        if !command.is_empty() {
            browser.click(&format!("[value={command}]"));
        }
        assert_eq!(browser.eval("document.documentElement.scrollWidth <= innerWidth"), true, "{tab} {command}");
        let tree = browser.call("Accessibility.getFullAXTree", &json!({}));
        let mut controls = 0;
        for node in tree["nodes"].as_array().unwrap() {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            if [
                "button",
                "textbox",
                "spinbutton",
                "slider",
                "combobox",
                "radio",
                "checkbox",
                "tab",
                "tabpanel",
                "application",
            ]
            .contains(&role)
                && node["ignored"] == false
            {
                controls += 1;
                assert!(!node["name"]["value"].as_str().unwrap_or_default().is_empty(), "{tab} {command}: {node}");
            }
        }
        assert!(controls >= 5, "{controls}");
    }
    // Colours follow the system until they are chosen.
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    let paper = "getComputedStyle(document.documentElement).backgroundColor";
    let light = browser.text(paper);
    browser.call("Emulation.setEmulatedMedia", &dark);
    let followed = browser.text(paper);
    assert_ne!(light, followed);
    browser.click("#theme");
    assert_eq!(browser.text(paper), light);
    assert_eq!(browser.text("document.getElementById('theme').getAttribute('aria-label')"), "Colours: light");
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn settings_of_other_tools_are_understood() {
    let Some((_server, mut browser)) = open() else { return };
    // As AUTOMATIC1111's web UI writes them.
    let text = "a rocket,\nblue\nNegative prompt: text, \"frame\"\nSteps: 12, Sampler: Euler a, Schedule type: Karras, CFG scale: 4.5, Seed: 11, \
                Size: 64x96, Model hash: 1a2b, Model: \"other, model\", Clip skip: 2, RNG: CPU, Version: v1.10";
    let told = browser.eval(&format!("fromParameters({})", json!(text)));
    let want = json!({
        "prompt": "a rocket,\nblue", "negative_prompt": "text, \"frame\"", "steps": "12", "sampler": "Euler a", "schedule": "Karras",
        "guidance": "4.5", "seed": "11", "width": "64", "height": "96", "model": "other, model", "clip_skip": 1, "rng": "torch-cpu",
    });
    assert_eq!(told, want);
    assert_eq!(browser.eval(&format!("restore(fromParameters({}))", json!(text))), false, "this model is not served");
    let fields = browser.eval("fieldsOf()");
    assert_eq!(fields["sampler"], "euler_ancestral");
    assert_eq!(
        (&fields["schedule"], &fields["seed"], &fields["clip_skip"]),
        (&json!("karras"), &json!(11), &json!("1"))
    );

    // Text chunks of all three kinds, the compressed ones made by the browser's own deflate; damaged ones are none.
    let texts = browser.eval(
        "(async () => {
           const bytes = (text) => new TextEncoder().encode(text);
           const deflated = async (text) => new Uint8Array(await new Response(
             new Blob([text]).stream().pipeThrough(new CompressionStream('deflate'))).arrayBuffer());
           const chunk = (kind, ...parts) => new Blob([new Uint8Array([0, 0, 0, 0]), kind, ...parts, new Uint8Array(4)]).arrayBuffer().then((buffer) => {
             new DataView(buffer).setUint32(0, buffer.byteLength - 12);
             return buffer;
           });
           return textsOf(new Blob([
             new Uint8Array([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]),
             await chunk('tEXt', 'a\\0', new Uint8Array([0xe9])),
             await chunk('zTXt', 'b\\0\\0', await deflated('plain')),
             await chunk('iTXt', 'c\\0\\0\\0\\0\\0', bytes('\u{2764}')),
             await chunk('iTXt', 'd\\0\\x01\\0en\\0\\0', await deflated(bytes('\u{2764}\u{2764}'))),
             await chunk('zTXt', 'e\\0\\0', 'no deflate'),
             await chunk('tEXt', 'no end'),
             new Uint8Array([0x7f, 255, 255, 255, 1, 2]),
           ]));
         })()",
    );
    assert_eq!(texts, json!({ "a": "é", "b": "plain", "c": "❤", "d": "❤❤" }));
    assert_eq!(browser.wrong, Vec::<String>::new());
}

/// Of a model whose samples are latents: diffusers' picture, and previews that are it.
#[test]
fn previews_of_latents_are_their_picture() {
    let model = model("stable_diffusion");
    let loras = goldens().join("loras");
    let Some((_server, mut browser)) = open_with(&["-m", &model, "--lora-dir", loras.to_str().unwrap()]) else {
        return;
    };
    browser.fill("prompt", "a red square on a blue background");
    for (id, value) in [("seed", "20"), ("steps", "8"), ("sampler", "euler"), ("guidance", "2")] {
        browser.fill(id, value);
    }
    generate(&mut browser);
    let picture = pixels(&blob(&mut browser, RESULT));
    let last = browser.text("image().steps.at(-1).preview");
    let last = pixels(&from_base64(last.split_once(',').unwrap().1));
    // The last step leaves no noise, and its latents are decoded: what differs is the JPEG file.
    assert_eq!((last.width, last.height), (picture.width, picture.height));
    let apart = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
    let error = (picture.pixels.iter().zip(&last.pixels).map(apart).sum::<f64>() / last.pixels.len() as f64).sqrt();
    assert!(error < 12.0, "{error} of 255");

    // An adapter is put into the prompt by its name, changes the picture as it does the command's, and is in the file.
    browser.fill("lora", "peft");
    assert_eq!(
        browser.text("document.getElementById('prompt').value"),
        "a red square on a blue background <lora:peft:1>"
    );
    generate(&mut browser);
    let adapted = blob(&mut browser, RESULT);
    assert!(pixels(&adapted) != picture, "an adapter changes the picture");
    let folder = tempfile::tempdir().unwrap();
    let lora = loras.join("peft.safetensors");
    let arguments = [
        "generate",
        "a red square on a blue background",
        "-m",
        &model,
        "--lora",
        lora.to_str().unwrap(),
        "--sampler",
        "euler",
        "--steps",
        "8",
        "--guidance",
        "2",
        "-s",
        "20",
        "-o",
        "a.png",
        "-q",
    ];
    assert!(pixels(&adapted) == pixels(&command(folder.path(), &arguments, "a.png")));
    browser.click("#start-over");
    browser.drop_file("adapted.png", "image/png", &adapted);
    browser.until("document.getElementById('status').textContent.includes('restored')");
    assert_eq!(
        browser.text("document.getElementById('prompt').value"),
        "a red square on a blue background <lora:peft:1>"
    );
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn what_is_dropped_and_is_no_picture_changes_nothing() {
    let Some((_server, mut browser)) = open_with(&["--max-pixels", "5000"]) else { return };
    browser.click("#generate");
    browser.until("!isBusy");
    assert_eq!(browser.shown("problem"), "Say what the picture shows.");
    assert_eq!(browser.text("document.activeElement.id"), "prompt");
    for (name, media, bytes) in [("notes.txt", "text/plain", &b"hello"[..]), ("false.png", "image/png", &b"hello"[..])]
    {
        browser.drop_file(name, media, bytes);
        browser.until(&format!("document.getElementById('problem').textContent.includes('{name}')"));
        assert_eq!(
            browser.shown("problem"),
            format!("\u{201c}{name}\u{201d} is no picture that this browser can read.")
        );
        assert_eq!(browser.eval("[command(), given]"), json!(["generate", null]));
    }
    // More pixels than the server takes: said before they are decoded.
    let large = blob(&mut browser, "pngOf(canvasOf(100, 51))");
    browser.drop_file("large.png", "image/png", &large);
    browser.until("document.getElementById('problem').textContent.includes('large.png')");
    assert!(browser.shown("problem").contains("100 \u{d7} 51 pixels"), "{}", browser.shown("problem"));
    assert_eq!(browser.eval("[command(), given]"), json!(["generate", null]));
    let fits = blob(&mut browser, "pngOf(canvasOf(100, 50))");
    browser.drop_file("fits.png", "image/png", &fits);
    browser.until("given && command() === 'img2img'");
    assert_eq!(browser.shown("problem"), "");
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn a_job_outlives_a_reload_waits_for_room_and_ends_with_its_server() {
    let model = model("stable_diffusion");
    let Some((server, mut browser)) = open_with(&["-m", &model, "--max-queue", "1"]) else { return };
    browser.fill("prompt", "a red square");
    // Of a size that takes minutes, however quick the machine and slow the browser.
    browser.fill("width", "128");
    browser.fill("height", "128");
    browser.fill("steps", "900");
    browser.click("#generate");
    // Twice: the first reload must not forget it.
    for _ in 0..2 {
        browser.until("run && run.images[0].steps.length > 2");
        let id = browser.text("run.id");
        browser.eval("globalThis.isOld = true");
        browser.call("Page.reload", &json!({}));
        browser.until("!globalThis.isOld && document.readyState === 'complete' && run && isBusy");
        assert_eq!(browser.text("run.id"), id);
        assert_eq!(browser.text("document.getElementById('prompt').value"), "a red square");
    }
    browser.click("#cancel");
    browser.until("!isBusy");
    assert_eq!(browser.shown("status"), "Cancelled");

    // Somebody else's job fills the queue: the page waits until there is room.
    let other = server
        .submit(&json!({ "prompt": "a red square", "steps": 900, "width": 128, "height": 128, "detached": true }));
    browser.fill("steps", "2");
    browser.click("#generate");
    browser.until("document.getElementById('status').textContent.startsWith('The server is busy')");
    server.request("DELETE", &format!("/api/jobs/{other}"), &serde_json::Value::Null);
    browser.until("!isBusy");
    assert_eq!((browser.shown("problem"), browser.shown("status")), (String::new(), "Done".to_owned()));

    browser.fill("steps", "900");
    browser.click("#generate");
    browser.until("current.id && run.id === current.id && run.images[0].steps.length > 2");
    drop(server);
    browser.until("document.getElementById('status').textContent.startsWith('The server does not answer')");
    browser.until("!isBusy");
    assert_eq!(browser.shown("problem"), "The connection to the server was lost.");
    assert_eq!(browser.shown("status"), "");
    // What was made before is still there.
    assert!(browser.eval("run.images[0].steps.length").as_u64().unwrap() > 2);
}

/// How soon the page shows something: `cargo test --release --test serve first_paint -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, which asserts nothing about time"]
fn first_paint() {
    let Some((server, mut browser)) = open() else { return };
    let mut seen = Vec::new();
    for _ in 0..15 {
        browser.call("Page.navigate", &json!({ "url": "about:blank" }));
        std::thread::sleep(std::time::Duration::from_millis(200));
        browser.open(&format!("http://{}/", server.address));
        browser.until("performance.getEntriesByName('first-contentful-paint').length");
        seen.push(
            browser.eval("performance.getEntriesByName('first-contentful-paint')[0].startTime").as_f64().unwrap(),
        );
    }
    seen.sort_by(f64::total_cmp);
    println!("first contentful paint: best {:.0} ms, median {:.0} ms of {}", seen[0], seen[seen.len() / 2], seen.len());
}
