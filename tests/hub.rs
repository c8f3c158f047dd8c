//! Models from a hub, against a server on this machine that also misbehaves: what is asked for, what lies in the cache, what
//! is said.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod hub_server;

use hub_server::{COMMIT, Hub, Request, Trick, etag, sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
const TOKEN: &str = "hf_secret";

/// Files that other programs read, and that must stay where they are.
const UNWANTED: &[(&str, &[u8])] = &[
    ("README.md", b"A model."),
    ("all-in-one.safetensors", b"no"),
    ("pictures.json", b"{}"),
    ("transformer/diffusion_pytorch_model.bin", b"no"),
    ("transformer/diffusion_pytorch_model.fp16.safetensors", b"no"),
    ("transformer/model.onnx", b"no"),
    ("text_encoder/flax_model.msgpack", b"no"),
    ("vae_decoder/config.json", b"{}"),
];

/// A hub with a golden pipeline, and an empty place to run in.
struct Place {
    hub: Hub,
    folder: tempfile::TempDir,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pipelines/pixels")
}

impl Place {
    fn new() -> Self {
        Self { hub: Hub::serve(&golden(), UNWANTED), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn repository(&self) -> PathBuf {
        self.path("hf/hub/models--tiny--model")
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.repository().join("blobs").join(etag(name, self.hub.file(name)))
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", etag(name, self.hub.file(name))))
    }

    fn pointer(&self, name: &str) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT).join(name)
    }

    /// The program with an environment that leads nowhere but here.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let upper = name.to_uppercase();
            if upper.starts_with("HF_") || upper.starts_with("HUGGING") || upper.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", &self.hub.endpoint).env("HF_HOME", self.path("hf")).env("HF_TOKEN", TOKEN);
        command.env_remove("TRANSFORMERS_OFFLINE");
        command
    }

    fn info(&self) -> Command {
        self.command(&["info", "tiny/model", "--json"])
    }

    /// Downloads and succeeds.
    fn succeed(&self) {
        run(self.info());
    }

    /// Fails with one sentence that has these parts; a token is never shown.
    fn fail(&self, mut command: Command, parts: &[&str]) -> String {
        let output = command.output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
        for part in parts {
            assert!(message.contains(part), "no {part:?}: {message}");
        }
        assert!(!message.contains(TOKEN) && !message.contains("panicked"), "{message}");
        assert!(output.stdout.is_empty(), "{message}");
        message
    }
}

fn run(mut command: Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    assert_eq!(status.code(), Some(0), "{stderr}");
    (stdout, stderr)
}

/// Bytes of one file that the server sent.
fn sent(requests: &[Request], name: &str) -> usize {
    requests.iter().filter(|r| r.is_storage && r.path.ends_with(name)).map(|r| r.sent).sum()
}

fn is_weights(request: &Request) -> bool {
    request.is_storage && request.path.ends_with(WEIGHTS)
}

