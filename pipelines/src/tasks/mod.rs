//! Tasks: what a picture is made from. Each is one file, and fills the places that [`crate::edit`] has in a run; the loop knows none of them.

mod canvas;
mod colorize;
#[cfg(test)]
mod equalities;
mod held;
mod image_to_image;
mod inpaint;
mod invert;
mod mask;
mod restore;
mod stroke;
mod text_to_image;
mod upscale;

pub use colorize::Colorize;
pub use image_to_image::ImageToImage;
pub use inpaint::Inpaint;
pub use invert::Invert;
pub use restore::Restore;
pub use stroke::Stroke;
pub use upscale::Upscale;

use crate::conditioning::SampleShape;
use crate::devices::residency::Host;
use crate::edit::{Constraint, Method, Replacement};
use crate::error::PipelineError;
use crate::networks::{Concatenated, Network};
use crate::noise::Noise;
use crate::parts::{Model, Size};
use crate::picture::{RgbImage, nhwc_from_nchw};
use crate::pipeline::Shared;
use canvas::Canvas;
use graph::Work;
use models::Defaults;
use scheduler::{Sampler, Sampling, SchedulerConfig};
use std::fmt;
use std::sync::Arc;

/// What a picture is made from: noise alone unless a request says otherwise.
///
/// ```
/// use pipelines::{ImageToImage, Request, RgbImage};
///
/// let image = RgbImage { width: 1, height: 1, pixels: vec![255, 0, 0] };
/// let request = Request { prompt: "a red heart".into(), task: ImageToImage { image, strength: Some(0.6) }.into(), ..Request::default() };
/// ```
#[derive(Clone)]
pub struct Task(Arc<dyn Kind>);

impl Task {
    /// One of a kind.
    pub(crate) fn new(kind: impl Kind + 'static) -> Self {
        Self(Arc::new(kind))
    }

    pub(crate) fn kind(&self) -> &dyn Kind {
        self.0.as_ref()
    }
}

impl Default for Task {
    fn default() -> Self {
        Self::new(text_to_image::TextToImage)
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a task decides.
pub(crate) trait Kind: fmt::Debug + Send + Sync {
    /// What the task takes where a request does not say, given what the model takes from noise alone.
    fn defaults(&self, _model: &Model, own: TaskDefaults) -> TaskDefaults {
        own
    }

    /// The size of the whole picture, where [`defaults`](Self::defaults) gives that of a part of it.
    fn whole_size(&self, _model: &Model) -> Option<Size> {
        None
    }

    /// The share of the schedule that is run, in 0..=1; none where a run starts from noise alone.
    fn strength(&self, _network: &Network) -> Option<f64> {
        None
    }

    /// How the picture is held to what is known of it; none where nothing is.
    ///
    /// # Errors
    /// When the method that was asked for cannot do this task with this model.
    fn method(&self, _stepping: &Stepping) -> Result<Option<Method>, PipelineError> {
        Ok(None)
    }

    /// The size of overlapping parts that a picture of this size is denoised in; none where it is denoised as a whole.
    fn tile(&self, _model: &Model, _size: Size) -> Option<Size> {
        None
    }

    /// Whether the run leads from a picture to noise.
    fn inverts(&self) -> bool {
        false
    }

    /// Whether a model that was distilled to a list of timesteps spreads all steps over what a strength leaves of the list, as only its
    /// image-to-image pipeline does in diffusers.
    fn spreads_steps(&self) -> bool {
        false
    }

    /// Whether the picture may be made at another size and fitted afterwards. One that starts from a picture must lie where that did.
    fn may_bin(&self) -> bool {
        false
    }

    /// Checks what was given, and does what needs no device and no noise: resizing pictures and masks.
    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError>;
}

/// What a task decides where a request does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TaskDefaults {
    pub(crate) size: Size,
    pub(crate) guidance_scale: f64,
}

/// What is known when a task prepares.
pub(crate) struct Wanted<'a> {
    pub(crate) model: &'a Model,
    /// Of the picture, in pixels.
    pub(crate) size: Size,
    /// Whether that is a size that was asked for, and not the task's own.
    pub(crate) size_was_asked: bool,
    /// Of the sample.
    pub(crate) shape: SampleShape,
    /// What [`Kind::method`] said.
    pub(crate) method: Option<Method>,
}

