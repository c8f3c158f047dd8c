//! `headwater serve --check`: what would be served, and what is wrong with that. Nothing is downloaded, and no weights are read.

use super::super::error::{CliError, one_line};
use super::super::model::{self, Wanted};
use super::super::{info, run};
use super::Args;
use super::limits::{BODY, PROMPT};
use super::models::{Worksite, id_of};
use crate::bundled;
use crate::hub::Settings;
use models::ModelFiles;
use pipelines::Pipeline;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
struct Found {
    lines: Vec<String>,
    problems: Vec<String>,
}

impl Found {
    fn say(&mut self, what: &str, text: &str) {
        self.lines.push(format!("{what:10} {text}"));
    }

    /// What a step gives, or nothing and a problem.
    fn kept<T>(&mut self, result: Result<T, CliError>) -> Option<T> {
        result.map_err(|error| self.problems.push(one_line(&error.to_string()))).ok()
    }
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut found = Found::default();
    address(args, &mut found);
    let sites: Vec<Worksite> =
        args.hosting.device.iter().filter_map(|choice| found.kept(args.hosting.site(choice))).collect();
    for site in &sites {
        let info = site.device().info();
        found.say("device", &format!("{} ({}, {})", info.name, info.kind, info.backend));
    }
    let inside: Vec<PathBuf> = bundled::BUNDLED.iter().map(|model| model.name.into()).collect();
    let names = if args.hosting.model.is_empty() { &inside } else { &args.hosting.model };
    if names.is_empty() {
        found.problems.push("there is no model inside this program: name one with --model".into());
    }
    let mut ids = Vec::new();
    for name in names {
        let id = id_of(name);
        if ids.contains(&id) {
            found.problems.push(format!("two models would be called {id}: rename the folder or file of one"));
        }
        model(args, name, &id, &sites, &mut found);
        ids.push(id);
    }
    adapters(args, &mut found);
    limits(args, &mut found);
    found.lines.iter().try_for_each(|line| run::print_line(line))?;
    found.problems.iter().try_for_each(|problem| run::print_line(&format!("problem    {problem}")))?;
    match found.problems.len() {
        0 => Ok(()),
        1 => Err(CliError::Usage(format!("this would not be served: {}", found.problems[0]))),
        several => Err(CliError::Usage(format!("this would not be served: there are {several} problems"))),
    }
}

fn address(args: &Args, found: &mut Found) {
    found.say("address", &format!("http://{}/", std::net::SocketAddr::new(args.host, args.port)));
    let keys = match args.keys().len() {
        0 if args.host.is_loopback() => "none: every program on this machine may ask".to_owned(),
        0 => "none".to_owned(),
        1 => "set".to_owned(),
        several => format!("{several} are set"),
    };
    found.say("key", &keys);
    for (what, list) in [("host", &args.allowed_host), ("origin", &args.allowed_origin)] {
        list.iter().for_each(|name| found.say(what, name));
    }
    found.kept(args.guard());
    // Closed at once.
    found.kept(args.listener());
}

fn model(args: &Args, name: &Path, id: &str, sites: &[Worksite], found: &mut Found) {
    let is_here = name.exists() || name.to_str().is_some_and(|name| bundled::find(name).is_some());
    let files = match model::open(name, Wanted { quiet: true, offline: true, ..Wanted::default() }) {
        Ok(files) => files,
        // Only somebody who forbids downloads has a problem with that.
        Err(CliError::Failed(_)) if !is_here && super::super::hub::is_id(name) && !is_offline() => {
            return found.say("model", &format!("{id}: not in the hub's cache, and downloaded at the start"));
        }
        Err(error) => {
            found.say("model", &format!("{id}: cannot be used"));
            found.kept::<()>(Err(error));
            return;
        }
    };
    let is_inside = name.to_str().is_some_and(|name| bundled::find(name).is_some());
    let place = if is_inside { "inside this program".to_owned() } else { files.describe("") };
    found.say("model", &format!("{id}: {place}"));
    if let Some(parts) = found.kept(info::parts(&files)) {
        parts.iter().for_each(|part| found.say("", part));
    }
    for site in sites {
        found.kept(loads(args, &files, site).map_err(|error| CliError::Failed(format!("{id}: {error}"))));
    }
}

/// Whether the model can be opened on a device: its configurations, and its weights' names and shapes.
fn loads(args: &Args, files: &ModelFiles, site: &Worksite) -> Result<(), CliError> {
    let options = args.hosting.dtype.plan_options(site.device().info())?;
    let pipe = Pipeline::from_pretrained(site.device(), files, options)?;
    if pipe.makes_pictures() {
        return Ok(());
    }
    Err(CliError::Failed("it makes latents, not pictures: serve it with its autoencoder".into()))
}

fn is_offline() -> bool {
    Settings::from_env().is_ok_and(|settings| settings.offline)
}

fn adapters(args: &Args, found: &mut Found) {
    let Some(folder) = &args.hosting.lora_dir else { return };
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let is_adapter =
                |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "safetensors");
            let count = entries.flatten().filter(is_adapter).count();
            found.say("adapters", &format!("{count} in {}", folder.display()));
        }
        Err(error) => found.problems.push(format!("--lora-dir {}: {error}", folder.display())),
    }
}

fn limits(args: &Args, found: &mut Found) {
    let limits = args.limits();
    let text = format!(
        "{} jobs, {} images a job, {} together, {} pixels, {} steps, {PROMPT} characters of a prompt, {} MiB a request",
        limits.queue,
        limits.images,
        limits.batch,
        limits.pixels,
        limits.steps,
        BODY >> 20
    );
    found.say("limits", &text);
    let text = format!(
        "jobs {} s after their end, answers that nobody takes {} s",
        limits.kept_for.as_secs(),
        limits.write.as_secs()
    );
    found.say("kept", &text);
}
