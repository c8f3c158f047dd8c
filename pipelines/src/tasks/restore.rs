//! Restoration: noise is taken off a picture.

use super::image_to_image::Picture;
use super::{
    Begin, Finished, Kind, Prepared, Range, Start, Stepping, Task, TaskDefaults, Wanted, check_sees_nothing, down_from,
    noised, rounded_size, tile_of,
};
use crate::error::PipelineError;
use crate::parts::{Model, Size};
use crate::picture::RgbImage;
use graph::Work;
use std::sync::Arc;

/// A picture under noise is taken for what the model sees in the middle of a run: a run starts at its level, with the noise that is there (Song et al.
/// 2023, section 5, denoising).
#[derive(Debug, Clone, PartialEq)]
pub struct Restore {
    /// The noisy picture.
    pub image: RgbImage,
    /// The standard deviation of its noise, on the model's scale, where pictures lie in −1..1: 2/255 for each level of a byte. Estimated from the
    /// picture if absent.
    pub sigma: Option<f64>,
}

impl From<Restore> for Task {
    fn from(task: Restore) -> Self {
        Self::new(task)
    }
}

impl Kind for Restore {
    fn defaults(&self, model: &Model, own: TaskDefaults) -> TaskDefaults {
        // What a picture shows is seen through its noise: guidance has nothing to add.
        TaskDefaults { size: rounded_size(&self.image, model), guidance_scale: own.guidance_scale.min(1.0) }
    }

    fn tile(&self, model: &Model, size: Size) -> Option<Size> {
        tile_of(model, size)
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        if wanted.size_was_asked {
            let message = "a size is not possible: a picture of another size has other noise";
            return Err(PipelineError::Request(message.into()));
        }
        let picture = Picture::new(&self.image, wanted)?;
        let level = self.sigma.unwrap_or_else(|| self.image.noise());
        if self.sigma.is_none() && level == 0.0 {
            let message = "no noise can be seen in the picture: say how much there is, if there is any";
            return Err(PipelineError::Request(message.into()));
        }
        if !(level.is_finite() && level > 0.0) {
            return Err(PipelineError::Request(format!("sigma must be a number above 0, not {level}")));
        }
        let share = wanted.model.defaults().restore_noise.filter(|_| wanted.model.autoencoder.is_some());
        Ok(Arc::new(NoisyPicture { picture, sigma: level, share }))
    }
}

/// A picture that is as noisy as a run's first x.
#[derive(Debug)]
struct NoisyPicture {
    picture: Picture,
    sigma: f64,
    /// Of latents: how much of it is left in them, where the checkpoint says so.
    share: Option<f64>,
}

impl NoisyPicture {
    /// The noise that a run starts with, and takes off.
    fn level(&self) -> f64 {
        self.sigma * self.share.unwrap_or(1.0)
    }

    /// The picture. Bytes end at 0 and 255, and noise does not: where it was cut off, about as much of it is put back.
    fn unclipped(&self, noise: &[f32]) -> Vec<f32> {
        #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
        let own = self.sigma as f32;
        let mut picture = self.picture.sample();
        for (x, noise) in picture.iter_mut().zip(noise).filter(|(x, _)| x.abs() >= 1.0) {
            *x += own * noise.abs().copysign(*x);
        }
        picture
    }
}

