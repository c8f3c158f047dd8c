//! The page around the engine: the server's own, without a server.

use super::{Site, bytes, native, open};
use crate::browser::Browser;

/// Opens the page, and waits until its engine is there.
fn visit(browser: &mut Browser, site: &Site) {
    browser.open(&format!("http://{}/index.html", site.address));
    browser.until("document.getElementById('place').textContent");
}

/// The picture that is shown, in rows of red, green, blue and opacity.
fn make(browser: &mut Browser) -> Vec<u8> {
    browser.fill("prompt", "a red heart");
    browser.fill("seed", "7");
    browser.click("#generate");
    browser.until("isBusy");
    browser.until("!isBusy");
    assert_eq!(browser.shown("problem"), "");
    assert_eq!(browser.shown("status"), "Done");
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

fn levels(rgba: &[u8]) -> u8 {
    let native = native().image.unwrap();
    let rgb = rgba.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
    assert_eq!(rgba.len(), native.width * native.height * 4);
    rgb.zip(&native.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn the_page_makes_pictures_without_a_server_and_then_without_a_network() {
    let Some((mut browser, site)) = open(&["--disable-gpu"]) else { return };
    visit(&mut browser, &site);
    let made = make(&mut browser);
    assert!(levels(&made) <= 1);
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
