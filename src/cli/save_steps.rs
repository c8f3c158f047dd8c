//! `--save-steps`: every step's x and denoised, to look at and to compute with.

use super::error::CliError;
use super::output::{sample_file, write_whole};
use super::png;
use crate::compare::report::Preview;
use pipelines::{Job, Pipeline, RgbImage, Step};
use scheduler::Frame;
use std::path::{Path, PathBuf};

pub(super) struct StepWriter {
    folder: PathBuf,
    seed: u64,
    is_flow: bool,
    /// How samples become pictures; latents of a large autoencoder do not.
    preview: Option<Preview>,
}

impl StepWriter {
    pub(super) fn new(folder: &Path, pipe: &Pipeline, job: &Job) -> Result<Self, CliError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| CliError::Failed(format!("cannot make the folder {}: {error}", folder.display())))?;
        let is_flow = job.sampling().schedule.frame == Frame::Flow;
        let (seed, preview) = (job.settings().seed, Preview::exact(pipe, job));
        Ok(Self { folder: folder.to_owned(), seed, is_flow, preview })
    }

    pub(super) fn write(&self, step: &Step<'_>) -> Result<(), CliError> {
        let name = |what: &str| self.folder.join(format!("{}-step-{:03}{what}", self.seed, step.index + 1));
        let tensors = [("x", step.x), ("denoised", step.denoised)];
        let sigma = step.sigma.to_string();
        let [index, evaluations, seed] =
            [step.index as u64 + 1, step.evaluations as u64, self.seed].map(|number| number.to_string());
        let texts = [("sigma", &*sigma), ("step", &index), ("evaluations", &evaluations), ("seed", &seed)];
        write_whole(&name(".safetensors"), &sample_file(&tensors, step.shape, &texts)?)?;
        let pictures = match &self.preview {
            Some(Preview::Pixels) => tensors.map(|(_, sample)| RgbImage::from_sample(sample, step.shape)),
            Some(preview) => [
                preview.noisy(step.x, step.sigma, self.is_flow, step.shape),
                preview.denoised(step.denoised, step.shape),
            ],
            None => [None, None],
        };
        for ((what, _), image) in tensors.iter().zip(pictures) {
            if let Some(image) = image {
                write_whole(&name(&format!("-{what}.png")), &png::encode(&image, &texts)?)?;
            }
        }
        Ok(())
    }
}
