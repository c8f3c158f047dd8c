//! Inpainting: a part of a picture is made anew, the rest is kept.

use crate::denoiser::SampleShape;
use crate::image::RgbImage;
use crate::resize::Filter;
use scheduler::Frame;

/// What a network that knows nothing of masks is held to: where the mask keeps, every step starts from the original under as much of the
/// same noise, and the end is the original (diffusers' pipelines, after Lugmayr et al. 2022, RePaint).
pub(crate) struct Kept {
    clean: Vec<f32>,
    noise: Vec<f32>,
    /// Of every pixel of the sample, whether it is made anew.
    anew: Vec<bool>,
    frame: Frame,
    /// The first step starts from what the run starts from, which at full strength is noise alone.
    begun: bool,
}

impl Kept {
    pub(crate) fn new(clean: Vec<f32>, noise: Vec<f32>, anew: Vec<bool>, frame: Frame) -> Self {
        Self { clean, noise, anew, frame, begun: false }
    }

    /// Before the network sees `x`.
    #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
    pub(crate) fn constrain(&mut self, x: &mut [f32], sigma: f64) {
        if std::mem::replace(&mut self.begun, true) {
            self.put_back(x, (self.frame.alpha(sigma) as f32, sigma as f32));
        }
    }

    /// After the last step.
    pub(crate) fn finish(&self, sample: &mut [f32]) {
        self.put_back(sample, (1.0, 0.0));
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
    pub(crate) fn white(&self, width: usize, height: usize) -> Vec<bool> {
        self.resized(width, height, Filter::Lanczos).luma().iter().map(|luma| *luma >= 128).collect()
    }

    /// The same with the pixels of another of its size wherever `anew` is false.
    pub(crate) fn over(&self, original: &Self, anew: &[bool]) -> Self {
        let pairs = self.pixels.chunks_exact(3).zip(original.pixels.chunks_exact(3)).zip(anew);
        let pixels = pairs.flat_map(|((new, old), anew)| if *anew { new } else { old }).copied().collect();
        Self { pixels, ..*self }
    }
}

/// A mask of a picture at the sample's size: each of its pixels takes the first of those it covers, torch's nearest neighbour.
pub(crate) fn reduced(anew: &[bool], width: usize, shape: SampleShape) -> Vec<bool> {
    let factor = width / shape.width;
    let rows = (0..shape.height).map(|y| y * factor * width);
    rows.flat_map(|row| (0..shape.width).map(move |x| anew[row + x * factor])).collect()
}

/// The picture without what is made anew, which becomes grey: values −1..1, `channels` a pixel.
pub(crate) fn emptied(mut sample: Vec<f32>, channels: usize, anew: &[bool]) -> Vec<f32> {
    for (pixel, _) in sample.chunks_exact_mut(channels).zip(anew).filter(|(_, anew)| **anew) {
        pixel.fill(0.0);
    }
    sample
}

/// What an inpainting network sees beside its sample: where it is to work, and the latents of the picture without that part.
pub(crate) fn beside(anew: &[bool], latents: &[f32]) -> Vec<f32> {
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
        assert_eq!(beside(&[true, false], &[0.1, 0.2, 0.3, 0.4]), [1.0, 0.1, 0.2, 0.0, 0.3, 0.4]);
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
