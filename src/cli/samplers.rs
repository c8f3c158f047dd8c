//! `headwater samplers`: what can follow `--sampler`.

use super::error::CliError;
use scheduler::{NamedSampler, NamedSchedule, SAMPLERS, SCHEDULES, Sampler};
use serde_json::json;
use std::io::Write;

/// List the samplers, or explain one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The sampler to explain, by its name here or in another tool
    #[arg(value_name = "NAME")]
    words: Vec<String>,

    /// A JSON array, or the object of the one
    #[arg(long)]
    json: bool,
}

/// What each tool calls it.
fn aliases(sampler: &Sampler) -> serde_json::Value {
    let tools = sampler.aliases.by_tool().into_iter().chain([("other", sampler.aliases.other)]);
    tools.map(|(tool, names)| (tool.to_owned(), json!(names))).collect::<serde_json::Map<_, _>>().into()
}

/// All that is known of one.
fn described(s: &Sampler) -> serde_json::Value {
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
}

/// One sampler in sentences.
fn explain(s: &Sampler, schedule: Option<NamedSchedule>) -> String {
    let mut lines = vec![format!("{}: {}", s.name, s.summary), String::new()];
    let mut say = |name: &str, text: String| lines.push(format!("{name:<20} {text}"));
    let steps = if s.is_adaptive() {
        "it chooses its own, within a tolerance".to_owned()
    } else {
        "as many as --steps says".to_owned()
    };
    say("steps", steps);
    say("evaluations", format!("{} of the model a step; guidance doubles the work of each", s.evaluations));
    let order = if s.stochastic { "of the distribution of its pictures" } else { "of its path" };
    say(
        "order",
        format!("{}: with twice the steps the error {order} falls to about 1/{}", s.order, 1_u64 << s.order.min(32)),
    );
    say(
        "noise",
        match s.eta {
            Some(eta) => {
                format!("drawn anew in its steps; --eta X is the share of it, {eta} by default, and 0 is none")
            }
            None if s.stochastic => {
                "drawn anew in its steps: more steps refine one picture with --rng philox".to_owned()
            }
            None => "the first alone: with more steps a seed comes nearer to one picture".to_owned(),
        },
    );
    if s.inverts {
        say("direction", "from a picture to its noise: headwater interpolate takes it".to_owned());
    } else if s.constrains {
        say("edits", "holds a picture to what is known of it at every noise level".to_owned());
    }
    for (tool, names) in s.aliases.by_tool().into_iter().chain([("other", s.aliases.other)]) {
        if !names.is_empty() {
            say(tool, names.join(", "));
        }
    }
    say("paper", s.paper.to_owned());
    if let Some(schedule) = schedule {
        say("schedule", format!("{}, as the name says; --schedule sets another", schedule.name()));
    }
    if !s.inverts {
        lines.extend([String::new(), format!("headwater generate \"a star\" -m icons-64 --sampler {}", s.name)]);
    }
    lines.join("\n")
}

/// All samplers, as a JSON array.
pub(super) fn list() -> serde_json::Value {
    SAMPLERS.iter().map(|s| described(s)).collect()
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    if !args.words.is_empty() {
        let named: NamedSampler =
            args.words.join(" ").parse().map_err(|error: scheduler::Error| {
                CliError::Usage(format!("{error} (`headwater samplers` lists them)"))
            })?;
        let text =
            if args.json { described(named.sampler).to_string() } else { explain(named.sampler, named.schedule) };
        writeln!(stdout, "{text}")?;
        return Ok(());
    }
    if args.json {
        writeln!(stdout, "{}", list())?;
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
        "\nOther tools' names are understood as well (flow_euler, euler_a, \"DPM++ 2M Karras\"); `headwater samplers NAME` explains one."
    )?;
    writeln!(stdout, "schedules: {}", schedules.join(", "))?;
    Ok(())
}
