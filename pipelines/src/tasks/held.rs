//! A run held to what an operator knows of a picture, by any method.

use super::image_to_image::Picture;
use super::{Begin, Finished, Prepared, Range, Start, Stepping, Wanted, noised, ramp};
use crate::conditioning::SampleShape;
use crate::edit::{Constraint, Method, Replacement};
use crate::error::PipelineError;
use crate::operators::Operator;
use crate::picture::RgbImage;
use crate::pipeline::Shared;
use graph::Work;
use scheduler::Frame;
use std::sync::Arc;

/// Below this noise level a run starts from a guess of what is not known; more noise hides it, and for large holes it would be wrong.
const LITTLE_NOISE: f64 = 5.0;

/// How the method that was asked for, or the best for a model, holds a picture to what is known. `mask` says whether whole pixels are known.
pub(super) fn choose(asked: Option<Method>, mask: bool, stepping: &Stepping) -> Result<Method, PipelineError> {
    let own = match stepping.sampler.name {
        _ if mask && stepping.latents => Method::Blend,
        "repaint" if !stepping.latents => Method::RePaint,
        "predictor_corrector" if !stepping.latents => Method::PredictorCorrector,
        _ if stepping.score && !stepping.sampler_was_asked => Method::PredictorCorrector,
        _ => Method::Replace,
    };
    // A sampler that is a method by itself goes before what the checkpoint says.
    let is_method = Method::ALL.iter().any(|method| method.sampler() == Some(stepping.sampler.name));
    let said = stepping.mask_method.filter(|_| mask && !is_method);
    let Some(asked) = asked.or(said) else { return Ok(own) };
    let refuse = |why: &str| Err(PipelineError::Request(format!("the method {asked} is not possible: {why}")));
    match asked {
        Method::Blend if !mask => {
            refuse("only whole pixels can be blended, and this task keeps something else of them")
        }
        Method::RePaint | Method::PredictorCorrector if !mask && stepping.latents => {
            refuse("latents have no such values as this task keeps; take replace, which decodes them")
        }
        Method::RePaint | Method::PredictorCorrector
            if stepping.sampler_was_asked && asked.sampler() != Some(stepping.sampler.name) =>
        {
            refuse(&format!("it is a sampler of its own, so {} cannot be taken with it", stepping.sampler.name))
        }
        Method::RePaint | Method::PredictorCorrector if stepping.is_consistency() && !stepping.sampler_was_asked => {
            refuse("it takes small steps, which a consistency model was not trained for; take replace")
        }
        _ => Ok(asked),
    }
}

/// What holds x, and what replaces a part of denoised images.
type Means = (Option<Box<dyn Constraint>>, Option<Box<dyn Replacement>>);

/// A picture and what is known of it.
#[derive(Debug)]
pub(super) struct Held {
    /// What is known: of pixels.
    operator: Arc<dyn Operator>,
    /// The same of the sample, where that has other pixels than the picture.
    of_sample: Option<Arc<dyn Operator>>,
    pub(super) picture: Picture,
    method: Method,
    /// Of latents: the picture is replaced in every so many steps.
    replace_every: usize,
}

impl Held {
    /// Held by the task's method.
    pub(super) fn new(
        operator: Arc<dyn Operator>,
        picture: Picture,
        wanted: &Wanted<'_>,
        replace_every: usize,
    ) -> Self {
        let method = wanted.method.unwrap_or(Method::Replace);
        Self { operator, of_sample: None, picture, method, replace_every: replace_every.max(1) }
    }

    /// The same where latents are known, too: this much of them.
    pub(super) fn with_sample_operator(self, operator: Arc<dyn Operator>) -> Self {
        Self { of_sample: Some(operator), ..self }
    }

    /// What the method holds the run to, and by what.
    async fn means(&self, begin: &mut Begin<'_>) -> Result<Means, PipelineError> {
        let known = self.picture.sample();
        let extents = self.picture.extents();
        Ok(match self.method {
            Method::Replace if begin.model.autoencoder.is_some() => {
                let through = Through {
                    shared: Arc::clone(begin.shared),
                    operator: Arc::clone(&self.operator),
                    known,
                    extents,
                    clips: begin.clips,
                    shape: begin.shape,
                    every: self.replace_every,
                    step: 0,
                };
                (None, Some(Box::new(through)))
            }
            Method::Replace => {
                let operator = Arc::clone(&self.operator);
                (None, Some(Box::new(Pixels { operator, known, extents, clips: begin.clips })))
            }
            Method::RePaint | Method::PredictorCorrector => {
                let operator = Arc::clone(self.of_sample.as_ref().unwrap_or(&self.operator));
                let known = begin.latents(&known, extents).await?;
                let frame = begin.sampling.schedule.frame;
                (Some(Box::new(Noisy { operator, known, shape: begin.shape, frame })), None)
            }
            Method::Blend => (None, None),
        })
    }
}

