//! Image to image: runs that start from a picture, noised to where the sampler begins (Meng et al. 2022, SDEdit).

use crate::denoiser::SampleShape;
use crate::error::PipelineError;
use crate::image::{RgbImage, nhwc_from_nchw};
use crate::model::TextModel;
use crate::noise::Noise;
use crate::request::Request;
use crate::resize::Filter;
use graph::{Device, PlanOptions};
use scheduler::Sampling;

/// A picture that an image is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Of any size: it is resized to the request's as diffusers does it, each side for itself (Lanczos).
    pub image: RgbImage,
    /// What is done with it.
    pub task: Task,
}

/// What is done with a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Another picture is made of it.
    ImageToImage {
        /// How much of the schedule is run, in 0..=1; diffusers' default for the model if absent.
        strength: Option<f64>,
    },
}

impl Source {
    /// How much of the schedule is run, where the request says it.
    pub(crate) fn asked_strength(&self) -> Option<f64> {
        match &self.task {
            Task::ImageToImage { strength } => *strength,
        }
    }
}

/// Where a run begins.
pub(crate) struct Start {
    /// `[H, W, C]`, noisy.
    pub(crate) x: Vec<f32>,
}

/// Draws standard normal noise of this shape.
pub(crate) type Draw<'a> = &'a mut dyn FnMut(SampleShape) -> Vec<f32>;

impl TextModel {
    /// The share of the schedule that a request runs; none where it starts from noise alone. diffusers' defaults.
    pub(crate) fn strength(&self, request: &Request) -> Option<f64> {
        let source = request.source.as_ref()?;
        let large = self.network.pooled_channels().is_some();
        let own = match source.task {
            Task::ImageToImage { .. } => {
                if large {
                    0.3
                } else {
                    0.8
                }
            }
        };
        Some(source.asked_strength().unwrap_or(own))
    }

    /// Channels of the pictures it can start from.
    pub(crate) fn picture_channels(&self) -> Option<usize> {
        match &self.autoencoder {
            Some(autoencoder) => autoencoder.picture_channels(),
            None => Some(self.network.channels()).filter(|channels| matches!(channels, 1 | 3)),
        }
    }

    /// Refuses a picture that the model has no use for, before anything is computed.
    pub(crate) fn check_source(&self, request: &Request) -> Result<(), PipelineError> {
        let refuse = |message: &str| Err(PipelineError::Request(message.into()));
        let Some(source) = &request.source else { return Ok(()) };
        if source.image.width == 0 || source.image.height == 0 {
            return refuse("the picture has no pixels");
        }
        if self.picture_channels().is_none() {
            return refuse(
                "this model cannot start from a picture: it makes latents, and has nothing that makes latents of pictures",
            );
        }
        Ok(())
    }

    /// The noisy sample that a run begins with. Noise is drawn in diffusers' order: of the picture's latents, then what is added to them.
    pub(crate) fn start(
        &mut self,
        device: (&dyn Device, PlanOptions),
        request: &Request,
        sampling: &Sampling,
        shape: SampleShape,
        noise: &mut dyn Noise,
    ) -> Result<Start, PipelineError> {
        let mut draw = |shape: SampleShape| {
            let mut nchw = vec![0.0; shape.numel()];
            noise.fill(&mut nchw);
            nhwc_from_nchw(&nchw, shape)
        };
        let Some(source) = &request.source else {
            return Ok(Start { x: scaled(draw(shape), sampling.schedule.init_noise_sigma) });
        };
        let picture = source.image.resized(request.width, request.height, Filter::Lanczos);
        let clean = self.latents(device, &picture, &mut |shape| draw(shape), shape)?;
        Ok(Start { x: noised(&clean, &draw(shape), sampling.noising()) })
    }

    /// The clean sample of a picture at the sample's size.
    fn latents(
        &mut self,
        device: (&dyn Device, PlanOptions),
        picture: &RgbImage,
        draw: Draw<'_>,
        shape: SampleShape,
    ) -> Result<Vec<f32>, PipelineError> {
        let channels = self.picture_channels().unwrap_or(3);
        let sample = picture.to_sample(channels);
        let Some(autoencoder) = &mut self.autoencoder else { return Ok(sample) };
        let extents = SampleShape { height: picture.height, width: picture.width, channels };
        Ok(autoencoder.encode(device, &sample, extents)?.sample(|| draw(shape)))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
fn scaled(mut noise: Vec<f32>, sigma: f64) -> Vec<f32> {
    noise.iter_mut().for_each(|v| *v *= sigma as f32);
    noise
}

/// A clean sample under noise.
#[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
pub(crate) fn noised(clean: &[f32], noise: &[f32], (alpha, sigma): (f64, f64)) -> Vec<f32> {
    let (alpha, sigma) = (alpha as f32, sigma as f32);
    clean.iter().zip(noise).map(|(clean, noise)| alpha * clean + sigma * noise).collect()
}
