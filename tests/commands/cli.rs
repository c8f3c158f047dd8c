//! Whole runs of the program: what it prints, what it leaves on disk, how it ends.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A finished run.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn headwater(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for variable in ["WGPU_BACKEND", "WGPU_ADAPTER_NAME"] {
        command.env_remove(variable);
    }
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Run {
    headwater(folder, arguments).output().expect("the program starts").into()
}

fn succeed(folder: &Path, arguments: &[&str]) -> Run {
    let run = run(folder, arguments);
    assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
    run
}

/// Fails with this code and one sentence that holds `part`; never a panic.
fn fail(folder: &Path, arguments: &[&str], code: i32, part: &str) {
    let run = run(folder, arguments);
    let message = run.stderr.trim_end();
    assert_eq!(run.code, Some(code), "{arguments:?}: {message}");
    assert!(message.contains(part), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    let ours = message.starts_with("error: ");
    // clap's own usage errors have several lines; ours have one.
    assert!(ours && (code == 2 || message.lines().count() == 1), "{arguments:?}: {message}");
    assert_eq!(run.stdout, "", "{arguments:?}: an error leaves standard output empty");
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("readable");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const QUICK: [&str; 4] = ["--device", "cpu", "--steps", "2"];

fn generate<'a>(prompt: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["generate", prompt], &QUICK[..], more].concat()
}

#[test]
fn a_prompt_becomes_a_picture_that_tells_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let made = succeed(folder.path(), &generate("a red heart", &["--seed", "7"]));
    assert_eq!(made.stdout.trim(), "a-red-heart-7.png");
    assert_eq!(files(folder.path()), ["a-red-heart-7.png"]);

    let info = succeed(folder.path(), &["info", "a-red-heart-7.png"]).stdout;
    assert!(info.contains("a red heart\nSteps: 2, Sampler: "), "{info}");
    assert!(info.contains("Seed: 7, Size: 64x64, Model: icons-64-consistency"), "{info}");
    let json = succeed(folder.path(), &["info", "--json", "a-red-heart-7.png"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["headwater"]["prompt"], "a red heart");
    assert_eq!(json["headwater"]["seed"], 7);
}

#[test]
fn skipped_layers_are_told_as_each_tool_counts() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &generate("a red heart", &["--seed", "7", "--clip-skip", "1", "-o", "x.png"]));
    let info = succeed(folder.path(), &["info", "x.png"]).stdout;
    assert!(info.contains(", Clip skip: 2"), "{info}");
    let json = succeed(folder.path(), &["info", "--json", "x.png"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["headwater"]["clip_skip"], 1);
}

#[test]
fn the_same_request_gives_the_same_picture_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        succeed(folder.path(), &generate("a star", &["-s", "3", "-q"]));
    }
    assert_eq!(files(folder.path()), ["a-star-3-2.png", "a-star-3.png"]);
    let read = |name| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("a-star-3.png"), read("a-star-3-2.png"));
    succeed(folder.path(), &generate("a star", &["-s", "4", "-q", "-o", "other.png"]));
    assert_ne!(read("a-star-3.png"), read("other.png"));
}

/// Images that are made together are those that are made one by one, each under its own seed's name.
#[test]
fn several_images_are_made_together() {
    let folder = tempfile::tempdir().unwrap();
    let make = |output: &str, batch: &str| {
        let more =
            ["-s", "3", "-n", "3", "-o", output, "--batch", batch, "--save-steps", output.split('-').next().unwrap()];
        succeed(folder.path(), &generate("a star", &more)).stdout
    };
    let together = make("together-{seed}.png", "8");
    assert_eq!(together, "together-3.png\ntogether-4.png\ntogether-5.png\n");
    make("alone-{seed}.png", "1");
    let pixels = |name: String| headwater::read_picture(&folder.path().join(name)).unwrap().pixels;
    for seed in 3..6 {
        let (together, alone) = (pixels(format!("together-{seed}.png")), pixels(format!("alone-{seed}.png")));
        assert!(together.iter().zip(&alone).all(|(a, b)| a.abs_diff(*b) <= 1), "seed {seed}");
    }
    assert_eq!(files(&folder.path().join("together")), files(&folder.path().join("alone")));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let star = ["-m", "icons-64", "--steps", "3", "--sampler", "heun", "-s", "5", "-n", "2", "--dry-run"];
    let arguments = [&["generate", "a star", "--device", "cpu"], &star[..]].concat();
    let printed = succeed(folder.path(), &arguments).stdout;
    for line in
        ["images       2 of 64x64, 2 at once", "sampler      heun", "steps        3", "evaluations  5 for each image"]
    {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
    assert!(printed.contains("memory       denoiser: "), "{printed}");
    let json = succeed(folder.path(), &[&arguments[..], &["--json"]].concat()).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["steps"], &json["evaluations"], &json["seeds"]), (&3.into(), &5.into(), &vec![5, 6].into()));
    assert_eq!(json["sigmas"].as_array().unwrap().len(), 3);
    assert!(json["memory"]["denoiser"]["weights"].as_u64().unwrap() > 1 << 20);
    assert!(files(folder.path()).is_empty(), "nothing is written");
}

