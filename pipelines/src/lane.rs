//! One sample on its way: its sampler, its noise, and what its task does to it.

use crate::conditioning::{Conditioning, SampleShape};
use crate::denoiser::{Evaluation, Mode};
use crate::edit::{Constraint, Replacement};
use crate::error::PipelineError;
use crate::job::Job;
use crate::noise::Noise;
use crate::picture::nhwc_from_nchw;
use crate::reuse::{Part, Reuse};
use crate::run::RunId;
use scheduler::{Ask, Event, Prediction, Stepper};

/// A job that has started.
pub(crate) struct Lane {
    pub(crate) id: RunId,
    pub(crate) job: Job,
    pub(crate) conditioning: Conditioning,
    stepper: Stepper<f32>,
    noise: Box<dyn Noise>,
    /// Draws of a sample's size that each draw of the sampler stands for.
    draws: usize,
    constraint: Option<Box<dyn Constraint>>,
    replacement: Option<Box<dyn Replacement>>,
    prediction: Prediction,
    /// The last denoised image without guidance, if the sampler asks for those and there is guidance.
    unguided: Option<Vec<f32>>,
    state: State,
    /// Whether the stepper still stands at a step that was reported.
    reported: bool,
    /// Whether the sampler chooses its own steps.
    chooses_steps: bool,
    /// How often the model was asked.
    asked: usize,
    /// How often the network predicted to answer.
    pub(crate) predictions: usize,
    /// Steps that were reported.
    pub(crate) steps: usize,
    /// What is kept from one evaluation for the next, if something is.
    reuse: Option<Reuse>,
}

/// The most evaluations of a sampler that chooses its own steps. On a model whose values jump it would shorten them without end.
const MOST_EVALUATIONS: usize = 10_000;

/// What a lane is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: it can go on.
    Ready,
    /// The model.
    Denoise,
    /// The run is over, or was stopped.
    Over,
}

/// What a lane takes from its task and its pipeline.
pub(crate) struct Beginning {
    pub(crate) x: Vec<f32>,
    pub(crate) conditioning: Conditioning,
    pub(crate) noise: Box<dyn Noise>,
    pub(crate) draws: usize,
    pub(crate) constraint: Option<Box<dyn Constraint>>,
    pub(crate) replacement: Option<Box<dyn Replacement>>,
}

