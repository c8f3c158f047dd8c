//! Adapters added to a weight.

use super::Change;
use super::delta::{Delta, Magnitude};
use crate::checkpoint::safetensors_file::TensorFile;
use graph::{StorageType, WeightView};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What adapters add, by part and by the name of the checkpoint's tensor.
pub(crate) type Additions = BTreeMap<String, BTreeMap<String, Vec<Addition>>>;

/// One change of a tensor.
#[derive(Debug, Clone)]
pub(crate) struct Addition {
    file: Arc<TensorFile>,
    delta: Delta,
    magnitude: Option<Magnitude>,
    /// alpha / rank.
    scale: f64,
    /// How much of the adapter is added.
    weight: f64,
}

/// The axis that a magnitude's lengths belong to.
#[derive(Clone, Copy)]
enum Axis {
    Rows,
    /// Input channels, each with this many taps.
    Columns(usize),
}

impl Magnitude {
    /// As in LyCORIS, the place of the lengths in their shape tells their axis.
    fn axis(&self, shape: &[usize]) -> Option<Axis> {
        let [rows, channels, taps @ ..] = shape else { return None };
        let own = &self.lengths.shape;
        let count: usize = own.iter().product();
        if count == *rows && (self.of_rows || own.len() < 2 || own[0] == *rows) {
            return Some(Axis::Rows);
        }
        (!self.of_rows && count == *channels).then(|| Axis::Columns(taps.iter().product()))
    }
}

impl Addition {
    /// The change of a tensor of this shape; the error says what does not fit.
    pub(in crate::checkpoint) fn new(
        file: Arc<TensorFile>,
        change: &Change,
        weight: f64,
        shape: &[usize],
    ) -> Result<Self, String> {
        let Change { delta, magnitude, scale } = change.clone();
        let rows = shape.first().copied().unwrap_or(1);
        if delta.extents() != (rows, shape.iter().skip(1).product()) || shape.contains(&0) {
            return Err(delta.shape());
        }
        match &magnitude {
            Some(magnitude) if magnitude.axis(shape).is_none() => {
                Err(format!("of lengths {:?}", magnitude.lengths.shape))
            }
            _ => Ok(Self { file, delta, magnitude, scale, weight }),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
    fn add(&self, sum: &mut [f32], shape: &[usize]) {
        let columns = self.delta.extents().1;
        let Some(magnitude) = &self.magnitude else {
            let scale = (self.weight * self.scale) as f32;
            if let Some([up, down]) = self.delta.plain(&self.file) {
                let rank = down.len() / columns;
                for (row, up) in sum.chunks_exact_mut(columns).zip(up.chunks_exact(rank)) {
                    for (factor, down) in up.iter().zip(down.chunks_exact(columns)) {
                        let factor = factor * scale;
                        row.iter_mut().zip(down).for_each(|(w, d)| *w += factor * d);
                    }
                }
            } else {
                let delta = self.delta.matrix(&self.file).values;
                sum.iter_mut().zip(&delta).for_each(|(w, d)| *w += scale * d);
            }
            return;
        };
        // W + weight · (m · (W + Δ) / ‖W + Δ‖ - W), by LyCORIS' `apply_dora_scale`. As in its modules, a length has the
        // smallest step of f32 added, so that nothing is divided by zero.
        let axis = magnitude.axis(shape).unwrap_or(Axis::Rows);
        let lengths = self.file.to_f32(&magnitude.lengths).unwrap_or_default();
        let place = |i: usize| match axis {
            Axis::Rows => i / columns,
            Axis::Columns(taps) => i % columns / taps,
        };
        let mut whole = self.delta.matrix(&self.file).values;
        let mut squares = vec![0.0_f64; lengths.len()];
        for (i, (delta, own)) in whole.iter_mut().zip(&*sum).enumerate() {
            *delta = own + self.scale as f32 * *delta;
            squares[place(i)] += f64::from(*delta).powi(2);
        }
        let factors =
            lengths.iter().zip(&squares).map(|(length, square)| length / (square.sqrt() as f32 + f32::EPSILON));
        let factors: Vec<f32> = factors.collect();
        let weight = self.weight as f32;
        for (i, (own, whole)) in sum.iter_mut().zip(&whole).enumerate() {
            *own += weight * (whole * factors[place(i)] - *own);
        }
    }

    /// No element of what is added is larger; `None` when that cannot be told without the weight.
    fn bound(&self) -> Option<f64> {
        self.magnitude.is_none().then(|| (self.weight * self.scale).abs() * self.delta.bound(&self.file))
    }
}

/// A weight with everything added, summed in f32. A half-precision weight is rounded to half precision again, so that
/// adapters do not increase the memory that a model takes. With `widen` the result stays in f32.
pub(crate) fn merge<'a>(view: &WeightView<'a>, additions: &[Addition], widen: bool) -> WeightView<'a> {
    let mut sum = view.to_f32();
    for addition in additions {
        addition.add(&mut sum, &view.shape);
    }
    let bytes: Vec<u8> = sum.iter().flat_map(|v| v.to_le_bytes()).collect();
    let merged = WeightView { storage: StorageType::F32, shape: view.shape.clone(), bytes: Cow::Owned(bytes) };
    if view.storage != StorageType::F16 || widen {
        return merged;
    }
    let bytes: Vec<u8> = merged.to_f16().iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
    WeightView { storage: StorageType::F16, shape: merged.shape, bytes: Cow::Owned(bytes) }
}

/// Whether additions are so small that no finite weight of this type becomes infinite: less than half of the step
/// between the type's largest number and the next power of two.
fn surely_finite(storage: StorageType, additions: &[Addition]) -> bool {
    let room = if storage == StorageType::F16 { 8.0 } else { 1e30 };
    let bounds: Option<f64> = additions.iter().map(Addition::bound).sum();
    bounds.is_some_and(|bound| bound < room)
}

/// Where additions make a weight infinite.
pub(crate) struct Overflow {
    /// The number of additions after which it is no longer finite.
    pub(crate) count: usize,
    /// Whether it still is in single precision.
    pub(crate) of_half: bool,
}

/// Whether additions make a weight infinite that was not before.
pub(crate) fn overflow(view: &WeightView<'_>, additions: &[Addition]) -> Option<Overflow> {
    // The smallest number that half precision rounds to infinity.
    const HALF: f32 = 65520.0;
    let is_half = view.storage == StorageType::F16;
    let fits = |sum: &[f32]| sum.iter().all(|value| value.is_finite() && (!is_half || value.abs() < HALF));
    if surely_finite(view.storage, additions) {
        return None;
    }
    let mut sum = view.to_f32();
    if !fits(&sum) {
        return None;
    }
    // One after the other, each once: there may be many. What only passes through infinity is none in the end.
    let mut first = None;
    for (i, addition) in additions.iter().enumerate() {
        addition.add(&mut sum, &view.shape);
        if first.is_none() && !fits(&sum) {
            first = Some(Overflow { count: i + 1, of_half: sum.iter().all(|value| value.is_finite()) });
        }
    }
    if fits(&sum) { None } else { first }
}
