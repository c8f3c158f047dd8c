//! `headwater samplers`: what can follow `--sampler`.

use super::error::CliError;
use scheduler::SAMPLERS;
use serde_json::json;
use std::io::Write;

/// List the samplers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let list: Vec<_> = SAMPLERS
            .iter()
            .map(|s| {
                json!({
                    "name": s.name,
                    "aliases": s.aliases,
                    "summary": s.summary,
                    "order": s.order,
                    "stochastic": s.stochastic,
                    "evaluations_per_step": s.evaluations,
                    "diffusers": s.diffusers,
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
    Ok(())
}
