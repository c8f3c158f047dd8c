//! What a request asks for that does nothing with its model, or does harm.

use crate::conditioning::Layout;
use crate::error::PipelineError;
use crate::job::Settings;
use crate::networks::{Concatenated, Guidance};
use crate::parts::Size;
use crate::pipeline::Shared;
use crate::request::Request;
use crate::tasks::is_much_larger;
use std::fmt;

/// Something in a request that is possible, but hardly what was meant. Each is one sentence in small letters, without a full stop.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// The model reads text, and there is none.
    EmptyPrompt,
    /// Words that the model's list of what it draws lacks, and that its tokenizer knows only in pieces.
    UnknownWords(Vec<String>),
    /// The text encoder reads no more than the beginning.
    TokensDropped(usize),
    /// Guidance on top of that which a model learnt by distillation.
    GuidedTwice {
        /// What was asked for.
        scale: f64,
    },
    /// A negative prompt is read only where guidance acts.
    NegativePromptUnread,
    /// An interval in which guidance acts, where there is none.
    IntervalUnread,
    /// A picture of another size than the model was trained on, so far from it that it falls apart or repeats itself.
    FarFromTrained {
        /// Width and height of what the model makes at once.
        made: [usize; 2],
        /// Width and height that it was trained on.
        trained: [usize; 2],
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPrompt => f.write_str("the prompt is empty, so the picture is of nothing in particular"),
            Self::UnknownWords(words) => {
                write!(f, "this model does not know the words that it was asked for: {}", models::first_few(words))
            }
            Self::TokensDropped(tokens) => {
                write!(f, "the text encoder reads only the start of a long prompt; {tokens} tokens were left out")
            }
            Self::GuidedTwice { scale } => write!(
                f,
                "this model learnt guidance when it was distilled, and {scale} more burns its colours: 1 adds none"
            ),
            Self::NegativePromptUnread => {
                f.write_str("the negative prompt does nothing: guidance is off, which alone reads it")
            }
            Self::IntervalUnread => f.write_str("the guidance interval does nothing: guidance is off"),
            Self::FarFromTrained { made: [width, height], trained: [own_width, own_height] } => write!(
                f,
                "{width}x{height} is far from the {own_width}x{own_height} that this model was trained on: expect parts that are missing or \
                 there twice"
            ),
        }
    }
}

/// Everything that a resolved request should be warned of.
pub(crate) fn warnings(
    shared: &Shared,
    request: &Request,
    settings: &Settings,
    (layout, bin, dropped): (&Layout, Option<Size>, usize),
) -> Result<Vec<Warning>, PipelineError> {
    let model = &shared.model;
    let mut found = Vec::new();
    if let Some(encoders) = &model.text {
        if settings.prompt.trim().is_empty() {
            found.push(Warning::EmptyPrompt);
        }
        let unknown = encoders.unknown_words(&settings.prompt)?;
        if !unknown.is_empty() {
            found.push(Warning::UnknownWords(unknown));
        }
    }
    if dropped > 0 {
        found.push(Warning::TokensDropped(dropped));
    }
    let scale = settings.guidance_scale;
    if request.guidance_scale.is_some() && layout.guided && scale > 1.0 && is_distilled(shared) {
        found.push(Warning::GuidedTwice { scale });
    }
    let asked = request.negative_prompt.as_ref().is_some_and(|text| !text.trim().is_empty());
    if asked && !layout.guided && model.text.is_some() {
        found.push(Warning::NegativePromptUnread);
    }
    if request.guidance_interval.is_some() && !layout.guided {
        found.push(Warning::IntervalUnread);
    }
    found.extend(far_from_trained(shared, layout, bin));
    Ok(found)
}

/// Whether a model that can be guided needs none: its files say so, or it steps as consistency models do.
fn is_distilled(shared: &Shared) -> bool {
    let network = &shared.model.network;
    let own = shared.model.defaults().guidance_scale.unwrap_or(network.defaults.guidance_scale);
    let steps_directly = shared.scheduler().default_sampler().is_ok_and(crate::tasks::is_direct);
    network.guidance == Guidance::ClassifierFree && (own <= 1.0 || steps_directly)
}

/// What the network makes at once, where that is far from what it knows. One that was trained to see a small picture makes any size, and one that
/// rounds sizes to its own needs no warning.
fn far_from_trained(shared: &Shared, layout: &Layout, bin: Option<Size>) -> Option<Warning> {
    let model = &shared.model;
    if bin.is_some() || matches!(model.network.concatenated, Concatenated::Picture { .. }) {
        return None;
    }
    let per = model.pixels_per_element();
    let made = Size { height: layout.shape.height * per, width: layout.shape.width * per };
    let trained = model.default_size();
    let is_small = 2 * made.height * made.width < trained.height * trained.width;
    (is_small || is_much_larger(model, made)).then_some(Warning::FarFromTrained {
        made: [made.width, made.height],
        trained: [trained.width, trained.height],
    })
}