#[test]
fn json_has_one_object_per_image() {
    let folder = tempfile::tempdir().unwrap();
    let made = succeed(folder.path(), &generate("红心 ❤", &["--json", "-n", "2", "-s", "1", "-o", "x-{seed}.png"]));
    let objects: Vec<serde_json::Value> = made.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(objects.len(), 2);
    for (i, object) in objects.iter().enumerate() {
        assert_eq!(object["seed"], 1 + i);
        assert_eq!(object["path"], format!("x-{}.png", 1 + i));
        assert_eq!(object["prompt"], "红心 ❤");
        assert!(object["timings"]["sample"].as_f64().unwrap() > 0.0 && object["device"].is_string());
    }
    assert_eq!(made.stderr, "", "--json is quiet");
    assert_eq!(files(folder.path()), ["x-1.png", "x-2.png"]);
}

#[test]
fn standard_output_takes_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let output = headwater(folder.path(), &generate("a fish", &["-o", "-", "-q"])).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!(files(folder.path()), [] as [&str; 0]);
}

#[test]
fn every_step_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &generate("a fish", &["-q", "-s", "5", "-o", "x.safetensors", "--save-steps", "steps"]));
    assert_eq!(files(folder.path()), ["steps", "x.safetensors"]);
    let kept = files(&folder.path().join("steps"));
    let step = |i: usize| ["-denoised.png", "-x.png", ".safetensors"].map(|end| format!("5-step-00{i}{end}"));
    assert_eq!(kept, [step(1), step(2)].concat());
    let info = succeed(folder.path(), &["info", "x.safetensors"]).stdout;
    assert!(info.contains("sample [1, 3, 64, 64] F32"), "{info}");
}

#[test]
fn lists() {
    let folder = tempfile::tempdir().unwrap();
    let samplers = succeed(folder.path(), &["samplers", "--json"]).stdout;
    let samplers: serde_json::Value = serde_json::from_str(&samplers).unwrap();
    let names: Vec<&str> = samplers.as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    for name in ["euler", "heun", "ddim", "dpmpp_2m"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let models = succeed(folder.path(), &["models", "--json"]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&models).unwrap()[0]["name"], "icons-64-consistency");
    let devices = succeed(folder.path(), &["devices", "--json"]).stdout;
    let devices: serde_json::Value = serde_json::from_str(&devices).unwrap();
    let devices = devices.as_array().unwrap();
    assert_eq!(devices.last().unwrap()["device"], "cpu");
    assert_eq!(devices.iter().filter(|d| d["auto"] == true).count(), 1);
    assert!(succeed(folder.path(), &["info", "icons-64"]).stdout.contains("transformer: PixArtTransformer2DModel"));
    assert!(succeed(folder.path(), &["completions", "bash"]).stdout.contains("headwater"));
    assert!(succeed(folder.path(), &["man"]).stdout.contains(".TH"));
}

#[test]
fn prompts_need_no_quotes_and_paths_come_last() {
    let folder = tempfile::tempdir().unwrap();
    let make = |words: &[&str], more: &[&str]| {
        succeed(folder.path(), &[&["generate"], words, &QUICK[..], more].concat()).stdout
    };
    assert_eq!(make(&["a", "red", "heart"], &["-s", "1"]), "a-red-heart-1.png\n");
    make(&["a red heart"], &["-s", "1", "-o", "quoted.PNG"]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("a-red-heart-1.png"), read("quoted.PNG"));
    assert_eq!(make(&["a/b", "c"], &["-s", "2", "-o", "x-{prompt}-{seed}.png"]), "x-a-b-c-2.png\n");
    // A random seed, as other tools write it, is another each time.
    let seeds =
        [["-s", "-1"], ["--seed", "random"], ["-s", "-1"]].map(|seed| make(&["x"], &[&seed[..], &["--json"]].concat()));
    let seeds = seeds.map(|json| serde_json::from_str::<serde_json::Value>(&json).unwrap()["seed"].as_u64().unwrap());
    assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2], "{seeds:?}");
    // On a terminal, where both are seen, the path comes last.
    let script = "\"$0\" generate x --device cpu -s 1 -o last.png 2>&1";
    let mut shell = Command::new("sh");
    let both = shell.args(["-c", script, env!("CARGO_BIN_EXE_headwater")]).current_dir(folder.path()).output().unwrap();
    let both = String::from_utf8_lossy(&both.stdout).trim_end().to_owned();
    assert!(both.ends_with("last.png"), "{both}");
}

