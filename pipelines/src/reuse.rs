//! Parts of D(x; σ), and what a sample keeps of one evaluation for the next.

use crate::step_cache::StepCache;
use graph::Rate;
use models::seams;

/// Which part of D(x; σ) a graph computes. What another part has computed is an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Part {
    /// All of it.
    #[default]
    Whole,
    /// All of it; what attention to the text gives is kept.
    WholeKeepingText,
    /// What attention to the text gave is given.
    WithoutText,
    /// All of it; what a UNet's coarser levels give is kept.
    WholeKeepingDeep,
    /// What they gave is given.
    Shallow,
    /// A transformer up to its first block, whose result is kept, and what it added to the tokens.
    First,
    /// From there on. The last block's result is kept.
    Rest,
    /// What comes behind the last block.
    Last,
}

impl Part {
    /// The seam at which values are given, and how often they change.
    pub(crate) fn given(self) -> Option<(&'static str, Rate)> {
        match self {
            Self::Whole | Self::WholeKeepingText | Self::WholeKeepingDeep | Self::First => None,
            Self::WithoutText => Some((seams::CROSS_ATTENTION, Rate::Once)),
            Self::Shallow => Some((seams::DEEP, Rate::Step)),
            Self::Rest => Some((seams::FIRST_BLOCK, Rate::Step)),
            Self::Last => Some((seams::LAST_BLOCK, Rate::Step)),
        }
    }

    /// The seam at which values are kept.
    pub(crate) fn kept(self) -> Option<&'static str> {
        match self {
            Self::Whole | Self::WithoutText | Self::Shallow | Self::Last => None,
            Self::WholeKeepingText => Some(seams::CROSS_ATTENTION),
            Self::WholeKeepingDeep => Some(seams::DEEP),
            Self::First => Some(seams::FIRST_BLOCK),
            Self::Rest => Some(seams::LAST_BLOCK),
        }
    }

    /// Whether it gives the denoised image.
    pub(crate) fn denoises(self) -> bool {
        self != Self::First
    }

    /// Whether the network predicts once, whatever guidance there is elsewhere.
    pub(crate) fn predicts_once(self) -> bool {
        self == Self::WithoutText
    }

    /// Whether what it keeps holds for the rest of a generation.
    pub(crate) fn keeps_for_good(self) -> bool {
        self == Self::WholeKeepingText
    }

    /// Whether it stands for a whole evaluation with values of another.
    fn reuses(self) -> bool {
        matches!(self, Self::WithoutText | Self::Shallow | Self::Last)
    }
}

impl StepCache {
    /// The parts that it computes, the largest first.
    pub(crate) fn parts(self) -> &'static [Part] {
        match self {
            Self::FirstBlock { .. } => &[Part::Rest, Part::First, Part::Last],
            Self::TGate { .. } => &[Part::WholeKeepingText, Part::WithoutText],
            Self::Deep { .. } => &[Part::WholeKeepingDeep, Part::Shallow],
        }
    }
}

/// What one sample keeps, and where it is.
#[derive(Debug)]
pub(crate) struct Reuse {
    cache: StepCache,
    /// Evaluations that were answered.
    answered: usize,
    /// Those of them that were answered with values of others.
    pub(crate) reused: usize,
    /// Values at every seam, of the last whole evaluation: its predictions one after the other.
    kept: Vec<Vec<f32>>,
    /// How many predictions that were.
    predictions: usize,
    /// What the first block added in that evaluation.
    added: Vec<f32>,
    /// What the first block gave in the evaluation under way.
    first: Option<First>,
}

#[derive(Debug)]
struct First {
    /// Whether what it added is close to what it added in the last whole evaluation.
    is_close: bool,
    /// What the next part is given.
    given: Vec<Vec<f32>>,
}

impl Reuse {
    pub(crate) fn new(cache: StepCache) -> Self {
        Self { cache, answered: 0, reused: 0, kept: Vec::new(), predictions: 0, added: Vec::new(), first: None }
    }

