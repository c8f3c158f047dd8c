//! `headwater bench`: what a step costs here, and where the time goes.

use super::devices::device_settings;
use super::error::CliError;
use super::model;
use graph::NodeTime;
use pipelines::{DeviceChoice, Pipeline, Request};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Time denoising steps of a model on a device.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's name, a folder in diffusers' layout, or a hub's id, OWNER/REPO[@REVISION]
    #[arg(short, long, value_name = "NAME|DIR|OWNER/REPO", default_value = crate::bundled::DIFFUSION)]
    model: PathBuf,

    /// auto, cpu, gpu, gpu:N, or part of an adapter's name
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// Width in pixels [default: the model's]
    #[arg(short = 'W', long, value_name = "PIXELS")]
    width: Option<usize>,

    /// Height in pixels [default: the model's]
    #[arg(short = 'H', long, value_name = "PIXELS")]
    height: Option<usize>,

    /// Steps to time, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    steps: u32,

    /// Images that are denoised together, as many as there is memory for
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    count: u32,

    /// Threads of the cpu device [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// All operations of one name together.
#[derive(Default)]
struct Total {
    count: usize,
    seconds: f64,
    flops: u64,
    bytes: u64,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let files = model::open(&args.model, model::Wanted { quiet: args.json, ..Default::default() })?;
    let threads = args.threads.map(|n| n as usize);
    let device = pipelines::open_device(&args.device, &device_settings(false, threads))?;
    let pipe = Pipeline::from_pretrained(&device, &files, Default::default())?;
    // The model's own size, not that of the little picture that a task may need.
    let own = pipe.defaults();
    let job = pipe.job(&Request {
        width: args.width.or(own.width),
        height: args.height.or(own.height),
        ..pipe.defaults_for(pipe.any_task())
    })?;
    let request = job.settings();
    let bench = pipe.bench(&job, args.count as usize, args.steps as usize)?;
    let totals = totals(&bench.nodes);
    let median = median(&bench.seconds);
    let (fastest, slowest) = bench.seconds.iter().fold((f64::MAX, 0.0_f64), |(a, b), s| (a.min(*s), b.max(*s)));
    let gflops = |flops: u64, seconds: f64| flops as f64 / seconds.max(1e-12) / 1e9;

    let mut stdout = std::io::stdout().lock();
    if args.json {
        let ops: Vec<_> = totals
            .iter()
            .map(|(op, t)| {
                json!({ "op": op, "count": t.count, "seconds": t.seconds, "gflops": gflops(t.flops, t.seconds),
                        "gbytes_per_second": t.bytes as f64 / t.seconds.max(1e-12) / 1e9 })
            })
            .collect();
        let object = json!({
            "model": args.model.to_string_lossy(), "device": device.info().name, "width": request.width, "height": request.height,
            "images": bench.samples, "step_seconds": median, "fastest": fastest, "slowest": slowest, "flops": bench.flops,
            "gflops": gflops(bench.flops, median), "ops": ops,
        });
        writeln!(stdout, "{object}")?;
        return Ok(());
    }
    let info = device.info();
    writeln!(stdout, "{} ({}, {})", info.name, info.kind, info.backend)?;
    writeln!(
        stdout,
        "{}x{}, guidance {}, {} at once: {:.2} ms a step ({:.2} to {:.2}), {:.3} GFLOP, {:.1} GFLOP/s",
        request.width,
        request.height,
        request.guidance_scale,
        bench.samples,
        median * 1e3,
        fastest * 1e3,
        slowest * 1e3,
        bench.flops as f64 / 1e9,
        gflops(bench.flops, median)
    )?;
    writeln!(stdout, "{:<20} {:>6} {:>10} {:>9} {:>9}", "operation", "count", "ms", "GFLOP/s", "GB/s")?;
    for (op, t) in &totals {
        let rate = t.bytes as f64 / t.seconds.max(1e-12) / 1e9;
        let (ms, gflops) = (t.seconds * 1e3, gflops(t.flops, t.seconds));
        writeln!(stdout, "{op:<20} {:>6} {ms:>10.3} {gflops:>9.1} {rate:>9.1}", t.count)?;
    }
    Ok(())
}

/// The slowest first.
fn totals(nodes: &[NodeTime]) -> Vec<(&'static str, Total)> {
    let mut totals: BTreeMap<&'static str, Total> = BTreeMap::new();
    for node in nodes {
        let total = totals.entry(node.op).or_default();
        total.count += 1;
        total.seconds += node.seconds;
        total.flops += node.flops;
        total.bytes += node.bytes;
    }
    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    totals
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
