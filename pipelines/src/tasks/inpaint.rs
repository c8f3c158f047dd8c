//! Inpainting: a part of a picture is made anew, the rest is kept.

use super::held::{Held, choose};
use super::image_to_image::Picture;
use super::mask::{Area, Part};
use super::{
    Begin, Finished, Kind, Prepared, Range, Start, Stepping, Task, TaskDefaults, Wanted, check_sees_nothing,
    is_much_larger, noised, rounded_size, tile_of,
};
use crate::conditioning::SampleShape;
use crate::edit::{Constraint, Method};
use crate::error::PipelineError;
use crate::networks::{Concatenated, Network};
use crate::operators::Mask;
use crate::parts::{Autoencoder, Model, Size};
use crate::picture::{Filter, RgbImage};
use graph::Work;
use scheduler::Frame;
use std::sync::Arc;

/// A part of a picture is made anew.
///
/// ```
/// use pipelines::{Inpaint, RgbImage};
///
/// let image = RgbImage { width: 2, height: 1, pixels: vec![9; 6] };
/// let mask = RgbImage { width: 2, height: 1, pixels: vec![0, 0, 0, 255, 255, 255] };
/// let task = Inpaint { strength: Some(0.8), ..Inpaint::new(image, mask) };
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Inpaint {
    /// Of any size, which the result has, too. Where the request gives another, it is resized to that as diffusers does it, each side for
    /// itself (Lanczos).
    pub image: RgbImage,
    /// White where it is made anew, black where the picture is kept, from half brightness on; as large as the picture, or resized to it.
    pub mask: RgbImage,
    /// How much of the schedule is run, in 0..=1; diffusers' default for the model if absent.
    pub strength: Option<f64>,
    /// How the picture is held to what is kept; what suits the model if absent. A model that was trained to see masks has no choice.
    pub method: Option<Method>,
    /// Of latents and [`Method::Replace`]: what is kept is put back in every so many steps.
    pub replace_every: usize,
    /// Only the part around the mask, with as many pixels on each side, is made anew, at the model's own size. If absent, so it is where the
    /// picture is much larger than that, with 32 pixels.
    pub padding: Option<usize>,
    /// As many pixels around the mask are made anew as well.
    pub grow: usize,
    /// Over as many pixels, from the mask's edge inwards, the new part sets in.
    pub blur: usize,
}

impl Inpaint {
    /// As it suits the model.
    #[must_use]
    pub fn new(image: RgbImage, mask: RgbImage) -> Self {
        Self { image, mask, strength: None, method: None, replace_every: 1, padding: None, grow: 0, blur: 0 }
    }

    /// Outpainting: what lies around a picture is made, as many pixels wide on each side. The picture itself is kept.
    #[must_use]
    pub fn around(image: &RgbImage, [left, right, top, bottom]: [usize; 4]) -> Self {
        if image.fault().is_some() {
            // It is refused when the task is asked for.
            return Self::new(image.clone(), image.clone());
        }
        let black = RgbImage { pixels: vec![0; image.pixels.len()], ..*image };
        let mut mask = black.extended([top, bottom], [left, right]);
        let inside = |at: usize| {
            let (x, y) = (at % mask.width, at / mask.width);
            (left..left + image.width).contains(&x) && (top..top + image.height).contains(&y)
        };
        mask.pixels = (0..mask.width * mask.height).flat_map(|at| [if inside(at) { 0 } else { 255 }; 3]).collect();
        Self::new(image.extended([top, bottom], [left, right]), mask)
    }
}

impl From<Inpaint> for Task {
    fn from(task: Inpaint) -> Self {
        Self::new(task)
    }
}

/// Pixels around a mask in a large picture, where nobody says.
const PADDING: usize = 32;

