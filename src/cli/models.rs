//! `headwater models`: what is inside this program, and what it draws.

use super::error::CliError;
use crate::bundled::{self, BUNDLED};
use models::Vocabulary;
use serde_json::json;
use std::io::Write;

/// List the models inside this program, and what they draw.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let list: Vec<_> = BUNDLED
            .iter()
            .map(|m| {
                let default = m.name == bundled::DEFAULT;
                let draws = Vocabulary::read(&m.files())?.map(|vocabulary| {
                    let groups = vocabulary.groups.into_iter().map(|(group, names)| (group, json!(names)));
                    json!({
                        "groups": groups.collect::<serde_json::Map<_, _>>(),
                        "styles": vocabulary.styles, "colours": vocabulary.colours,
                    })
                });
                Ok(json!({ "name": m.name, "summary": m.summary, "bytes": m.bytes(), "default": default, "draws": draws }))
            })
            .collect::<Result<_, CliError>>()?;
        writeln!(stdout, "{}", serde_json::Value::from(list))?;
        return Ok(());
    }
    let mut shown = None;
    for m in BUNDLED {
        let default = if m.name == bundled::DEFAULT { " (default)" } else { "" };
        writeln!(stdout, "{}{default}  {:.1} MB  {}", m.name, m.bytes() as f64 / 1e6, m.summary)?;
        // Of several that draw the same, once.
        let draws = Vocabulary::read(&m.files())?;
        if draws.is_some() && draws == shown {
            writeln!(stdout, "  draws the same")?;
        } else if let Some(draws) = &draws {
            let mut say = |what: &str, names: &[String]| {
                names.iter().enumerate().try_for_each(|(at, name)| match at {
                    0 => write!(stdout, "\n  {what}: {name}"),
                    _ => write!(stdout, ", {name}"),
                })
            };
            draws.groups.iter().try_for_each(|(group, names)| say(group, names))?;
            say("in other colours", &draws.colours)?;
            say("in other styles", &draws.styles)?;
            writeln!(
                stdout,
                "\n  One thing at a time on white, as in \"a blue rose\" or \"a fox, 3d style\"; other words mean little to it."
            )?;
        }
        shown = draws;
        writeln!(stdout)?;
    }
    writeln!(
        stdout,
        "Any other model is a path or a hub's id: headwater generate --help says how, headwater info MODEL what one holds."
    )?;
    Ok(())
}
