//! Inversion: from a picture to the noise that a deterministic sampler makes it of.

use super::image_to_image::Picture;
use super::{Begin, Kind, Prepared, Start, Task, TaskDefaults, Wanted, check_sees_nothing, rounded_size};
use crate::error::PipelineError;
use crate::parts::Model;
use crate::picture::RgbImage;
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
    fn start(&self, begin: &mut Begin<'_>) -> Result<Start, PipelineError> {
        let clean = self.0.latents(begin)?;
        Ok(begin.scaled(clean).into())
    }
}