impl Prepared for Held {
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        Box::pin(async move {
            let (constraint, replacement) = self.means(begin).await?;
            let full = begin.strength.is_none_or(|strength| (strength - 1.0).abs() < f64::EPSILON);
            if full && self.method == Method::RePaint {
                // Lugmayr et al. 2022, Algorithm 1: noise alone. What is known comes in with the first step.
                let noise = begin.starting_noise();
                return Ok(Start { constraint, replacement, ..begin.scaled(noise).into() });
            }
            let clean = if full {
                let (extents, known) = (self.picture.extents(), self.picture.sample());
                let start = if begin.sampling.first_sigma() < LITTLE_NOISE {
                    self.operator.guess(&known, extents)
                } else {
                    // Song et al. 2023, Algorithm 4: of what is not known, the middle of all pictures.
                    let mut seen = vec![0.0; known.len()];
                    self.operator.replace(&mut seen, &known, extents);
                    seen
                };
                begin.latents(&start, extents).await?
            } else {
                self.picture.latents(begin).await?
            };
            let noise = begin.starting_noise();
            let x = noised(&clean, &noise, begin.sampling.noising());
            Ok(Start { constraint, replacement, ..x.into() })
        })
    }

    /// Those of the operator for consistency models. Others make their way down from noise by their own schedule.
    fn levels(&self, stepping: &Stepping, range: &Range, steps: Option<usize>) -> Option<Vec<f64>> {
        if !stepping.is_consistency() {
            return None;
        }
        let levels = self.operator.levels(steps, self.picture.extents());
        let [high, low] = [levels.highest, levels.lowest].map(|level| level.clamp(range.smallest, range.largest));
        Some(ramp(levels.steps, high, low))
    }

    fn finish(&self, mut made: RgbImage) -> Finished {
        self.operator.finish(&mut made, &self.picture.image);
        self.picture.canvas.cut(made).into()
    }
}

/// What is known, in the denoised picture itself.
struct Pixels {
    operator: Arc<dyn Operator>,
    /// `[H, W, C]`.
    known: Vec<f32>,
    extents: SampleShape,
    /// The largest magnitude of the model's pictures, which are clipped before what is known replaces its part of them.
    clips: Option<f64>,
}

impl Replacement for Pixels {
    fn replace<'a>(&'a mut self, denoised: &'a mut [f32], _sigma: f64) -> Work<'a, (), PipelineError> {
        clip(denoised, self.clips);
        self.operator.replace(denoised, &self.known, self.extents);
        Box::pin(async { Ok(()) })
    }
}

/// Values of at most this magnitude, where there is one.
fn clip(denoised: &mut [f32], range: Option<f64>) {
    if let Some(range) = range {
        #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
        let range = range.abs() as f32;
        denoised.iter_mut().for_each(|value| *value = value.clamp(-range, range));
    }
}

/// What is known, in the picture that denoised latents stand for.
struct Through {
    shared: Arc<Shared>,
    operator: Arc<dyn Operator>,
    /// `[H, W, C]`, of the picture.
    known: Vec<f32>,
    extents: SampleShape,
    /// As of pixels, of the latents.
    clips: Option<f64>,
    /// Of the latents.
    shape: SampleShape,
    every: usize,
    /// Counts the denoised images.
    step: usize,
}

impl Replacement for Through {
    fn replace<'a>(&'a mut self, denoised: &'a mut [f32], _sigma: f64) -> Work<'a, (), PipelineError> {
        Box::pin(async move {
            clip(denoised, self.clips);
            let is_due = self.step.is_multiple_of(self.every);
            self.step += 1;
            let Some(autoencoder) = self.shared.model.autoencoder.as_ref().filter(|_| is_due) else { return Ok(()) };
            let (mut picture, _) = autoencoder.decode(&self.shared.host, denoised, self.shape).await?;
            picture.iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
            self.operator.replace(&mut picture, &self.known, self.extents);
            denoised.copy_from_slice(&autoencoder.encode_mean(&self.shared.host, &picture, self.extents).await?);
            Ok(())
        })
    }
}

/// What is known, under the noise of a step.
struct Noisy {
    operator: Arc<dyn Operator>,
    /// `[H, W, C]`, of the sample.
    known: Vec<f32>,
    shape: SampleShape,
    frame: Frame,
}

impl Constraint for Noisy {
    fn hold(&mut self, x: &mut [f32], noise: &[f32], sigma: f64) {
        let known = noised(&self.known, noise, (self.frame.alpha(sigma), sigma));
        self.operator.replace(x, &known, self.shape);
    }
}