    /// The part that the evaluation under way needs next, in which the network makes so many predictions.
    pub(crate) fn next(&self, predictions: usize) -> Part {
        // An evaluation with guidance cannot use values of one without, nor the other way round.
        let fits = self.predictions == predictions;
        match (self.cache, &self.first) {
            (StepCache::TGate { gate }, _) if self.answered < gate => Part::WholeKeepingText,
            (StepCache::TGate { .. }, _) => Part::WithoutText,
            (StepCache::Deep { interval }, _) if fits && !self.answered.is_multiple_of(interval) => Part::Shallow,
            (StepCache::Deep { .. }, _) => Part::WholeKeepingDeep,
            (StepCache::FirstBlock { .. }, None) => Part::First,
            (StepCache::FirstBlock { .. }, Some(first)) if first.is_close => Part::Last,
            (StepCache::FirstBlock { .. }, Some(_)) => Part::Rest,
        }
    }

    /// What this part is given, seam by seam.
    pub(crate) fn given(&self, part: Part) -> &[Vec<f32>] {
        match (part, &self.first) {
            (Part::WithoutText | Part::Shallow, _) => &self.kept,
            (Part::Rest | Part::Last, Some(first)) => &first.given,
            _ => &[],
        }
    }

    /// Whether it keeps what this part gives at its seams.
    pub(crate) fn keeps(&self, part: Part) -> bool {
        match self.cache {
            StepCache::TGate { gate } => part == Part::WholeKeepingText && self.answered + 1 == gate,
            _ => part.kept().is_some(),
        }
    }

    /// Keeps what this part gave in so many predictions, seam by seam; of the first part, what the block gave and what it added.
    pub(crate) fn keep(&mut self, part: Part, predictions: usize, values: Vec<Vec<f32>>) {
        match (part, self.cache) {
            (Part::First, StepCache::FirstBlock { threshold }) => {
                let [output, added] = <[_; 2]>::try_from(values).expect("the first part gives two values");
                let is_close = self.predictions == predictions && change(&added, &self.added) <= threshold;
                let given = if is_close { sum(&output, &self.kept[0]) } else { output };
                if !is_close {
                    self.added = added;
                }
                self.first = Some(First { is_close, given: vec![given] });
                return;
            }
            (Part::Rest, _) => {
                let first = self.first.take().expect("the first part comes before the rest");
                self.kept = values.iter().zip(&first.given).map(|(last, first)| difference(last, first)).collect();
            }
            (Part::WholeKeepingText, _) => self.kept = values.iter().map(|value| mean(value, predictions)).collect(),
            _ => self.kept = values,
        }
        self.predictions = predictions;
    }

    /// What it has kept for the rest of a generation.
    pub(crate) fn kept_for_good(&self) -> &[Vec<f32>] {
        if matches!(self.cache, StepCache::TGate { .. }) { &self.kept } else { &[] }
    }

    /// Counts an evaluation that this part has ended.
    pub(crate) fn answer(&mut self, part: Part) {
        self.answered += 1;
        self.reused += usize::from(part.reuses());
        self.first = None;
    }
}

/// mean |now − then| over mean |then|, as diffusers' `_should_compute_remaining_blocks`; nothing is close to no values.
fn change(now: &[f32], then: &[f32]) -> f64 {
    let moved: f64 = now.iter().zip(then).map(|(now, then)| f64::from((now - then).abs())).sum();
    let size: f64 = then.iter().map(|then| f64::from(then.abs())).sum();
    if now.len() == then.len() && size > 0.0 { moved / size } else { f64::INFINITY }
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// The mean of so many equal parts.
#[allow(clippy::cast_precision_loss, reason = "one or two")]
fn mean(values: &[f32], parts: usize) -> Vec<f32> {
    let size = values.len() / parts;
    (0..size).map(|i| (0..parts).map(|part| values[part * size + i]).sum::<f32>() / parts as f32).collect()
}
