//! A text encoder's weights after textual inversion.

use crate::checkpoint::textual_inversion::Learned;
use crate::checkpoint::weights::Checkpoint;
use graph::{StorageType, WeightSource, WeightView};
use std::borrow::Cow;

/// A text encoder's weights, with learned vectors appended to those of the vocabulary.
#[derive(Debug)]
pub struct LearnedWeights {
    weights: Checkpoint,
    rows: usize,
    values: Vec<f32>,
}

/// CLIP's token embedding.
const EMBEDDING: &str = "embeddings.token_embedding.weight";

impl LearnedWeights {
    /// The weights without learned vectors.
    #[must_use]
    pub fn new(weights: Checkpoint) -> Self {
        Self { weights, rows: 0, values: Vec::new() }
    }

    /// The weights as the files have them.
    #[must_use]
    pub fn as_stored(&self) -> &Checkpoint {
        &self.weights
    }

    /// Appends vectors.
    pub fn learn(&mut self, learned: &Learned<'_>) {
        self.rows += learned.rows;
        self.values.extend(learned.values);
    }
}

impl WeightSource for LearnedWeights {
    fn stored_as(&self, name: &str) -> Option<StorageType> {
        let own = self.weights.stored_as(name)?;
        let widened = name == EMBEDDING && self.rows > 0 && own != StorageType::F16;
        Some(if widened { StorageType::F32 } else { own })
    }

    fn why_not(&self, name: &str) -> String {
        self.weights.why_not(name)
    }

    fn release(&self, name: &str) {
        self.weights.release(name);
    }

    fn weight(&self, name: &str) -> Option<WeightView<'_>> {
        let view = self.weights.weight(name)?;
        if name != EMBEDDING || self.rows == 0 {
            return Some(view);
        }
        // The table is put together each time it is read, so that no copy stays in memory. It is in half precision if
        // the checkpoint is.
        let shape = [&[self.rows], &view.shape[1..]].concat();
        let little = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let learned = WeightView { storage: StorageType::F32, shape, bytes: Cow::Owned(little(&self.values)) };
        let (storage, bytes) = match view.storage {
            StorageType::F16 => {
                let half: Vec<u8> = learned.to_f16().iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
                (StorageType::F16, [&*view.bytes, &half].concat())
            }
            StorageType::F32 => (StorageType::F32, [&*view.bytes, &learned.bytes].concat()),
            StorageType::Bf16 => (StorageType::F32, [&*little(&view.to_f32()), &learned.bytes].concat()),
        };
        let shape = [&[view.shape[0] + self.rows], &view.shape[1..]].concat();
        Some(WeightView { storage, shape, bytes: Cow::Owned(bytes) })
    }
}
