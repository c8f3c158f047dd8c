//! The places where a task takes part in a run, and the ways to hold a picture to what is known of it.

use crate::error::PipelineError;
use graph::Work;
use models::Defaults;
use std::fmt;
use std::str::FromStr;

/// Replaces what is known in every denoised image, after guidance: a projection onto the images that agree with what is known (Song et al. 2023,
/// *Consistency Models*, Algorithm 4).
pub trait Replacement: Send {
    /// Changes the denoised image of a step, `[H, W, C]`, at the noise level `sigma`.
    ///
    /// # Errors
    /// When a device that it computes on fails.
    fn replace<'a>(&'a mut self, denoised: &'a mut [f32], sigma: f64) -> Work<'a, (), PipelineError>;
}

/// Holds x to what is known.
pub trait Constraint: Send {
    /// Changes x, `[H, W, C]`, before the network sees it at the noise level `sigma`; the sampler goes on from the changed x. So it is in
    /// diffusers' inpainting.
    fn constrain(&mut self, _x: &mut [f32], _sigma: f64) {}

    /// Changes x, `[H, W, C]`, where the sampler itself asks for it, at the noise level `sigma` and with the noise that it drew for that. So it
    /// is in RePaint and in score_sde's controllable generation.
    fn hold(&mut self, _x: &mut [f32], _noise: &[f32], _sigma: f64) {}

    /// Changes the sample after the last step.
    fn finish(&self, _sample: &mut [f32]) {}
}

/// How a model that was trained for no editing is held to what is known of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// What is known replaces what the model guessed, in every denoised image, with any sampler; latents are decoded, replaced and encoded again
    /// (Song et al. 2023, *Consistency Models*, Algorithm 4; for diffusion models Wang et al. 2022, *DDNM*).
    Replace,
    /// The known part of x is the picture under as much noise as the step has, and steps are taken back and repeated until both parts fit (Lugmayr
    /// et al. 2022, *RePaint*).
    RePaint,
    /// The same at every step of a predictor and a corrector (Song et al. 2021, *Score-Based Generative Modeling through SDEs*, section 5;
    /// score_sde's `pc_inpainter` and `pc_colorizer`).
    PredictorCorrector,
    /// The known part of x is the picture under the noise that the run began with: diffusers' inpainting. For masks alone.
    Blend,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Replace, Self::RePaint, Self::PredictorCorrector, Self::Blend];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::RePaint => "repaint",
            Self::PredictorCorrector => "predictor-corrector",
            Self::Blend => "blend",
        }
    }

    /// The one for masks that a checkpoint's own defaults name, if any.
    pub(crate) fn of_masks(defaults: &Defaults) -> Result<Option<Self>, String> {
        defaults.inpaint_method.as_deref().map(str::parse).transpose()
    }

    /// The sampler that it is a part of, if it is one's.
    pub(crate) fn sampler(self) -> Option<&'static str> {
        match self {
            Self::RePaint => Some("repaint"),
            Self::PredictorCorrector => Some("predictor_corrector"),
            Self::Replace | Self::Blend => None,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.replace('_', "-").to_lowercase();
        let known = Self::ALL.into_iter().find(|method| method.name() == plain);
        known.ok_or_else(|| format!("{text} is no method (there are {})", Self::ALL.map(Self::name).join(", ")))
    }
}
