//! Strokes to pictures: a rough painting becomes a picture that follows it.

use super::image_to_image::Picture;
use super::{
    Begin, Finished, Kind, Prepared, Range, Start, Stepping, Task, TaskDefaults, Wanted, check_sees_nothing, down_from,
    rounded_size, tile_of,
};
use crate::error::PipelineError;
use crate::parts::{Model, Size};
use crate::picture::RgbImage;
use graph::Work;
use std::sync::Arc;

/// A painting of a few strokes is noised to a level where details are gone and colours are left, and denoised from there (Meng et al. 2022, *SDEdit*;
/// Song et al. 2023, section 5).
#[derive(Debug, Clone, PartialEq)]
pub struct Stroke {
    /// The painting.
    pub image: RgbImage,
    /// The noise level that a run starts at, on the model's scale, where pictures lie in −1..1; [`Stroke::SIGMA`] if absent.
    pub sigma: Option<f64>,
}

impl Stroke {
    /// The noise level of Song et al. 2023 for pictures of strokes.
    pub const SIGMA: f64 = 5.38;
}

impl From<Stroke> for Task {
    fn from(task: Stroke) -> Self {
        Self::new(task)
    }
}

impl Kind for Stroke {
    fn defaults(&self, model: &Model, own: TaskDefaults) -> TaskDefaults {
        TaskDefaults { size: rounded_size(&self.image, model), ..own }
    }

    fn tile(&self, model: &Model, size: Size) -> Option<Size> {
        tile_of(model, size)
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        let sigma = self.sigma.unwrap_or(Self::SIGMA);
        Ok(Arc::new(Painting { picture: Picture::new(&self.image, wanted)?, sigma }))
    }
}

/// A painting, and the noise that a run starts with.
#[derive(Debug)]
struct Painting {
    picture: Picture,
    sigma: f64,
}

impl Prepared for Painting {
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        self.picture.start(begin)
    }

    fn sigma(&self) -> Option<f64> {
        Some(self.sigma)
    }

    fn levels(&self, stepping: &Stepping, range: &Range, steps: Option<usize>) -> Option<Vec<f64>> {
        Some(down_from(self.sigma, stepping, range, steps.unwrap_or(if stepping.is_consistency() { 2 } else { 20 })))
    }

    fn finish(&self, made: RgbImage) -> Finished {
        self.picture.finish(made)
    }
}
