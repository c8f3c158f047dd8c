//! The page of a comparison in a real browser: headless Chromium, where there is one.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::common;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Counts what goes wrong, from before the page's own script on.
const WATCH: &str = "<script>window.wrong = []; addEventListener('error', (e) => wrong.push(String(e.message)));\
                     console.error = (...all) => wrong.push(all.join(' '));</script>";

/// Uses the page as a person would, and writes what was seen where the test finds it.
const USE: &str = r#"<script>
(() => {
  const images = () => [...document.querySelectorAll('#cards li[data-id]:not([hidden]) img')].map((img) => img.src);
  const names = () => [...document.querySelectorAll('#cards li[data-id]:not([hidden])')].map((li) => li.dataset.id);
  const slider = document.getElementById('sigma');
  const seen = { cards: names(), finals: images(), levels: Number(slider.max) };
  const move = (to) => { slider.value = to; slider.dispatchEvent(new Event('input', { bubbles: true })); };
  move(0);
  seen.first = images();
  seen.spoken = slider.getAttribute('aria-valuetext');
  const key = (target, name) => target.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true }));
  key(document.body, ']');
  seen.second = images();
  key(document.body, '2');
  seen.x = images();
  key(document.body, '3');
  seen.difference = images();
  key(document.body, '1');
  const sort = document.getElementById('sort');
  sort.value = 'nfe';
  sort.dispatchEvent(new Event('change', { bubbles: true }));
  seen.byNfe = names();
  const card = (id) => document.querySelector(`#cards li[data-id="${id}"]`);
  key(card('heun-4-steps'), 'p');
  seen.pinned = names();
  key(card('euler-2-steps'), 'h');
  seen.hidden = names();
  seen.hash = location.hash;
  document.getElementById('theme').click();
  seen.theme = document.documentElement.dataset.theme;
  seen.lines = document.querySelectorAll('#plots polyline').length;
  seen.alt = [...document.images].every((img) => img.hidden || img.alt);
  seen.rows = document.querySelectorAll('#all tr[data-id] img').length;
  seen.wrong = wrong;
  document.documentElement.dataset.seen = JSON.stringify(seen);
})();
</script>"#;

/// The page's document when its scripts are done.
fn document(browser: &str, page: &Path, fragment: &str, profile: &Path) -> String {
    let profile = format!("--user-data-dir={}", profile.display());
    let address = format!("file://{}{fragment}", page.display());
    let flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"];
    let output = Command::new(browser).args(flags).args([&profile, &address]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn seen(document: &str) -> Value {
    let text = document.split_once("data-seen=\"").expect("the script ran to its end").1.split_once('"').unwrap().0;
    serde_json::from_str(&text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
        .unwrap()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect()
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = common::chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pipelines/pixels");
    let status = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args([
            "compare",
            "a <b>red</b> \"square\"</script>",
            "--samplers",
            "euler,heun,euler_ancestral",
            "--steps",
            "2,4",
        ])
        .args(["--seed", "3", "--device", "cpu", "-q", "-o", "out", "-m"])
        .arg(model)
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    // Nothing is loaded from elsewhere.
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http") && !page.contains("url("));
    let watched =
        page.replacen("<head>", &format!("<head>{WATCH}"), 1).replacen("</body>", &format!("{USE}</body>"), 1);
    let used = folder.path().join("used.html");
    std::fs::write(&used, watched).unwrap();
    let profile = folder.path().join("profile");
    let seen = seen(&document(browser, &used, "", &profile));

    assert_eq!(list(&seen["wrong"]), Vec::<&str>::new(), "no error on the console");
    let given = [
        "euler-2-steps",
        "euler-4-steps",
        "heun-2-steps",
        "heun-4-steps",
        "euler_ancestral-2-steps",
        "euler_ancestral-4-steps",
    ];
    assert_eq!(list(&seen["cards"]), given);
    assert!(seen["levels"].as_u64().unwrap() >= 4);
    // The slider moves every row, and each view is another picture.
    for (before, after) in [("finals", "first"), ("second", "x"), ("x", "difference")] {
        for (a, b) in list(&seen[before]).iter().zip(list(&seen[after])) {
            assert!(a.starts_with("data:image/jpeg;base64,") && *a != b, "{before} to {after}");
        }
    }
    assert_ne!(seen["first"], seen["second"], "a key moves it too");
    assert!(seen["spoken"].as_str().unwrap().starts_with("sigma "));
    assert_eq!(list(&seen["byNfe"])[5], "heun-4-steps", "the most evaluations come last");
    assert_eq!(list(&seen["pinned"])[0], "heun-4-steps");
    assert!(!list(&seen["hidden"]).contains(&"euler-2-steps"));
    let hash = seen["hash"].as_str().unwrap();
    assert!(
        hash.contains("sort=nfe") && hash.contains("hide=euler-2-steps") && hash.contains("pin=heun-4-steps"),
        "{hash}"
    );
    assert_eq!((&seen["theme"], &seen["alt"], &seen["rows"]), (&"light".into(), &true.into(), &6.into()));
    assert_eq!(seen["lines"], 18, "three plots of six cells");

    // The state is in the address, and what people typed is text.
    let document = document(
        browser,
        &folder.path().join("out/report.html"),
        "#view=x&sort=nfe&theme=dark&hide=euler-2-steps",
        &profile,
    );
    assert!(document.contains("data-theme=\"dark\"") && document.contains("show hidden (1)"));
    assert!(document.contains("a &lt;b&gt;red&lt;/b&gt;") && !document.contains("<b>red</b>"));
}