/// How a run steps, as far as it is known before its noise levels are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stepping {
    pub(crate) sampler: &'static Sampler,
    /// Whether that was asked for, and is not the model's own.
    pub(crate) sampler_was_asked: bool,
    /// Whether samples are latents of an autoencoder.
    pub(crate) latents: bool,
    /// Whether the model is a network of score_sde.
    pub(crate) score: bool,
    /// Whether the network was trained to see a mask and what it leaves of a picture.
    pub(crate) sees_mask: bool,
    /// Whether the network was trained to see a small picture.
    pub(crate) sees_picture: bool,
    /// How the checkpoint itself says that a picture is best held to what a mask keeps of it.
    pub(crate) mask_method: Option<Method>,
}

impl Stepping {
    /// By the sampler that was asked for, if any, or the model's own.
    pub(crate) fn of(
        scheduler: &SchedulerConfig,
        asked: Option<&'static Sampler>,
        network: &Network,
        latents: bool,
        defaults: &Defaults,
    ) -> Result<Self, PipelineError> {
        Ok(Self {
            sampler: asked.map_or_else(|| scheduler.default_sampler(), Ok)?,
            sampler_was_asked: asked.is_some(),
            latents,
            score: scheduler.class().starts_with("ScoreSde"),
            sees_mask: matches!(network.concatenated, Concatenated::Mask(_)),
            sees_picture: matches!(network.concatenated, Concatenated::Picture { .. }),
            // A checkpoint that names none of the methods was refused when it was read.
            mask_method: Method::of_masks(defaults).ok().flatten(),
        })
    }

    /// Whether every step goes to a clean image and back up with fresh noise, as consistency models do.
    pub(crate) fn is_consistency(&self) -> bool {
        is_direct(self.sampler)
    }
}

/// Whether a sampler goes to a clean image and back up with fresh noise in every step.
pub(crate) fn is_direct(sampler: &Sampler) -> bool {
    ["consistency", "one_step", "lcm", "tcd"].contains(&sampler.name)
}

/// The largest and the smallest noise level above 0 of a model's own schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    pub(crate) largest: f64,
    pub(crate) smallest: f64,
}

/// A task that is ready to start.
pub(crate) trait Prepared: fmt::Debug + Send + Sync {
    /// Where a run begins. Noise is drawn in diffusers' order.
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError>;

    /// The noise levels of a run where a request says no more than how many steps; none for the model's own.
    fn levels(&self, _stepping: &Stepping, _range: &Range, _steps: Option<usize>) -> Option<Vec<f64>> {
        None
    }

    /// The picture as it is handed over, made of the one that the model made.
    fn finish(&self, made: RgbImage) -> Finished {
        made.into()
    }

    /// The noise level that the task begins at.
    fn sigma(&self) -> Option<f64> {
        None
    }

    /// The level of the noise over a picture that the network sees.
    fn noise_level(&self) -> Option<usize> {
        None
    }
}

/// A picture handed over.
pub(crate) struct Finished {
    pub(crate) image: RgbImage,
    /// The picture as the model made it, where a part of it was put back to the bit.
    pub(crate) repainted: Option<RgbImage>,
}

impl From<RgbImage> for Finished {
    fn from(image: RgbImage) -> Self {
        Self { image, repainted: None }
    }
}

/// What a starting run has at hand.
pub(crate) struct Begin<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) model: &'a Model,
    pub(crate) host: &'a Host,
    pub(crate) sampling: &'a Sampling,
    pub(crate) shape: SampleShape,
    /// The share of the schedule that is run.
    pub(crate) strength: Option<f64>,
    /// The largest magnitude of denoised images, which are clipped before they are changed.
    pub(crate) clips: Option<f64>,
    pub(crate) noise: &'a mut dyn Noise,
    /// `[H, W, C]`: the caller's own noise to start with, in place of what is drawn.
    pub(crate) given: Option<&'a [f32]>,
}

impl Begin<'_> {
    /// Standard normal noise of this shape, `[H, W, C]`.
    pub(crate) fn draw(&mut self, shape: SampleShape) -> Vec<f32> {
        let mut nchw = vec![0.0; shape.numel()];
        self.noise.fill(&mut nchw);
        nhwc_from_nchw(&nchw, shape)
    }

    /// The noise that the sample starts with, or is put under.
    pub(crate) fn starting_noise(&mut self) -> Vec<f32> {
        // Drawn in any case, so that later draws are the same.
        let drawn = self.draw(self.shape);
        self.given.map_or(drawn, <[f32]>::to_vec)
    }

    /// The clean sample of a picture `[H, W, C]` of −1..1.
    async fn latents(&mut self, picture: &[f32], extents: SampleShape) -> Result<Vec<f32>, PipelineError> {
        let Some(autoencoder) = &self.model.autoencoder else { return Ok(picture.to_vec()) };
        let shape = self.shape;
        Ok(autoencoder.encode(self.host, picture, extents).await?.sample(|| self.draw(shape)))
    }

    /// Noise as a sampler expects it where it starts from nothing else.
    pub(crate) fn scaled(&self, mut noise: Vec<f32>) -> Vec<f32> {
        #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
        let sigma = self.sampling.schedule.init_noise_sigma as f32;
        noise.iter_mut().for_each(|v| *v *= sigma);
        noise
    }
}

