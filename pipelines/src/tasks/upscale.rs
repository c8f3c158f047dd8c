//! Super-resolution: by a network that was trained for it, which sees the small picture under a little noise besides its sample (Ho et al. 2022,
//! Cascaded Diffusion Models), or by any other, held to the small picture's pixels as the means of patches.

use super::held::{Held, choose};
use super::image_to_image::Picture;
use super::{
    Begin, Canvas, Finished, Kind, Prepared, Start, Stepping, Task, TaskDefaults, Wanted, check_sees_nothing, noised,
    tile_of,
};
use crate::conditioning::SampleShape;
use crate::edit::Method;
use crate::error::PipelineError;
use crate::operators::PatchMeans;
use crate::parts::{Model, Size};
use crate::picture::{Filter, RgbImage};
use graph::Work;
use std::fmt;
use std::sync::Arc;

/// A picture is made larger.
#[derive(Debug, Clone, PartialEq)]
pub struct Upscale {
    /// The small picture.
    pub image: RgbImage,
    /// How much noise is put over it, a timestep of the model's `low_res_scheduler`; diffusers' default, 20, if absent.
    pub noise_level: Option<usize>,
    /// How many times its size the image has. If absent, as many as a model makes that was trained for it, and twice by others. A trained one
    /// sees the picture resized for other numbers; others take whole numbers from 2 to 16.
    pub scale: Option<f64>,
    /// How a model that was not trained for it is held to the picture; what suits the model if absent.
    pub method: Option<Method>,
    /// Of latents: what is known is put back in every so many steps.
    pub replace_every: usize,
}

impl Upscale {
    /// As it suits the model.
    #[must_use]
    pub fn new(image: RgbImage) -> Self {
        Self { image, noise_level: None, scale: None, method: None, replace_every: 1 }
    }

    /// The size of the picture by a model that was trained for it. The small one is rounded to the autoencoder's multiple, too, as in diffusers:
    /// up where it keeps its own size, and down, as there, where it is resized.
    fn trained_size(&self, model: &Model) -> Size {
        let larger = model.pixels_per_element();
        let side = model.network.side_multiple.max(larger);
        if self.scale.is_none() {
            let rounded = |extent: usize| extent.clamp(1, LARGEST).next_multiple_of(side) * larger;
            return Size { height: rounded(self.image.height), width: rounded(self.image.width) };
        }
        let enlarged = |extent: usize| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "too large a size is refused")]
            let small = self.scale.map_or(extent, |scale| (extent as f64 * scale / larger as f64) as usize);
            (small - small % side).clamp(side, LARGEST) * larger
        };
        Size { height: enlarged(self.image.height), width: enlarged(self.image.width) }
    }

    /// How many times larger a model makes it that was not trained for it.
    fn factor(&self) -> Option<usize> {
        let scale = self.scale.unwrap_or(2.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 2 to 16")]
        ((2.0..=16.0).contains(&scale) && scale.fract() == 0.0).then_some(scale as usize)
    }

    /// How many rows or columns are added to a side of the small picture, so that the large one's is a multiple of this. It takes fewer than that.
    fn missing(extent: usize, factor: usize, side: usize) -> usize {
        (0..side).find(|more| (extent + more).saturating_mul(factor).is_multiple_of(side)).unwrap_or(0)
    }
}

impl From<Upscale> for Task {
    fn from(task: Upscale) -> Self {
        Self::new(task)
    }
}

/// A side that no model makes: what would be larger still is refused as this is.
const LARGEST: usize = 1 << 24;

impl Kind for Upscale {
    fn defaults(&self, model: &Model, own: TaskDefaults) -> TaskDefaults {
        if model.low_res.is_some() {
            return TaskDefaults { size: self.trained_size(model), ..own };
        }
        let factor = self.factor().unwrap_or(2);
        let larger = |extent: usize| (extent + Self::missing(extent, factor, model.side())).saturating_mul(factor);
        TaskDefaults { size: Size { height: larger(self.image.height), width: larger(self.image.width) }, ..own }
    }

    fn method(&self, stepping: &Stepping) -> Result<Option<Method>, PipelineError> {
        if stepping.sees_picture {
            let asked = self.method.map(|method| {
                let message = format!("the method {method} is not possible: this model was trained to enlarge");
                PipelineError::Request(message)
            });
            return asked.map_or(Ok(None), Err);
        }
        choose(self.method, false, stepping).map(Some)
    }

    fn tile(&self, model: &Model, size: Size) -> Option<Size> {
        tile_of(model, size).filter(|_| model.low_res.is_none())
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        if let Some(fault) = self.image.fault() {
            return Err(PipelineError::Request(format!("the picture {fault}")));
        }
        let Some(low_res) = &wanted.model.low_res else { return self.prepare_held(wanted) };
        let level = low_res.level(self.noise_level)?;
        let noising = low_res.noising(level)?;
        let SampleShape { height, width, .. } = wanted.shape;
        let keeps_size = self.scale.is_none() && !wanted.size_was_asked;
        let (small, kept) = if keeps_size {
            // As many times the picture's own size, whatever that is: its last rows and columns are repeated, and what comes of them is cut off.
            let missing = [[0, height - self.image.height], [0, width - self.image.width]];
            let larger = wanted.model.pixels_per_element();
            let kept = Size { height: self.image.height * larger, width: self.image.width * larger };
            (self.image.extended(missing[0], missing[1]), kept)
        } else {
            (self.image.resized(width, height, Filter::Bicubic), wanted.size)
        };
        let canvas = Canvas::of(kept, wanted.size);
        Ok(Arc::new(SmallPicture { small: small.to_sample(3), level, noising, canvas }))
    }
}

impl Upscale {
    /// By a model that was not trained for it.
    fn prepare_held(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        let refuse = |message: String| Err(PipelineError::Request(message));
        if self.noise_level.is_some() {
            return refuse("a level of noise is for models that were trained to enlarge, and this was not".into());
        }
        let Some(factor) = self.factor() else {
            let scale = self.scale.unwrap_or_default();
            return refuse(format!(
                "{scale} times is not possible: this model was not trained to enlarge, and can make a picture 2, 3, … 16 times as large"
            ));
        };
        if wanted.size_was_asked {
            return refuse("a size is not possible: this model was not trained to enlarge, and makes a picture a whole number of times as large".into());
        }
        let missing = |extent| Self::missing(extent, factor, wanted.model.side());
        let padded = self.image.extended([0, missing(self.image.height)], [0, missing(self.image.width)]);
        let picture = Picture::enlarged(&padded, factor, &self.image, wanted)?;
        Ok(Arc::new(Held::new(Arc::new(PatchMeans { factor }), picture, wanted, self.replace_every)))
    }
}

/// The picture at the sample's size, resized as diffusers does it (bicubic).
struct SmallPicture {
    /// `[H, W, 3]` of −1..1.
    small: Vec<f32>,
    level: usize,
    /// (factor on the picture, factor on the noise).
    noising: (f64, f64),
    canvas: Canvas,
}

impl fmt::Debug for SmallPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmallPicture").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Prepared for SmallPicture {
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        Box::pin(async move {
            let noise = begin.draw(SampleShape { channels: 3, ..begin.shape });
            let concatenated = noised(&self.small, &noise, self.noising);
            let noise = begin.starting_noise();
            Ok(Start { concatenated, ..begin.scaled(noise).into() })
        })
    }

    fn finish(&self, made: RgbImage) -> Finished {
        self.canvas.cut(made).into()
    }

    fn noise_level(&self) -> Option<usize> {
        Some(self.level)
    }
}
