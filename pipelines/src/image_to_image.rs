//! Image to image: runs that start from a picture, noised to where the sampler begins (Meng et al. 2022, SDEdit).

use crate::autoencoder::Autoencoder;
use crate::denoiser::SampleShape;
use crate::error::PipelineError;
use crate::image::{RgbImage, nhwc_from_nchw};
use crate::inpaint::{Kept, beside, emptied, reduced};
use crate::model::TextModel;
use crate::network::Beside;
use crate::noise::Noise;
use crate::request::Request;
use crate::resize::Filter;
use crate::text_encoder::TextEncoders;
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
    /// A part of it is made anew.
    Inpaint {
        /// White where it is made anew, black where the picture is kept, resized as the picture is.
        mask: RgbImage,
        /// As above.
        strength: Option<f64>,
    },
    /// It is made larger, by a network that was trained for it.
    Upscale {
        /// How much noise is put over it, a timestep of the model's `low_res_scheduler`; diffusers' default, 20, if absent.
        noise_level: Option<usize>,
        /// How many times its size the image has; as many as the model makes if absent. For another number the picture is resized first.
        scale: Option<f64>,
    },
}

impl Source {
    /// How much of the schedule is run, where the request says it.
    pub(crate) fn asked_strength(&self) -> Option<f64> {
        match &self.task {
            Task::ImageToImage { strength } | Task::Inpaint { strength, .. } => *strength,
            Task::Upscale { .. } => None,
        }
    }
}

/// Where a run begins.
pub(crate) struct Start {
    /// `[H, W, C]`, noisy.
    pub(crate) x: Vec<f32>,
    /// What the network sees beside it, `[H, W, E]`; empty of most.
    pub(crate) beside: Vec<f32>,
    /// What is put back after every step.
    pub(crate) kept: Option<Kept>,
    /// Of the noise over the picture beside it.
    pub(crate) noise_level: Option<usize>,
}

impl From<Vec<f32>> for Start {
    fn from(x: Vec<f32>) -> Self {
        Self { x, beside: Vec::new(), kept: None, noise_level: None }
    }
}

/// Draws standard normal noise of this shape.
pub(crate) type Draw<'a> = &'a mut dyn FnMut(SampleShape) -> Vec<f32>;

/// A side that no model makes: what would be larger still is refused as this is.
const LARGEST: usize = 1 << 24;

impl TextModel {
    /// The share of the schedule that a request runs; none where it starts from noise alone. diffusers' defaults.
    pub(crate) fn strength(&self, request: &Request) -> Option<f64> {
        let source = request.source.as_ref()?;
        let large = self.network.pooled_channels().is_some();
        let own = match source.task {
            Task::ImageToImage { .. } if large => 0.3,
            Task::ImageToImage { .. } => 0.8,
            Task::Inpaint { .. } if large => 0.9999,
            Task::Inpaint { .. } => 1.0,
            Task::Upscale { .. } => return None,
        };
        Some(source.asked_strength().unwrap_or(own))
    }

