//! `headwater bench`: what this machine can do, what a model costs on it, and where the time goes.

mod against;
mod ceiling;
mod micro;
mod parts;
mod process;
mod row;

use super::devices::device_settings;
use super::error::CliError;
use super::image_args::DType;
use super::model;
use against::Earlier;
use ceiling::Ceiling;
use graph::DeviceKind;
use parts::Measured;
use pipelines::{DeviceChoice, Pipeline, Request, SharedDevice};
use row::{Row, Suite};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// Measure this machine, and the time and memory that a model takes on it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's name, a folder in diffusers' layout, or a hub's id, OWNER/REPO[@REVISION]
    #[arg(short, long, value_name = "NAME|DIR|OWNER/REPO", default_value = crate::bundled::DIFFUSION)]
    model: PathBuf,

    /// micro: single operations in the shapes of well-known models, which needs no model; meso: a step, and reading a prompt or picture
    /// and making one of latents; macro: whole pictures
    #[arg(long, value_enum, default_value_t = Suites::Meso)]
    suite: Suites,

    /// auto, cpu, gpu, gpu:N, or part of an adapter's name
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// How weights are stored in memory
    #[arg(long, value_enum, default_value_t = DType::Auto)]
    dtype: DType,

    /// Width in pixels [default: the model's]
    #[arg(short = 'W', long, value_name = "PIXELS")]
    width: Option<usize>,

    /// Height in pixels [default: the model's]
    #[arg(short = 'H', long, value_name = "PIXELS")]
    height: Option<usize>,

    /// How often everything is timed, after once to warm up [default: 10, whole pictures 5]
    #[arg(long, alias = "steps", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeats: Option<u32>,

    /// Images that are denoised together, as many as there is memory for
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    count: u32,

    /// Threads of the cpu device [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// What a part's operations are added up by: their names, or their place in the checkpoint
    #[arg(long, value_enum, default_value_t = By::Op)]
    by: By,

    /// As many components of a place count (--by path)
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    depth: u32,

    /// Only those operations of the micro suite whose name holds this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Compare with a file that an earlier --json was written to; a difference is one only where all repeats agree
    #[arg(long, value_name = "FILE")]
    vs: Option<PathBuf>,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suites {
    Micro,
    Meso,
    Macro,
    All,
}

/// What operations are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Op,
    Path,
}

impl Suites {
    fn holds(self, suite: Suite) -> bool {
        match self {
            Self::All => true,
            Self::Micro => suite == Suite::Micro,
            Self::Meso => suite == Suite::Meso,
            Self::Macro => suite == Suite::Macro,
        }
    }

    fn needs_model(self) -> bool {
        self != Self::Micro
    }
}

/// Everything that a run says.
struct Report {
    /// What does not depend on the clock.
    head: Value,
    /// Of a model, as people read it.
    about: Option<String>,
    device: String,
    ceiling: Ceiling,
    /// Of the process while the model ran.
    peak_memory: Option<u64>,
    rows: Vec<Row>,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.only.is_some() && !args.suite.holds(Suite::Micro) {
        return Err(CliError::Usage("--only chooses from the micro suite: give --suite micro or all".into()));
    }
    // Before anything is measured: a file that cannot be read is no reason to wait.
    let earlier = args.vs.as_deref().map(Earlier::read).transpose()?;
    let threads = args.threads.map(|n| n as usize);
    let device = pipelines::open_device(&args.device, &device_settings(false, threads)?)?;
    let report = measure(args, &device, earlier.as_ref())?;
    let mut stdout = std::io::stdout().lock();
    let compared = match &earlier {
        Some(earlier) => {
            let differences = earlier.differences(&report.head, report.peak_memory);
            Some((earlier, earlier.pairs(&report.rows)?, differences))
        }
        None => None,
    };
    if args.json {
        let mut object = report.json();
        if let Some((earlier, pairs, differences)) = &compared {
            object["vs"] = against::json(earlier, pairs, differences);
        }
        writeln!(stdout, "{object}")?;
        return Ok(());
    }
    report.print(&mut stdout)?;
    if let Some((_, pairs, differences)) = &compared {
        writeln!(stdout)?;
        for line in against::shown(pairs).iter().chain(differences) {
            writeln!(stdout, "{line}")?;
        }
    }
    Ok(())
}

