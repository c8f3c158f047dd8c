//! Feeds every reader of files damaged ones, in this process: `cargo xtask fuzz SECONDS`.
//!
//! Each input is a file of the project's own goldens with a few bytes, numbers or pieces changed. A reader may refuse it or read it; it may
//! not panic, take longer than [`SLOWEST`] or more memory than [`LARGEST`]. An input that makes one do so is kept, and its path is printed.

mod memory;
mod mutate;
mod targets;

use mutate::Mutator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// The longest that one input may take.
const SLOWEST: Duration = Duration::from_secs(10);

/// The most bytes that may be held while one input is read.
const LARGEST: usize = 3 << 30;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60.0);
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let only = arguments.next();
    quiet_panics();
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    let targets: Vec<&Target> = TARGETS.iter().filter(|t| only.as_ref().is_none_or(|only| t.name == only)).collect();
    let (mut inputs, mut faults) = (0_u64, 0);
    for target in &targets {
        let place = match tempfile::tempdir() {
            Ok(place) => place,
            Err(error) => {
                println!("no temporary folder: {error}");
                return ExitCode::FAILURE;
            }
        };
        let corpus = (target.corpus)(&goldens);
        assert!(!corpus.is_empty(), "{} has nothing to begin with", target.name);
        let mut mutator = Mutator::new(seed);
        let (mut own, mut slowest, mut largest) = (0_u64, Duration::ZERO, 0);
        let until = Instant::now() + Duration::from_secs_f64(seconds / targets.len() as f64);
        while Instant::now() < until {
            let seed_file = &corpus[mutator.below(corpus.len())];
            let other = &corpus[mutator.below(corpus.len())];
            let bytes = mutator.change(&seed_file.bytes, &other.bytes);
            memory::begin();
            let started = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| (target.read)(place.path(), seed_file, &bytes)));
            let (took, held) = (started.elapsed(), memory::most());
            (slowest, largest) = (slowest.max(took), largest.max(held));
            own += 1;
            let fault = match result {
                Err(panic) => Some(format!("panics: {}", message(&*panic))),
                Ok(()) if took > SLOWEST => Some(format!("takes {:.1} s", took.as_secs_f64())),
                Ok(()) if held > LARGEST => Some(format!("takes {} MiB", held >> 20)),
                Ok(()) => None,
            };
            if let Some(fault) = fault {
                faults += 1;
                let kept = keep(target.name, own, &bytes);
                println!("{} of {}: {fault}; kept as {}", target.name, seed_file.name, kept.display());
            }
        }
        inputs += own;
        println!(
            "{:12} {own:9} inputs, slowest {:6.1} ms, largest {:4} MiB",
            target.name,
            slowest.as_secs_f64() * 1e3,
            largest >> 20
        );
    }
    println!("{inputs} inputs, {faults} faults");
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Panics are counted here; their messages would be printed once for every input.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Writes an input where it can be looked at.
fn keep(target: &str, number: u64, bytes: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join("headwater-fuzz");
    let path = folder.join(format!("{target}-{number}"));
    drop(std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, bytes)));
    path
}
