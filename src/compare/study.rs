//! A comparison that is running: its caller resumes it step by step.

use super::axes::{Axis, AxisError, AxisName};
use super::cells::{self, Cell, Model, ReferenceOf};
use super::metrics::{psnr, rms, ssim};
use super::record::{Path, Record, StepRecord};
use super::reference::{self, Point, Recording, Reference};
use pipelines::{Generated, Memo, PipelineError, Request, RgbImage, Run, SampleShape, Step};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// What is compared, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The model whose path is the truth for all cells, by its name; otherwise each model's own, and of one that maps noise to pictures at once
    /// the first other model's.
    pub reference: Option<String>,
    /// Whether the reference is solved at all.
    pub without_reference: bool,
    /// How many draws of noise a stochastic sampler's spread is told from; below 2 none is.
    pub draws: usize,
}

/// Samplers, or any other axes, run one after the other from the same noise, each compared with the solution of the probability-flow ODE.
///
/// Ask for the [`next`](Self::next) event when you want it; drop it to stop. It holds one reference path and one run at a time.
pub struct Comparison {
    models: Vec<Model>,
    axes: Vec<Axis>,
    cells: Vec<Cell>,
    options: Options,
    /// Cells that are still to be run, so that those that share a reference follow each other; the next is last.
    to_do: Vec<usize>,
    memos: Vec<Memo>,
    known: Option<Known>,
    work: Work,
    taken_over: usize,
    computed: usize,
}

/// The reference of the cells that run now.
struct Known {
    id: String,
    path: Arc<Reference>,
    picture: Option<RgbImage>,
}

/// What is being done.
enum Work {
    Nothing,
    Reference { cell: usize, run: Run, recording: Recording },
    Cell(Running),
    Draws(Drawing),
}

struct Running {
    cell: usize,
    run: Run,
    steps: Vec<StepRecord>,
    before: Vec<f32>,
    /// Spent in the run, not in between.
    seconds: f64,
}

/// A finished cell whose sampler draws noise, while it is run again with other draws.
struct Drawing {
    cell: usize,
    record: Box<Record>,
    made: Made,
    run: Option<Run>,
    moments: Moments,
}

