//! The engine in a browser: headless Chromium, with its processor and with WebGPU on SwiftShader, beside the program's own pictures.

#![cfg(all(feature = "serve", feature = "bundled", unix))]
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    dead_code,
    reason = "a panic is how a test fails; modules share what is public"
)]

#[path = "../serve/browser.rs"]
mod browser;
#[path = "../common/mod.rs"]
mod common;
mod page;
mod site;
mod support {
    /// A file in base64, as the browser's driver sends it.
    pub fn base64(bytes: &[u8]) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }
}

use browser::Browser;
use headwater::{DeviceChoice, DeviceSettings, Generated, Pipeline, PlanOptions, Request, bundled};
use serde_json::Value;
use site::Site;

const MODEL: &str = "icons-64-consistency";

/// Chromium's WebGPU on a processor: the same on every machine.
const SWIFTSHADER: [&str; 2] = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/// What every test says first. Bytes come as base64, which a page can make of whatever it has in memory.
const BEGIN: &str = "
  const { Headwater } = await import('/index.js');
  const text = (values) => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    let all = '';
    for (let at = 0; at < bytes.length; at += 4096) all += String.fromCharCode(...bytes.subarray(at, at + 4096));
    return btoa(all);
  };
  const asked = { prompt: 'a red heart', seed: 7 };
  const wrong = (promise) => promise.then(() => 'nothing was wrong', (error) => `${error.name}: ${error.message}`);
";

/// A browser that shows an empty page of the site, with these flags more; none where either is missing.
fn open(flags: &[&str]) -> Option<(Browser, Site)> {
    open_at(flags, "")
}

/// The same of a site that sends these header lines.
fn open_at(flags: &[&str], headers: &'static str) -> Option<(Browser, Site)> {
    let site = site::serve(&site::folder()?, headers);
    let mut browser = Browser::with(flags)?;
    browser.open(&format!("http://{}/blank.html", site.address));
    Some((browser, site))
}

/// What a script returns that may await.
fn run(browser: &mut Browser, script: &str) -> Value {
    browser.eval(&format!("(async () => {{ {BEGIN} {script} }})()"))
}

