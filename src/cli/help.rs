//! `headwater completions` and `headwater man`: made from the same definitions as the help.

use super::Cli;
use super::error::CliError;
use clap::{Arg, Command, CommandFactory};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Print a shell's completion script: bash reads it from ~/.local/share/bash-completion/completions/headwater, zsh from _headwater in a folder
/// of $fpath, fish from ~/.config/fish/completions/headwater.fish.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Print a manual page, or write all of them: one for the program, and one for each of its commands.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// The command that the page is of [default: the program]
    command: Option<String>,

    /// Write every page into this folder: headwater.1, headwater-generate.1, …
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "headwater", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

pub(super) fn man(args: &ManArgs) -> Result<(), CliError> {
    if let Some(folder) = &args.dir {
        return write_all(folder);
    }
    // Built, subcommands have their full names (headwater-generate) and the program's version.
    let mut program = program().disable_help_subcommand(true);
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
            CliError::Usage(format!("there is no command {name} (there are {})", names.join(", ")))
        })?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(std::io::stdout().write_all(&page)?)
}

/// The definitions, with other names of flags in their help: pages have no place for them.
fn program() -> Command {
    let mut program = Cli::command();
    let names: Vec<String> = program.get_subcommands().map(|own| own.get_name().to_owned()).collect();
    for name in names {
        program = program.mut_subcommand(name, |own| own.mut_args(with_aliases));
    }
    program
}

fn with_aliases(arg: Arg) -> Arg {
    let Some(aliases) = arg.get_visible_aliases().filter(|aliases| !aliases.is_empty()) else { return arg };
    let names: Vec<String> = aliases.iter().map(|alias| format!("--{alias}")).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} [also: {}]", names.join(", ")))
}

fn write_all(folder: &Path) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("cannot write manual pages into {}: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(program(), folder).map_err(failed)
}
