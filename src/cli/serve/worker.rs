//! The one thread that works on a device: takes images that can be made together, and tells their jobs what happens.

use super::super::error::CliError;
use super::super::model::LoraArg;
use super::super::picture_file;
use super::super::run;
use super::super::settings::{parameters, settings_json};
use super::App;
use super::models::Worksite;
use super::preview::Painter;
use super::queue::Together;
use super::reference::Paths;
use super::ticket::{Made, Previews, StepAt, Ticket};
use crate::compare::{Reference, rms};
use pipelines::{Generated, Job, Pipeline, RunId};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A thread for each device.
pub(super) fn start(app: &Arc<App>) -> Vec<JoinHandle<()>> {
    let one = |at| {
        let app = Arc::clone(app);
        std::thread::spawn(move || work(&app, &app.sites[at]))
    };
    (0..app.sites.len()).map(one).collect()
}

/// Waits until all have ended, but not for longer than that. Tells whether they have.
pub(super) fn wait(workers: &[JoinHandle<()>], most: Duration) -> bool {
    let until = Instant::now() + most;
    let is_working = || workers.iter().any(|worker| !worker.is_finished());
    while Instant::now() < until && is_working() {
        std::thread::sleep(Duration::from_millis(5));
    }
    !is_working()
}

/// What a worker keeps from one job for the next.
#[derive(Debug, Default)]
struct Desk {
    painter: Painter,
    paths: Paths,
}

/// Works until the queue is closed.
fn work(app: &App, site: &Worksite) {
    let mut desk = Desk::default();
    while let Some(together) = app.queue.next(app.limits.batch) {
        let started = Instant::now();
        let images = together.iter().map(|(_, images)| images.len()).sum();
        together.iter().for_each(|(ticket, _)| ticket.begin());
        attempt(app, site, &mut desk, &together);
        app.queue.made(images, started.elapsed());
        app.queue.tidy();
    }
}

/// Makes the images of some jobs; where that fails, those of each job alone: what is wrong with one is no matter of the others.
fn attempt(app: &App, site: &Worksite, desk: &mut Desk, together: &Together) {
    // A panic is a fault of ours, and ends the jobs that met it, not the server.
    let result = catch_unwind(AssertUnwindSafe(|| make(app, site, desk, together)));
    let result =
        result.unwrap_or_else(|_| Err(CliError::Failed("the program failed at this; please report it".into())));
    let Err(error) = result else { return };
    match together.as_slice() {
        [(ticket, _)] => ticket.fail(&error.to_string(), error.trouble()),
        several => several.iter().for_each(|one| attempt(app, site, desk, &vec![one.clone()])),
    }
}

/// An image of a job that is being made.
struct Lane {
    ticket: Arc<Ticket>,
    index: u32,
    job: Job,
    run: RunId,
    stopped: bool,
    /// The path that it is compared with.
    path: Option<Arc<Reference>>,
}

fn make(app: &App, site: &Worksite, desk: &mut Desk, together: &Together) -> Result<(), CliError> {
    let Desk { painter, paths } = desk;
    let order = &together[0].0.order;
    let pipe = site.pipeline(&app.models, order.model, &order.loras)?;
    let mut wanted = Vec::new();
    for (ticket, images) in together {
        for index in images.iter().filter(|_| !ticket.phase().is_over()) {
            let job = job(&pipe, ticket, *index)?;
            let path =
                if ticket.order.reference { paths.of(app, &pipe, painter, ticket, (*index, &job))? } else { None };
            wanted.push((Arc::clone(ticket), *index, job, path));
        }
    }
    // Solving a path takes a while, in which jobs may have ended.
    wanted.retain(|(ticket, ..)| !ticket.phase().is_over());
    if wanted.is_empty() {
        return Ok(());
    }
    let jobs: Vec<Job> = wanted.iter().map(|(_, _, job, _)| job.clone()).collect();
    let mut batch = pipe.start_all(&jobs)?;
    drop(jobs);
    let mut lanes: Vec<Lane> = wanted
        .into_iter()
        .zip(batch.ids())
        .map(|((ticket, index, job, path), run)| Lane { ticket, index, job, run, stopped: false, path })
        .collect();
    while let Some(step) = batch.next()? {
        if let Some(lane) = lanes.iter().find(|lane| lane.run == step.run) {
            let order = &lane.ticket.order;
            let mut told = json!({
                "image": lane.index, "step": step.index, "steps": step.steps, "sigma": step.sigma,
                "evaluations": step.evaluations, "seconds": step.elapsed.as_secs_f64(),
            });
            if step.steps == 0 {
                told["steps"] = serde_json::Value::Null;
            }
            if order.reference {
                let path = lane.path.as_ref().filter(|path| path.shape() == step.shape);
                told["error"] = json!(path.and_then(|path| Some(rms(step.x, &path.at(step.sigma)?.x))));
            }
            let wanted = order.previews.max(app.asked_to_look(&lane.ticket));
            let (mut denoised, mut noisy) = (None, None);
            if wanted != Previews::None {
                let preview = painter.of(&pipe, order.model, &lane.job, step.denoised, step.shape);
                denoised = preview.as_ref().and_then(|preview| painter.denoised(preview, step.denoised, step.shape));
                if wanted == Previews::Both {
                    noisy = preview.as_ref().and_then(|preview| painter.noisy(preview, &lane.job, &step));
                }
            }
            let at = StepAt { image: lane.index, step: step.index, steps: step.steps };
            lane.ticket.step(at, told, denoised, noisy.as_deref());
        }
        if app.queue.is_closed() {
            return Ok(());
        }
        for lane in lanes.iter_mut().filter(|lane| !lane.stopped && lane.ticket.phase().is_over()) {
            batch.stop(lane.run);
            lane.stopped = true;
        }
        if lanes.iter().all(|lane| lane.stopped) {
            return Ok(());
        }
    }
    let device = &site.device().info().name;
    for generated in batch.finish()? {
        let Some(lane) = lanes.iter().find(|lane| lane.run == generated.run) else { continue };
        painter.learn(&pipe, lane.ticket.order.model, &generated);
        lane.ticket.deliver(lane.index, made(lane, &generated, device)?);
    }
    Ok(())
}

/// The job of one of a ticket's images.
fn job(pipe: &Pipeline, ticket: &Ticket, index: u32) -> Result<Job, CliError> {
    if index == 0 {
        return Ok(ticket.first.clone());
    }
    let order = &ticket.order;
    Ok(pipe.job(&run::request(pipe, &order.work, &order.prompt, order.names, order.seed_of(index)))?)
}

/// The file, with all that the command writes into it.
fn made(lane: &Lane, generated: &Generated, device: &str) -> Result<Made, CliError> {
    let order = &lane.ticket.order;
    let Some(image) = &generated.image else {
        return Err(CliError::Failed("this model makes latents, not pictures".into()));
    };
    let loras: Vec<LoraArg> = order.loras.iter().map(LoraArg::named).collect();
    let settings = settings_json(&order.work, &lane.job, generated, &loras, device);
    let parameters = parameters(&order.work, &lane.job, generated);
    let text = settings.to_string();
    let texts = [("parameters", &*parameters), ("headwater", &*text)];
    let bytes = picture_file::encode_with(order.format, order.quality, image, &texts)?;
    let (width, height) = (image.width, image.height);
    let path = lane.path.as_ref().filter(|path| path.shape() == generated.shape);
    let error = order.reference.then(|| path.and_then(|path| path.distance(&lane.job, &generated.sample)));
    Ok(Made { bytes: bytes.into(), seed: lane.job.settings().seed, width, height, settings, parameters, error })
}
