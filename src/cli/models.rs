//! `headwater models`: what is inside this program.

use super::error::CliError;
use crate::bundled::{self, BUNDLED};
use serde_json::json;
use std::io::Write;

/// List the models inside this program.
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
                json!({ "name": m.name, "summary": m.summary, "bytes": m.bytes(), "default": default })
            })
            .collect();
        writeln!(stdout, "{}", serde_json::Value::from(list))?;
        return Ok(());
    }
    for m in BUNDLED {
        let default = if m.name == bundled::DEFAULT { " (default)" } else { "" };
        writeln!(stdout, "{}{default}  {:.1} MB  {}", m.name, m.bytes() as f64 / 1e6, m.summary)?;
    }
    Ok(())
}
