//! Colorization: the brightness of a picture is kept, its colours are made anew.

use super::held::{Held, choose};
use super::image_to_image::Picture;
use super::mask::Area;
use super::{Kind, Prepared, Stepping, Task, TaskDefaults, Wanted, check_sees_nothing, rounded_size, tile_of};
use crate::edit::Method;
use crate::error::PipelineError;
use crate::operators::{All, Luma, Operator};
use crate::parts::{Model, Size};
use crate::picture::RgbImage;
use std::sync::Arc;

/// A picture gets other colours of the same brightness.
#[derive(Debug, Clone, PartialEq)]
pub struct Colorize {
    /// Grey, or in colours that are not looked at.
    pub image: RgbImage,
    /// White where colours are made anew, if not everywhere; the rest is kept to the bit.
    pub mask: Option<RgbImage>,
    /// How the picture is held to its brightness; what suits the model if absent.
    pub method: Option<Method>,
    /// Of latents: the brightness is put back in every so many steps.
    pub replace_every: usize,
}

impl Colorize {
    /// The whole picture, as it suits the model.
    #[must_use]
    pub fn new(image: RgbImage) -> Self {
        Self { image, mask: None, method: None, replace_every: 1 }
    }
}

impl From<Colorize> for Task {
    fn from(task: Colorize) -> Self {
        Self::new(task)
    }
}

impl Kind for Colorize {
    fn defaults(&self, model: &Model, own: TaskDefaults) -> TaskDefaults {
        TaskDefaults { size: rounded_size(&self.image, model), ..own }
    }

    fn method(&self, stepping: &Stepping) -> Result<Option<Method>, PipelineError> {
        choose(self.method, false, stepping).map(Some)
    }

    fn tile(&self, model: &Model, size: Size) -> Option<Size> {
        tile_of(model, size)
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        let picture = Picture::new(&self.image, wanted)?;
        if picture.channels != 3 {
            return Err(PipelineError::Request("this model makes grey pictures, so it has no colours to give".into()));
        }
        let mut operators: Vec<Arc<dyn Operator>> = vec![Arc::new(Luma)];
        if let Some(mask) = &self.mask {
            operators.push(Arc::new(Area::new(mask)?.placed(&picture.canvas)));
        }
        let operator = Arc::new(All { operators, rounds: 1 });
        Ok(Arc::new(Held::new(operator, picture, wanted, self.replace_every)))
    }
}