/// Sums over draws.
struct Moments {
    count: usize,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

/// What happened. Cells are counted as in [`Comparison::cells`].
#[derive(Debug)]
pub enum Event {
    /// The solver of the reference path of a cell made a step.
    Solving {
        /// The cell.
        cell: usize,
        /// Where the solver is.
        sigma: f64,
        /// How often the model has run for it.
        evaluations: usize,
    },
    /// The reference path of a cell, and of those after it that have the same, is known.
    Solved {
        /// The cell.
        cell: usize,
        /// The path.
        path: Arc<Reference>,
        /// Its picture.
        picture: Option<RgbImage>,
    },
    /// A cell made a step.
    Step {
        /// The cell.
        cell: usize,
        /// The step in numbers.
        step: StepRecord,
        /// The noisy sample, `[H, W, C]`.
        x: Vec<f32>,
        /// The model's estimate of the clean sample.
        denoised: Vec<f32>,
        /// The reference at the same noise level.
        reference: Option<Point>,
        /// Extents of the sample.
        shape: SampleShape,
    },
    /// Another draw of a stochastic cell made a step; nothing of it is shown.
    Drawing {
        /// The cell.
        cell: usize,
    },
    /// A cell is done, or could not run.
    Done {
        /// The cell.
        cell: usize,
        /// What was found.
        record: Box<Record>,
        /// Its final sample, and its picture.
        made: Option<Made>,
    },
}

/// What a cell ended in.
#[derive(Debug, Clone)]
pub struct Made {
    /// `[H, W, C]`.
    pub sample: Vec<f32>,
    /// Extents of the sample.
    pub shape: SampleShape,
    /// The picture, where the model makes pictures.
    pub image: Option<RgbImage>,
}

/// Why a comparison cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// An axis makes no sense.
    #[error(transparent)]
    Axis(#[from] AxisError),
    /// There is no model.
    #[error("a comparison needs a model")]
    NoModel,
    /// No cell can run; this is the first one's reason.
    #[error("nothing here can run: {0}")]
    NothingRuns(String),
    /// A model is named that is not there.
    #[error("there is no model {0} in this comparison")]
    UnknownModel(String),
    /// A run failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

/// Bytes of answers that runs share, of each model: a thousand of a small model's, some hundreds of Stable Diffusion's latents.
const SHARED_ANSWERS: usize = 128 << 20;

impl Comparison {
    /// Decides what every cell means, from a request that says what all of them share. Nothing is computed yet.
    ///
    /// # Errors
    /// Where the axes make no grid, and where not one cell can run. A single cell that cannot is told when its turn comes.
    pub fn new(models: Vec<Model>, base: &Request, axes: Vec<Axis>, options: Options) -> Result<Self, CompareError> {
        if models.is_empty() {
            return Err(CompareError::NoModel);
        }
        for (i, axis) in axes.iter().enumerate() {
            if axes[..i].iter().any(|before| before.name() == axis.name()) {
                return Err(AxisError::AxisTwice(axis.name().name()).into());
            }
        }
        let varied: Vec<AxisName> = axes.iter().filter(|axis| axis.values().len() > 1).map(Axis::name).collect();
        let direct: Vec<bool> = models.iter().map(Model::is_direct).collect();
        let mut all: Vec<Cell> = cells::combinations(&axes)
            .into_iter()
            .map(|values| cells::cell(&models, &direct, base, values, &varied))
            .collect();
        cells::distinguish(&mut all);
        if let Some(Err(reason)) = all.iter().all(|cell| cell.job.is_err()).then(|| &all[0].job) {
            return Err(CompareError::NothingRuns(reason.clone()));
        }
        let truth = match &options.reference {
            None => None,
            Some(name) => {
                let found = models.iter().position(|model| model.name == *name);
                Some(found.ok_or_else(|| CompareError::UnknownModel(name.clone()))?)
            }
        };
        let other = direct.iter().position(|direct| !direct);
        for cell in all.iter_mut().filter(|_| !options.without_reference) {
            let own = (!direct[cell.model]).then_some(cell.model);
            cell.reference = truth.or(own).or(other).and_then(|model| reference_of(&models, base, cell, model));
        }
        let memos = models.iter().map(|_| Memo::new(SHARED_ANSWERS)).collect();
        let mut to_do: Vec<usize> = (0..all.len()).collect();
        let mut first_of: Vec<&str> = Vec::new();
        let rank: Vec<usize> = all
            .iter()
            .map(|cell| {
                let id = cell.reference().unwrap_or("");
                first_of.iter().position(|known| *known == id).unwrap_or_else(|| {
                    first_of.push(id);
                    first_of.len() - 1
                })
            })
            .collect();
        to_do.sort_by_key(|cell| std::cmp::Reverse((rank[*cell], *cell)));
        Ok(Self {
            models,
            axes,
            cells: all,
            options,
            to_do,
            memos,
            known: None,
            work: Work::Nothing,
            taken_over: 0,
            computed: 0,
        })
    }

    /// The axes, as they were given.
    #[must_use]
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// All cells, the last axis changing fastest.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The models.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// Leaves out cells that are known already, from an earlier run, say.
    pub fn skip(&mut self, ids: &HashSet<String>) {
        self.to_do.retain(|cell| !ids.contains(&self.cells[*cell].id));
    }

    /// Takes a reference path that is known already, in place of solving it when its cells come.
    ///
    /// # Errors
    /// When the device fails while it makes the path's picture.
    pub fn know(&mut self, reference: &str, path: Reference) -> Result<(), PipelineError> {
        let wanted = self.cells.iter().filter_map(|cell| cell.reference.as_ref()).find(|own| own.id == reference);
        if let Some(own) = wanted {
            let picture = self.models[own.model].pipe.decode(&own.job, path.end())?;
            self.known = Some(Known { id: own.id.clone(), path: Arc::new(path), picture });
        }
        Ok(())
    }

    /// The reference that the next cell needs, if it is not known yet: what [`know`](Self::know) may give.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        let cell = self.to_do.last().filter(|_| matches!(self.work, Work::Nothing))?;
        let id = self.cells[*cell].job.is_ok().then(|| self.cells[*cell].reference())??;
        (self.known.as_ref().is_none_or(|known| known.id != id)).then_some(id)
    }

    /// How many evaluations are to come, as far as samplers with fixed steps tell; references and samplers that choose their own count a guess.
    #[must_use]
    pub fn evaluations_to_come(&self) -> usize {
        let mut references = HashSet::new();
        let mut total = 0;
        for cell in self.to_do.iter().map(|cell| &self.cells[*cell]) {
            let Ok(job) = &cell.job else { continue };
            let own = job.evaluations().unwrap_or(GUESS);
            total += if cell.path == Path::Sde { own * self.options.draws.max(1) } else { own };
            if cell
                .reference()
                .is_some_and(|id| self.known.as_ref().is_none_or(|known| known.id != id) && references.insert(id))
            {
                total += GUESS;
            }
        }
        total
    }

    /// Evaluations that were computed, and those that were taken over from other cells.
    #[must_use]
    pub fn evaluations(&self) -> (usize, usize) {
        (self.computed, self.taken_over)
    }

    /// The next event; none when all cells are done.
    ///
    /// # Errors
    /// When the device fails. A model whose values stop being finite numbers in one cell ends that cell alone.
    #[allow(clippy::should_implement_trait, reason = "an iterator's items cannot fail and end it")]
    pub fn next(&mut self) -> Result<Option<Event>, PipelineError> {
        if matches!(self.work, Work::Nothing) && !self.begin()? {
            let Some(cell) = self.to_do.pop() else { return Ok(None) };
            let reason = self.cells[cell].job.as_ref().err().cloned().unwrap_or_default();
            return Ok(Some(self.refused(cell, reason)));
        }
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Nothing => Ok(None),
            Work::Reference { cell, run, recording } => self.solve(cell, run, recording).map(Some),
            Work::Cell(running) => self.step(running).map(Some),
            Work::Draws(drawing) => self.draw(drawing).map(Some),
        }
    }

