//! `headwater serve`: a web page and HTTP APIs in front of models that stay loaded.
//!
//! ```text
//! http/       reads requests, checks who sends them, answers in the words of each API
//!   order     checks what is asked, by the command line's own definitions (fields)
//!   queue     jobs that wait, never more than a bound
//!   worker    one thread for each device: takes what can be made together, step by step
//!   ticket    a job as its owner sees it
//! lines/      `headwater worker`: the same jobs from JSON lines in place of requests
//! ```

mod check;
mod fields;
mod hosting;
pub(super) mod http;
mod limits;
pub(super) mod lines;
mod metrics;
mod models;
mod order;
mod preview;
mod queue;
mod reference;
mod sent;
mod ticket;
mod worker;

use super::error::CliError;
use super::image_args::{DType, whole};
use super::run;
use hosting::Hosting;
use http::guard::Guard;
use limits::{Limits, PATIENCE};
use metrics::Metrics;
use models::{Models, Worksite};
use queue::Queue;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use ticket::{Owner, Previews, Ticket, lock};
use tokio::sync::Semaphore;

/// Serve a web page and HTTP APIs that keep models loaded.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The APIs are OpenAI's Images (/v1), AUTOMATIC1111's (/sdapi/v1), and the server's own (/api), which /api/openapi.json describes."
)]
pub(super) struct Args {
    /// Address to listen on; one that others reach needs --api-key
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,

    /// Port to listen on; 0 takes any that is free
    #[arg(long, default_value_t = 7868)]
    port: u16,

    #[command(flatten)]
    hosting: Hosting,

    /// A key that requests must have, as Bearer or as the password of Basic; repeatable. The variable HEADWATER_API_KEY gives one that no list
    /// of processes shows
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,

    /// Most jobs that wait or run; more are refused, and told when to come again
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true, value_parser = whole::<1, 10_000>)]
    max_queue: u32,

    /// A name that the server is reached by, behind a proxy, say; repeatable
    #[arg(long, help_heading = "Access", value_name = "NAME")]
    allowed_host: Vec<String>,

    /// Another site whose pages may use the APIs, by scheme and host; repeatable
    #[arg(long, help_heading = "Access", value_name = "ORIGIN")]
    allowed_origin: Vec<String>,

    /// Most pixels of a picture that is sent or made
    #[arg(long, help_heading = "Limits", value_name = "N", default_value_t = 1 << 24, allow_negative_numbers = true, value_parser = whole::<1, 64_000_000>)]
    max_pixels: u32,

    /// Most steps of an image
    #[arg(long, help_heading = "Limits", value_name = "N", default_value_t = 1000, allow_negative_numbers = true, value_parser = whole::<1, 10_000>)]
    max_steps: u32,

    /// Most images of one job
    #[arg(long, help_heading = "Limits", value_name = "N", default_value_t = 16, allow_negative_numbers = true, value_parser = whole::<1, 1024>)]
    max_count: u32,

    /// Seconds for which a job that is over is kept for whoever asks for its images; less where they are many
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value_t = 3600, allow_negative_numbers = true, value_parser = whole::<1, 604_800>)]
    keep: u32,

    /// Seconds for which a client may take nothing of its answer before the connection is closed
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value_t = 30, allow_negative_numbers = true, value_parser = whole::<1, 86_400>)]
    write_timeout: u32,

    /// Only say what would be served, and what is wrong with that: exit code 0, or 2
    #[arg(long)]
    check: bool,

    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// Everything that requests and workers share.
#[derive(Debug)]
pub(super) struct App {
    limits: Limits,
    guard: Guard,
    models: Models,
    sites: Vec<Worksite>,
    queue: Queue,
    dtype: DType,
    lora_dir: Option<PathBuf>,
    /// For requests without a model, of owners who chose another than the first.
    chosen: Mutex<Vec<(Owner, usize)>>,
    /// Owners who ask how far their jobs are, and when they last did.
    onlookers: Mutex<Vec<(Owner, Instant)>>,
    large_bodies: Semaphore,
    checked_at_once: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// Owners whose choices are remembered.
const REMEMBERED: usize = 64;

/// How long after somebody asked for a preview others are made for them.
const LOOKING: Duration = Duration::from_secs(10);

impl App {
    /// What somebody who asks for progress now and then is shown of the next step.
    fn asked_to_look(&self, ticket: &Ticket) -> Previews {
        let looks = lock(&self.onlookers).iter().any(|(own, when)| *own == ticket.owner && when.elapsed() < LOOKING);
        if looks { Previews::Denoised } else { Previews::None }
    }

