//! Pictures of a step while it is the latest: of pixels as they are, of latents by their autoencoder where that is small, and otherwise by a linear map
//! that is fitted to a picture that it made.

use super::limits::PREVIEW_SIDE;
use crate::compare::report::{Preview, thumbnail};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use pipelines::{Generated, Job, Pipeline, RgbImage, SampleShape, Step};
use scheduler::Frame;
use std::collections::HashMap;

/// As small as a picture may be to be looked at as it is.
const QUALITY: u8 = 88;

/// Makes previews, and remembers each model's map.
#[derive(Debug, Default)]
pub(super) struct Painter {
    maps: HashMap<usize, Preview>,
}

impl Painter {
    /// The map of a model. Where there is none yet, this denoised sample is decoded for it, once.
    pub(super) fn of(
        &mut self,
        pipe: &Pipeline,
        model: usize,
        job: &Job,
        denoised: &[f32],
        shape: SampleShape,
    ) -> Option<Preview> {
        if let Some(known) = Preview::exact(pipe, job).or_else(|| self.maps.get(&model).cloned()) {
            return Some(known);
        }
        let image = pipe.decode(job, denoised).ok().flatten()?;
        let map = Preview::fit(denoised, shape, &image)?;
        self.maps.insert(model, map.clone());
        Some(map)
    }

    /// A finished picture has all colours and contrasts, so its map is better than that of a step.
    pub(super) fn learn(&mut self, pipe: &Pipeline, model: usize, generated: &Generated) {
        if pipe.samples_are_pictures() {
            return;
        }
        if let Some(map) =
            generated.image.as_ref().and_then(|image| Preview::fit(&generated.sample, generated.shape, image))
        {
            self.maps.insert(model, map);
        }
    }

    /// A denoised image, a JPEG file.
    pub(super) fn denoised(&self, map: &Preview, denoised: &[f32], shape: SampleShape) -> Option<Vec<u8>> {
        jpeg(&map.denoised(denoised, shape)?)
    }

    /// Its noisy sample.
    pub(super) fn noisy(&self, map: &Preview, job: &Job, step: &Step<'_>) -> Option<Vec<u8>> {
        jpeg(&map.noisy(step.x, step.sigma, job.sampling().schedule.frame == Frame::Flow, step.shape)?)
    }
}

/// A JPEG file, as small as previews are.
pub(super) fn jpeg(image: &RgbImage) -> Option<Vec<u8>> {
    let small = thumbnail(image, PREVIEW_SIDE);
    let mut bytes = Vec::new();
    let (width, height) = (u32::try_from(small.width).ok()?, u32::try_from(small.height).ok()?);
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.write_image(&small.pixels, width, height, ExtendedColorType::Rgb8).ok()?;
    Some(bytes)
}