impl Prepared for NoisyPicture {
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        Box::pin(async move {
            let (alpha, sigma) = begin.sampling.noising();
            let (clean, noise) = match &begin.model.autoencoder {
                // Noise over a picture is none over its latents, which get their own.
                Some(_) if self.share.is_none() => return self.picture.start(begin).await,
                Some(autoencoder) => {
                    let extents = self.picture.extents();
                    let picture = self.unclipped(&begin.draw(extents));
                    (autoencoder.encode_mean(begin.host, &picture, extents).await?, begin.starting_noise())
                }
                None => {
                    let mut noise = begin.starting_noise();
                    let picture = self.unclipped(&noise);
                    // What was put back has its noise.
                    noise.iter_mut().zip(&picture).filter(|(_, x)| x.abs() > 1.0).for_each(|(noise, _)| *noise = 0.0);
                    (picture, noise)
                }
            };
            // A model's smallest level may lie above the picture's noise: what is missing is added.
            let more = (sigma.powi(2) - (alpha * self.level()).powi(2)).max(0.0).sqrt();
            Ok(noised(&clean, &noise, (alpha, more)).into())
        })
    }

    fn sigma(&self) -> Option<f64> {
        Some(self.sigma)
    }

    fn levels(&self, stepping: &Stepping, range: &Range, steps: Option<usize>) -> Option<Vec<f64>> {
        Some(down_from(self.level(), stepping, range, steps.unwrap_or(if stepping.is_consistency() { 1 } else { 10 })))
    }

    fn finish(&self, made: RgbImage) -> Finished {
        self.picture.finish(made)
    }
}

impl RgbImage {
    /// The standard deviation of a picture's noise where black is −1 and white 1, told from how its pixels differ from what their neighbours let
    /// expect (Immerkær 1996, *Fast Noise Variance Estimation*). What it shows adds a little: the median of small blocks leaves out most edges.
    pub(crate) fn noise(&self) -> f64 {
        const BLOCK: usize = 8;
        let luma = |x: usize, y: usize| {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].iter().map(|v| f64::from(*v)).sum::<f64>() / 3.0
        };
        // The difference of two Laplacians. Its weights' squares sum to 36, and a mean of three channels has a third of the variance.
        let second = |x: usize, y: usize| {
            let corners = luma(x - 1, y - 1) + luma(x + 1, y - 1) + luma(x - 1, y + 1) + luma(x + 1, y + 1);
            let sides = luma(x, y - 1) + luma(x - 1, y) + luma(x + 1, y) + luma(x, y + 1);
            corners - 2.0 * sides + 4.0 * luma(x, y)
        };
        // Where noise was cut off at black or white there is less of it: such blocks count only if there are no others.
        let ended = |x: usize, y: usize| {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].iter().any(|v| matches!(v, 0 | 255))
        };
        let (mut variances, mut cut_off) = (Vec::new(), Vec::new());
        for top in (1..self.height.saturating_sub(1)).step_by(BLOCK) {
            for left in (1..self.width.saturating_sub(1)).step_by(BLOCK) {
                let (bottom, right) = ((top + BLOCK).min(self.height - 1), (left + BLOCK).min(self.width - 1));
                let places = || (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
                let squares: f64 = places().map(|(x, y)| second(x, y).powi(2)).sum();
                let list = if places().any(|(x, y)| ended(x, y)) { &mut cut_off } else { &mut variances };
                list.push(squares / ((bottom - top) * (right - left)) as f64);
            }
        }
        let mut variances = if variances.is_empty() { cut_off } else { variances };
        variances.sort_by(f64::total_cmp);
        let median = variances.get(variances.len() / 2).copied().unwrap_or(0.0);
        (median / 36.0 * 3.0).sqrt() * 2.0 / 255.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Rng;

    #[test]
    fn noise_is_measured() {
        let (width, height) = (96, 80);
        for level in [0.02, 0.1, 0.4] {
            let mut noise = vec![0.0; width * height * 3];
            Rng::Philox.stream(3).fill(&mut noise);
            // A slope, and an edge through the middle.
            let clean = |i: usize| (i / 3 % width) as f32 * 0.004 + if i / 3 / width > 40 { 0.1 } else { -0.3 };
            let sample: Vec<f32> = noise.iter().enumerate().map(|(i, z)| clean(i) + level * z).collect();
            let shape = crate::SampleShape { height, width, channels: 3 };
            let told = RgbImage::from_sample(&sample, shape).expect("three channels").noise();
            assert!((told / f64::from(level) - 1.0).abs() < 0.15, "{told} of {level}");
        }
    }
}
