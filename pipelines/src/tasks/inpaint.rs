//! Inpainting: a part of a picture is made anew, the rest is kept.

use super::image_to_image::Picture;
use super::{
    Begin, Finished, Kind, Prepared, Start, Task, TaskDefaults, Wanted, check_sees_nothing, noised, rounded_size,
};
use crate::conditioning::SampleShape;
use crate::edit::Constraint;
use crate::error::PipelineError;
use crate::networks::{Concatenated, Network};
use crate::parts::{Autoencoder, Model, Size};
use crate::picture::{Filter, RgbImage};
use scheduler::Frame;
use std::sync::Arc;

/// A part of a picture is made anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Inpaint {
    /// Of any size: it is resized to the request's as diffusers does it, each side for itself (Lanczos).
    pub image: RgbImage,
    /// White where it is made anew, black where the picture is kept, resized as the picture is.
    pub mask: RgbImage,
    /// How much of the schedule is run, in 0..=1; diffusers' default for the model if absent.
    pub strength: Option<f64>,
}

impl From<Inpaint> for Task {
    fn from(task: Inpaint) -> Self {
        Self::new(task)
    }
}

impl Kind for Inpaint {
    fn defaults(&self, model: &Model, _own: TaskDefaults) -> TaskDefaults {
        // A checkpoint's own guidance is meant for all of its tasks.
        let guidance_scale = match model.defaults().guidance_scale {
            Some(scale) => scale,
            None => model.network.defaults.inpaint_guidance_scale,
        };
        TaskDefaults { size: rounded_size(&self.image, model.side()), guidance_scale }
    }

    fn strength(&self, network: &Network) -> Option<f64> {
        Some(self.strength.unwrap_or(network.defaults.inpaint_strength))
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        let sees_mask = matches!(wanted.model.network.concatenated, Concatenated::Mask(_));
        if !sees_mask {
            check_sees_nothing(&wanted.model.network)?;
        }
        let picture = Picture::new(&self.image, wanted)?;
        if let Some(fault) = self.mask.fault() {
            return Err(PipelineError::Request(format!("the mask {fault}")));
        }
        let Size { height, width } = wanted.size;
        let anew = self.mask.white(width, height);
        if !anew.contains(&true) {
            let message = "the mask is black everywhere, so nothing would change: paint white what is to be made anew";
            return Err(PipelineError::Request(message.into()));
        }
        let original = self.image.resized(width, height, Filter::Lanczos);
        Ok(Arc::new(MaskedPicture { small: reduced(&anew, width, wanted.shape), picture, original, anew, sees_mask }))
    }
}

/// A picture and its mask, at the size of what is made.
#[derive(Debug)]
struct MaskedPicture {
    picture: Picture,
    original: RgbImage,
    /// Of every pixel, whether it is made anew.
    anew: Vec<bool>,
    /// The same of every element of the sample.
    small: Vec<bool>,
    /// Whether the network was trained to see the mask.
    sees_mask: bool,
}

impl Prepared for MaskedPicture {
    fn start(&self, begin: &mut Begin<'_>) -> Result<Start, PipelineError> {
        let Picture { sample, extents } = &self.picture;
        let full = begin.strength == Some(1.0);
        // A network that sees the mask and starts from noise alone needs nothing else of the picture than what the mask leaves.
        let needs_clean = !full || !self.sees_mask;
        let clean = needs_clean.then(|| begin.latents(sample, *extents)).transpose()?.unwrap_or_default();
        let noise = begin.starting_noise();
        let x = if full { begin.scaled(noise.clone()) } else { noised(&clean, &noise, begin.sampling.noising()) };
        if self.sees_mask {
            let rest = emptied(sample.clone(), extents.channels, &self.anew);
            let rest = begin.latents(&rest, *extents)?;
            return Ok(Start { concatenated: concatenated(&self.small, &rest), ..x.into() });
        }
        // diffusers draws latents of the rest also where nobody reads them.
        if begin.model.autoencoder.as_ref().is_some_and(Autoencoder::draws) {
            begin.draw(begin.shape);
        }
        let kept = Kept::new(clean, noise, self.small.clone(), begin.sampling.schedule.frame);
        Ok(Start { constraint: Some(Box::new(kept)), ..x.into() })
    }

    fn finish(&self, made: RgbImage) -> Finished {
        Finished { image: made.over(&self.original, &self.anew), repainted: Some(made) }
    }
}