    /// Begins with the next cell or the reference that it needs; `false` where there is none, or it cannot run.
    fn begin(&mut self) -> Result<bool, PipelineError> {
        let Some(&at) = self.to_do.last() else { return Ok(false) };
        let needs_reference = self.needs().is_some();
        let cell = &self.cells[at];
        let Ok(job) = &cell.job else { return Ok(false) };
        if let Some(own) = cell.reference.as_ref().filter(|_| needs_reference) {
            // Its many answers would push out those that cells share.
            let run = self.models[own.model].pipe.start(&own.job)?;
            self.work = Work::Reference { cell: at, run, recording: Recording::default() };
            return Ok(true);
        }
        let run = self.models[cell.model].pipe.start_sharing(job, &self.memos[cell.model])?;
        self.to_do.pop();
        self.work = Work::Cell(Running { cell: at, run, steps: Vec::new(), before: Vec::new(), seconds: 0.0 });
        Ok(true)
    }

    fn solve(&mut self, cell: usize, mut run: Run, mut recording: Recording) -> Result<Event, PipelineError> {
        if let Some(step) = run.next()? {
            let (sigma, evaluations) = (step.sigma, step.evaluations);
            recording.push(&step);
            self.work = Work::Reference { cell, run, recording };
            return Ok(Event::Solving { cell, sigma, evaluations });
        }
        let generated = run.finish()?;
        self.count(generated.evaluations, 0);
        let path = Arc::new(recording.finish(generated.sample, generated.shape));
        let id = self.cells[cell].reference().unwrap_or_default().to_owned();
        self.known = Some(Known { id, path: Arc::clone(&path), picture: generated.image.clone() });
        Ok(Event::Solved { cell, path, picture: generated.image })
    }

