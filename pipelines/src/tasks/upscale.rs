//! Super-resolution by a network that was trained for it: it sees the small picture, under a little noise, besides its sample (Ho et al. 2022,
//! Cascaded Diffusion Models).

use super::{Begin, Kind, Prepared, Start, Task, TaskDefaults, Wanted, noised};
use crate::conditioning::SampleShape;
use crate::error::PipelineError;
use crate::parts::{Model, Size};
use crate::picture::{Filter, RgbImage};
use std::fmt;
use std::sync::Arc;

/// A picture is made larger.
#[derive(Debug, Clone, PartialEq)]
pub struct Upscale {
    /// The small picture.
    pub image: RgbImage,
    /// How much noise is put over it, a timestep of the model's `low_res_scheduler`; diffusers' default, 20, if absent.
    pub noise_level: Option<usize>,
    /// How many times its size the image has; as many as the model makes if absent. For another number the picture is resized first.
    pub scale: Option<f64>,
}

impl From<Upscale> for Task {
    fn from(task: Upscale) -> Self {
        Self::new(task)
    }
}

/// A side that no model makes: what would be larger still is refused as this is.
const LARGEST: usize = 1 << 24;

impl Kind for Upscale {
    /// diffusers rounds the small picture to the autoencoder's multiple, too.
    fn defaults(&self, model: &Model, own: TaskDefaults) -> TaskDefaults {
        let larger = model.pixels_per_element();
        let side = model.network.side_multiple.max(larger);
        let enlarged = |extent: usize| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "too large a size is refused")]
            let small = self.scale.map_or(extent, |scale| (extent as f64 * scale / larger as f64) as usize);
            (small - small % side).clamp(side, LARGEST) * larger
        };
        let size = Size { height: enlarged(self.image.height), width: enlarged(self.image.width) };
        TaskDefaults { size, ..own }
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        let Some(low_res) = &wanted.model.low_res else {
            let message = "this model makes no pictures larger: that takes one of StableDiffusionUpscalePipeline";
            return Err(PipelineError::Request(message.into()));
        };
        if let Some(fault) = self.image.fault() {
            return Err(PipelineError::Request(format!("the picture {fault}")));
        }
        let level = low_res.level(self.noise_level)?;
        let noising = low_res.noising(level)?;
        let SampleShape { height, width, .. } = wanted.shape;
        let small = self.image.resized(width, height, Filter::Bicubic).to_sample(3);
        Ok(Arc::new(SmallPicture { small, level, noising }))
    }
}

/// The picture at the sample's size, resized as diffusers does it (bicubic).
struct SmallPicture {
    /// `[H, W, 3]` of −1..1.
    small: Vec<f32>,
    level: usize,
    /// (factor on the picture, factor on the noise).
    noising: (f64, f64),
}

impl fmt::Debug for SmallPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmallPicture").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Prepared for SmallPicture {
    fn start(&self, begin: &mut Begin<'_>) -> Result<Start, PipelineError> {
        let noise = begin.draw(SampleShape { channels: 3, ..begin.shape });
        let concatenated = noised(&self.small, &noise, self.noising);
        let noise = begin.starting_noise();
        Ok(Start { concatenated, ..begin.scaled(noise).into() })
    }

    fn noise_level(&self) -> Option<usize> {
        Some(self.level)
    }
}
