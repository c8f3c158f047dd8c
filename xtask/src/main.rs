//! Chores that contributors repeat: `cargo xtask test`, `cargo xtask goldens`, `cargo xtask tidy`, `cargo xtask web`.

mod chromium;
mod clients;
mod run;
mod suite;
mod tidy;
mod vulkan;
mod web;

use run::{Failure, Step, cargo, python, root};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: cargo xtask COMMAND

  test      everything a change must pass: format, lints, tests, documentation, tidiness; sets up what tests need
  web       what a browser takes, as a folder for any server of files: target/web/site
  tidy      the rules that no compiler checks
  goldens   make the golden files again with PyTorch and diffusers (needs Python; takes minutes)
  fuzz      damaged files for every reader: cargo xtask fuzz SECONDS [SEED] [READER]
  deny      licences and sources of all dependencies (needs cargo-deny)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(),
        ["web"] => web::build(),
        ["tidy"] => tidy::check(&root()),
        ["goldens"] => goldens(),
        ["fuzz", ref more @ ..] => fuzz(more),
        ["deny"] => deny(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(Failure::new(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), Failure> {
    let started = Instant::now();
    vulkan::ensure()?;
    chromium::ensure()?;
    let browsers = web::ensure();
    clients::ensure()?;
    tidy::check(&root())?;
    run::has_component("rustfmt", "fmt")?;
    run::has_component("clippy", "clippy")?;
    cargo("format", &["fmt", "--all", "--check"]).run()?;
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()?;
    for features in ["cpu", "gpu"] {
        let arguments = ["check", "--lib", "--no-default-features", "--features", features];
        cargo(&format!("the library with {features} alone"), &arguments).run()?;
    }
    if browsers.is_some() {
        web::build()?;
    }
    cargo("documentation", &["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").run()?;
    fuzz(&["20"])?;
    suite::run()?;
    println!("all checks passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// In the tests' profile: nothing is compiled twice for it, and an overflow is a fault, too.
fn fuzz(arguments: &[&str]) -> Result<(), Failure> {
    let program = ["run", "--package", "headwater-fuzz", "--profile", "test", "--"];
    cargo("damaged files", &[&program[..], arguments].concat()).run()
}

fn deny() -> Result<(), Failure> {
    if !run::succeeds("cargo", &["deny", "--version"]) {
        return Err(Failure::new("cargo-deny is not installed; run: cargo install --locked cargo-deny"));
    }
    cargo("dependencies", &["deny", "check", "licenses", "bans", "sources"]).run()
}

/// Scripts that make goldens, with their arguments, in an order in which each finds what it reads.
const GOLDENS: &[(&str, &[&str])] = &[
    ("tests/goldens/make_ops.py", &[]),
    ("tests/goldens/make_models.py", &[]),
    ("tests/goldens/make_text.py", &[]),
    ("tests/goldens/make_encoders.py", &[]),
    ("tests/goldens/make_unconditional.py", &[]),
    ("tests/goldens/make_full_size.py", &[]),
    ("tests/goldens/make_tokenizers.py", &[]),
    ("tests/goldens/make_pipelines.py", &[]),
    ("tests/goldens/make_pictures.py", &["tests/goldens/pipelines/pixels", "tests/goldens/pipelines/epsilon"]),
    ("tests/goldens/make_pictures.py", &["assets/models/icons-64", "--out", "tests/goldens/bundled/icons-64"]),
    (
        "tests/goldens/make_pictures.py",
        &["assets/models/icons-64-consistency", "--out", "tests/goldens/bundled/icons-64-consistency"],
    ),
    ("tests/goldens/make_pictures.py", &["assets/models/icons-128", "--out", "tests/goldens/bundled/icons-128"]),
    ("tests/goldens/make_latents.py", &[]),
    ("tests/goldens/make_pixart.py", &[]),
    ("tests/goldens/make_prompts.py", &[]),
    ("tests/goldens/make_noise_pipelines.py", &[]),
    ("tests/goldens/make_edited_pipelines.py", &[]),
    ("tests/goldens/make_edits.py", &[]),
    ("tests/goldens/make_zero_shot.py", &[]),
    ("tests/goldens/make_single_files.py", &[]),
    ("tests/goldens/make_loras.py", &[]),
    ("tests/goldens/make_adapters.py", &[]),
    ("tests/goldens/make_embeddings.py", &[]),
    ("tests/goldens/make_resized.py", &[]),
    ("scheduler/tests/goldens/make_goldens.py", &[]),
    ("pipelines/src/noise/make_goldens.py", &[]),
];

/// Makes all goldens again, in a Python environment of its own below `target/`.
fn goldens() -> Result<(), Failure> {
    let environment = root().join("target/goldens-venv");
    Step::new("environment", "python3", &["-m", "venv", &environment.to_string_lossy()]).run()?;
    python(&environment, &["-m", "pip", "install", "--quiet", "-r", "tests/goldens/requirements.txt"]).run()?;
    for (script, arguments) in GOLDENS {
        python(&environment, &[&[*script], *arguments].concat()).run()?;
    }
    python(&environment, &["tests/goldens/test_bundled.py"]).run()
}
