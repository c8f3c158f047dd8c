//! What a network is conditioned on besides its sample and the time, as numbers.

use crate::reuse::Part;
use graph::shape::numel;

/// One named condition of a sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    /// As the network knows it.
    pub(crate) name: &'static str,
    /// Extents of one row.
    pub(crate) shape: Vec<usize>,
    /// Row-major; under guidance two rows, that of the negative prompt (or of no class) first.
    pub(crate) data: Vec<f32>,
}

/// All conditions of one sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conditioning {
    /// By name, in the order of the layout.
    pub(crate) conditions: Vec<Condition>,
    /// `[H, W, E]`: channels that the network sees behind the sample's own; empty of most.
    pub(crate) concatenated: Vec<f32>,
    /// Weight of the prompt against the negative prompt; counts only under classifier-free guidance.
    pub(crate) guidance_scale: f64,
}

/// Extents of a sample, in the model's own space (pixels, or latents).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SampleShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl SampleShape {
    /// Number of elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// What a denoiser's graph depends on, and so its plan. Everything else about a request is an input of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// Extents of one sample.
    pub(crate) shape: SampleShape,
    /// Samples that are denoised together.
    pub(crate) samples: usize,
    /// Whether the network predicts twice for each sample, without the prompt and with it.
    pub(crate) guided: bool,
    /// Name and extents of every condition, of one row.
    pub(crate) conditions: Vec<(&'static str, Vec<usize>)>,
    /// Channels that the network sees behind the sample's own.
    pub(crate) concatenated: usize,
    /// What of D(x; σ) is computed.
    pub(crate) part: Part,
}

impl Layout {
    /// Predictions for each sample.
    pub(crate) fn rows(&self) -> usize {
        if self.guided { 2 } else { 1 }
    }

    /// What the network predicts at once: the batch of its graph.
    pub(crate) fn batch(&self) -> usize {
        self.rows() * self.samples
    }

    /// The same of one part, with guidance or where the network predicts once for each sample, with the prompt alone.
    pub(crate) fn of(&self, guided: bool, part: Part) -> Self {
        Self { guided, part, ..self.clone() }
    }

    /// Whether a conditioning is for a graph of this layout, which may leave out the negative prompt's row.
    pub(crate) fn fits(&self, conditioning: &Conditioning) -> bool {
        let concatenated = self.shape.height * self.shape.width * self.concatenated;
        let (given, wanted) = (&conditioning.conditions, &self.conditions);
        concatenated == conditioning.concatenated.len()
            && given.len() == wanted.len()
            && given.iter().zip(wanted).all(|(given, (name, shape))| {
                given.name == *name
                    && given.shape == *shape
                    && [self.rows(), 2].iter().any(|rows| given.data.len() == rows * numel(shape))
            })
    }

    /// One condition of all samples as the graph takes it: the first row of every sample, then the second of every sample; of a network that
    /// predicts once, only the last, which is the prompt's, or the negative prompt's where it no longer looks at text. A place that no sample has
    /// repeats the first's.
    pub(crate) fn gather(&self, samples: &[&Conditioning], condition: usize) -> Vec<f32> {
        let row = numel(&self.conditions[condition].1);
        let mut data = Vec::with_capacity(self.batch() * row);
        for at in 0..self.rows() {
            for sample in 0..self.samples {
                let own = samples.get(sample).unwrap_or(&samples[0]);
                let given = &own.conditions[condition].data;
                // T-GATE leaves the first row, of the negative prompt, in the graph.
                let start = if self.part.predicts_once() { 0 } else { given.len() - self.rows() * row };
                data.extend_from_slice(&given[start + at * row..start + (at + 1) * row]);
            }
        }
        data
    }
}
