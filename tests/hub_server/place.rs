//! The program and a hub, in an empty folder, with an environment that points to nothing else.

use super::server::{COMMIT, Hub, etag};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) const TOKEN: &str = "hf_secret";

/// Files that only other programs read, and that must not be downloaded.
pub(crate) const UNWANTED: &[(&str, &[u8])] = &[
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
pub(crate) struct Place {
    pub(crate) hub: Hub,
    folder: tempfile::TempDir,
}

pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pipelines/pixels")
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::of(&golden(), UNWANTED)
    }

    pub(crate) fn of(pipeline: &Path, more: &[(&str, &[u8])]) -> Self {
        Self { hub: Hub::serve(pipeline, more), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.path("hf/hub/models--tiny--model")
    }

    pub(crate) fn blob(&self, name: &str) -> PathBuf {
        self.repository().join("blobs").join(etag(name, self.hub.file(name)))
    }

    pub(crate) fn partial(&self, name: &str) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", etag(name, self.hub.file(name))))
    }

    pub(crate) fn pointer(&self, name: &str) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT).join(name)
    }

    /// The program with an environment that points only to this place.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let upper = name.to_uppercase();
            if upper.starts_with("HF_")
                || upper.starts_with("HUGGING")
                || upper.starts_with("XDG_")
                || upper.ends_with("_PROXY")
            {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", &self.hub.endpoint).env("HF_HOME", self.path("hf")).env("HF_TOKEN", TOKEN);
        for name in ["TRANSFORMERS_OFFLINE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn info(&self) -> Command {
        self.command(&["info", "tiny/model", "--json"])
    }

    /// Downloads and succeeds.
    pub(crate) fn succeed(&self) {
        run(self.info());
    }

    /// Fails with one sentence that has these parts; a token is never shown.
    pub(crate) fn fail(&self, mut command: Command, parts: &[&str]) -> String {
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

pub(crate) fn run(mut command: Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    assert_eq!(status.code(), Some(0), "{stderr}");
    (stdout, stderr)
}
