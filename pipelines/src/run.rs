//! Jobs that are running: steppers that their caller resumes.

use crate::conditioning::{Conditioning, Layout, SampleShape};
use crate::denoiser::{Denoiser, Evaluation, Mode};
use crate::devices::residency::{Place, is_full};
use crate::error::PipelineError;
use crate::lane::{Lane, State};
use crate::memo::{self, Memo};
use crate::picture::RgbImage;
use crate::picture::tiles::{Blend, Grid};
use crate::pipeline::Shared;
#[cfg(not(target_family = "wasm"))]
use graph::block_on;
use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use web_time::Instant;

/// As many parts of a sample are denoised together, where there is room.
const PARTS_AT_ONCE: usize = 16;

/// Names a run for as long as the program lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(u64);

impl RunId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One denoising step, as it happens.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The run that it is a step of.
    pub run: RunId,
    /// Counts from 0.
    pub index: usize,
    /// How many there will be; 0 if the sampler chooses its own steps.
    pub steps: usize,
    /// Noise level of `x`.
    pub sigma: f64,
    /// How often the model has run for this sample so far.
    pub evaluations: usize,
    /// The noisy sample this step starts from, `[H, W, C]`.
    pub x: &'a [f32],
    /// The model's estimate of the clean sample.
    pub denoised: &'a [f32],
    /// Extents of both.
    pub shape: SampleShape,
    /// Since the first step began.
    pub elapsed: Duration,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The run that made it.
    pub run: RunId,
    /// The final sample, `[H, W, C]`, values about −1..1.
    pub sample: Vec<f32>,
    /// Its extents.
    pub shape: SampleShape,
    /// The picture, where the sample is one or can be decoded (latents without an autoencoder cannot).
    pub image: Option<RgbImage>,
    /// Steps taken.
    pub steps: usize,
    /// How often the model ran.
    pub evaluations: usize,
    /// How often the network predicted: in each evaluation once, and twice where classifier-free guidance acted.
    pub predictions: usize,
    /// How many evaluations used values that a [`StepCache`](crate::StepCache) had kept.
    pub reused: usize,
    /// How long it took.
    pub timings: Timings,
    /// Of inpainting, the whole picture as the model made it, before what the mask keeps was put back to the bit.
    pub repainted: Option<RgbImage>,
}

/// Where the time went. Runs of one batch share all of it but the decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Planning the denoiser and uploading its weights: only the first generation of a size pays this.
    pub prepare: Duration,
    /// Reading the prompts and the picture; the first generation also plans what reads them.
    pub encode: Duration,
    /// All steps.
    pub sample: Duration,
    /// The autoencoder, planned on the first picture of a size.
    pub decode: Duration,
}

/// A job that is running. Ask for the [`next`](Self::next) step when you want it, in between do what you like, and drop it to cancel.
///
/// Several runs of one pipeline, or of several, may be asked in turn.
#[derive(Debug)]
pub struct Run(Batch);

impl Run {
    pub(crate) fn new(batch: Batch) -> Self {
        Self(batch)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.0.lanes[0].id
    }

    /// How many evaluations were taken over from other runs and not computed again ([`Memo`]), and how long they took there.
    #[must_use]
    pub fn taken_over(&self) -> (usize, Duration) {
        self.0.taken_over()
    }

    /// The next step; none when all steps are done.
    ///
    /// # Errors
    /// When the device fails, or the model's values are not finite.
    #[allow(clippy::should_implement_trait, reason = "a step borrows from the run, which no iterator's item can")]
    #[cfg(not(target_family = "wasm"))]
    pub fn next(&mut self) -> Result<Option<Step<'_>>, PipelineError> {
        self.0.next()
    }

    /// [`next`](Self::next), to be awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn next_async(&mut self) -> Result<Option<Step<'_>>, PipelineError> {
        self.0.next_async().await
    }

    /// Runs the steps that are left, and decodes the picture.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[cfg(not(target_family = "wasm"))]
    pub fn finish(self) -> Result<Generated, PipelineError> {
        block_on(self.finish_async())
    }

    /// [`finish`](Self::finish), to be awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn finish_async(self) -> Result<Generated, PipelineError> {
        Ok(self.0.finish_async().await?.remove(0))
    }
}

