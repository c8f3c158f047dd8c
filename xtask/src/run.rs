//! Running commands, each announced by name, so that whoever waits sees that something goes on.

use std::fmt;
use std::io::{BufRead as _, BufReader, IsTerminal as _, PipeReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

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

/// What is done with a line that a command says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// It is printed.
    Shown,
    /// It is printed only if the command fails.
    Kept,
    /// It says what goes on: shown beside the time that passes.
    Progress,
    /// It is nothing to anybody.
    Dropped,
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

    /// Runs it; what cargo compiles is progress, and all else is shown.
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.watched(|line, _| if is_progress(line) { Line::Progress } else { Line::Shown })
    }

    /// Runs it; what it says is shown only if it fails.
    pub(crate) fn run_silently(self) -> Result<(), Failure> {
        self.watched(|_, _| Line::Kept)
    }

    /// Runs it, and does with each of its lines what `sort` says, which is also told the process.
    pub(crate) fn watched(mut self, sort: impl FnMut(&str, u32) -> Line) -> Result<(), Failure> {
        println!("== {}", self.name);
        let started = Instant::now();
        let status = self.follow(started, sort).map_err(|error| {
            Failure::new(format!("{}: cannot run {:?}: {error}", self.name, self.command.get_program()))
        })?;
        println!("== {}: {:.0} s", self.name, started.elapsed().as_secs_f64());
        if status.success() { Ok(()) } else { Err(Failure::new(format!("{} failed ({status})", self.name))) }
    }

    fn follow(&mut self, started: Instant, mut sort: impl FnMut(&str, u32) -> Line) -> std::io::Result<ExitStatus> {
        // Both streams in one pipe, so that lines come in the order in which they were written.
        let (reader, writer) = std::io::pipe()?;
        self.command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        if std::io::stdout().is_terminal() {
            self.command.env("CARGO_TERM_COLOR", "always");
        }
        let mut child = self.command.spawn()?;
        // The writers that this process holds: the pipe ends when the child's are closed.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let (lines, mut pulse) = (lines(reader), Pulse::new(started));
        let mut kept = Vec::new();
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => match sort(&plain(&line), child.id()) {
                    Line::Shown => pulse.print(&line),
                    Line::Kept => kept.push(line),
                    Line::Progress => pulse.doing = plain(&line).trim().to_owned(),
                    Line::Dropped => {}
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            pulse.beat();
        }
        pulse.clear();
        let status = child.wait()?;
        if !status.success() {
            kept.iter().for_each(|line| println!("{line}"));
        }
        Ok(status)
    }
}

/// A stream's lines, as they come.
fn lines(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}

/// A sign of life: on a terminal one line that changes every second, elsewhere one line in twenty.
struct Pulse {
    started: Instant,
    last: Instant,
    doing: String,
    terminal: bool,
    drawn: bool,
}

impl Pulse {
    fn new(started: Instant) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { started, last: started, doing: String::new(), terminal, drawn: false }
    }

    fn beat(&mut self) {
        if self.last.elapsed() < Duration::from_secs(if self.terminal { 1 } else { 20 }) {
            return;
        }
        self.clear();
        let text: String =
            format!("   {:.0} s  {}", self.started.elapsed().as_secs_f64(), self.doing).chars().take(100).collect();
        if self.terminal {
            print!("{text}");
            drop(std::io::stdout().flush());
            self.drawn = true;
        } else {
            println!("{text}");
        }
        self.last = Instant::now();
    }

    fn print(&mut self, line: &str) {
        self.clear();
        println!("{line}");
    }

    /// Takes the changing line away.
    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            print!("\r\x1b[K");
        }
    }
}

/// A line without colours.
pub(crate) fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, code)) = rest.split_once("\x1b[") {
        text += before;
        rest = code.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, after)| after);
    }
    text + rest
}

/// What cargo says of its own work: verbs that end in the twelfth column.
pub(crate) fn is_progress(line: &str) -> bool {
    const VERBS: [&str; 14] = [
        "Compiling",
        "Checking",
        "Documenting",
        "Finished",
        "Blocking",
        "Downloading",
        "Downloaded",
        "Updating",
        "Locking",
        "Adding",
        "Running",
        "Generated",
        "Fresh",
        "Building",
    ];
    line.starts_with("  ") && line.split_whitespace().next().is_some_and(|verb| VERBS.contains(&verb))
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

/// Seconds that the processors worked for a process's children that have ended, where the system tells (Linux).
pub(crate) fn processor_seconds(process: u32) -> Option<f64> {
    // man 5 proc: after the name in brackets, the 14th and 15th field are those of children, in hundredths.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let hundredths = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((hundredths(13)? + hundredths(14)?) / 100.0)
}

/// Checks that the toolchain has a component. The error says how to install it.
pub(crate) fn has_component(component: &str, command: &str) -> Result<(), Failure> {
    if succeeds("cargo", &[command, "--version"]) {
        return Ok(());
    }
    Err(Failure::new(format!("{component} is not installed; run: rustup component add {component}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_does_is_told_from_what_it_finds() {
        for line in [
            "   Compiling naga v30.0.1",
            "    Checking headwater v0.1.0 (/tmp)",
            "    Finished `dev` profile",
            "  Downloaded x",
        ] {
            assert!(is_progress(line), "{line}");
        }
        for line in ["warning: unused", "error[E0001]: x", "   --> src/lib.rs:1:1", "Compiling by hand", ""] {
            assert!(!is_progress(line), "{line}");
        }
        assert_eq!(plain("\x1b[1m\x1b[32m   Compiling\x1b[0m naga"), "   Compiling naga");
    }
}