/// Where a run begins, and where its task takes part in it.
pub(crate) struct Start {
    /// `[H, W, C]`, noisy.
    pub(crate) x: Vec<f32>,
    /// `[H, W, E]`: channels that the network sees behind the sample's; empty of most.
    pub(crate) concatenated: Vec<f32>,
    pub(crate) constraint: Option<Box<dyn Constraint>>,
    pub(crate) replacement: Option<Box<dyn Replacement>>,
}

impl From<Vec<f32>> for Start {
    fn from(x: Vec<f32>) -> Self {
        Self { x, concatenated: Vec::new(), constraint: None, replacement: None }
    }
}

/// A clean sample under noise: (factor on the sample, factor on the noise).
#[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
pub(crate) fn noised(clean: &[f32], noise: &[f32], (alpha, sigma): (f64, f64)) -> Vec<f32> {
    let (alpha, sigma) = (alpha as f32, sigma as f32);
    clean.iter().zip(noise).map(|(clean, noise)| alpha * clean + sigma * noise).collect()
}

/// How a model does each task that holds a picture to what is known of it, where nobody says how; a task that it does because it was trained for it
/// has no method, and one that it cannot do is missing.
pub(crate) fn methods(stepping: &Stepping) -> Vec<(&'static str, Option<Method>)> {
    if stepping.sees_mask {
        return vec![("inpaint", None), ("outpaint", None)];
    }
    if stepping.sees_picture {
        return vec![("upscale", None)];
    }
    let of = |(task, mask)| Some((task, Some(held::choose(None, mask, stepping).ok()?)));
    [("inpaint", true), ("outpaint", true), ("colorize", false), ("upscale", false)]
        .into_iter()
        .filter_map(of)
        .collect()
}

/// The size that a picture is made at: each side rounded up to a multiple that the model makes.
fn rounded_size(image: &RgbImage, model: &Model) -> Size {
    // What is too large to be rounded is refused as it is.
    let rounded = |extent: usize| extent.max(1).checked_next_multiple_of(model.side()).unwrap_or(extent);
    Size { height: rounded(image.height), width: rounded(image.width) }
}

/// Whether a picture is so much larger than what a model was trained on that it is not made as a whole.
pub(crate) fn is_much_larger(model: &Model, size: Size) -> bool {
    let trained = model.default_size();
    let pixels = |size: Size| size.height as f64 * size.width as f64;
    let longest = |size: Size| size.height.max(size.width) as f64;
    let times = if model.network.several_sizes { 4.0 } else { 1.3 };
    pixels(size) > times * pixels(trained) || longest(size) > 2.0 * times * longest(trained)
}

/// The size of the parts that a picture is denoised in where it is larger than what the model was trained on.
fn tile_of(model: &Model, size: Size) -> Option<Size> {
    let trained = model.default_size();
    let part = Size { height: size.height.min(trained.height), width: size.width.min(trained.width) };
    (is_much_larger(model, size) && part != size).then_some(part)
}

/// The noise levels of a run that begins in the middle, at `sigma`. A consistency model goes on from two fifths of it, others down to their least.
fn down_from(sigma: f64, stepping: &Stepping, range: &Range, steps: usize) -> Vec<f64> {
    let high = sigma.clamp(range.smallest, range.largest);
    let low = if stepping.is_consistency() { high * 0.4 } else { 0.0 };
    ramp(steps, high, low.max(range.smallest))
}

/// Noise levels that fall as in Karras et al. 2022, equation 5, with ρ = 7: `steps` of them from `high` down to `low`, and then none.
fn ramp(steps: usize, high: f64, low: f64) -> Vec<f64> {
    let level = |i: usize| {
        let share = if steps < 2 { 0.0 } else { i as f64 / (steps - 1) as f64 };
        ((1.0 - share) * high.powf(1.0 / 7.0) + share * low.min(high).powf(1.0 / 7.0)).powi(7)
    };
    let mut levels: Vec<f64> = (0..steps.max(1)).map(level).collect();
    // Rounding must make none larger than the one before.
    for i in 1..levels.len() {
        levels[i] = levels[i].min(levels[i - 1]);
    }
    levels.push(0.0);
    levels
}

