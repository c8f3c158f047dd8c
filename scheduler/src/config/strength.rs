//! Runs that start from an image: how much of a schedule is left.

use super::fields::Reader;
use super::{Request, Sampling, SchedulerConfig, Steps, classes, discrete};
use crate::error::Error;

impl SchedulerConfig {
    /// Everything for a run that starts from an image, as diffusers' image-to-image pipelines do it: min(⌊n·strength⌋, n) of n steps. A
    /// model that was itself `distilled` to a list of timesteps takes all n steps from that share of the list
    /// (LatentConsistencyModelImg2ImgPipeline), where its sampler is LCM's and no schedule is asked for.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); a strength outside 0..=1, or one so small that no step is left.
    pub fn plan_for_strength(&self, request: &Request, strength: f64, distilled: bool) -> Result<Sampling, Error> {
        let sampler = request.sampler.map_or_else(|| self.default_sampler(), Ok)?;
        let class = self.target(sampler)?;
        match request.steps {
            Steps::Count(n)
                if distilled
                    && class.name == "LCMScheduler"
                    && class.family == classes::Family::Discrete
                    && request.schedule.is_none()
                    && (0.0..=1.0).contains(&strength) =>
            {
                let reader = Reader::new(class, &self.fields);
                let timesteps = discrete::distilled_share(&reader, n, strength)?;
                self.plan(&Request { steps: Steps::Timesteps(timesteps), ..request.clone() })
            }
            _ => self.plan(request)?.for_strength(strength),
        }
    }
}

impl Sampling {
    /// The same sampling without the steps that a strength in 0..=1 leaves out.
    ///
    /// # Errors
    /// As [`Schedule::for_strength`](crate::Schedule::for_strength).
    pub fn for_strength(mut self, strength: f64) -> Result<Self, Error> {
        let tail = self.schedule.for_strength(strength)?;
        let skipped = self.schedule.steps() - tail.steps();
        if skipped > 0 && self.sampler.name == "pndm" && self.settings.runge_kutta.is_empty() {
            self.settings.plms_skipped = skipped;
            self.schedule = self.schedule.from_step(skipped - 1)?;
        } else {
            self.schedule = tail;
        }
        Ok(self)
    }

    /// The noise level that a run from an image starts at.
    pub fn first_sigma(&self) -> f64 {
        self.schedule.sigmas[usize::from(self.settings.plms_skipped == 1)]
    }

    /// x at the start, from a clean image and standard normal noise: (factor on the image, factor on the noise).
    pub fn noising(&self) -> (f64, f64) {
        let sigma = self.first_sigma();
        (self.schedule.frame.alpha(sigma), sigma)
    }
}