fn pixels(path: &Path) -> Vec<u8> {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

const GENERATE: &[&str] = &["generate", "a red square", "--device", "cpu", "--steps", "1", "--seed", "1", "-q"];

#[test]
fn a_pipeline_is_downloaded_once_and_found_again() {
    let place = Place::new();
    let generate = |model: &str, output: &str| place.command(&[GENERATE, &["--model", model, "-o", output]].concat());
    run(generate("tiny/model", "first.png"));
    run(generate(golden().to_str().unwrap(), "local.png"));
    assert_eq!(pixels(&place.path("first.png")), pixels(&place.path("local.png")));

    // Only what the pipeline reads was asked for, and each file's contents came once.
    let requests = place.hub.requests();
    for (name, _) in UNWANTED {
        assert!(requests.iter().all(|r| !r.path.ends_with(name)), "{name}");
    }
    assert!(requests.iter().all(|r| !r.path.contains("/pictures/")));
    assert_eq!(sent(&requests, WEIGHTS), place.hub.file(WEIGHTS).len());
    // The token is the hub's alone.
    assert!(requests.iter().any(|r| r.is_storage) && requests.iter().any(|r| !r.is_storage));
    for request in &requests {
        let token = request.headers.get("authorization").map(|value| &**value);
        assert_eq!(token, (!request.is_storage).then_some(&*format!("Bearer {TOKEN}")), "{request:?}");
    }

    // The layout is huggingface_hub's.
    assert_eq!(fs::read_to_string(place.repository().join("refs/main")).unwrap(), COMMIT);
    assert!(place.path("hf/hub/CACHEDIR.TAG").is_file());
    let lock = format!("hf/hub/.locks/models--tiny--model/{}.lock", etag(WEIGHTS, place.hub.file(WEIGHTS)));
    assert!(place.path(&lock).is_file());
    let mut files = 0;
    for (name, bytes) in place.hub.files().filter(|(name, _)| place.pointer(name).exists()) {
        let up = "../".repeat(2 + name.matches('/').count());
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(place.pointer(name)).unwrap(),
            Path::new(&format!("{up}blobs/{}", etag(name, bytes))),
            "{name}"
        );
        assert_eq!(fs::read(place.pointer(name)).unwrap(), bytes, "{name} {up}");
        files += 1;
    }
    assert_eq!(files, 10, "model_index.json, two weights and seven small files");
    for entry in fs::read_dir(place.repository().join("blobs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains('.'), "{name} is left");
    }

    // Again: one question, which commit main is.
    run(generate("tiny/model", "second.png"));
    let requests = place.hub.requests();
    assert!(requests.len() == 1 && requests[0].is_api(), "{requests:?}");
    // By its commit, and offline: none.
    run(generate(&format!("tiny/model@{COMMIT}"), "third.png"));
    let mut offline = generate("tiny/model", "fourth.png");
    run({
        offline.env("HF_HUB_OFFLINE", "1");
        offline
    });
    assert!(place.hub.requests().is_empty());
    assert_eq!(pixels(&place.path("first.png")), pixels(&place.path("fourth.png")));
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let place = Place::new();
    let size = place.hub.file(WEIGHTS).len();
    place.hub.trick(|r| (is_weights(r) && r.earlier < 2).then_some(Trick::Cut(100_000)));
    place.succeed();
    let requests = place.hub.requests();
    let starts: Vec<_> = requests.iter().filter(|r| is_weights(r)).map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(100_000), Some(200_000)]);
    assert_eq!(sent(&requests, WEIGHTS), size);
}

#[test]
fn the_next_run_resumes_and_uses_no_part() {
    let place = Place::new();
    let size = place.hub.file(WEIGHTS).len();
    place.hub.trick(|r| is_weights(r).then_some(if r.earlier == 0 { Trick::Cut(100_000) } else { Trick::Cut(0) }));
    let size_text = size.to_string();
    place.fail(place.info(), &[WEIGHTS, "ended the connection too early", "100000", &size_text, "again"]);
    assert_eq!(fs::metadata(place.partial(WEIGHTS)).unwrap().len(), 100_000);
    assert!(!place.pointer(WEIGHTS).exists() && !place.blob(WEIGHTS).exists());
    let mut offline = place.info();
    offline.env("HF_HUB_OFFLINE", "1");
    place.fail(offline, &["no copy", "HF_HUB_OFFLINE"]);

    place.hub.requests();
    place.hub.trick(|_| None);
    place.succeed();
    assert_eq!(sent(&place.hub.requests(), WEIGHTS), size - 100_000);
    assert_eq!(fs::read(place.pointer(WEIGHTS)).unwrap(), place.hub.file(WEIGHTS));
    assert!(!place.partial(WEIGHTS).exists());
}

#[test]
fn a_server_without_ranges_starts_again() {
    let place = Place::new();
    let size = place.hub.file(WEIGHTS).len();
    place.hub.trick(|r| is_weights(r).then_some(if r.earlier == 0 { Trick::Cut(100_000) } else { Trick::IgnoreRange }));
    place.succeed();
    assert_eq!(sent(&place.hub.requests(), WEIGHTS), size + 100_000);
    assert_eq!(fs::read(place.pointer(WEIGHTS)).unwrap(), place.hub.file(WEIGHTS));
}
