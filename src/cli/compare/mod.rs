//! `headwater compare`: samplers, or any other axis, step by step, into a folder.

mod args;
mod show;

pub(super) use args::{Args, Fixed, check_prompt, samplers};

use super::error::CliError;
use super::interrupt;
use super::output::slug;
use super::run::{self, random_seed};
use super::warnings;
use crate::compare::report::{Recorder, ReportError, Wanted};
use crate::compare::{AxisError, CompareError, Comparison, Options};
use pipelines::Job;
use serde_json::json;
use show::Progress;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The most steps that a model which maps noise to pictures at once is sensibly asked for.
const MOST_DIRECT_STEPS: usize = 8;

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    // Names first: nothing is loaded for a comparison that was mistyped.
    args.samplers()?;
    let named = args.models.first().cloned().unwrap_or_else(|| crate::bundled::DIFFUSION.into());
    if [&named].into_iter().chain(&args.models).any(|name| name.to_string_lossy().starts_with("analytic:")) {
        let message = "analytic models make no pictures; headwater converge compares samplers on them";
        return Err(CliError::Usage(message.into()));
    }
    let given = args
        .seeds
        .iter()
        .find_map(|seed| if let super::image_args::Seed::Given(seed) = seed { Some(*seed) } else { None });
    let seed = given.unwrap_or_else(random_seed);
    let mut names = if args.models.is_empty() { vec![named] } else { args.models.clone() };
    let compared: Vec<String> = names.iter().map(|name| name.display().to_string()).collect();
    names.extend(args.reference.clone().filter(|name| !names.contains(name)));
    let interrupted = interrupt::install()?;
    let device = args.fixed.open_device()?;
    let models =
        names.iter().map(|name| args.fixed.open(name, &device, args.is_quiet())).collect::<Result<Vec<_>, _>>()?;
    let prompt = run::prompt(&args.words);
    check_prompt("compare", &models, prompt.is_some() || args.prompts.is_some())?;
    let prompt = prompt.unwrap_or_default();
    let axes = args.axes(&compared, models[0].is_direct(), seed)?;
    let options = Options {
        reference: args.reference.as_ref().map(|name| name.display().to_string()),
        without_reference: args.no_reference,
        draws: args.draws as usize,
    };
    let mut comparison = Comparison::new(models, &args.request(&prompt, seed), axes, options)?;
    warn(&comparison, args)?;

    let title = match &args.prompts {
        Some(file) => run::stem(file),
        None if prompt.is_empty() => compared.join(", "),
        None => prompt.clone(),
    };
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("compare-{}-{seed}", slug(&title))));
    let mut recorder = Recorder::open(&folder, &mut comparison, &args.shared(&prompt, seed), args.save_steps)?;
    let known = recorder.records(&comparison).len();
    if known > 0 && !args.is_quiet() {
        note!("{known} of {} cells are there already", comparison.cells().len());
    }
    let mut progress = Progress::new(&comparison, args.is_quiet());
    let ended = loop {
        if interrupted.get() {
            break Err(CliError::Interrupted);
        }
        if let Some(path) = comparison.needs().map(str::to_owned).and_then(|id| Some((recorder.reference(&id)?, id))) {
            comparison.know(&path.1, path.0)?;
        }
        match comparison.next() {
            Ok(Some(event)) => {
                recorder.record(&comparison, &event)?;
                progress.show(&comparison, &event);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    progress.finish();
    // What is done is written down however it ended.
    recorder.write(&comparison, Wanted { title: &title, within: args.within })?;
    report(args, &comparison, &recorder)?;
    if ended.is_err() && !args.is_quiet() {
        note!("what is done is in {}; to go on, run the same again with --seed {seed} -o {0}", folder.display());
    }
    ended
}

/// What a person may not expect.
fn warn(comparison: &Comparison, args: &Args) -> Result<(), CliError> {
    let quiet = args.is_quiet();
    let mut told: Vec<String> = Vec::new();
    for warning in comparison.cells().iter().filter_map(|cell| cell.job().ok()).flat_map(Job::warnings) {
        let text = warning.to_string();
        if !told.contains(&text) {
            warnings::warn(quiet, &text)?;
            told.push(text);
        }
    }
    for model in comparison.models().iter().filter(|model| model.is_direct()) {
        let own = comparison.cells().iter().filter(|cell| cell.settings.model == model.name);
        let most = own.clone().map(|cell| cell.settings.steps).max().unwrap_or(0);
        if most > MOST_DIRECT_STEPS {
            warnings::warn(quiet, &format!("{} was made for a few steps: {most} bring it nothing", model.name))?;
        }
        if own.clone().all(|cell| cell.reference().is_none()) && own.count() > 0 && !args.no_reference && !quiet {
            note!(
                "note: {} maps noise to pictures at once and has no ODE of its own: errors need --reference with the model that it was distilled from",
                model.name
            );
        }
    }
    let mut told: Vec<&str> = Vec::new();
    for (cell, reason) in comparison.cells().iter().filter_map(|cell| Some((cell, cell.job().err()?))) {
        if !told.contains(&reason) {
            let more = comparison.cells().iter().filter(|other| other.job().err() == Some(reason)).count() - 1;
            let more = if more > 0 { format!(", nor can {more} more") } else { String::new() };
            warnings::warn(quiet, &format!("{} cannot run{more}: {reason}", cell.id))?;
            told.push(reason);
        }
    }
    Ok(())
}

/// The table on standard error, the files on standard output.
fn report(args: &Args, comparison: &Comparison, recorder: &Recorder) -> Result<(), CliError> {
    let records = recorder.records(comparison);
    let (computed, shared) = comparison.evaluations();
    let mut stdout = std::io::stdout().lock();
    let path = |name: &str| recorder.folder().join(name).display().to_string();
    let files = ["contact-sheet.png", "grid.png", "error-vs-nfe.svg", "steps.csv", "steps.json", "report.html"];
    let files: Vec<String> = files.iter().map(|name| path(name)).filter(|path| Path::new(path).is_file()).collect();
    if args.json {
        let nearest = |best: crate::compare::Nearest| json!({ "nfe": best.nfe, "label": best.label, "used": best.used, "error": best.error });
        let object = json!({
            "folder": recorder.folder().display().to_string(),
            "files": files,
            "cells": records.len(),
            "evaluations_computed": computed,
            "evaluations_shared": shared,
            "nearest_at_each_budget": crate::compare::nearest(&records).into_iter().map(nearest).collect::<Vec<_>>(),
            "within": args.within,
            "cheapest_within": crate::compare::cheapest(&records, args.within).map(nearest),
        });
        writeln!(stdout, "{object}")?;
        return Ok(());
    }
    if !args.quiet {
        show::table(&records, &args.metrics);
        show::summary(&records, args.within, (computed, shared));
    }
    files.iter().try_for_each(|path| writeln!(stdout, "{path}"))?;
    Ok(())
}

impl From<AxisError> for CliError {
    fn from(error: AxisError) -> Self {
        CliError::Usage(error.to_string())
    }
}

impl From<CompareError> for CliError {
    fn from(error: CompareError) -> Self {
        match error {
            CompareError::Pipeline(error) => error.into(),
            other => CliError::Usage(other.to_string()),
        }
    }
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NotOurs { .. } | ReportError::Other { .. } => CliError::Usage(error.to_string()),
            ReportError::Write { .. } => {
                let message = super::error::one_line(&error.to_string());
                CliError::Failed(format!(
                    "{message}; cells that are done are kept, and the same command goes on from them"
                ))
            }
            ReportError::Picture(_) => CliError::Failed(error.to_string()),
        }
    }
}