/// A picture made again from what it says of itself is the same to the bit, and typed flags go before what it says.
#[test]
fn pictures_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let made = [
        "-m",
        "icons-64",
        "-s",
        "7",
        "--sampler",
        "DPM++ 2M Karras",
        "--steps",
        "3",
        "--guidance",
        "2.5",
        "--negative-prompt",
        "a, b: c",
        "-W",
        "72",
        "-o",
        "made.png",
    ];
    succeed(folder.path(), &[&["generate", "a \"red\" heart, -1", "--device", "cpu"], &made[..]].concat());
    let again = |more: &[&str]| {
        succeed(folder.path(), &[&["generate", "--device", "cpu", "--from", "made.png"], more].concat())
    };
    again(&["-o", "again.png"]);
    let pixels = |name: &str| headwater::read_picture(&folder.path().join(name)).unwrap().pixels;
    assert_eq!(
        std::fs::read(folder.path().join("made.png")).unwrap(),
        std::fs::read(folder.path().join("again.png")).unwrap()
    );
    again(&["--seed", "8", "--steps", "2", "-o", "other.png"]);
    assert_ne!(pixels("made.png"), pixels("other.png"));
    let other = succeed(folder.path(), &["info", "--json", "other.png"]).stdout;
    let other: serde_json::Value = serde_json::from_str(&other).unwrap();
    let settings = &other["headwater"];
    assert_eq!((&settings["seed"], &settings["steps"], &settings["guidance"]), (&8.into(), &2.into(), &2.5.into()));
    // Its text for other tools says the same.
    let info = other["parameters"].as_str().unwrap();
    assert!(info.contains("Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras"), "{info}");
    let words = again(&["a", "star", "-o", "star.png", "--json"]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&words).unwrap()["prompt"], "a star");
}

/// The bundled teacher at ten steps, and what a picture of it says of its guidance.
#[test]
fn an_interval_of_guidance_is_kept_with_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let teacher = ["-m", "icons-64", "--steps", "10", "--seed", "4", "--guidance", "3"];
    let make = |more: &[&str]| {
        let made = succeed(here, &[&["generate", "a rocket", "--device", "cpu"], &teacher[..], more].concat());
        serde_json::from_str::<serde_json::Value>(made.stdout.trim()).unwrap_or_default()
    };
    let interval = ["--guidance-interval", "0.2,3", "--json"];
    let plan = make(&[&interval[..], &["--dry-run"]].concat());
    let inside = plan["sigmas"].as_array().unwrap().iter().filter_map(|s| s.as_f64()).filter(|s| 0.2 < *s && *s <= 3.0);
    let wanted = 10 + inside.count();
    assert_eq!((&plan["evaluations"], &plan["predictions"]), (&10.into(), &wanted.into()));
    assert!((11..20).contains(&wanted), "{plan}");
    let made = make(&[&interval[..], &["-o", "some.png"]].concat());
    assert_eq!((&made["predictions"], &made["guidance_interval"]), (&wanted.into(), &"0.2,3".into()));
    let told = succeed(here, &["info", "--json", "some.png"]).stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["headwater"]["guidance_interval"], "0.2,3");
    succeed(here, &["generate", "--device", "cpu", "--from", "some.png", "-o", "again.png"]);
    let read = |name: &str| std::fs::read(here.join(name)).unwrap();
    assert!(read("some.png") == read("again.png"));
    make(&["-o", "plain.png"]);
    make(&["-o", "all.png", "--guidance-interval", "0,inf"]);
    let pixels = |name: &str| headwater::read_picture(&here.join(name)).unwrap().pixels;
    assert!(pixels("all.png") == pixels("plain.png") && pixels("some.png") != pixels("plain.png"));
}

