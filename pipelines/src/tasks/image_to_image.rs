//! Image to image: a run that starts from a picture, noised to where the sampler begins (Meng et al. 2022, SDEdit).

use super::{
    Begin, Canvas, Finished, Kind, Prepared, Start, Task, TaskDefaults, Wanted, check_picture, check_sees_nothing,
    noised, rounded_size, tile_of,
};
use crate::conditioning::SampleShape;
use crate::error::PipelineError;
use crate::networks::Network;
use crate::parts::{Model, Size};
use crate::picture::RgbImage;
use graph::Work;
use std::sync::Arc;

/// Another picture is made of one.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageToImage {
    /// Of any size, which the result has, too. Where the request gives another, it is resized to that as diffusers does it, each side for
    /// itself (Lanczos).
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
        TaskDefaults { size: rounded_size(&self.image, model), ..own }
    }

    fn strength(&self, network: &Network) -> Option<f64> {
        Some(self.strength.unwrap_or(network.defaults.image_strength))
    }

    fn spreads_steps(&self) -> bool {
        true
    }

    fn tile(&self, model: &Model, size: Size) -> Option<Size> {
        tile_of(model, size)
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        Ok(Arc::new(Picture::new(&self.image, wanted)?))
    }
}

/// A picture as the model takes it.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) canvas: Canvas,
    /// At the size that the model makes.
    pub(super) image: RgbImage,
    /// Channels that a picture has for the model.
    pub(super) channels: usize,
}

impl Picture {
    pub(super) fn new(image: &RgbImage, wanted: &Wanted<'_>) -> Result<Self, PipelineError> {
        let channels = check_picture(image, wanted.model)?;
        let canvas = Canvas::new(Size { height: image.height, width: image.width }, wanted);
        Ok(Self { image: canvas.place(image), canvas, channels })
    }

    /// A picture whose every pixel is `factor`² pixels for the model; `image` is the part of it that is handed over.
    pub(super) fn enlarged(
        padded: &RgbImage,
        factor: usize,
        image: &RgbImage,
        wanted: &Wanted<'_>,
    ) -> Result<Self, PipelineError> {
        let channels = check_picture(padded, wanted.model)?;
        let kept = Size { height: image.height * factor, width: image.width * factor };
        Ok(Self { image: padded.repeated(factor), canvas: Canvas::of(kept, wanted.size), channels })
    }

    /// `[H, W, C]` of −1..1.
    pub(super) fn sample(&self) -> Vec<f32> {
        self.image.to_sample(self.channels)
    }

    /// Of the sample.
    pub(super) fn extents(&self) -> SampleShape {
        SampleShape { height: self.image.height, width: self.image.width, channels: self.channels }
    }

    /// The clean sample that the model makes of it.
    pub(super) async fn latents(&self, begin: &mut Begin<'_>) -> Result<Vec<f32>, PipelineError> {
        begin.latents(&self.sample(), self.extents()).await
    }
}

impl Prepared for Picture {
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        Box::pin(async move {
            let clean = self.latents(begin).await?;
            let noise = begin.starting_noise();
            Ok(noised(&clean, &noise, begin.sampling.noising()).into())
        })
    }

    fn finish(&self, made: RgbImage) -> Finished {
        self.canvas.cut(made).into()
    }
}
