//! How the small picture is noised that an upscaler sees (Ho et al. 2022, Cascaded Diffusion Models).

use super::scheduler_config;
use crate::error::PipelineError;
use crate::networks::Concatenated;
use models::{ModelFiles, ModelIndex};
use scheduler::{NamedSchedule, SchedulerConfig, Steps};

/// The noise over a picture that a network sees besides its sample.
pub(crate) struct LowRes {
    scheduler: SchedulerConfig,
    /// The highest level that pipeline and network take.
    max_noise_level: usize,
}

/// diffusers' `noise_level` and `max_noise_level` where nobody says.
const NOISE_LEVEL: usize = 20;
const MAX_NOISE_LEVEL: u64 = 350;

impl LowRes {
    /// Reads it for a network that sees such a picture.
    pub(crate) fn load(
        files: &ModelFiles,
        index: &ModelIndex,
        seen: Concatenated,
    ) -> Result<Option<Self>, PipelineError> {
        let Concatenated::Picture { levels } = seen else { return Ok(None) };
        index.require("low_res_scheduler", &["DDPMScheduler"])?;
        let scheduler = scheduler_config::low_res(files)?;
        let most = index.options.get("max_noise_level").and_then(serde_json::Value::as_u64).unwrap_or(MAX_NOISE_LEVEL);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let max_noise_level = levels.map_or(most, |levels| most.min(levels.saturating_sub(1)));
        let low_res = Self { scheduler, max_noise_level };
        low_res.noising(0)?;
        Ok(Some(low_res))
    }

    /// The level that is meant; refuses one that the network was not trained for.
    pub(crate) fn level(&self, asked: Option<usize>) -> Result<usize, PipelineError> {
        let most = self.max_noise_level;
        match asked.unwrap_or(NOISE_LEVEL.min(most)) {
            level if level <= most => Ok(level),
            level => {
                let message = format!("noise level {level} is not possible: this model takes 0 to {most}");
                Err(PipelineError::Request(message))
            }
        }
    }

    /// (factor on the picture, factor on the noise), whose squares add up to 1 as this scheduler has it.
    pub(crate) fn noising(&self, level: usize) -> Result<(f64, f64), PipelineError> {
        let steps = Steps::Timesteps(vec![level as f64]);
        let request =
            scheduler::Request { steps, schedule: Some(NamedSchedule::Normal), ..scheduler::Request::steps(1) };
        let (alpha, sigma) = self.scheduler.plan(&request)?.noising();
        let length = alpha.hypot(sigma);
        Ok((alpha / length, sigma / length))
    }
}
