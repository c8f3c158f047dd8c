//! `headwater worker`: jobs from JSON lines, results as JSON lines, pictures in a folder or in tars. The jobs are the server's own, and go the
//! server's way (order, queue, device threads, tickets), without a port.
//!
//! ```text
//! share     which lines are this process's
//! job       a line becomes what a request asks
//! id        what follows from a job's name: seed, share, files
//! floor     jobs under way, and what becomes of them
//! shelf     pictures, safely on disk; tars, filled one after the other
//! book      results, a line each; what a restart goes by
//! ```

mod book;
mod floor;
mod id;
mod job;
mod share;
mod shelf;
mod tars;

use super::super::error::CliError;
use super::super::image_args::whole;
use super::super::interrupt;
use super::hosting::Hosting;
use super::http::guard::Guard;
use super::limits::{Limits, PATIENCE};
use super::worker;
use book::{Book, Label};
use floor::Floor;
use job::Line;
use share::Share;
use shelf::Shelf;
use std::fs::File;
use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Make the images of jobs that come as JSON lines, on one machine or on many.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(in super::super) struct Args {
    /// File with a job a line, or - for standard input
    jobs: PathBuf,

    /// Folder for pictures and results; a worker that starts again goes on where the results end
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Write tars of N pictures, as WebDataset reads them, in place of a file for each picture
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<1, 1_000_000>)]
    tar: Option<u32>,

    /// Make only the jobs of share I, from 0, of N [default: what Slurm's job arrays and Kubernetes' Indexed Jobs say, or all]
    #[arg(long, value_name = "I/N", conflicts_with = "name")]
    shard: Option<Share>,

    /// What the results and tars of this worker are called, where jobs are not divided by --shard but dealt out by something else, as Ray does: it
    /// passes over what other workers of the folder had done when it started
    #[arg(long, value_name = "NAME", value_parser = label)]
    name: Option<Label>,

    /// Try the jobs again that failed
    #[arg(long)]
    retry_failed: bool,

    /// Say how far it is every so many seconds; 0 never does
    #[arg(long, value_name = "SECONDS", default_value_t = 10, allow_negative_numbers = true, value_parser = whole::<0, 86_400>)]
    heartbeat: u32,

    /// Seconds that jobs under way have to come to their end when it is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 20, allow_negative_numbers = true, value_parser = whole::<0, 86_400>)]
    grace: u32,

    #[command(flatten)]
    hosting: Hosting,

    /// Results on standard output, too, and heartbeats there: one JSON object a line, whose type says what it is
    #[arg(long, help_heading = "Reports")]
    json: bool,

    /// Say nothing but errors
    #[arg(short, long, help_heading = "Reports")]
    quiet: bool,
}

const HELP: &str = "A job is what POST /api/jobs of headwater serve takes, with an id: {\"id\": \"a1\", \"prompt\": \"a red heart\", \"steps\": 4}. \
                    image_file and mask_file name pictures. A job without a seed has one that follows from its id.

Exit codes: 0 all is done, 2 a job of the input cannot be made (the others are), 75 not all is done: run it again.";

/// Lines that are read before they are wanted. They may be large.
const LINES_AHEAD: usize = 4;

/// Jobs that are checked and wait for each that runs: enough to fill the next batch.
const JOBS_AHEAD: usize = 2;

pub(in super::super) fn run(args: &Args) -> Result<(), CliError> {
    let interrupted = interrupt::install_with(75)?;
    let share = match args.shard {
        Some(share) => share,
        // Whoever deals out jobs does not want them divided besides.
        None if args.name.is_some() => Share::WHOLE,
        None => Share::from_cluster(|name| std::env::var(name).ok())?.unwrap_or(Share::WHOLE),
    };
    let label = args.name.clone().unwrap_or_else(|| Label::of(share));
    let input = open(&args.jobs)?;
    let folder = &args.output;
    std::fs::create_dir_all(folder)
        .map_err(|error| CliError::Failed(format!("cannot make the folder {}: {error}", folder.display())))?;
    let mut book = Book::open(folder, &label, args.quiet)?;
    let shelf = Shelf::open(folder, &label, args.tar, &mut book)?;
    let batch = args.hosting.batch as usize;
    let limits = Limits {
        pixels: 64_000_000,
        steps: 10_000,
        images: 1024,
        batch,
        queue: (batch * args.hosting.device.len() * JOBS_AHEAD).max(4),
        kept_for: Duration::ZERO,
        write: Duration::MAX,
    };
    // Nobody asks over a port.
    let guard = Guard::new(IpAddr::V4(Ipv4Addr::LOCALHOST), &[], &[], &[])?;
    let app = Arc::new(args.hosting.open(limits, guard, args.quiet)?);
    let workers = worker::start(&app);
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    // Whoever writes into our standard input may take its time.
    std::thread::spawn(move || {
        let read = job::read(input, |line| sender.blocking_send(Ok(line)).is_ok());
        if let Err(error) = read {
            drop(sender.blocking_send(Err(error)));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| CliError::Failed(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(Floor::new(args, share, Arc::clone(&app), book, shelf).work(lines, &interrupted));
    app.queue.close();
    if !worker::wait(&workers, PATIENCE)
        && let Err(error) = &ended
    {
        // Not by returning: a device's thread is still in the middle of a step.
        note!("error: {error}");
        std::process::exit(error.exit_code().into());
    }
    ended
}

/// A name that is a part of files' names.
fn label(text: &str) -> Result<Label, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_name = !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain);
    is_name.then(|| Label::named(text)).ok_or_else(|| "give 1 to 64 letters, digits, - and _".into())
}

type Lines = mpsc::Receiver<std::io::Result<Line>>;

fn open(path: &Path) -> Result<Box<dyn std::io::BufRead + Send>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let failed = |why: &dyn std::fmt::Display| CliError::Usage(format!("cannot read {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| failed(&error))?;
    if path.is_dir() {
        return Err(failed(&"it is a folder"));
    }
    Ok(Box::new(BufReader::new(file)))
}
