//! Running commands, each announced by name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Why a chore failed, for the person who ran it.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The repository's root, wherever this runs.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

/// A command of a chore.
pub(crate) struct Step {
    name: String,
    command: Command,
}

impl Step {
    pub(crate) fn new(name: &str, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(root());
        Self { name: name.to_owned(), command }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn run(mut self) -> Result<(), Failure> {
        println!("== {}", self.name);
        let started = Instant::now();
        let status = self.command.status().map_err(|error| {
            Failure::new(format!("{}: cannot run {:?}: {error}", self.name, self.command.get_program()))
        })?;
        println!("== {}: {:.0} s", self.name, started.elapsed().as_secs_f64());
        if status.success() { Ok(()) } else { Err(Failure::new(format!("{} failed ({status})", self.name))) }
    }
}

/// A cargo command, run by the same cargo as this program.
pub(crate) fn cargo(name: &str, arguments: &[&str]) -> Step {
    Step::new(name, std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
}

/// A command for the Python of a virtual environment.
pub(crate) fn python(environment: &Path, arguments: &[&str]) -> Step {
    let program = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
    Step::new(&arguments.join(" "), environment.join(program), arguments)
}

/// Whether a command can be run and succeeds, silently.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Checks that the toolchain has a component. The error says how to install it.
pub(crate) fn has_component(component: &str, command: &str) -> Result<(), Failure> {
    if succeeds("cargo", &[command, "--version"]) {
        return Ok(());
    }
    Err(Failure::new(format!("{component} is not installed; run: rustup component add {component}")))
}
