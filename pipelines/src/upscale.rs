//! Super-resolution: a network sees the small picture under a little noise beside its sample (Ho et al. 2022, Cascaded Diffusion Models).

use crate::denoiser::SampleShape;
use crate::error::PipelineError;
use crate::image::RgbImage;
use crate::image_to_image::{Draw, Start, noised, scaled};
use crate::model::TextModel;
use crate::resize::Filter;
use models::{ModelFiles, ModelIndex};
use scheduler::{NamedSchedule, Sampling, SchedulerConfig, Steps};

/// How the small picture is noised.
pub(crate) struct Upscaler {
    scheduler: SchedulerConfig,
    /// The highest level that the pipeline takes.
    max_noise_level: usize,
}

/// diffusers' `noise_level` and `max_noise_level` where nobody says.
const NOISE_LEVEL: usize = 20;
const MAX_NOISE_LEVEL: u64 = 350;

impl Upscaler {
    pub(crate) fn load(files: &ModelFiles, index: &ModelIndex) -> Result<Self, PipelineError> {
        index.require("low_res_scheduler", &["DDPMScheduler"])?;
        let scheduler = crate::config::low_res_scheduler_config(files)?;
        let most = index.options.get("max_noise_level").and_then(serde_json::Value::as_u64).unwrap_or(MAX_NOISE_LEVEL);
        let upscaler = Self { scheduler, max_noise_level: usize::try_from(most).unwrap_or(usize::MAX) };
        upscaler.noising(0)?;
        Ok(upscaler)
    }

    /// (factor on the picture, factor on the noise), whose squares add up to 1 as this scheduler has it.
    fn noising(&self, level: usize) -> Result<(f64, f64), PipelineError> {
        let request = scheduler::Request {
            steps: Steps::Timesteps(vec![level as f64]),
            sampler: None,
            schedule: Some(NamedSchedule::Normal),
            eta: None,
            image_seq_len: None,
        };
        let (alpha, sigma) = self.scheduler.plan(&request)?.noising();
        let length = alpha.hypot(sigma);
        Ok((alpha / length, sigma / length))
    }
}

impl TextModel {
    /// The level of noise that is meant; refuses one that the network was not trained for.
    pub(crate) fn noise_level(&self, asked: Option<usize>) -> Result<usize, PipelineError> {
        let most = self.network.noise_levels().map_or(usize::MAX, |levels| levels.saturating_sub(1));
        let most = self.upscaler.as_ref().map_or(most, |upscaler| most.min(upscaler.max_noise_level));
        match asked.unwrap_or(NOISE_LEVEL.min(most)) {
            level if level <= most => Ok(level),
            level => {
                let message = format!("noise level {level} is not possible: this model takes 0 to {most}");
                Err(PipelineError::Request(message))
            }
        }
    }

    /// Where enlarging begins: noise, and beside it the picture at the sample's size, resized as diffusers does it (bicubic), under noise
    /// that is drawn first.
    pub(crate) fn start_larger(
        &self,
        image: &RgbImage,
        level: Option<usize>,
        sampling: &Sampling,
        shape: SampleShape,
        draw: Draw<'_>,
    ) -> Result<Start, PipelineError> {
        let Some(upscaler) = &self.upscaler else {
            return Err(PipelineError::Request("this model makes no pictures larger".into()));
        };
        let level = self.noise_level(level)?;
        let small = image.resized(shape.width, shape.height, Filter::Bicubic).to_sample(3);
        let noise = draw(SampleShape { channels: 3, ..shape });
        let beside = noised(&small, &noise, upscaler.noising(level)?);
        let x = scaled(draw(shape), sampling.schedule.init_noise_sigma);
        Ok(Start { beside, noise_level: Some(level), ..x.into() })
    }
}