impl Lane {
    pub(crate) fn new(id: RunId, job: &Job, begin: Beginning) -> Self {
        Self {
            id,
            job: job.clone(),
            stepper: Stepper::new(job.program.clone(), &begin.x),
            conditioning: begin.conditioning,
            noise: begin.noise,
            draws: begin.draws,
            constraint: begin.constraint,
            replacement: begin.replacement,
            prediction: job.sampling.prediction,
            unguided: None,
            state: State::Ready,
            reported: false,
            chooses_steps: !job.program.is_fixed(),
            asked: 0,
            predictions: 0,
            steps: 0,
            reuse: job.step_cache().map(Reuse::new),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Goes on until a step is to be reported (`true`), the model is needed, or the run is over.
    pub(crate) fn go_on(&mut self) -> Result<bool, PipelineError> {
        if std::mem::take(&mut self.reported) {
            self.stepper.advance();
        }
        let shape = self.job.shape();
        loop {
            match self.stepper.ask() {
                Ask::Denoise { x, sigma, .. } => {
                    if self.chooses_steps && self.asked >= MOST_EVALUATIONS {
                        return Err(PipelineError::TooManyEvaluations { evaluations: self.asked });
                    }
                    self.asked += 1;
                    if let Some(constraint) = &mut self.constraint {
                        constraint.constrain(x, sigma);
                    }
                    self.state = State::Denoise;
                    return Ok(false);
                }
                Ask::Unguided { denoised, out } => {
                    out.copy_from_slice(self.unguided.as_deref().unwrap_or(denoised));
                }
                Ask::Constrain { x, noise, sigma, out } => {
                    out.copy_from_slice(x);
                    if let Some(constraint) = &mut self.constraint {
                        constraint.hold(out, noise, sigma);
                    }
                }
                Ask::Noise { draw, out } => {
                    let mut nchw = vec![0.0; out.len() * self.draws];
                    match draw.between {
                        Some(interval) => self.noise.fill_between(interval, &mut nchw),
                        None => self.noise.fill(&mut nchw),
                    }
                    out.copy_from_slice(&nhwc_from_nchw(&nchw[..out.len()], shape));
                }
                Ask::Step(event) => {
                    self.steps = event.index + 1;
                    if !event.denoised.iter().all(|v| v.is_finite()) {
                        return Err(PipelineError::NotFinite { step: event.index + 1 });
                    }
                    self.reported = true;
                    return Ok(true);
                }
                Ask::Done => {
                    self.state = State::Over;
                    return Ok(false);
                }
            }
            self.stepper.advance();
        }
    }

    /// What the model is to denoise, while it is waited for.
    pub(crate) fn evaluation(&mut self) -> Option<Evaluation<'_>> {
        let prediction = self.prediction;
        match self.stepper.ask() {
            Ask::Denoise { x, sigma, timestep, .. } if self.state == State::Denoise => {
                let guided = self.job.is_guided_at(sigma);
                let part = self.reuse.as_ref().map_or(Part::Whole, |own| own.next(1 + usize::from(guided)));
                let mode = Mode { guided: guided && !part.predicts_once(), part };
                let given = self.reuse.as_ref().map_or(&[][..], |own| own.given(part));
                Some(Evaluation { x, sigma, timestep, prediction, mode, given })
            }
            _ => None,
        }
    }

    /// How it waits for the model, if it does.
    pub(crate) fn mode(&mut self) -> Option<Mode> {
        self.evaluation().map(|evaluation| evaluation.mode)
    }

    /// Whether it keeps what the model gives at seams in this mode.
    pub(crate) fn keeps(&self, mode: Mode) -> bool {
        self.reuse.as_ref().is_some_and(|own| own.keeps(mode.part))
    }

    /// Keeps that, seam by seam.
    pub(crate) fn keep(&mut self, mode: Mode, values: Vec<Vec<f32>>) {
        if let Some(own) = &mut self.reuse {
            own.keep(mode.part, mode.predictions(), values);
        }
    }

    /// What it has kept for the rest of the run, seam by seam.
    pub(crate) fn kept_for_good(&self) -> &[Vec<f32>] {
        self.reuse.as_ref().map_or(&[], Reuse::kept_for_good)
    }

    /// Evaluations that were answered with values of others.
    pub(crate) fn reused(&self) -> usize {
        self.reuse.as_ref().map_or(0, |own| own.reused)
    }

    /// Takes the model's answer, and what it is without guidance.
    pub(crate) async fn answer(
        &mut self,
        mode: Mode,
        denoised: &[f32],
        unguided: Option<&[f32]>,
    ) -> Result<(), PipelineError> {
        if let Ask::Denoise { sigma, out, .. } = self.stepper.ask() {
            self.predictions += mode.predictions();
            if let Some(own) = &mut self.reuse {
                own.answer(mode.part);
            }
            out.copy_from_slice(denoised);
            if let Some(replacement) = &mut self.replacement {
                replacement.replace(out, sigma).await?;
            }
            self.unguided = unguided.map(<[f32]>::to_vec);
            self.stepper.advance();
            self.state = State::Ready;
        }
        Ok(())
    }

    /// The step that was just reported.
    pub(crate) fn event(&mut self) -> Option<Event<'_, f32>> {
        if let Ask::Step(event) = self.stepper.ask() { Some(event) } else { None }
    }

    /// Extents of the sample.
    pub(crate) fn shape(&self) -> SampleShape {
        self.job.shape()
    }

    /// Ends it where it is.
    pub(crate) fn stop(&mut self) {
        self.state = State::Over;
    }

    /// Whether it ran to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.stepper.is_done()
    }

    pub(crate) fn evaluations(&self) -> usize {
        self.stepper.evaluations()
    }

    /// The final sample, with the job that it was made for.
    pub(crate) fn finish(self) -> Result<(Job, Vec<f32>), PipelineError> {
        let mut sample = self.stepper.finish();
        if let Some(constraint) = &self.constraint {
            constraint.finish(&mut sample);
        }
        if !sample.iter().all(|v| v.is_finite()) {
            return Err(PipelineError::NotFinite { step: self.steps });
        }
        Ok((self.job, sample))
    }
}
