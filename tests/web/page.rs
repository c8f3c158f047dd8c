//! The page around the engine: the server's own, without a server.

use super::{Site, bytes, native, open};
use crate::browser::Browser;
use crate::common::{goldens, read, succeed};
use headwater::RgbImage;
use serde_json::json;

/// Opens the page, and waits until its engine is there.
fn visit(browser: &mut Browser, site: &Site) {
    browser.open(&format!("http://{}/index.html", site.address));
    browser.until("document.getElementById('place').textContent");
}

/// Submits the form, and waits until its job is over.
fn run(browser: &mut Browser) {
    browser.click("#generate");
    browser.until("!isBusy");
    assert_eq!(browser.shown("problem"), "");
    assert_eq!(browser.shown("status"), "Done");
}

/// A picture of what the tests beside this one ask for.
fn make(browser: &mut Browser) -> Vec<u8> {
    browser.fill("prompt", "a red heart");
    browser.fill("seed", "7");
    run(browser);
    shown(browser)
}

/// A file that the page holds, by an expression whose value is a promise of one.
fn blob(browser: &mut Browser, expression: &str) -> Vec<u8> {
    let url = browser.eval(&format!("(async () => (await dataUrl(await {expression})).split(',')[1])()"));
    bytes(&url)
}

/// The picture that is shown, in rows of red, green, blue and opacity.
fn shown(browser: &mut Browser) -> Vec<u8> {
    let rgba = browser.eval(
        "(async () => {
           const bitmap = await createImageBitmap(image().blob, { colorSpaceConversion: 'none' });
           const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
           context.drawImage(bitmap, 0, 0);
           return btoa(String.fromCharCode(...context.getImageData(0, 0, bitmap.width, bitmap.height).data));
         })()",
    );
    bytes(&rgba)
}

/// The largest difference of a picture to the program's.
fn levels(rgba: &[u8], native: &RgbImage) -> u8 {
    let rgb = rgba.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
    assert_eq!(rgba.len(), native.width * native.height * 4);
    rgb.zip(&native.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn the_page_edits_compares_and_opens_models() {
    let Some((mut browser, site)) = open(&["--disable-gpu"]) else { return };
    let desk = json!({ "width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    browser.call("Emulation.setDeviceMetricsOverride", &desk);
    visit(&mut browser, &site);
    let folder = tempfile::tempdir().unwrap();
    let picture = std::fs::read(goldens().join("bundled/icons-64/ddim.png")).unwrap();
    std::fs::write(folder.path().join("picture.png"), &picture).unwrap();
    browser.fill("prompt", "a yellow star");
    browser.fill("seed", "3");
    browser.fill("steps", "2");
    browser.click("[value=inpaint]");
    browser.drop_file("picture.png", "image/png", &picture);
    browser.until("given && !document.getElementById('mask').hidden");
    browser.fill("brush", "25");
    browser.drag("mask", [0.3, 0.4], [0.7, 0.6]);
    std::fs::write(folder.path().join("mask.png"), blob(&mut browser, "mask.file()")).unwrap();
    let tasks: [(&str, &[&str]); 5] = [
        ("inpaint", &["--mask", "mask.png"]),
        ("restore", &["--sigma", "0.4"]),
        ("stroke", &["--sigma", "2.5"]),
        ("img2img", &[]),
        ("upscale", &[]),
    ];
    for (task, more) in tasks {
        browser.click(&format!("[value={task}]"));
        if let [_, sigma] = more {
            browser.fill("sigma", sigma);
        }
        run(&mut browser);
        let model = browser.text("image().told.settings.model");
        let arguments =
            [task, "picture.png", "a yellow star", "-m", &model, "-s", "3", "--steps", "2", "--threads", "1"];
        succeed(folder.path(), &[&arguments, more, &["-o", "made.png", "-q", "--force"]].concat());
        let (own, made) = (read(folder.path(), "made.png"), shown(&mut browser));
        assert_eq!(made.len(), own.pixels.len() / 3 * 4, "{task}");
        assert!(levels(&made, &own) <= 1, "{task}");
    }

    // Samplers beside each other, at every noise level.
    browser.click("#tab-compare");
    browser.fill("c-prompt", "a rocket");
    browser.fill("c-steps", "2, 4");
    browser.click("#c-run");
    browser.until("!document.getElementById('c-stop').hidden");
    browser.until("document.getElementById('c-stop').hidden");
    assert!(browser.shown("c-status").starts_with("Done"), "{}", browser.shown("c-status"));
    let end = browser.eval("[...document.querySelectorAll('#sheet img')].map((one) => one.src)");
    browser.fill("c-level", "0");
    let begin = browser.eval("[...document.querySelectorAll('#sheet img')].map((one) => one.src)");
    assert!(end.as_array().unwrap().len() == 8 && begin != end, "{end:.300}");

    // A model of one's own, dropped as one file.
    browser.click("#tab-create");
    succeed(folder.path(), &["convert", "model:stable_diffusion", "mine.safetensors"]);
    let model = std::fs::read(folder.path().join("mine.safetensors")).unwrap();
    browser.drop_file("mine.safetensors", "", &model);
    browser.until("document.getElementById('status').textContent === 'mine is open'");
    assert!(browser.shown("model-help").contains("GB of memory"), "{}", browser.shown("model-help"));
    browser.click("[value=generate]");
    browser.fill("model", "mine");
    run(&mut browser);
    assert_eq!(browser.text("image().told.settings.model"), "mine");
    browser.drop_file("bad.safetensors", "", b"no model");
    browser.until("document.getElementById('problem').textContent");
    assert!(
        browser.shown("problem").starts_with("It cannot be opened: bad.safetensors: "),
        "{}",
        browser.shown("problem")
    );
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn the_page_makes_pictures_without_a_server_and_then_without_a_network() {
    let Some((mut browser, site)) = open(&["--disable-gpu"]) else { return };
    visit(&mut browser, &site);
    let made = make(&mut browser);
    assert!(levels(&made, &native().image.unwrap()) == 0);
    assert!(
        browser.eval("image().steps.every(({ preview, noisy }) => preview && noisy) && image().steps.length > 0")
            == true
    );
    browser.until("navigator.serviceWorker.controller");
    assert_eq!(browser.wrong, Vec::<String>::new());

    // Chromium writes to the console what it cannot fetch from now on.
    site.end();
    visit(&mut browser, &site);
    assert!(make(&mut browser) == made);
}