fn bytes(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// The program's own picture of what the scripts ask for, on one thread.
fn native() -> Generated {
    let settings = DeviceSettings { threads: Some(1), ..DeviceSettings::default() };
    let device = headwater::open_device(&DeviceChoice::Cpu, &settings).unwrap();
    let pipe =
        Pipeline::from_pretrained(&device, &bundled::find(MODEL).unwrap().files(), PlanOptions::default()).unwrap();
    pipe.generate(&Request { prompt: "a red heart".into(), seed: 7, ..Request::default() }).unwrap()
}

/// The largest difference of a picture to the program's in levels of 255, and of its sample.
fn differences(made: &Value, native: &Generated) -> (u8, f32) {
    let rgba = bytes(&made["rgba"]);
    let image = native.image.as_ref().unwrap();
    assert_eq!(rgba.len(), image.width * image.height * 4);
    let rgb = rgba.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
    let levels = rgb.zip(&image.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    let sample = bytes(&made["sample"]);
    let sample = sample.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    assert_eq!(sample.len(), native.sample.len());
    (levels, sample.zip(&native.sample).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
}

/// Loads the model, and makes the picture twice: the second time everything is there already.
const MAKE: &str = "
  const engine = await Headwater.open(OPTIONS);
  const empty = await engine.memory();
  const began = performance.now();
  const model = await engine.load('icons-64-consistency', '/models/icons-64-consistency');
  const loaded = (performance.now() - began) / 1000;
  const steps = [];
  const first = await engine.generate(asked, { onStep: (step) => steps.push([step.index, step.steps, step.denoised.width]) });
  const made = await engine.generate(asked);
  const [need, memory] = [await engine.check(asked), await engine.memory()];
  engine.close();
  return { info: engine.info, model, steps, loaded, seconds: [first.seconds, made.seconds], need: need.bytes, memory: memory - empty, rgba: text(made.image.data), sample: text(made.sample),
    same: text(first.image.data) === text(made.image.data) };
";

fn make(browser: &mut Browser, options: &str) -> Value {
    let made = run(browser, &MAKE.replace("OPTIONS", options));
    println!("{} loaded in {} s, made in {} s", made["info"], made["loaded"], made["seconds"]);
    println!("{} bytes were said to be needed, {} were the most in memory", made["need"], made["memory"]);
    // A tensor is read at a time, and of what WebGPU holds nothing lies here.
    assert!(made["memory"].as_u64().unwrap() < made["need"].as_u64().unwrap() + (8 << 20), "{made:.300}");
    assert_eq!(made["same"], true);
    assert_eq!(made["model"]["width"], 64);
    made
}

#[test]
fn the_processor_makes_the_programs_picture() {
    let native = native();
    // A browser without WebGPU, and one whose adapter is a program on the processor: the executor takes their place.
    for flags in [&[][..], &SWIFTSHADER] {
        let Some((mut browser, _site)) = open(flags) else { return };
        let made = make(&mut browser, "{ device: 'auto' }");
        assert_eq!(made["info"]["backend"], "native");
        assert_eq!(made["steps"].as_array().unwrap().len(), native.steps);
        let (levels, sample) = differences(&made, &native);
        println!("processor: {levels} of 255, samples within {sample:e}");
        assert_eq!(levels, 0);
        assert_eq!(browser.wrong, Vec::<String>::new());
    }
}

#[test]
fn threads_make_the_same_picture() {
    let Some((mut browser, _site)) = open_at(&[], site::ISOLATED) else { return };
    if !site::folder().unwrap().join("headwater_threads_bg.wasm").is_file() {
        println!("skipped: the engine with threads was not built");
        return;
    }
    // As many as the machine has, and more.
    for threads in ["navigator.hardwareConcurrency", "5"] {
        let options = format!("{{ device: 'auto', threads: {threads} }}");
        let made = make(&mut browser, &options);
        let threads = browser.eval(&format!("`${{{threads}}} threads`"));
        assert_eq!((&made["info"]["backend"], &made["info"]["features"][0]), (&"native".into(), &threads));
        let (levels, sample) = differences(&made, &native());
        println!("{threads}: {levels} of 255, samples within {sample:e}");
        assert_eq!(levels, 0);
    }
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn webgpu_makes_the_programs_picture_within_its_least_limits() {
    let Some((mut browser, _site)) = open(&SWIFTSHADER) else { return };
    let made = make(&mut browser, "{ device: 'gpu', leastLimits: true }");
    assert_eq!(made["info"]["backend"], "webgpu");
    let (levels, sample) = differences(&made, &native());
    println!("WebGPU: {levels} of 255, samples within {sample:e}");
    assert!(levels <= 1, "{levels} of 255");
    assert_eq!(browser.wrong, Vec::<String>::new());
}

#[test]
fn kernels_are_right_in_a_browser() {
    compare_kernels(true, 300);
}

#[test]
#[ignore = "ten minutes"]
fn kernels_are_right_in_a_browser_on_every_problem() {
    compare_kernels(false, 4000);
}

fn compare_kernels(brief: bool, least: u64) {
    // Without the watchdog, for which some shaders take too long to compile on busy machines.
    let Some((mut browser, _site)) = open(&[&SWIFTSHADER[..], &["--disable-gpu-watchdog"]].concat()) else { return };
    let told = run(
        &mut browser,
        &"const engine = await Headwater.open({ device: 'gpu', leastLimits: true });
          const cases = [];
          await engine.selftest({ leastLimits: true, brief: BRIEF, onCase: (one) => cases.push(one) });
          return { count: cases.length, kernels: new Set(cases.map(({ kernel }) => kernel)).size, wrong: cases.filter(({ passed }) => !passed) };"
            .replace("BRIEF", &brief.to_string()),
    );
    println!("{} comparisons of {} kernels", told["count"], told["kernels"]);
    assert!(told["count"].as_u64().unwrap() > least && told["kernels"].as_u64().unwrap() > 30, "{told:.300}");
    assert_eq!(told["wrong"], Value::Array(Vec::new()));
}

#[test]
fn a_lost_device_is_a_message_and_is_opened_again() {
    let Some((mut browser, _site)) = open(&SWIFTSHADER) else { return };
    let told = run(
        &mut browser,
        "const loses = `const own = GPUAdapter.prototype.requestDevice;
           GPUAdapter.prototype.requestDevice = async function (...given) {
             const device = await own.apply(this, given);
             new BroadcastChannel('loss').onmessage = () => device.destroy();
             return device;
           };`;
         const script = (text) => URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
         const worker = script(`import '${script(loses)}'; import '${location.origin}/worker.js';`);
         const engine = await Headwater.open({ device: 'gpu', worker });
         const load = () => engine.load('m', '/models/icons-64-consistency');
         await load();
         const lost = new BroadcastChannel('loss');
         const fails = engine.generate({ ...asked, steps: 50 }, { onStep: ({ index }) => { if (index === 1) lost.postMessage(1); } });
         const error = await fails.catch((error) => error);
         await load();
         const made = await engine.generate({ ...asked, steps: 1 });
         return { error: error.message, reload: error.reload, steps: made.steps };",
    );
    let error = told["error"].as_str().unwrap();
    assert!(error.contains(" was lost: ") && !error.contains('\n'), "{told}");
    assert_eq!((&told["reload"], &told["steps"]), (&true.into(), &1.into()));
}

/// Stable Diffusion's layout at the size of a test: a network of convolutions, and latents.
#[test]
fn a_single_file_is_a_model() {
    let Some((mut browser, _site)) = open(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    common::succeed(folder.path(), &["convert", "model:stable_diffusion", "whole.safetensors"]);
    let job = ["generate", "a blue square", "--seed", "3", "--steps", "3"];
    common::succeed(
        folder.path(),
        &[&job[..], &["-m", "whole.safetensors", "--threads", "1", "-o", "made.png", "-q"]].concat(),
    );
    let native = common::read(folder.path(), "made.png");
    let file = support::base64(&std::fs::read(folder.path().join("whole.safetensors")).unwrap());
    let told = run(
        &mut browser,
        &"const file = new Blob([Uint8Array.from(atob('FILE'), (letter) => letter.charCodeAt(0))]);
          const engine = await Headwater.open({ device: 'cpu' });
          const model = await engine.load('whole', new Map([['whole.safetensors', file]]));
          const made = await engine.generate({ prompt: 'a blue square', seed: 3, steps: 3 });
          const part = await wrong(engine.load('part', new Map([['part.safetensors', file.slice(0, file.size - 1)]])));
          const large = await wrong(engine.generate({ prompt: 'a blue square', width: 16384, height: 16384, steps: 1 }));
          return { model, rgba: text(made.image.data), part, large };"
            .replace("FILE", &file),
    );
    assert_eq!((&told["model"]["makes_pictures"], &told["model"]["makes_pixels"]), (&true.into(), &false.into()));
    let rgba = bytes(&told["rgba"]);
    let rgb: Vec<u8> = rgba.chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect();
    assert_eq!(rgb.len(), native.pixels.len());
    let levels = rgb.iter().zip(&native.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(levels <= 1, "{levels} of 255");
    assert!(told["large"].as_str().unwrap().contains("is too large"), "{}", told["large"]);
    assert!(told["part"].as_str().unwrap().starts_with("Error: part.safetensors: "), "{}", told["part"]);
}

#[test]
fn a_run_is_cancelled_at_its_next_step_and_another_begins() {
    let Some((mut browser, _site)) = open(&[]) else { return };
    let told = run(
        &mut browser,
        "const engine = await Headwater.open({ device: 'cpu' });
         await engine.load('m', '/models/icons-64-consistency');
         const stop = new AbortController();
         const steps = [];
         const ended = await wrong(engine.generate({ ...asked, steps: 50 }, { signal: stop.signal, onStep: ({ index }) => { steps.push(index); stop.abort(); } }));
         const made = await engine.generate({ ...asked, steps: 1 });
         return { ended, steps: steps.length, after: made.steps };",
    );
    assert!(told["ended"].as_str().unwrap().starts_with("AbortError"), "{told}");
    assert!(told["steps"].as_u64().unwrap() < 25, "{told}");
    assert_eq!(told["after"], 1);
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let Some((mut browser, _site)) = open(&[]) else { return };
    let told = run(
        &mut browser,
        "const engine = await Headwater.open({ device: 'cpu' });
         const told = [];
         told.push(await wrong(Headwater.open({ device: 'gpu' })));
         told.push(await wrong(engine.generate(asked)));
         told.push(await wrong(engine.load('m', '/models/nobody')));
         told.push(await wrong(engine.load('m', '/damaged/models/icons-64-consistency')));
         told.push(await wrong(engine.load('m', '/huge')));
         told.push(await wrong(engine.load('m', new Map([['model_index.json', new TextEncoder().encode('{')]]))));
         await engine.load('m', '/models/icons-64-consistency');
         told.push(await wrong(engine.generate({ ...asked, steps: 'many' })));
         told.push(await wrong(engine.generate({ ...asked, width: 63 })));
         told.push(await wrong(engine.generate({ ...asked, command: 'img2img' })));
         const need = await engine.check(asked);
         told.push(`needs ${need.bytes > 1e6 && need.bytes < 1e9} ${need.steps > 0}`);
         return told;",
    );
    let fragments = [
        "no graphics adapter was found",
        "the model that was asked for is not loaded",
        "files.json: the server answers 404",
        "is not the file that its list tells of",
        "the model has 5.0 GB, and a page's processor holds 3.2 GB: it needs WebGPU",
        "model_index.json",
        "steps must be a number",
        "width 63 is not possible",
        "img2img needs a picture",
        "needs true true",
    ];
    for (told, fragment) in told.as_array().unwrap().iter().zip(fragments) {
        let told = told.as_str().unwrap();
        assert!(told.contains(fragment) && !told.contains('\n'), "{told} has no {fragment:?}");
    }
    assert_eq!(told.as_array().unwrap().len(), fragments.len());
}

#[test]
fn a_browser_that_keeps_nothing_loads_models_all_the_same() {
    let Some((mut browser, _site)) = open(&[]) else { return };
    let told = run(
        &mut browser,
        "const url = (lines) => URL.createObjectURL(new Blob([lines], { type: 'text/javascript' }));
         const refusing = url(`for (const owner of [globalThis.navigator, globalThis]) {
           const name = owner === globalThis ? 'caches' : 'storage';
           Object.defineProperty(owner, name, { get() { throw new DOMException('denied', 'SecurityError'); } });
         }`);
         const worker = url(`import '${refusing}'; import '${location.origin}/worker.js';`);
         const engine = await Headwater.open({ device: 'cpu', worker });
         const told = [];
         await engine.load('m', '/models/icons-64-consistency', { onProgress: ({ bytes, of }) => told.push([bytes, of]) });
         const made = await engine.generate({ ...asked, steps: 1 });
         return { steps: made.steps, last: told.at(-1), rises: told.every(([bytes], at) => at === 0 || bytes >= told[at - 1][0]) };",
    );
    assert_eq!(
        (&told["steps"], &told["last"][0], &told["rises"]),
        (&Value::from(1), &told["last"][1], &Value::from(true))
    );
    assert!(told["last"][1].as_u64().unwrap() > 10_000_000, "{told}");
}

#[test]
fn what_was_broken_off_is_fetched_again() {
    let Some((mut browser, site)) = open(&[]) else { return };
    // A tab that is closed in the middle of a file, and one whose person had enough.
    browser.eval("(async () => { const { Headwater } = await import('/index.js'); (await Headwater.open({ device: 'cpu' })).load('m', '/models/icons-64-consistency'); })()");
    browser.open(&format!("http://{}/blank.html", site.address));
    let told = run(
        &mut browser,
        "const engine = await Headwater.open({ device: 'cpu' });
         const stop = new AbortController();
         const onProgress = ({ bytes }) => { if (bytes > 1e6) stop.abort(); };
         const ended = await wrong(engine.load('m', '/models/icons-64-consistency', { signal: stop.signal, onProgress }));
         await engine.load('m', '/models/icons-64-consistency');
         return { ended, steps: (await engine.generate({ ...asked, steps: 1 })).steps };",
    );
    assert!(told["ended"].as_str().unwrap().starts_with("AbortError"), "{told}");
    assert_eq!(told["steps"], 1);
}

#[test]
fn kept_models_and_given_files_need_no_network() {
    let Some((mut browser, site)) = open(&[]) else { return };
    run(
        &mut browser,
        "globalThis.engine = await Headwater.open({ device: 'cpu' });
         await engine.load('kept', '/models/icons-64-consistency');
         const list = await (await fetch('/models/icons-64-consistency/files.json')).json();
         globalThis.given = new Map();
         for (const { path } of list) given.set(path, await (await fetch(`/models/icons-64-consistency/${path}`)).blob());
         return null;",
    );
    site.end();
    let told = browser.eval(
        "(async () => {
           await engine.load('kept', '/models/icons-64-consistency');
           await engine.load('given', given);
           // As a folder that was dropped.
           await engine.load('dropped', [...given].map(([path, blob]) => Object.defineProperty(new File([blob], path), 'webkitRelativePath', { value: `icons/${path}` })));
           const made = [];
           for (const model of ['kept', 'given', 'dropped']) made.push((await engine.generate({ model, prompt: 'a red heart', seed: 7 })).image.data.join());
           return made.every((one) => one === made[0]) && made[0].length > 0;
         })()",
    );
    assert_eq!(told, true);
}