/// What a picture says of values that were kept from step to step, and what a dry run says before.
#[test]
fn a_step_cache_is_kept_with_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let make = |more: &[&str]| {
        let teacher = ["generate", "a rocket", "--device", "cpu", "-m", "icons-64", "--steps", "6", "--guidance", "3"];
        let made = succeed(here, &[&teacher[..], &["--seed", "4", "--json"], more].concat());
        serde_json::from_str::<serde_json::Value>(made.stdout.trim()).unwrap_or_default()
    };
    let gate = ["--step-cache", "t-gate:4"];
    let plan = make(&[&gate[..], &["--dry-run"]].concat());
    assert_eq!((&plan["step_cache"], &plan["predictions"]), (&"t-gate:4".into(), &10.into()));
    let made = make(&[&gate[..], &["-o", "some.png"]].concat());
    assert_eq!(
        (&made["predictions"], &made["reused"], &made["step_cache"]),
        (&10.into(), &2.into(), &"t-gate:4".into())
    );
    succeed(here, &["generate", "--device", "cpu", "--from", "some.png", "-o", "again.png"]);
    let read = |name: &str| std::fs::read(here.join(name)).unwrap();
    assert!(read("some.png") == read("again.png"));
    assert_eq!(make(&["-o", "plain.png"])["reused"], 0);
    make(&["-o", "never.png", "--step-cache", "first-block:0"]);
    make(&["-o", "always.png", "--step-cache", "first-block:100"]);
    let pixels = |name: &str| headwater::read_picture(&here.join(name)).unwrap().pixels;
    assert!(pixels("never.png") == pixels("plain.png"));
    assert!(pixels("some.png") != pixels("plain.png") && pixels("always.png") != pixels("plain.png"));
}

/// Whatever cannot be written to standard error, the picture is made.
#[cfg(target_os = "linux")]
#[test]
fn a_picture_is_not_lost_with_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = headwater(folder.path(), &generate("a fish", &["-s", "1"]))
        .stdout(Stdio::null())
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!((status.code(), files(folder.path())), (Some(0), vec!["a-fish-1.png".to_owned()]));
}

/// Programs that choose one name at once leave a picture each.
#[test]
fn programs_at_once_do_not_overwrite_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let start = |_| headwater(folder.path(), &generate("r", &["-s", "3", "-q"])).stdout(Stdio::null()).spawn().unwrap();
    let programs: Vec<_> = (0..6).map(start).collect();
    programs.into_iter().for_each(|mut program| assert!(program.wait().unwrap().success()));
    assert_eq!(files(folder.path()).len(), 6, "{:?}", files(folder.path()));
}

#[test]
fn samplers_go_by_the_names_of_other_tools() {
    let folder = tempfile::tempdir().unwrap();
    let run = |sampler: &str, more: &[&str]| {
        let made =
            succeed(folder.path(), &generate("a star", &[&["-s", "1", "--json", "--sampler", sampler], more].concat()));
        serde_json::from_str::<serde_json::Value>(&made.stdout).unwrap()
    };
    let made = run("DPM++ 2M SDE Karras", &["--eta", "0.5"]);
    assert_eq!(
        (&made["sampler"], &made["schedule"], &made["eta"]),
        (&"dpmpp_2m_sde".into(), &"karras".into(), &0.5.into())
    );
    assert_eq!(run("flow_euler", &[])["sampler"], "euler");
    // CFG++ computes the unguided picture even where guidance is off.
    assert_eq!(run("euler_cfg_pp", &["--guidance", "0.7"])["evaluations"], 2);
    let listed = succeed(folder.path(), &["samplers", "--json"]).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let euler_a = listed.as_array().unwrap().iter().find(|s| s["name"] == "euler_ancestral").unwrap();
    assert_eq!(euler_a["aliases"]["a1111"], serde_json::json!(["Euler a"]));
    assert_eq!((&euler_a["order"], &euler_a["stochastic"]), (&1.into(), &true.into()));
}