/// Jobs that run together: as many samples in one graph as there is memory for, group by group.
///
/// Each has its own seed, noise, prompt and picture to start from, and its own sampler; all have one size and are guided or not alike. Where a
/// sample is denoised in overlapping parts, the parts take the places in the graph, and one sample follows the other.
pub struct Batch {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    /// Those in the graph now.
    group: Range<usize>,
    /// Of the graph.
    layout: Layout,
    /// The parts that each sample is denoised in, if not as a whole.
    grid: Option<Grid>,
    /// Plans of D(x; σ): the whole of it, or its parts where values are kept from step to step; with guidance, and without where it may rest. The
    /// first is there from the beginning, the others from when they are first needed.
    places: Vec<(Layout, Arc<Place<Denoiser>>)>,
    /// Names the group's conditions in the denoiser, which other runs may use in between.
    owner: u64,
    started: Instant,
    timings: Timings,
    /// Answers that are shared with other runs, and what this run's questions have in common.
    memo: Option<(Memo, u64)>,
    taken_over: usize,
    /// What they took where they were computed.
    saved: Duration,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("runs", &self.lanes.len()).field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Batch {
    /// Plans for as many lanes at once as there is room for.
    pub(crate) async fn new(
        shared: &Arc<Shared>,
        lanes: Vec<Lane>,
        mut timings: Timings,
    ) -> Result<Self, PipelineError> {
        let planning = Instant::now();
        let mut layouts = lanes[0].job.layouts();
        let others: Vec<Layout> = lanes[1..].iter().flat_map(|lane| lane.job.layouts()).collect();
        for other in others {
            if !layouts.contains(&other) {
                layouts.push(other);
            }
        }
        let mut layout = layouts[0].clone();
        let grid = lanes[0].job.grid.clone();
        let all = grid.as_ref().map_or(lanes.len(), |grid| grid.tiles().count());
        layout.samples = if grid.is_some() { all.min(PARTS_AT_ONCE) } else { all };
        let place = loop {
            // Groups of one size, as far as that goes: a smaller one at the end would cost as much.
            layout.samples = all.div_ceil(all.div_ceil(layout.samples));
            let place = shared.denoisers.at(&shared.host.shared, &layout);
            match place.with(async || shared.denoiser(&layout).await, async |_| Ok(())).await {
                Err(error) if is_full(&error) && layout.samples > 1 => layout.samples /= 2,
                result => {
                    result?;
                    break place;
                }
            }
        };
        timings.prepare += planning.elapsed();
        let mut places = vec![(layout.clone(), place)];
        for other in &layouts[1..] {
            let layout = layout.of(other.guided, other.part);
            let place = shared.denoisers.at(&shared.host.shared, &layout);
            places.push((layout, place));
        }
        let (shared, owner, started) = (Arc::clone(shared), RunId::new().0, Instant::now());
        let (memo, taken_over, saved) = (None, 0, Duration::ZERO);
        let group = 0..0;
        let mut batch =
            Self { shared, lanes, group, layout, grid, places, owner, started, timings, memo, taken_over, saved };
        batch.group = batch.group_from(0);
        Ok(batch)
    }

    /// The lanes from this one on that are in the graph together.
    fn group_from(&self, start: usize) -> Range<usize> {
        let lanes = if self.grid.is_some() { 1 } else { self.layout.samples };
        start..(start + lanes).min(self.lanes.len())
    }

    /// Shares the answers of its one run with whoever has the same memo.
    /// A run that keeps values from step to step shares none: its answers depend on what was asked before.
    pub(crate) fn sharing(mut self, memo: &Memo) -> Self {
        if self.lanes.iter().any(|lane| lane.job.step_cache().is_some()) {
            return self;
        }
        let key = memo::run_key(&self.layout, &self.lanes[self.group.start].conditioning);
        self.memo = Some((memo.clone(), key));
        self
    }

    /// The runs' names, in the order of their jobs.
    #[must_use]
    pub fn ids(&self) -> Vec<RunId> {
        self.lanes.iter().map(|lane| lane.id).collect()
    }

    /// How many samples, or parts of one, the graph takes at once.
    #[must_use]
    pub fn samples_at_once(&self) -> usize {
        self.layout.samples
    }

    /// How many evaluations were taken over from other runs and not computed again ([`Memo`]), and how long they took there.
    #[must_use]
    pub fn taken_over(&self) -> (usize, Duration) {
        (self.taken_over, self.saved)
    }

    /// Cancels one run; the others go on.
    pub fn stop(&mut self, run: RunId) {
        self.lanes.iter_mut().filter(|lane| lane.id == run).for_each(Lane::stop);
    }

    /// The next step of any run; none when all are done.
    ///
    /// # Errors
    /// When the device fails, or the model's values are not finite.
    #[allow(clippy::should_implement_trait, reason = "a step borrows from the batch, which no iterator's item can")]
    #[cfg(not(target_family = "wasm"))]
    pub fn next(&mut self) -> Result<Option<Step<'_>>, PipelineError> {
        block_on(self.next_async())
    }

