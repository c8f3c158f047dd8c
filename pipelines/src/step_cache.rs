//! What is kept from one denoising step for the next.

use crate::error::PipelineError;
use std::fmt;
use std::str::FromStr;

/// Values of the network that are kept from one evaluation and used again in others instead of being computed: pictures come sooner, and are no
/// longer quite those of the model. Each sample keeps its own, so a picture does not depend on what it is made together with.
///
/// Counts are of the network's evaluations: one in a step of most samplers, two in a step of Heun's method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepCache {
    /// Of transformers: only the first block is computed where what it adds to the tokens is close to what it added in the last whole evaluation, and
    /// what all others added then is added again. ParaAttention's first block cache, diffusers' `apply_first_block_cache`.
    FirstBlock {
        /// The largest change that is close: mean |r − r₀| over mean |r₀|, of what the first block adds now (r) and added then (r₀). At 0 nothing is.
        threshold: f64,
    },
    /// Of networks that attend to text: from the gate on, their attentions to it give what they gave last, the mean of what they gave for both prompts
    /// under guidance, which then rests: the network predicts once (Zhang et al. 2024, *Cross-Attention Makes Inference Cumbersome in
    /// Text-to-Image Diffusion Models*, T-GATE's first version).
    TGate {
        /// How many evaluations are whole; 1 at least.
        gate: usize,
    },
    /// Of UNets: only the finest layer of the way up is computed, from the skip connection of `conv_in`, where what coarser levels give it is that
    /// of the last whole evaluation (Ma et al. 2023, *DeepCache: Accelerating Diffusion Models for Free*, at its branch 0).
    Deep {
        /// Every how many evaluations one is whole, the first among them; 1 at least, and then all are.
        interval: usize,
    },
}

impl StepCache {
    /// Whether its number makes sense.
    ///
    /// # Errors
    /// Where it does not.
    pub(crate) fn check(self) -> Result<Self, PipelineError> {
        let sound = match self {
            Self::FirstBlock { threshold } => threshold.is_finite() && threshold >= 0.0,
            Self::TGate { gate: count } | Self::Deep { interval: count } => count > 0,
        };
        if sound { Ok(self) } else { Err(unknown(&self.to_string())) }
    }

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FirstBlock { .. } => "first-block",
            Self::TGate { .. } => "t-gate",
            Self::Deep { .. } => "deep",
        }
    }
}

impl fmt::Display for StepCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::FirstBlock { threshold } => write!(f, "{name}:{threshold}"),
            Self::TGate { gate: count } | Self::Deep { interval: count } => write!(f, "{name}:{count}"),
        }
    }
}

impl FromStr for StepCache {
    type Err = PipelineError;

    fn from_str(text: &str) -> Result<Self, PipelineError> {
        let (name, value) = text.split_once(':').ok_or_else(|| unknown(text))?;
        let count = || value.trim().parse().map_err(|_| unknown(text));
        let own = match name.trim() {
            "first-block" => Self::FirstBlock { threshold: value.trim().parse().map_err(|_| unknown(text))? },
            "t-gate" => Self::TGate { gate: count()? },
            "deep" => Self::Deep { interval: count()? },
            _ => return Err(unknown(text)),
        };
        own.check()
    }
}

fn unknown(text: &str) -> PipelineError {
    let message = format!(
        "{text} is no step cache: give first-block:THRESHOLD from 0 on, t-gate:EVALUATIONS or deep:EVALUATIONS from 1 on, as in first-block:0.1"
    );
    PipelineError::Request(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_cache_says_itself_and_refuses_what_makes_no_sense() {
        for (text, own) in [
            ("first-block:0.08", StepCache::FirstBlock { threshold: 0.08 }),
            ("first-block:0", StepCache::FirstBlock { threshold: 0.0 }),
            ("t-gate:10", StepCache::TGate { gate: 10 }),
            ("deep:3", StepCache::Deep { interval: 3 }),
        ] {
            assert_eq!(text.parse::<StepCache>().expect(text), own);
            assert_eq!(own.to_string(), text);
        }
        let bad = ["deep", "deep:", "deep:0", "deep:1.5", "t-gate:0", "t-gate:-1", "first-block:-1", "first-block:nan"];
        for bad in bad.into_iter().chain(["first-block:inf", "first-block:", "tea:3", "", ":3"]) {
            let error = bad.parse::<StepCache>().expect_err(bad);
            assert!(error.is_usage() && error.to_string().contains("is no step cache"), "{bad}: {error}");
        }
    }
}
