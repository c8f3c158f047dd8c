//! `headwater tune`: which way of computing each operation of a model is the fastest on the user's own device.

use super::devices::device_settings;
use super::error::CliError;
use super::image_args::DType;
use super::{model, tuned};
use graph::DeviceInfo;
use pipelines::{DeviceChoice, Pipeline, Request, Tuned};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Measure which ways of computing a model's operations are the fastest on a device, and keep them for later runs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's name, a folder in diffusers' layout, or a hub's id, OWNER/REPO[@REVISION]
    #[arg(short, long, value_name = "NAME|DIR|OWNER/REPO", default_value = crate::bundled::DIFFUSION)]
    model: PathBuf,

    /// auto, cpu, gpu, gpu:N, or part of an adapter's name
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// How weights are stored
    #[arg(long, value_enum, default_value_t = DType::Auto)]
    dtype: DType,

    /// Width in pixels [default: the model's]
    #[arg(short = 'W', long, value_name = "PIXELS")]
    width: Option<usize>,

    /// Height in pixels [default: the model's]
    #[arg(short = 'H', long, value_name = "PIXELS")]
    height: Option<usize>,

    /// How often each way is timed, in turn with the others
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// Threads of the cpu device [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Measure nothing: print what is kept of this device
    #[arg(long, conflicts_with = "forget")]
    show: bool,

    /// Measure nothing: remove what is kept of this device
    #[arg(long)]
    forget: bool,

    /// One JSON object per shape
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let device = pipelines::open_device(&args.device, &device_settings(false, args.threads.map(|n| n as usize))?)?;
    let info = device.info();
    let file = tuned::file(info).ok_or_else(|| {
        CliError::Failed("there is no folder to keep what is measured in: set XDG_CACHE_HOME or HOME".into())
    })?;
    if args.show {
        return show(args.json, info, &file);
    }
    if args.forget {
        return match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::Failed(format!("cannot remove {}: {error}", file.display())))
            }
            _ => Ok(()),
        };
    }
    let files = model::open(&args.model, model::Wanted { quiet: args.json, ..Default::default() })?;
    let pipe = Pipeline::from_pretrained(&device, &files, args.dtype.plan_options(info)?)?;
    let own = pipe.defaults();
    let request = Request {
        width: args.width.or(own.width),
        height: args.height.or(own.height),
        ..pipe.defaults_for(pipe.any_task())
    };
    let job = pipe.job(&request)?;
    let mut stdout = std::io::stdout().lock();
    let mut written = Ok(());
    let winners = pipe.tune(&job, args.repeats as usize, |i, all, tuned| {
        if written.is_ok() {
            written = writeln!(stdout, "{}", line(args.json, i, all, tuned));
        }
    })?;
    tuned::write(&file, info, &winners)
        .map_err(|error| CliError::Failed(format!("cannot write {}: {error}", file.display())))?;
    written?;
    if !args.json {
        writeln!(stdout, "{} shapes are kept in {}", winners.len(), file.display())?;
    }
    Ok(())
}

fn line(as_json: bool, i: usize, all: usize, tuned: &Tuned) -> String {
    let Tuned { shape, ways } = tuned;
    if as_json {
        let ways: serde_json::Map<_, _> =
            ways.iter().map(|(way, seconds)| ((*way).to_owned(), json!(seconds))).collect();
        return json!({ "shape": shape, "seconds": ways, "winner": tuned.winner(), "gain": tuned.gain() }).to_string();
    }
    let rounds = tuned.fastest_rounds();
    let times: Vec<String> = rounds.map(|(way, seconds)| format!("{way} {:.3} ms", seconds * 1e3)).collect();
    format!("{:>3}/{all}  {shape}: {}; {} is taken ({:.2}x)", i + 1, times.join(", "), tuned.winner(), tuned.gain())
}

fn show(as_json: bool, info: &DeviceInfo, file: &std::path::Path) -> Result<(), CliError> {
    let winners = tuned::read(file, info).map_err(CliError::Failed)?.unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    for (shape, way) in winners.iter() {
        if as_json {
            writeln!(stdout, "{}", json!({ "shape": shape, "winner": way }))?;
        } else {
            writeln!(stdout, "{shape}: {way}")?;
        }
    }
    if !as_json && winners.is_empty() {
        writeln!(stdout, "nothing is kept of {}", info.name)?;
    }
    Ok(())
}
