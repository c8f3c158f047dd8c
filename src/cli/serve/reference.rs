//! How far images are from the solution of the probability-flow ODE, where a request asks: what `headwater compare` says of its cells.

use super::super::error::CliError;
use super::super::model::LoraArg;
use super::App;
use super::limits::{LEVELS, PATH_BYTES, PATHS_BYTES, SOLVING_TOLD};
use super::preview::{Painter, jpeg};
use super::ticket::{Previews, Ticket};
use crate::compare::{Recording, Reference, is_direct, job_of, name_of, path_of};
use pipelines::{Job, Pipeline};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Whose path it is: a model, adapters, and what the path's own name says.
type Key = (usize, Vec<LoraArg>, String);

/// The paths that a device has solved; the last used last.
#[derive(Debug, Default)]
pub(super) struct Paths {
    solved: VecDeque<(Key, Arc<Reference>)>,
}

impl Paths {
    /// The path of one image of a job, solved now where it is not known; the job is told of it. None where the image has no such path, or its job
    /// ended while it was solved.
    pub(super) fn of(
        &mut self,
        app: &App,
        pipe: &Pipeline,
        painter: &mut Painter,
        ticket: &Ticket,
        (index, job): (u32, &Job),
    ) -> Result<Option<Arc<Reference>>, CliError> {
        let order = &ticket.order;
        let is_direct = is_direct(pipe);
        let kind = path_of(job, is_direct).name();
        // The ODE of a model that maps noise to pictures at once is not the one that it was distilled from.
        let solves = (!is_direct).then(|| job_of(job)).flatten();
        let Some(solves) = solves else {
            let none = json!({ "image": index, "path": kind, "reference": null, "evaluations": 0, "levels": [] });
            ticket.tell("reference", &none);
            return Ok(None);
        };
        let name = name_of(app.models.id(order.model), &solves, job.program().wants_unguided());
        let key = (order.model, order.loras.clone(), name);
        let path = match self.solved.iter().position(|(own, _)| *own == key) {
            Some(at) => self.solved.remove(at).map(|(_, path)| path),
            None => solve(app, pipe, ticket, index, &solves)?.map(Arc::new),
        };
        let Some(path) = path else { return Ok(None) };
        let levels =
            if order.previews == Previews::None { Vec::new() } else { levels(pipe, painter, order.model, job, &path) };
        let told = json!({
            "image": index, "path": kind, "reference": key.2, "evaluations": path.evaluations(), "levels": levels,
        });
        ticket.tell("reference", &told);
        self.solved.push_back((key, Arc::clone(&path)));
        while self.solved.len() > 1 && self.solved.iter().map(|(_, path)| path.bytes()).sum::<usize>() > PATHS_BYTES {
            self.solved.pop_front();
        }
        Ok(Some(path))
    }
}

/// Runs the solver, and says how far it is; none where the job is over before it is done.
fn solve(app: &App, pipe: &Pipeline, ticket: &Ticket, index: u32, job: &Job) -> Result<Option<Reference>, CliError> {
    let (mut run, mut recording) = (pipe.start(job)?, Recording::default());
    let mut told: Option<Instant> = None;
    while let Some(step) = run.next()? {
        if ticket.phase().is_over() || app.queue.is_closed() {
            return Ok(None);
        }
        recording.push(&step);
        if recording.bytes() > PATH_BYTES {
            let message = "the solution of the ODE takes more memory than is kept for it: ask for a smaller image, or without reference";
            return Err(CliError::Failed(message.into()));
        }
        if told.is_none_or(|told| told.elapsed() > SOLVING_TOLD) {
            told = Some(Instant::now());
            let data = json!({ "image": index, "sigma": step.sigma, "evaluations": step.evaluations });
            ticket.tell("solving", &data);
        }
    }
    let generated = run.finish()?;
    Ok(Some(recording.finish(generated.sample, generated.shape)))
}

/// Pictures of a path: of some of the solver's denoised images, and of its end.
fn levels(pipe: &Pipeline, painter: &mut Painter, model: usize, job: &Job, path: &Reference) -> Vec<Value> {
    let Some(map) = painter.of(pipe, model, job, path.end(), path.shape()) else { return Vec::new() };
    let every = path.steps().div_ceil(LEVELS).max(1);
    let some = path.levels().step_by(every);
    let some = some.filter_map(|(sigma, denoised)| Some((sigma, painter.denoised(&map, denoised, path.shape())?)));
    // The end is looked at beside finished pictures.
    let end = pipe.decode(job, path.end()).ok().flatten().and_then(|image| jpeg(&image));
    let told = |(sigma, preview): (f64, Vec<u8>)| json!({ "sigma": sigma, "preview": super::http::data_url("image/jpeg", &preview) });
    some.chain(end.map(|preview| (0.0, preview))).map(told).collect()
}
