//! Inversion: from a picture to the noise that a deterministic sampler makes it of.

use super::image_to_image::Picture;
use super::{
    Begin, Kind, Prepared, Range, Start, Stepping, Task, TaskDefaults, Wanted, check_sees_nothing, noised, ramp,
    rounded_size,
};
use crate::error::PipelineError;
use crate::parts::Model;
use crate::picture::RgbImage;
use graph::Work;
use std::sync::Arc;

/// The probability-flow ODE is followed from a picture up to noise (Song et al. 2021, *Score-Based Generative Modeling through SDEs*, section 4.3).
/// The run's sample is that noise, about standard normal: a run from it, with the same settings and no guidance, leads back to the picture.
///
/// Its sampler is one that inverts, `heun_inverse` where none is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Invert {
    /// The picture.
    pub image: RgbImage,
}

impl Invert {
    /// The noise level that the path begins at.
    pub const SIGMA: f64 = 0.1;

    /// Steps where nobody says how many.
    pub const STEPS: usize = 20;
}

impl From<Invert> for Task {
    fn from(task: Invert) -> Self {
        Self::new(task)
    }
}

impl Kind for Invert {
    /// Guidance bends the path, which then leads back to another picture.
    fn defaults(&self, model: &Model, _own: TaskDefaults) -> TaskDefaults {
        TaskDefaults { size: rounded_size(&self.image, model), guidance_scale: 1.0 }
    }

    fn inverts(&self) -> bool {
        true
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        Ok(Arc::new(Clean(Picture::new(&self.image, wanted)?)))
    }
}

/// A picture that a run starts from without any noise.
#[derive(Debug)]
struct Clean(Picture);

impl Prepared for Clean {
    /// Pictures of a model are never quite without noise, and of one that is, such as a drawing with flat areas, the path leads to what no noise
    /// looks like. So it begins at a level where what a person sees is the same.
    fn levels(&self, _stepping: &Stepping, range: &Range, steps: Option<usize>) -> Option<Vec<f64>> {
        let mut levels = ramp(steps.unwrap_or(Invert::STEPS), range.largest, Invert::SIGMA);
        levels.pop();
        Some(levels)
    }

    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        Box::pin(async move {
            let clean = self.0.latents(begin).await?;
            let schedule = &begin.sampling.schedule;
            let sigma = schedule.sigmas.last().copied().unwrap_or(0.0);
            let alpha = schedule.frame.alpha(sigma);
            let noise = begin.starting_noise();
            let x = noised(&clean, &noise, (alpha, sigma));
            Ok(begin.scaled(x).into())
        })
    }
}