/// Refuses a picture that is none, or that the model cannot start from; gives the channels that its picture has for it.
fn check_picture(image: &RgbImage, model: &Model) -> Result<usize, PipelineError> {
    if let Some(fault) = image.fault() {
        return Err(PipelineError::Request(format!("the picture {fault}")));
    }
    model.picture_channels().ok_or_else(|| {
        PipelineError::Request(
            "this model cannot start from a picture: it makes latents, and has nothing that makes latents of pictures"
                .into(),
        )
    })
}

/// Refuses a model that was trained to see what this task does not give it.
fn check_sees_nothing(network: &Network) -> Result<(), PipelineError> {
    let (message, task) = match network.concatenated {
        Concatenated::Nothing => return Ok(()),
        Concatenated::Mask(_) => ("this model makes a part of a picture anew: give it a picture and a mask", "inpaint"),
        Concatenated::Picture { .. } => ("this model makes pictures larger: give it one", "upscale"),
    };
    Err(PipelineError::OtherTask { message, task })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceChoice, DeviceSettings, Pipeline, open_device};
    use scheduler::Steps;
    use std::path::Path;
    use std::sync::Mutex;

    /// What a task's hooks were asked, in order: the noise level, and which of them.
    type Asked = Arc<Mutex<Vec<(char, f64)>>>;

    /// A task as small as one can be: the first element of every denoised image is 0.5, and x is held to twice that after all.
    #[derive(Debug, Clone, Default)]
    struct Held(Asked);

    impl Kind for Held {
        fn prepare(&self, _: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
            Ok(Arc::new(self.clone()))
        }
    }

    impl Prepared for Held {
        fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
            let noise = begin.starting_noise();
            let x = begin.scaled(noise);
            let (replacement, constraint) = (Some(Box::new(self.clone()) as _), Some(Box::new(self.clone()) as _));
            Box::pin(async { Ok(Start { replacement, constraint, ..x.into() }) })
        }
    }

    impl Replacement for Held {
        fn replace<'a>(&'a mut self, denoised: &'a mut [f32], sigma: f64) -> Work<'a, (), PipelineError> {
            self.0.lock().expect("no test panics with it").push(('r', sigma));
            denoised[0] = 0.5;
            Box::pin(async { Ok(()) })
        }
    }

    impl Constraint for Held {
        fn constrain(&mut self, _: &mut [f32], sigma: f64) {
            self.0.lock().expect("no test panics with it").push(('c', sigma));
        }

        fn finish(&self, sample: &mut [f32]) {
            // The replacement has held: the last step ends in the denoised image.
            assert!((sample[0] - 0.5).abs() < 1e-5, "{}", sample[0]);
            sample[1] = 1.0;
        }
    }

    #[test]
    fn levels_fall_and_end_without_noise() {
        for (steps, high, low) in
            [(1, 5.0, 0.25), (8, 0.203_006_994_107_618, 0.203_006_994_107_618), (16, 40.0, 0.2), (3, 1.0, 2.0)]
        {
            let levels = ramp(steps, high, low);
            assert_eq!((levels.len(), levels[steps]), (steps + 1, 0.0));
            assert!(
                (levels[0] - high).abs() < 1e-12 * high && levels.windows(2).all(|pair| pair[1] <= pair[0]),
                "{levels:?}"
            );
        }
    }

    #[test]
    fn a_task_takes_part_before_and_after_every_evaluation() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines/pixels");
        let files = models::ModelFiles::folder(folder).expect("a golden");
        let device = open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).expect("always there");
        let pipe = Pipeline::from_pretrained(&device, &files, Default::default()).expect("a whole checkpoint");
        let held = Held::default();
        let request = crate::Request {
            prompt: "a red square".into(),
            steps: Some(Steps::Count(3)),
            sampler: Some("euler".parse().expect("a sampler")),
            task: Task::new(held.clone()),
            ..Default::default()
        };
        let job = pipe.job(&request).expect("it makes sense");
        let generated = pipe.start(&job).and_then(crate::Run::finish).expect("a picture");
        assert!((generated.sample[1] - 1.0).abs() < f32::EPSILON);
        let wanted: Vec<(char, f64)> =
            job.sigmas().into_iter().flat_map(|sigma| [('c', sigma), ('r', sigma)]).collect();
        assert_eq!(*held.0.lock().expect("no test panics with it"), wanted);
    }
}