    /// [`next`](Self::next), to be awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn next_async(&mut self) -> Result<Option<Step<'_>>, PipelineError> {
        let Some(at) = self.go_on().await? else { return Ok(None) };
        let lane = &mut self.lanes[at];
        let (run, shape, elapsed) = (lane.id, lane.shape(), self.started.elapsed());
        Ok(lane.event().map(|event| Step {
            run,
            index: event.index,
            steps: event.steps,
            sigma: event.sigma,
            evaluations: event.evaluations,
            x: event.x,
            denoised: event.denoised,
            shape,
            elapsed,
        }))
    }

    /// Goes on until a run has a step to report, and tells which.
    async fn go_on(&mut self) -> Result<Option<usize>, PipelineError> {
        loop {
            for at in self.group.clone() {
                if self.lanes[at].state() == State::Ready && self.lanes[at].go_on()? {
                    return Ok(Some(at));
                }
            }
            let waiting = self.lanes[self.group.clone()].iter().any(|lane| lane.state() == State::Denoise);
            if waiting {
                self.denoise().await?;
            } else if self.group.end < self.lanes.len() {
                self.group = self.group_from(self.group.end);
                self.owner = RunId::new().0;
            } else {
                self.timings.sample = self.timings.sample.max(self.started.elapsed());
                return Ok(None);
            }
        }
    }

    /// Goes on until every lane of the group waits for the model, or is over.
    pub(crate) fn reach_model(&mut self) -> Result<(), PipelineError> {
        for lane in &mut self.lanes[self.group.clone()] {
            while lane.state() == State::Ready {
                lane.go_on()?;
            }
        }
        Ok(())
    }

    /// Runs the model for every lane of the group that waits for it: once, or once for each mode where they wait for it in several, as where guidance
    /// acts on some of them and rests on others.
    async fn denoise(&mut self) -> Result<(), PipelineError> {
        while let Some(mode) = self.mode() {
            self.denoise_where(mode).await?;
        }
        Ok(())
    }

    /// The same for those that wait for it in this mode.
    async fn denoise_where(&mut self, mode: Mode) -> Result<(), PipelineError> {
        let group = &mut self.lanes[self.group.clone()];
        let wants_unguided = group.iter().any(|lane| lane.job.program.wants_unguided());
        let unguided = mode.guided && mode.part.denoises() && wants_unguided;
        let keeps = group.iter_mut().any(|lane| lane.keeps(mode) && lane.mode() == Some(mode));
        if let Some(grid) = self.grid.clone() {
            return self.denoise_parts(&grid, mode, unguided).await;
        }
        if self.take_over(unguided).await? {
            return Ok(());
        }
        let memo = self.memo.clone();
        let work = async |denoiser: &mut Denoiser, evaluations: &[Option<Evaluation<'_>>]| {
            let started = Instant::now();
            let denoised = denoiser.denoise(evaluations).await?;
            let unguided = if unguided { Some(denoiser.unguided().await?) } else { None };
            let kept = if keeps { denoiser.kept().await? } else { Vec::new() };
            if let (Some((memo, run)), [Some(asked)]) = (memo, evaluations) {
                memo.put(memo::key(run, asked), asked.x, &denoised, unguided.as_deref(), started.elapsed());
            }
            Ok((denoised, unguided, kept))
        };
        let (denoised, unguided, kept) = self.with_denoiser(mode, work).await?;
        let size = self.layout.shape.numel();
        let group = &mut self.lanes[self.group.clone()];
        let mut kept = kept.into_iter();
        for (i, lane) in group.iter_mut().enumerate() {
            let kept = kept.next();
            if lane.mode() != Some(mode) {
                continue;
            }
            if let Some(values) = kept.filter(|_| lane.keeps(mode)) {
                lane.keep(mode, values);
                if mode.part.keeps_for_good() {
                    // Plans write what holds for a whole generation when their owner changes.
                    self.owner = RunId::new().0;
                }
            }
            if mode.part.denoises() {
                let own = i * size..(i + 1) * size;
                lane.answer(mode, &denoised[own.clone()], unguided.as_ref().map(|all| &all[own])).await?;
            }
        }
        Ok(())
    }

    /// Runs the model once for every part of the group's one lane. The whole is the mean of its parts, each counting less towards its edges
    /// (Bar-Tal et al. 2023, *MultiDiffusion*, equation 5).
    async fn denoise_parts(&mut self, grid: &Grid, mode: Mode, unguided: bool) -> Result<(), PipelineError> {
        let (part, places) = (self.layout.shape, self.layout.samples);
        let work = async |denoiser: &mut Denoiser, evaluations: &[Option<Evaluation<'_>>]| {
            let Some(Some(evaluation)) = evaluations.first() else { return Ok((Vec::new(), None)) };
            let shape = grid.whole(part);
            let (mut blend, mut plain) = (Blend::new(shape), unguided.then(|| Blend::new(shape)));
            let tiles: Vec<_> = grid.tiles().collect();
            for tiles in tiles.chunks(places) {
                let cuts: Vec<Vec<f32>> = tiles.iter().map(|tile| grid.cut(*tile, evaluation.x, shape, 1)).collect();
                let own: Vec<_> = cuts.iter().map(|x| Some(Evaluation { x, ..*evaluation })).collect();
                let put = |blend: &mut Blend, denoised: &[f32]| {
                    let parts = tiles.iter().zip(denoised.chunks_exact(part.numel()));
                    parts.for_each(|(tile, values)| blend.add(values, grid, *tile, 1));
                };
                put(&mut blend, &denoiser.denoise(&own).await?);
                if let Some(plain) = &mut plain {
                    put(plain, &denoiser.unguided().await?);
                }
            }
            Ok((blend.finish(), plain.map(Blend::finish)))
        };
        let (whole, unguided) = self.with_denoiser(mode, work).await?;
        let lane = &mut self.lanes[self.group.start];
        if lane.state() == State::Denoise {
            lane.answer(mode, &whole, unguided.as_deref()).await?;
        }
        Ok(())
    }

    /// Answers a run that goes alone from the memo, if another was asked the same.
    async fn take_over(&mut self, needs_unguided: bool) -> Result<bool, PipelineError> {
        let Some((memo, run)) = &self.memo else { return Ok(false) };
        let lane = &mut self.lanes[self.group.start];
        let Some(asked) = lane.evaluation() else { return Ok(false) };
        let Some(answer) = memo.get(memo::key(*run, &asked), asked.x) else { return Ok(false) };
        if needs_unguided && answer.unguided.is_none() {
            return Ok(false);
        }
        let mode = asked.mode;
        lane.answer(mode, &answer.denoised, answer.unguided.as_deref()).await?;
        self.taken_over += 1;
        self.saved += answer.took;
        Ok(true)
    }

    /// How the first lane waits for the model that does.
    pub(crate) fn mode(&mut self) -> Option<Mode> {
        self.lanes[self.group.clone()].iter_mut().find_map(Lane::mode)
    }

    /// Works with the denoiser of this mode, which holds the group's conditions, and with what its lanes wait for from it.
    pub(crate) async fn with_denoiser<R>(
        &mut self,
        mode: Mode,
        work: impl AsyncFnOnce(&mut Denoiser, &[Option<Evaluation<'_>>]) -> Result<R, PipelineError>,
    ) -> Result<R, PipelineError> {
        let group = &mut self.lanes[self.group.clone()];
        let (shared, owner) = (&self.shared, self.owner);
        let own = |layout: &Layout| (layout.guided, layout.part) == (mode.guided, mode.part);
        let (layout, place) = self.places.iter().find(|(layout, _)| own(layout)).unwrap_or(&self.places[0]);
        // Planning is no part of the steps' time.
        let planned = Cell::new(Duration::ZERO);
        let make = async || {
            let planning = Instant::now();
            let denoiser = shared.denoiser(layout).await;
            planned.set(planned.get() + planning.elapsed());
            denoiser
        };
        let work = async |denoiser: &mut Denoiser| {
            let conditionings: Vec<&Conditioning> = group.iter().map(|lane| &lane.conditioning).collect();
            let kept: Vec<&[Vec<f32>]> = group.iter().map(Lane::kept_for_good).collect();
            denoiser.condition(owner, &conditionings, &kept)?;
            let own = |evaluation: &Evaluation<'_>| evaluation.mode == mode;
            let evaluations: Vec<_> = group.iter_mut().map(|lane| lane.evaluation().filter(own)).collect();
            work(denoiser, &evaluations).await
        };
        let result = place.with(make, work).await;
        self.timings.prepare += planned.get();
        self.started += planned.get();
        result
    }

    /// Runs the steps that are left, and decodes the pictures of all runs that were not stopped, in the order of their jobs.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[cfg(not(target_family = "wasm"))]
    pub fn finish(self) -> Result<Vec<Generated>, PipelineError> {
        block_on(self.finish_async())
    }

    /// [`finish`](Self::finish), to be awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn finish_async(mut self) -> Result<Vec<Generated>, PipelineError> {
        while self.go_on().await?.is_some() {}
        let (shared, timings) = (self.shared, self.timings);
        // Decoding may need the denoiser's memory.
        drop(self.places);
        let mut finished = Vec::new();
        for lane in self.lanes.into_iter().filter(Lane::is_finished) {
            finished.push(shared.finish(lane, timings).await?);
        }
        Ok(finished)
    }
}