/// What a network that knows nothing of masks is held to: where the mask keeps, every step starts from the original under as much of the
/// same noise, and the end is the original (diffusers' pipelines, after Lugmayr et al. 2022, RePaint).
struct Kept {
    clean: Vec<f32>,
    noise: Vec<f32>,
    /// Of every pixel of the sample, whether it is made anew.
    anew: Vec<bool>,
    frame: Frame,
    /// The first step starts from what the run starts from, which at full strength is noise alone.
    begun: bool,
}

impl Constraint for Kept {
    #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
    fn constrain(&mut self, x: &mut [f32], sigma: f64) {
        if std::mem::replace(&mut self.begun, true) {
            self.put_back(x, (self.frame.alpha(sigma) as f32, sigma as f32));
        }
    }

    fn finish(&self, sample: &mut [f32]) {
        self.put_back(sample, (1.0, 0.0));
    }
}

impl Kept {
    fn new(clean: Vec<f32>, noise: Vec<f32>, anew: Vec<bool>, frame: Frame) -> Self {
        Self { clean, noise, anew, frame, begun: false }
    }

    fn put_back(&self, x: &mut [f32], (alpha, sigma): (f32, f32)) {
        let channels = x.len() / self.anew.len();
        for (pixel, x) in x.chunks_exact_mut(channels).enumerate().filter(|(pixel, _)| !self.anew[*pixel]) {
            let all = pixel * channels..(pixel + 1) * channels;
            for ((x, clean), noise) in x.iter_mut().zip(&self.clean[all.clone()]).zip(&self.noise[all]) {
                *x = alpha * clean + sigma * noise;
            }
        }
    }
}

impl RgbImage {
    /// Of every pixel of a mask at this size, whether it is made anew: resized as diffusers does it, then white from half brightness on.
    fn white(&self, width: usize, height: usize) -> Vec<bool> {
        self.resized(width, height, Filter::Lanczos).luma().iter().map(|luma| *luma >= 128).collect()
    }

    /// The same with the pixels of another of its size wherever `anew` is false.
    fn over(&self, original: &Self, anew: &[bool]) -> Self {
        let pairs = self.pixels.chunks_exact(3).zip(original.pixels.chunks_exact(3)).zip(anew);
        let pixels = pairs.flat_map(|((new, old), anew)| if *anew { new } else { old }).copied().collect();
        Self { pixels, ..*self }
    }
}

/// A mask of a picture at the sample's size: each of its pixels takes the first of those it covers, torch's nearest neighbour.
fn reduced(anew: &[bool], width: usize, shape: SampleShape) -> Vec<bool> {
    let factor = width / shape.width;
    let rows = (0..shape.height).map(|y| y * factor * width);
    rows.flat_map(|row| (0..shape.width).map(move |x| anew[row + x * factor])).collect()
}

/// The picture without what is made anew, which becomes grey: values −1..1, `channels` a pixel.
fn emptied(mut sample: Vec<f32>, channels: usize, anew: &[bool]) -> Vec<f32> {
    for (pixel, _) in sample.chunks_exact_mut(channels).zip(anew).filter(|(_, anew)| **anew) {
        pixel.fill(0.0);
    }
    sample
}

/// What an inpainting network sees behind its sample: where it is to work, and the latents of the picture without that part.
fn concatenated(anew: &[bool], latents: &[f32]) -> Vec<f32> {
    let channels = latents.len() / anew.len();
    let pixels = anew.iter().zip(latents.chunks_exact(channels));
    pixels.flat_map(|(anew, latents)| std::iter::once(f32::from(*anew)).chain(latents.iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_put_where_the_sample_has_them() {
        let [black, white] = [[127; 3], [128; 3]];
        let mask =
            RgbImage { width: 4, height: 2, pixels: [black, white, white, black, white, black, black, white].concat() };
        let anew = mask.white(4, 2);
        assert_eq!(anew, [false, true, true, false, true, false, false, true]);
        assert_eq!(reduced(&anew, 4, SampleShape { height: 1, width: 2, channels: 4 }), [false, true]);
        assert_eq!(emptied(vec![1.0; 8], 1, &anew), [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
        assert_eq!(concatenated(&[true, false], &[0.1, 0.2, 0.3, 0.4]), [1.0, 0.1, 0.2, 0.0, 0.3, 0.4]);
    }

    #[test]
    fn what_is_kept_is_kept_after_the_first_step() {
        let mut kept = Kept::new(vec![1.0, 2.0], vec![0.5, 0.5], vec![false, true], Frame::VarianceExploding);
        let mut x = [9.0, 9.0];
        kept.constrain(&mut x, 4.0);
        assert_eq!(x, [9.0, 9.0]);
        kept.constrain(&mut x, 4.0);
        assert_eq!(x, [3.0, 9.0]);
        kept.finish(&mut x);
        assert_eq!(x, [1.0, 9.0]);
    }
}