    fn step(&mut self, mut running: Running) -> Result<Event, PipelineError> {
        let started = Instant::now();
        let (mut step, x, denoised, shape) = match running.run.next() {
            Ok(Some(step)) => (numbers(&step), step.x.to_vec(), step.denoised.to_vec(), step.shape),
            Ok(None) => return self.finish(running),
            Err(error @ (PipelineError::NotFinite { .. } | PipelineError::TooManyEvaluations { .. })) => {
                return Ok(self.refused(running.cell, error.to_string()));
            }
            Err(error) => return Err(error),
        };
        running.seconds += started.elapsed().as_secs_f64();
        let (_, saved) = running.run.taken_over();
        step.seconds = running.seconds + saved.as_secs_f64();
        let known = self.known_of(running.cell).filter(|known| known.path.shape() == shape);
        let reference = known.and_then(|known| known.path.at(step.sigma));
        if let Some(point) = &reference {
            (step.error_x, step.error_denoised) = (Some(rms(&x, &point.x)), Some(rms(&denoised, &point.denoised)));
        }
        step.change = (!running.before.is_empty()).then(|| rms(&denoised, &running.before));
        running.before.clone_from(&denoised);
        running.steps.push(step.clone());
        let cell = running.cell;
        self.work = Work::Cell(running);
        Ok(Event::Step { cell, step, x, denoised, reference, shape })
    }

    fn finish(&mut self, running: Running) -> Result<Event, PipelineError> {
        let Running { cell, run, steps, mut seconds, .. } = running;
        let (taken_over, saved) = run.taken_over();
        let started = Instant::now();
        let Generated { sample, shape, image, evaluations, timings, .. } = match run.finish() {
            Err(error @ PipelineError::NotFinite { .. }) => return Ok(self.refused(cell, error.to_string())),
            result => result?,
        };
        seconds += started.elapsed().saturating_sub(timings.decode).as_secs_f64() + saved.as_secs_f64();
        self.count(evaluations, taken_over);
        let own = &self.cells[cell];
        let mut record = Record { steps, nfe: evaluations, taken_over, seconds, ..Record::new(own) };
        if let Some(known) = self.known_of(cell).filter(|known| known.path.shape() == shape) {
            record.error_final = own.job.as_ref().ok().and_then(|job| known.path.distance(job, &sample));
            if let (Some(image), Some(truth)) = (&image, &known.picture) {
                (record.psnr, record.ssim) = (psnr(image, truth), ssim(image, truth));
            }
        }
        let (record, made) = (Box::new(record), Made { sample, shape, image });
        if own.path == Path::Sde && self.options.draws > 1 {
            let moments = Moments::new(&made.sample);
            self.work = Work::Draws(Drawing { cell, record, made, run: None, moments });
            return Ok(Event::Drawing { cell });
        }
        Ok(Event::Done { cell, record, made: Some(made) })
    }

    /// Goes on with the other draws of a cell.
    fn draw(&mut self, mut drawing: Drawing) -> Result<Event, PipelineError> {
        let cell = drawing.cell;
        let Some(mut run) = drawing.run.take() else {
            let own = &self.cells[cell];
            let other = own.settings.seed.wrapping_add(OTHER_DRAWS * drawing.moments.count as u64);
            // A start that is no seed's has no other draws.
            let job = own.job.as_ref().ok().and_then(|job| job.with_other_draws(other).ok());
            let Some(job) = job.filter(|_| drawing.moments.count < self.options.draws) else {
                drawing.record.spread = drawing.moments.spread();
                return Ok(Event::Done { cell, record: drawing.record, made: Some(drawing.made) });
            };
            drawing.run = Some(self.models[own.model].pipe.start_sharing(&job, &self.memos[own.model])?);
            self.work = Work::Draws(drawing);
            return Ok(Event::Drawing { cell });
        };
        match run.next() {
            Ok(Some(_)) => drawing.run = Some(run),
            Ok(None) => {
                let (taken_over, _) = run.taken_over();
                let generated = run.finish()?;
                self.count(generated.evaluations, taken_over);
                drawing.moments.add(&generated.sample);
            }
            Err(error) => return Err(error),
        }
        self.work = Work::Draws(drawing);
        Ok(Event::Drawing { cell })
    }

