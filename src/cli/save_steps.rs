//! `--save-steps`: every step's x and denoised, to look at and to compute with.

use super::error::CliError;
use super::output::{sample_file, write_whole};
use super::png;
use pipelines::{RgbImage, Step};
use std::path::{Path, PathBuf};

pub(super) struct StepWriter {
    folder: PathBuf,
    seed: u64,
    /// Whether samples are pictures; latents have none without their autoencoder.
    pictures: bool,
}

impl StepWriter {
    pub(super) fn new(folder: &Path, seed: u64, pictures: bool) -> Result<Self, CliError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| CliError::Failed(format!("cannot make the folder {}: {error}", folder.display())))?;
        Ok(Self { folder: folder.to_owned(), seed, pictures })
    }

    pub(super) fn write(&self, step: &Step<'_>) -> Result<(), CliError> {
        let name = |what: &str| self.folder.join(format!("{}-step-{:03}{what}", self.seed, step.index + 1));
        let tensors = [("x", step.x), ("denoised", step.denoised)];
        let sigma = step.sigma.to_string();
        let [index, evaluations, seed] =
            [step.index as u64 + 1, step.evaluations as u64, self.seed].map(|number| number.to_string());
        let texts = [("sigma", &*sigma), ("step", &index), ("evaluations", &evaluations), ("seed", &seed)];
        write_whole(&name(".safetensors"), &sample_file(&tensors, step.shape, &texts)?)?;
        for (what, sample) in tensors {
            if let Some(image) = RgbImage::from_sample(sample, step.shape).filter(|_| self.pictures) {
                write_whole(&name(&format!("-{what}.png")), &png::encode(&image, &texts)?)?;
            }
        }
        Ok(())
    }
}