fn measure(args: &Args, device: &SharedDevice, earlier: Option<&Earlier>) -> Result<Report, CliError> {
    let info = device.info();
    let native = info.kind == DeviceKind::Cpu;
    let threads = args.threads.map(|n| n as usize);
    let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).filter(|_| native);
    let mut head = json!({
        "version": env!("CARGO_PKG_VERSION"), "debug": cfg!(debug_assertions),
        "device": info.name, "backend": info.backend, "driver": info.driver, "threads": threads,
    });
    let mut report = Measured::default();
    let mut about = None;
    if args.suite.needs_model() {
        let files = model::open(&args.model, model::Wanted { quiet: args.json, ..Default::default() })?;
        let pipe = Pipeline::from_pretrained(device, &files, args.dtype.plan_options(info)?)?;
        // The model's own size, not that of the little picture that a task may need.
        let own = pipe.defaults();
        let request = Request {
            width: args.width.or(own.width),
            height: args.height.or(own.height),
            ..pipe.defaults_for(pipe.any_task())
        };
        let job = pipe.job(&request)?;
        let (settings, count) = (job.settings(), args.count as usize);
        head["model"] = json!(args.model.to_string_lossy());
        head["width"] = json!(settings.width);
        head["height"] = json!(settings.height);
        head["guidance"] = json!(settings.guidance_scale);
        head["images"] = json!(count);
        if let Some(earlier) = earlier {
            earlier.check(&head)?;
        }
        let (width, height, guidance) = (settings.width, settings.height, settings.guidance_scale);
        about = Some(format!("{}: {width}x{height}, guidance {guidance}, {count} at once", args.model.display()));
        let grouping = parts::Grouping { path: (args.by == By::Path).then_some(args.depth as usize), threads };
        // Whole pictures first, and the model before all else: what other suites hold is no part of its peak.
        if args.suite.holds(Suite::Macro) {
            report.pictures(&pipe, &request, count, args.repeats.unwrap_or(5) as usize, grouping)?;
        }
        if args.suite.holds(Suite::Meso) {
            report.parts(&pipe, &job, count, args.repeats.unwrap_or(10) as usize, grouping)?;
        }
    } else if let Some(earlier) = earlier {
        earlier.check(&head)?;
    }
    let ceiling = Ceiling::measure(device.device())?;
    let Measured { mut rows, peak_memory } = report;
    if args.suite.holds(Suite::Micro) {
        let repeats = args.repeats.unwrap_or(10) as usize;
        rows.extend(micro::rows(device.device(), repeats, args.only.as_deref())?);
    }
    let mut shown = format!("{} ({}, {})", info.name, info.kind, info.backend);
    if let Some(threads) = threads {
        shown += &format!(", threads: {threads}");
    }
    Ok(Report { head, about, device: shown, ceiling, peak_memory, rows })
}

impl Report {
    fn json(&self) -> Value {
        let mut object = self.head.clone();
        object["ceiling"] = self.ceiling.json();
        object["peak_memory"] = json!(self.peak_memory);
        if let Some(step) = self.rows.iter().find(|row| row.part == parts::STEP && row.group.is_none()) {
            object["step_seconds"] = json!(step.spread().median);
        }
        object["rows"] = self.rows.iter().map(|row| row.json(&self.ceiling)).collect();
        object
    }

    fn print(&self, out: &mut impl Write) -> Result<(), CliError> {
        writeln!(out, "{}", self.device)?;
        writeln!(out, "{}", self.ceiling.shown())?;
        if let Some(about) = &self.about {
            writeln!(out, "{about}")?;
        }
        #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
        if let Some(peak) = self.peak_memory {
            writeln!(out, "peak memory of the process while the model ran: {:.1} MB", peak as f64 / 1e6)?;
        }
        let mut suite = None;
        for row in &self.rows {
            if suite != Some(row.suite) {
                suite = Some(row.suite);
                writeln!(out, "\n{}", row::heading(&row.suite.to_string()))?;
            }
            writeln!(out, "{}", row.shown(&self.ceiling))?;
        }
        if self.rows.iter().any(|row| row.is_beyond(&self.ceiling)) {
            writeln!(
                out,
                "\nsome rows are beyond the ceiling: the machine was busier while that was measured, and shares mean little"
            )?;
        }
        Ok(())
    }
}