    fn looks(&self, owner: &Owner) {
        let mut onlookers = lock(&self.onlookers);
        onlookers.retain(|(own, when)| own != owner && when.elapsed() < LOOKING);
        onlookers.truncate(REMEMBERED);
        onlookers.push((owner.clone(), Instant::now()));
    }

    /// The adapters that prompts may name.
    fn loras(&self) -> Vec<String> {
        self.lora_dir.as_deref().map_or_else(Vec::new, super::lora_tags::names)
    }

    fn choose(&self, owner: &Owner, model: usize) {
        let mut chosen = lock(&self.chosen);
        chosen.retain(|(own, _)| own != owner);
        if chosen.len() >= REMEMBERED {
            chosen.remove(0);
        }
        chosen.push((owner.clone(), model));
    }

    fn chosen(&self, owner: &Owner) -> Option<usize> {
        lock(&self.chosen).iter().find(|(own, _)| own == owner).map(|(_, model)| *model)
    }
}

impl Args {
    /// The keys that requests must have one of.
    fn keys(&self) -> Vec<String> {
        let mut keys = self.api_key.clone();
        keys.extend(std::env::var("HEADWATER_API_KEY").ok().filter(|key| !key.is_empty()));
        keys
    }

    /// Who may ask.
    fn guard(&self) -> Result<Guard, CliError> {
        let keys = self.keys();
        if !self.host.is_loopback() && keys.is_empty() {
            return Err(CliError::Usage(format!(
                "--host {} lets others in: give a key with --api-key, or HEADWATER_API_KEY, that they must have",
                self.host
            )));
        }
        Guard::new(self.host, &self.allowed_host, &self.allowed_origin, &keys)
    }

    fn listener(&self) -> Result<std::net::TcpListener, CliError> {
        let address = SocketAddr::new(self.host, self.port);
        let listener = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        listener.map_err(|error| {
            let hint = if error.kind() == std::io::ErrorKind::AddrInUse { ": choose another with --port" } else { "" };
            CliError::Failed(format!("cannot listen on {address}: {error}{hint}"))
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            pixels: self.max_pixels as usize,
            steps: self.max_steps as usize,
            images: self.max_count,
            batch: self.hosting.batch as usize,
            queue: self.max_queue as usize,
            kept_for: Duration::from_secs(u64::from(self.keep)),
            write: Duration::from_secs(u64::from(self.write_timeout)),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.check {
        return check::run(args);
    }
    let failed = |what: &str, error: &dyn std::fmt::Display| CliError::Failed(format!("{what}: {error}"));
    let guard = args.guard()?;
    // Before models are opened: whether the port is free is known at once.
    let listener = args.listener()?;
    let app = Arc::new(args.hosting.open(args.limits(), guard, args.quiet)?);
    let address = listener.local_addr().map_err(|error| failed("cannot tell the address", &error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(limits::CHECKED_AT_ONCE + 4)
        .enable_all()
        .build()
        .map_err(|error| failed("cannot start", &error))?;
    let workers = worker::start(&app);
    // The one line on standard output, for whoever started it and waits for it.
    run::print_line(&format!("http://{address}/"))?;
    if !args.quiet {
        for (site, model) in app.sites.iter().flat_map(|site| app.models.all().iter().map(move |model| (site, model))) {
            note!("serves {} on {}", model.id, site.device().info().name);
        }
    }
    let ended_by = runtime.block_on(http::server::serve(&app, listener))?;
    // A step that takes longer than that is not waited for: nothing that it makes is wanted any more.
    worker::wait(&workers, PATIENCE / 4);
    runtime.shutdown_background();
    match ended_by {
        http::server::Ended::Asked => {
            // Not by returning: a device's thread may still be in the middle of a step.
            std::process::exit(0)
        }
        http::server::Ended::Interrupted => Err(CliError::Interrupted),
    }
}
