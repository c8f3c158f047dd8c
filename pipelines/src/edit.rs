//! The two places where a task takes part in a run.

use crate::error::PipelineError;

/// Replaces what is known in every denoised image, after guidance: a projection onto the images that agree with what is known (Song et al. 2023,
/// *Consistency Models*, Algorithm 4).
pub trait Replacement: Send {
    /// Changes the denoised image of a step, `[H, W, C]`, at the noise level `sigma`.
    ///
    /// # Errors
    /// When a device that it computes on fails.
    fn replace(&mut self, denoised: &mut [f32], sigma: f64) -> Result<(), PipelineError>;
}

/// Holds x to what is known, as diffusers' inpainting does.
pub trait Constraint: Send {
    /// Changes x, `[H, W, C]`, before the network sees it at the noise level `sigma`; the sampler goes on from the changed x.
    fn constrain(&mut self, x: &mut [f32], sigma: f64);

    /// Changes the sample after the last step.
    fn finish(&self, sample: &mut [f32]);
}