#[test]
fn bad_requests_end_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    std::fs::write(here.join("model.ckpt"), [0x80, 0x02, 0x63]).unwrap();
    std::fs::create_dir(here.join("empty")).unwrap();
    let cases: [(&[&str], i32, &str); 37] = [
        (&["--model", "no/such/folder"], 1, "no/such/folder"),
        (&["--model", "empty"], 1, "model_index.json"),
        (&["--model", "model.ckpt"], 1, "pickle"),
        (&["--sampler", "eulr"], 2, "did you mean euler"),
        (&["-m", "icon-64"], 1, "did you mean icons-64?"),
        (&["--seed", "q"], 2, "a whole number from 0 on, or random"),
        (&["--steps", "-1"], 2, "a whole number from 1 to 10000"),
        (&["--guidance", "x"], 2, "give a number"),
        (&["-W", "big"], 2, "a whole number of pixels"),
        (&["-o", "{sede}.png"], 2, "{sede} is not filled in"),
        (&["--schedule", "karas"], 2, "karras"),
        (&["--sampler", "ddim_inverse"], 2, "from an image to noise"),
        (&["--sampler", "ddim", "--eta", "-1"], 2, "eta"),
        (&["--sampler", "heun", "--eta", "1"], 2, "heun has no eta"),
        (&["--sampler", "DPM++ 2M Karras", "--sigmas", "10,5,0"], 2, "leave no room for karras"),
        (&["--steps", "0"], 2, "--steps"),
        (&["--count", "0"], 2, "--count"),
        (&["--timesteps", "1,x"], 2, "--timesteps"),
        (&["--sigmas", "1,2,3"], 2, "not increase"),
        (&["--device", "GeForce 9999"], 2, "GeForce 9999"),
        (&["--device", "gpu:99"], 2, "gpu:99"),
        (&["--width", "60"], 2, "60"),
        (&["--height", "0"], 2, "0"),
        (&["--guidance", "nan"], 2, "guidance"),
        (&["--guidance-interval", "3,1"], 2, "3,1 is no guidance interval"),
        (&["--guidance-interval", "-1,2"], 2, "-1,2 is no guidance interval"),
        (&["--guidance-interval", "nan,2"], 2, "is no guidance interval"),
        (&["--guidance-interval", "2"], 2, "give LO,HI"),
        (&["--step-cache", "deep:0"], 2, "deep:0 is no step cache"),
        (&["--step-cache", "-1"], 2, "-1 is no step cache"),
        (&["--step-cache", "t-gate:1.5"], 2, "t-gate:1.5 is no step cache"),
        (&["--step-cache", "deep:3"], 2, "the step cache deep:3 is not possible: this model is no UNet"),
        (&["--output", "model.ckpt/x.png"], 2, "model.ckpt is a file"),
        (&["--clip-skip", "99"], 2, "clip_skip = 99 is not possible"),
        (&["--clip-skip", "-1"], 2, "--clip-skip"),
        (&["--prompt-syntax", "a1111"], 2, "reads prompts as plain text only"),
        (&["--prompt-syntax", "compel"], 2, "compel is no syntax of prompts"),
    ];
    for (arguments, code, part) in cases {
        let device: &[&str] = if arguments.contains(&"--device") { &[] } else { &["--device", "cpu"] };
        fail(here, &[&["generate", "a red heart"], device, arguments].concat(), code, part);
    }
    fail(here, &["generate"], 2, "PROMPT");
    fail(here, &["info", "missing.png"], 1, "missing.png");
    fail(here, &["info", "model.ckpt"], 1, "pickle");
    assert_eq!(files(here), ["empty", "model.ckpt"], "failures leave nothing behind");
}

#[test]
fn a_very_long_prompt_is_cut_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "heart ".repeat(10_000);
    let made = succeed(folder.path(), &generate(&prompt, &["-s", "1"]));
    assert!(made.stderr.contains("tokens were left out"), "{}", made.stderr);
}