impl Inpaint {
    /// The part of the picture that is made anew by itself, and the model's size for it; none where the picture is made as a whole.
    fn part(&self, model: &Model) -> Option<(Part, Size)> {
        let size = Size { height: self.image.height, width: self.image.width };
        let trained = model.default_size();
        if self.image.fault().is_some() {
            return None;
        }
        let area = Area::new(&self.mask).ok()?.grown(self.grow, size);
        let part = area.part(size, self.padding.unwrap_or(PADDING), trained);
        // A part that is itself much larger than what the model makes is better denoised in tiles than made small.
        let fits = part.size.height.max(1) <= 2 * trained.height && part.size.width <= 2 * trained.width;
        let wanted = self.padding.is_some() || (fits && is_much_larger(model, size));
        (wanted && part.size != size).then(|| (part, model.fitted_size(part.size)))
    }
}

impl Kind for Inpaint {
    fn defaults(&self, model: &Model, _own: TaskDefaults) -> TaskDefaults {
        // A checkpoint's own guidance is meant for all of its tasks.
        let guidance_scale = match model.defaults().guidance_scale {
            Some(scale) => scale,
            None => model.network.defaults.inpaint_guidance_scale,
        };
        let size = self.part(model).map_or_else(|| rounded_size(&self.image, model), |(_, size)| size);
        TaskDefaults { size, guidance_scale }
    }

    fn whole_size(&self, model: &Model) -> Option<Size> {
        Some(rounded_size(&self.image, model))
    }

    fn strength(&self, network: &Network) -> Option<f64> {
        Some(self.strength.unwrap_or(network.defaults.inpaint_strength))
    }

    fn method(&self, stepping: &Stepping) -> Result<Option<Method>, PipelineError> {
        if stepping.sees_mask {
            let asked = self.method.map(|method| {
                let message = format!("the method {method} is not possible: this model was trained to see masks");
                PipelineError::Request(message)
            });
            return asked.map_or(Ok(None), Err);
        }
        choose(self.method, true, stepping).map(Some)
    }

    fn tile(&self, model: &Model, size: Size) -> Option<Size> {
        tile_of(model, size).filter(|_| !matches!(model.network.concatenated, Concatenated::Mask(_)))
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        let sees_mask = matches!(wanted.model.network.concatenated, Concatenated::Mask(_));
        if !sees_mask {
            check_sees_nothing(&wanted.model.network)?;
        }
        if let Some(fault) = self.image.fault() {
            return Err(PipelineError::Request(format!("the picture {fault}")));
        }
        if wanted.size_was_asked && self.padding.is_some() {
            let message = "padding is not possible with a size: the part around the mask is made at the model's own";
            return Err(PipelineError::Request(message.into()));
        }
        let size = Size { height: self.image.height, width: self.image.width };
        let area = Area::new(&self.mask)?.grown(self.grow, size);
        let part = if wanted.size_was_asked { None } else { self.part(wanted.model) };
        let (paste, picture, placed) = if let Some((part, _)) = part {
            // Only this part, at the model's size, goes to the model; it comes back at its own.
            let cut = self.image.cut(part.left, part.top, part.size);
            let own = area.cut(part, size);
            let picture = Picture::new(&cut, &Wanted { size_was_asked: true, ..*wanted })?;
            let placed = own.placed(&picture.canvas);
            (Paste { original: self.image.clone(), anew: own.at(part.size), part, blur: self.blur }, picture, placed)
        } else {
            let picture = Picture::new(&self.image, wanted)?;
            let placed = area.placed(&picture.canvas);
            let original = picture.canvas.cut(picture.image.clone());
            let anew = picture.canvas.cut_mask(&placed.anew);
            let part = Part { left: 0, top: 0, size: Size { height: original.height, width: original.width } };
            (Paste { original, anew, part, blur: self.blur }, picture, placed)
        };
        if !placed.anew.contains(&true) {
            let message =
                "what the mask has white is too small to be seen at the picture's size, so nothing would change";
            return Err(PipelineError::Request(message.into()));
        }
        let small = reduced(&placed.anew, picture.image.width, wanted.shape);
        Ok(match wanted.method {
            Some(Method::Blend) | None => {
                Arc::new(MaskedPicture { small, picture, anew: placed.anew, sees_mask, paste })
            }
            Some(_) => {
                let held = Held::new(Arc::new(placed), picture, wanted, self.replace_every);
                let held = held.with_sample_operator(Arc::new(Mask { anew: small }));
                Arc::new(HeldPixels { held, asks_strength: self.strength.is_some(), paste })
            }
        })
    }
}