    /// The size of what is made of a picture where nobody says: (width, height). diffusers rounds the small picture to the autoencoder's
    /// multiple, too.
    pub(crate) fn default_size_for(&self, source: &Source) -> [usize; 2] {
        let [width, height] = [source.image.width, source.image.height];
        let Task::Upscale { scale, .. } = source.task else {
            let side = self.side();
            return [width, height].map(|extent| (extent - extent % side).max(side));
        };
        let larger = self.pixels_per_element();
        let side = self.network.side_multiple().max(larger);
        [width, height].map(|extent| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "too large a size is refused")]
            let small = scale.map_or(extent, |scale| (extent as f64 * scale / larger as f64) as usize);
            (small - small % side).clamp(side, LARGEST) * larger
        })
    }

    /// The guidance_scale of what is made of a picture where it is another than of text alone, and nobody says: diffusers' own.
    pub(crate) fn default_guidance_for(&self, source: &Source) -> Option<f64> {
        let large = self.network.pooled_channels().is_some();
        let other = large && matches!(source.task, Task::Inpaint { .. }) && self.defaults().guidance_scale.is_none();
        other.then_some(7.5)
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
        let task = request.source.as_ref().map(|source| &source.task);
        match (self.network.beside(), task) {
            (Beside::Mask, Some(Task::Inpaint { .. })) | (Beside::Picture, Some(Task::Upscale { .. })) => {}
            (Beside::Picture, _) => return refuse("this model makes pictures larger: give it one (headwater upscale)"),
            (_, Some(Task::Upscale { .. })) => {
                return refuse("this model makes no pictures larger: that takes one of StableDiffusionUpscalePipeline");
            }
            (Beside::Nothing, _) => {}
            (Beside::Mask, _) => {
                return refuse(
                    "this model makes a part of a picture anew: give it a picture and a mask (headwater inpaint)",
                );
            }
        }
        let Some(source) = &request.source else { return Ok(()) };
        if let Some(fault) = source.image.fault() {
            return refuse(&format!("the picture {fault}"));
        }
        if let Task::Upscale { noise_level, .. } = &source.task {
            return self.noise_level(*noise_level).map(|_| ());
        }
        if self.picture_channels().is_none() {
            return refuse(
                "this model cannot start from a picture: it makes latents, and has nothing that makes latents of pictures",
            );
        }
        if let Task::Inpaint { mask, .. } = &source.task {
            if let Some(fault) = mask.fault() {
                return refuse(&format!("the mask {fault}"));
            }
            // Twice the same cheap work, and nothing is loaded for nothing.
            self.request_shape(request)?;
            if !mask.white(request.width, request.height).contains(&true) {
                return refuse(
                    "the mask is black everywhere, so nothing would change: paint white what is to be made anew",
                );
            }
        }
        Ok(())
    }

    /// The noisy sample that a run begins with, and what holds it. Noise is drawn in diffusers' order: of the picture's latents, then what is
    /// added to them, then of the latents of what a mask leaves of the picture. `make_room` lets something of the device go, and tells
    /// whether it did.
    pub(crate) fn start(
        &mut self,
        device: (&dyn Device, PlanOptions),
        request: &Request,
        sampling: &Sampling,
        shape: SampleShape,
        noise: &mut dyn Noise,
        make_room: &mut dyn FnMut() -> bool,
    ) -> Result<Start, PipelineError> {
        let mut draw = |shape: SampleShape| {
            let mut nchw = vec![0.0; shape.numel()];
            noise.fill(&mut nchw);
            nhwc_from_nchw(&nchw, shape)
        };
        let Some(source) = &request.source else {
            return Ok(scaled(draw(shape), sampling.schedule.init_noise_sigma).into());
        };
        if let Task::Upscale { noise_level, .. } = &source.task {
            return self.start_larger(&source.image, *noise_level, sampling, shape, &mut draw);
        }
        let picture = source.image.resized(request.width, request.height, Filter::Lanczos);
        let channels = self.picture_channels().unwrap_or(3);
        let extents = SampleShape { height: picture.height, width: picture.width, channels };
        let sample = picture.to_sample(channels);
        let Task::Inpaint { mask, .. } = &source.task else {
            let clean = self.latents(device, (&sample, extents), &mut draw, shape, make_room)?;
            return Ok(noised(&clean, &draw(shape), sampling.noising()).into());
        };
        let (full, sees_mask) = (self.strength(request) == Some(1.0), self.network.beside() == Beside::Mask);
        // Of what starts as noise alone a network that sees the mask needs nothing more.
        let clean =
            (!full || !sees_mask).then(|| self.latents(device, (&sample, extents), &mut draw, shape, make_room));
        let clean = clean.transpose()?.unwrap_or_default();
        let noise = draw(shape);
        let x = if full {
            scaled(noise.clone(), sampling.schedule.init_noise_sigma)
        } else {
            noised(&clean, &noise, sampling.noising())
        };
        let anew = mask.white(request.width, request.height);
        let small = reduced(&anew, request.width, shape);
        if sees_mask {
            let rest = emptied(sample, channels, &anew);
            let rest = self.latents(device, (&rest, extents), &mut draw, shape, make_room)?;
            return Ok(Start { beside: beside(&small, &rest), ..x.into() });
        }
        // diffusers draws latents of the rest also where nobody reads them.
        if self.autoencoder.as_ref().is_some_and(Autoencoder::draws) {
            draw(shape);
        }
        let kept = Kept::new(clean, noise, small, sampling.schedule.frame);
        Ok(Start { kept: Some(kept), ..x.into() })
    }

    /// The image of a request, and if a part of it was kept, what it was before the picture's own pixels were put back there.
    pub(crate) fn put_back(&self, request: &Request, image: Option<RgbImage>) -> (Option<RgbImage>, Option<RgbImage>) {
        let (Some(Source { image: original, task: Task::Inpaint { mask, .. } }), Some(made)) =
            (&request.source, &image)
        else {
            return (image, None);
        };
        let original = original.resized(made.width, made.height, Filter::Lanczos);
        (Some(made.over(&original, &mask.white(made.width, made.height))), image)
    }

    /// The clean sample of a picture at the sample's size.
    fn latents(
        &mut self,
        device: (&dyn Device, PlanOptions),
        (picture, extents): (&[f32], SampleShape),
        draw: Draw<'_>,
        shape: SampleShape,
        make_room: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<f32>, PipelineError> {
        let Some(autoencoder) = &mut self.autoencoder else { return Ok(picture.to_vec()) };
        let text = &mut self.text;
        let make_room = &mut || text.as_mut().is_some_and(TextEncoders::let_go) || make_room();
        Ok(autoencoder.encode(device, picture, extents, make_room)?.sample(|| draw(shape)))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
pub(crate) fn scaled(mut noise: Vec<f32>, sigma: f64) -> Vec<f32> {
    noise.iter_mut().for_each(|v| *v *= sigma as f32);
    noise
}

/// A clean sample under noise.
#[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
pub(crate) fn noised(clean: &[f32], noise: &[f32], (alpha, sigma): (f64, f64)) -> Vec<f32> {
    let (alpha, sigma) = (alpha as f32, sigma as f32);
    clean.iter().zip(noise).map(|(clean, noise)| alpha * clean + sigma * noise).collect()
}