#[test]
fn other_models_read_long_and_weighted_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pipelines/stable_diffusion");
    let draw = |prompt: &str, name: &str, more: &[&str]| {
        let own = ["-m", model.to_str().unwrap(), "-s", "1", "-o", name];
        succeed(folder.path(), &generate(prompt, &[&own, more].concat())).stderr
    };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let long = "a red square on a blue background, ".repeat(6);
    assert!(!draw(&long, "long.png", &[]).contains("left out"));
    assert!(draw(&long, "cut.png", &["--prompt-syntax", "plain"]).contains("left out"));
    let json = succeed(folder.path(), &["info", "--json", "cut.png"]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["headwater"]["prompt_syntax"], "plain");
    // Only the pixels are compared, because the metadata contains the prompt.
    let pixels = |name: &str| {
        let mut reader = png::Decoder::new(std::io::Cursor::new(read(name))).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    };
    assert_ne!(pixels("long.png"), pixels("cut.png"));
    draw("a (red) square", "weak.png", &["--prompt-syntax", "plain"]);
    draw(r"a \(red\) square", "escaped.png", &[]);
    draw("a (red) square", "weighted.png", &[]);
    draw("a red square", "none.png", &[]);
    assert_eq!(pixels("weak.png"), pixels("escaped.png"));
    assert_ne!(pixels("weighted.png"), pixels("none.png"));
    assert_ne!(pixels("weighted.png"), pixels("weak.png"));
    let editing = generate("a [red:blue:0.5] square", &["-m", model.to_str().unwrap(), "-o", "x.png"]);
    fail(folder.path(), &editing, 2, "[red:blue:0.5] changes the prompt between steps");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = headwater(folder.path(), &generate("a fish", &["-o", "-", "-q"])).stdout(full).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.starts_with("error: cannot write to standard output"), "{message}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_between_steps_and_leaves_no_file() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let steps = folder.path().join("steps");
    let arguments =
        ["generate", "a red heart", "-m", "icons-64", "--device", "cpu", "--steps", "1000", "-s", "1", "--save-steps"];
    let arguments = [&arguments[..], &[steps.to_str().unwrap()]].concat();
    let mut child = headwater(folder.path(), &arguments).stderr(Stdio::piped()).spawn().unwrap();
    // The first kept step shows that sampling has begun.
    while files_if_any(&steps).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(child.try_wait().unwrap().is_none(), "the program ended before its first step");
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let stderr = child.stderr.take().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(BufReader::new(stderr).lines().any(|line| line.unwrap() == "stopped"));
    assert_eq!(files(folder.path()), ["steps"]);
}

#[cfg(unix)]
fn files_if_any(folder: &Path) -> Vec<String> {
    if folder.is_dir() { files(folder) } else { Vec::new() }
}

/// What a newcomer tries in the first hour: the table in tests/newcomer.sh, each row of which says what it should end with.
#[cfg(unix)]
#[test]
fn the_first_hour_of_a_newcomer() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/newcomer.sh");
    let output = Command::new("bash").arg(script).arg(env!("CARGO_BIN_EXE_headwater")).output().expect("bash");
    let table = String::from_utf8_lossy(&output.stdout);
    let bad: Vec<&str> = table.lines().filter(|line| line.ends_with("| **no** |")).collect();
    assert!(output.status.success(), "{}\n{}", bad.join("\n"), String::from_utf8_lossy(&output.stderr));
    assert!(table.lines().count() > 50, "{table}");
}

/// Steps and samples that are kept for computing say where they belong.
#[test]
fn saved_tensors_say_their_noise_level_step_and_evaluations() {
    let folder = tempfile::tempdir().unwrap();
    let heun = ["-m", "icons-64", "--sampler", "heun", "-s", "5", "-o", "x.safetensors", "--save-steps", "steps"];
    let arguments = [&["generate", "a fish", "--device", "cpu", "--sigmas", "9,3,0.5", "-q"], &heun[..]].concat();
    succeed(folder.path(), &arguments);
    let metadata = |name: &str| {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        safetensors::SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap()
    };
    // Heun's method evaluates twice in each step, the second time behind what is kept.
    for (name, wanted) in [
        ("steps/5-step-001.safetensors", ["9", "1", "1"]),
        ("steps/5-step-002.safetensors", ["3", "2", "3"]),
        ("x.safetensors", ["0.5", "2", "4"]),
    ] {
        let metadata = metadata(name);
        assert_eq!(["sigma", "step", "evaluations"].map(|key| &*metadata[key]), wanted, "{name}");
    }
    assert_eq!(metadata("steps/5-step-001.safetensors")["seed"], "5");
}

/// Manual pages of the program and of each of its commands, and no flag that the help has and they lack.
#[test]
fn there_is_a_manual_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["man", "--dir", "man"]);
    let help = succeed(folder.path(), &["--help"]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(commands.len() > 18 && commands.contains(&"man"), "{commands:?}");
    let mut wanted: Vec<String> = commands.iter().map(|name| format!("headwater-{name}.1")).collect();
    wanted.push("headwater.1".into());
    wanted.sort();
    assert_eq!(files(&folder.path().join("man")), wanted);
    let page = std::fs::read_to_string(folder.path().join("man/headwater-generate.1")).unwrap();
    let help = succeed(folder.path(), &["generate", "--help"]).stdout;
    for flag in help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
    {
        assert!(page.replace("\\-", "-").contains(&format!("--{flag}")), "{flag}");
    }
    fail(folder.path(), &["man", "paint"], 2, "there is no command paint");
}