/// Where what was made goes in the picture that was given.
#[derive(Debug)]
struct Paste {
    original: RgbImage,
    /// Of every pixel of the part, whether it is made anew.
    anew: Vec<bool>,
    part: Part,
    blur: usize,
}

impl Paste {
    fn put(&self, picture: &Picture, made: RgbImage) -> Finished {
        let made = picture.canvas.cut(made);
        let Size { height, width } = self.part.size;
        let sized = made.resized(width, height, Filter::Lanczos);
        let image = self.original.with(&sized, &self.anew, self.part, self.blur);
        Finished { image, repainted: Some(made) }
    }
}

/// A picture whose kept pixels any method holds.
#[derive(Debug)]
struct HeldPixels {
    held: Held,
    asks_strength: bool,
    paste: Paste,
}

impl Prepared for HeldPixels {
    fn levels(&self, stepping: &Stepping, range: &Range, steps: Option<usize>) -> Option<Vec<f64>> {
        // Who asks for a share of the schedule means the model's own.
        if self.asks_strength { None } else { self.held.levels(stepping, range, steps) }
    }

    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        self.held.start(begin)
    }

    fn finish(&self, made: RgbImage) -> Finished {
        self.paste.put(&self.held.picture, made)
    }
}

/// A picture and its mask, at the size of what is made.
#[derive(Debug)]
struct MaskedPicture {
    picture: Picture,
    /// Of every pixel, whether it is made anew.
    anew: Vec<bool>,
    /// The same of every element of the sample.
    small: Vec<bool>,
    /// Whether the network was trained to see the mask.
    sees_mask: bool,
    paste: Paste,
}

impl Prepared for MaskedPicture {
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        Box::pin(async move {
            let full = begin.strength == Some(1.0);
            // A network that sees the mask and starts from noise alone needs nothing else of the picture than what the mask leaves.
            let needs_clean = !full || !self.sees_mask;
            let clean = if needs_clean { self.picture.latents(begin).await? } else { Vec::new() };
            let noise = begin.starting_noise();
            let x = if full { begin.scaled(noise.clone()) } else { noised(&clean, &noise, begin.sampling.noising()) };
            if self.sees_mask {
                let rest = emptied(self.picture.sample(), self.picture.channels, &self.anew);
                let rest = begin.latents(&rest, self.picture.extents()).await?;
                return Ok(Start { concatenated: concatenated(&self.small, &rest), ..x.into() });
            }
            // diffusers draws latents of the rest also where nobody reads them.
            if begin.model.autoencoder.as_ref().is_some_and(Autoencoder::draws) {
                begin.draw(begin.shape);
            }
            let kept = Kept::new(clean, noise, self.small.clone(), begin.sampling.schedule.frame);
            Ok(Start { constraint: Some(Box::new(kept)), ..x.into() })
        })
    }

    fn finish(&self, made: RgbImage) -> Finished {
        self.paste.put(&self.picture, made)
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

/// A mask of a picture at the sample's size: each of its pixels takes the first of those it covers, torch's nearest neighbour.
/// Where that leaves nothing of a small mask, whatever holds a part of it.
fn reduced(anew: &[bool], width: usize, shape: SampleShape) -> Vec<bool> {
    let factor = width / shape.width;
    let rows = (0..shape.height).map(|y| y * factor * width);
    let first: Vec<bool> = rows.flat_map(|row| (0..shape.width).map(move |x| anew[row + x * factor])).collect();
    if first.contains(&true) {
        return first;
    }
    let mut any = vec![false; first.len()];
    for (at, _) in anew.iter().enumerate().filter(|(_, anew)| **anew) {
        any[at / width / factor * shape.width + at % width / factor] = true;
    }
    any
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
        let anew = [false, true, true, false, true, false, false, true];
        assert_eq!(reduced(&anew, 4, SampleShape { height: 1, width: 2, channels: 4 }), [false, true]);
        let speck: Vec<bool> = (0..8).map(|at| at == 5).collect();
        assert_eq!(reduced(&speck, 4, SampleShape { height: 1, width: 2, channels: 4 }), [true, false]);
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
