//! `headwater samplers`: what can follow `--sampler`.

use super::error::CliError;
use scheduler::{SAMPLERS, SCHEDULES, Sampler};
use serde_json::json;
use std::io::Write;

/// List the samplers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A JSON array
    #[arg(long)]
    json: bool,
}

/// What each tool calls it.
fn aliases(sampler: &Sampler) -> serde_json::Value {
    let tools = sampler.aliases.by_tool().into_iter().chain([("other", sampler.aliases.other)]);
    tools.map(|(tool, names)| (tool.to_owned(), json!(names))).collect::<serde_json::Map<_, _>>().into()
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let list: Vec<_> = SAMPLERS
            .iter()
            .map(|s| {
                json!({
                    "name": s.name,
                    "aliases": aliases(s),
                    "summary": s.summary,
                    "order": s.order,
                    "stochastic": s.stochastic,
                    "evaluations_per_step": s.evaluations,
                    "adaptive": s.is_adaptive(),
                    "inverts": s.inverts,
                    "eta": s.eta,
                    "diffusers": s.class,
                    "paper": s.paper,
                })
            })
            .collect();
        writeln!(stdout, "{}", serde_json::Value::from(list))?;
        return Ok(());
    }
    let width = SAMPLERS.iter().map(|s| s.name.len()).max().unwrap_or(0);
    writeln!(stdout, "{:width$}  order  evals  noise  summary", "name")?;
    for s in SAMPLERS {
        let noise = if s.stochastic { "yes" } else { "no" };
        writeln!(stdout, "{:width$}  {:>5}  {:>5}  {noise:<5}  {}", s.name, s.order, s.evaluations, s.summary)?;
    }
    let schedules: Vec<&str> = SCHEDULES.iter().map(|(schedule, _)| schedule.name()).collect();
    writeln!(
        stdout,
        "\nOther tools' names are understood as well (flow_euler, euler_a, \"DPM++ 2M Karras\"); --json lists them."
    )?;
    writeln!(stdout, "schedules: {}", schedules.join(", "))?;
    Ok(())
}