    fn known_of(&self, cell: usize) -> Option<&Known> {
        let id = self.cells[cell].reference()?;
        self.known.as_ref().filter(|known| known.id == id)
    }

    fn count(&mut self, evaluations: usize, taken_over: usize) {
        self.computed += evaluations - taken_over;
        self.taken_over += taken_over;
    }

    fn refused(&self, cell: usize, reason: String) -> Event {
        let record = Record { refused: Some(reason), ..Record::new(&self.cells[cell]) };
        Event::Done { cell, record: Box::new(record), made: None }
    }
}

/// How many evaluations a sampler that chooses its own steps, or a reference, is taken to need before anybody knows.
const GUESS: usize = 1000;

/// From a seed to the next of those that only a stochastic sampler's later draws are taken from: far from the seeds that people type.
const OTHER_DRAWS: u64 = 0x5EED_0000_0001;

fn numbers(step: &Step<'_>) -> StepRecord {
    StepRecord {
        step: step.index + 1,
        sigma: step.sigma,
        nfe: step.evaluations,
        seconds: 0.0,
        error_x: None,
        error_denoised: None,
        change: None,
    }
}

/// The path that a cell is compared with, by this model: the cell's own, or that of another model from the same noise.
fn reference_of(models: &[Model], base: &Request, cell: &Cell, model: usize) -> Option<ReferenceOf> {
    let own = cell.job.as_ref().ok()?;
    let job = if model == cell.model {
        reference::job_of(own)?
    } else {
        let mut request = base.clone();
        let kept = |name: AxisName| {
            use AxisName::{Budget, Eta, Sampler, Schedule, StepCache};
            !matches!(name, Sampler | Budget | Schedule | Eta | StepCache)
        };
        cell.values.iter().filter(|value| kept(value.axis())).for_each(|value| value.apply(&mut request));
        (request.sampler, request.steps, request.schedule, request.eta) = (None, None, None, None);
        let job = models[model].pipe.job(&request).ok()?;
        job.with_sampling(reference::sampling(&job).ok()?)
    };
    if job.shape() != own.shape() {
        return None;
    }
    let id = reference::name_of(&models[model].name, &job, own.program().wants_unguided());
    Some(ReferenceOf { id, model, job })
}

impl Moments {
    fn new(sample: &[f32]) -> Self {
        let mut moments = Self { count: 0, sum: vec![0.0; sample.len()], squares: vec![0.0; sample.len()] };
        moments.add(sample);
        moments
    }

    fn add(&mut self, sample: &[f32]) {
        self.count += 1;
        for ((sum, squares), value) in self.sum.iter_mut().zip(&mut self.squares).zip(sample) {
            *sum += f64::from(*value);
            *squares += f64::from(*value).powi(2);
        }
    }

    /// The standard deviation of an element, root mean square over the elements; none of a single draw.
    fn spread(&self) -> Option<f64> {
        let n = self.count as f64;
        let variance = |sum: &f64, squares: &f64| ((squares - sum * sum / n) / (n - 1.0)).max(0.0);
        let total: f64 = self.sum.iter().zip(&self.squares).map(|(sum, squares)| variance(sum, squares)).sum();
        (self.count > 1).then(|| (total / self.sum.len().max(1) as f64).sqrt())
    }
}
