//! `headwater converge`: error against evaluations, on a model or on data whose truth is exact.

use super::compare::{Fixed, check_prompt, samplers};
use super::error::CliError;
use super::image_args::{Seed, whole};
use super::interrupt::{self, Interrupted};
use super::output::slug;
use super::run::{prompt, random_seed};
use crate::compare::report::{convergence_json, convergence_table, write_convergence};
use crate::compare::{Analytic, Axis, Comparison, Convergence, Event, Options, Value, converge, convergence};
use scheduler::{NamedSampler, SAMPLERS};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure how samplers' errors fall with evaluations.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What the images show; analytic data takes none
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// analytic:mixture or analytic:gaussian, whose truth is exact, or a model: a bundled name, a folder, a single file, a hub id
    #[arg(short, long, value_name = "MODEL", default_value = "analytic:mixture")]
    model: PathBuf,

    /// Samplers, or all [default: all on analytic data; of a model those of compare that follow the ODE]
    #[arg(long, visible_alias = "sampler", value_name = "A,B,…", value_delimiter = ',')]
    samplers: Vec<String>,

    /// Numbers of steps [default: 11 to 797 on analytic data, to 3197 for methods of order 4; of a model 4,8,16,32]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = whole::<1, 10_000>)]
    steps: Vec<u32>,

    /// How many seeds, counted up from --seed
    #[arg(short = 'n', long, visible_alias = "seeds", value_name = "N", default_value_t = 5, allow_negative_numbers = true, value_parser = whole::<1, 10_000>)]
    count: u32,

    /// The first seed [default: 0]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<Seed>,

    /// Folder for converge.csv, converge.json and error-vs-nfe.svg and .png [default: ./converge-{model}]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    #[command(flatten)]
    fixed: Fixed,

    /// The table as one JSON object on standard output
    #[arg(long)]
    json: bool,

    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

/// Steps on analytic data. All leave 2 when divided by 3, because dpm_fast takes steps in threes; the last two are for methods of order 4, whose first
/// steps are of lower order.
const ANALYTIC_STEPS: [usize; 9] = [11, 23, 47, 98, 197, 398, 797, 1598, 3197];

/// Those of compare's own that follow the ODE.
const OF_A_MODEL: [&str; 6] = ["euler", "heun", "dpm_2", "dpmpp_2m", "deis", "unipc"];

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let name = args.model.display().to_string();
    let chosen = samplers(&args.samplers)?;
    if !chosen.is_empty() {
        // Refuses one that is there twice.
        Axis::new(chosen.iter().copied().map(Value::Sampler).collect())?;
    }
    let first = match args.seed {
        Some(Seed::Given(seed)) => seed,
        Some(Seed::Random) => random_seed(),
        None => 0,
    };
    let seeds: Vec<u64> = (0..args.count).map(|i| first.wrapping_add(u64::from(i))).collect();
    let interrupted = interrupt::install()?;
    let (found, ended) = if name.starts_with("analytic:") {
        on_analytic_data(args, &name, &chosen, &seeds, &interrupted)?
    } else {
        on_a_model(args, &chosen, &seeds, &interrupted)?
    };
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("converge-{}", slug(&name))));
    write_convergence(&folder, &format!("Convergence on {name}, {} seeds", seeds.len()), &found)?;
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let methods: Vec<serde_json::Value> = found.iter().map(convergence_json).collect();
        writeln!(stdout, "{}", json!({ "model": name, "seeds": seeds.len(), "folder": folder, "methods": methods }))?;
    } else {
        writeln!(stdout, "{}", convergence_table(&found))?;
        writeln!(stdout, "{}", folder.join("error-vs-nfe.svg").display())?;
        writeln!(stdout, "{}", folder.join("converge.csv").display())?;
    }
    if ended { Ok(()) } else { Err(CliError::Interrupted) }
}

/// What was found, and whether it is all.
type Found = Result<(Vec<Convergence>, bool), CliError>;

fn on_analytic_data(
    args: &Args,
    name: &str,
    chosen: &[NamedSampler],
    seeds: &[u64],
    interrupted: &Interrupted,
) -> Found {
    let data: Analytic = name.parse().map_err(CliError::Usage)?;
    if !args.words.is_empty() {
        return Err(CliError::Usage(format!("{name} reads no text: leave the prompt out")));
    }
    if let Some(named) = chosen.iter().find(|named| named.schedule.is_some()) {
        let sampler = named.sampler.name;
        return Err(CliError::Usage(format!(
            "on {name} every sampler has its own noise levels: write {sampler} alone"
        )));
    }
    let all: Vec<NamedSampler> = SAMPLERS.iter().filter(|s| !s.inverts).map(|s| (*s).into()).collect();
    let chosen = if chosen.is_empty() { &all } else { chosen };
    let mut found = Vec::new();
    for named in chosen {
        let sampler = named.sampler;
        let steps: Vec<usize> = if args.steps.is_empty() {
            let most = if sampler.order >= 4 { 3197 } else { 797 };
            ANALYTIC_STEPS.iter().copied().filter(|steps| *steps <= most).collect()
        } else {
            args.steps.iter().map(|steps| *steps as usize).collect()
        };
        if interrupted.get() {
            return Ok((found, false));
        }
        found.push(converge(data, sampler, &steps, seeds).map_err(|error| CliError::Usage(error.to_string()))?);
    }
    Ok((found, true))
}

fn on_a_model(args: &Args, chosen: &[NamedSampler], seeds: &[u64], interrupted: &Interrupted) -> Found {
    let device = args.fixed.open_device()?;
    let quiet = args.quiet || args.json;
    let models = vec![args.fixed.open(&args.model, &device, quiet)?];
    let prompt = prompt(&args.words);
    check_prompt("converge", &models, prompt.is_some())?;
    if models[0].is_direct() {
        let message =
            format!("{} maps noise to pictures at once: there is no ODE that its samplers follow", models[0].name);
        return Err(CliError::Usage(message));
    }
    let mut named: Vec<Value> = chosen.iter().copied().map(Value::Sampler).collect();
    if named.is_empty() {
        let own: Vec<String> = OF_A_MODEL.map(str::to_owned).into();
        named = samplers(&own)?.into_iter().map(Value::Sampler).collect();
    }
    let own = if args.steps.is_empty() { &[4, 8, 16, 32][..] } else { &args.steps };
    let axes = vec![
        Axis::new(seeds.iter().copied().map(Value::Seed).collect())?,
        Axis::new(named)?,
        Axis::new(own.iter().map(|steps| Value::Steps(*steps as usize)).collect())?,
    ];
    let request = args.fixed.request(&prompt.unwrap_or_default(), seeds[0]);
    let mut comparison = Comparison::new(models, &request, axes, Options::default())?;
    let (cells, started) = (comparison.cells().len(), Instant::now());
    let (mut records, mut last) = (Vec::new(), Instant::now());
    while let Some(event) = comparison.next()? {
        if let Event::Done { record, .. } = event {
            records.push(*record);
        }
        if !quiet && last.elapsed() > Duration::from_secs(5) {
            last = Instant::now();
            let (computed, shared) = comparison.evaluations();
            let (done, to_come) = (computed + shared, comparison.evaluations_to_come());
            let left = started.elapsed().as_secs_f64() * to_come as f64 / done.max(1) as f64;
            note!("{} of {cells} runs done, {left:.0} s left", records.len());
        }
        if interrupted.get() {
            return Ok((convergence(&records), false));
        }
    }
    Ok((convergence(&records), true))
}
