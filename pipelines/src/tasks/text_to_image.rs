//! Text to image: a picture made from noise alone, by what a prompt or a class says.

use super::{Begin, Kind, Prepared, Start, Wanted, check_sees_nothing};
use crate::error::PipelineError;
use graph::Work;
use std::sync::Arc;

/// A picture from noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextToImage;

impl Kind for TextToImage {
    fn may_bin(&self) -> bool {
        true
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Arc<dyn Prepared>, PipelineError> {
        check_sees_nothing(&wanted.model.network)?;
        Ok(Arc::new(*self))
    }
}

impl Prepared for TextToImage {
    fn start<'a>(&'a self, begin: &'a mut Begin<'_>) -> Work<'a, Start, PipelineError> {
        Box::pin(async move {
            let noise = begin.starting_noise();
            Ok(begin.scaled(noise).into())
        })
    }
}
