//! Image to image: a run that starts from a picture, noised to where the sampler begins (Meng et al. 2022, SDEdit).

use super::{
    Begin, Kind, Prepared, Start, Task, TaskDefaults, Wanted, check_picture, check_sees_nothing, noised, rounded_size,
};
use crate::conditioning::SampleShape;
use crate::error::PipelineError;
use crate::networks::Network;
use crate::parts::{Model, Size};
use crate::picture::{Filter, RgbImage};
use std::fmt;
use std::sync::Arc;

/// Another picture is made of one.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageToImage {
    /// Of any size: it is resized to the request's as diffusers does it, each side for itself (Lanczos).
    pub image: RgbImage,
    /// How much of the schedule is run, in 0..=1; diffusers' default for the model if absent.
    pub strength: Option<f64>,
}

impl From<ImageToImage> for Task {
    fn from(task: ImageToImage) -> Self {
        Self::new(task)
    }
}

impl Kind for ImageToImage {
    fn defaults(&self, model: &Model, own: TaskDefaults) -> TaskDefaults {
        TaskDefaults { size: rounded_size(&self.image, model.side()), ..own }
    }

    fn strength(&self, network: &Network) -> Option<f64> {
        Some(self.strength.unwrap_or(network.defaults.image_strength))
    }

    fn spreads_steps(&self) -> bool {
        true
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        Ok(Arc::new(Picture::new(&self.image, wanted)?))
    }
}

/// A picture as the model takes it.
pub(super) struct Picture {
    /// `[H, W, C]` of −1..1.
    pub(super) sample: Vec<f32>,
    pub(super) extents: SampleShape,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picture").field("extents", &self.extents).finish_non_exhaustive()
    }
}

impl Picture {
    pub(super) fn new(image: &RgbImage, wanted: &Wanted<'_>) -> Result<Self, PipelineError> {
        let channels = check_picture(image, wanted.model)?;
        let Size { height, width } = wanted.size;
        let sample = image.resized(width, height, Filter::Lanczos).to_sample(channels);
        Ok(Self { sample, extents: SampleShape { height, width, channels } })
    }
}

impl Prepared for Picture {
    fn start(&self, begin: &mut Begin<'_>) -> Result<Start, PipelineError> {
        let clean = begin.latents(&self.sample, self.extents)?;
        let noise = begin.starting_noise();
        Ok(noised(&clean, &noise, begin.sampling.noising()).into())
    }
}
