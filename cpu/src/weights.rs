//! Reads weights out of a checkpoint and refuses those that cannot be right.

use graph::ops::Weight;
use graph::shape::numel;
use graph::{DeviceError, Kept, StorageType, WeightSource, WeightView, q8_0};
use half::f16;
use std::borrow::Cow;
use std::ops::Range;

/// The least magnitude that rounds to infinity in half precision: halfway from the largest half to the next power of two.
const BEYOND_HALF: f32 = 65520.0;

/// The checkpoint's tensor of that name, when it has the shape that the model needs and all of its values are finite and can be kept so.
pub(crate) fn load<'a>(
    source: &'a dyn WeightSource,
    weight: &Weight,
    kept: Kept,
) -> Result<WeightView<'a>, DeviceError> {
    let Weight { name, shape, .. } = weight;
    let error = |reason: String| DeviceError::Weight { name: name.to_owned(), reason };
    let view = source.weight(name).ok_or_else(|| error("is missing from the checkpoint".into()))?;
    if view.shape != *shape {
        return Err(error(format!("has shape {:?} and the model needs {shape:?}", view.shape)));
    }
    let (bytes, wanted) = (view.bytes.len(), numel(shape) * view.storage.size());
    if bytes != wanted {
        return Err(error(format!("holds {bytes} bytes and its shape {shape:?} needs {wanted}")));
    }
    let (limit, instead) = match kept {
        Kept::F16 if view.storage != StorageType::F16 => (BEYOND_HALF, "half precision"),
        Kept::Q8_0 => (127.0 * BEYOND_HALF, "what blocks of eight bits can scale"),
        _ => (f32::INFINITY, ""),
    };
    match first(&view, limit) {
        None => Ok(view),
        Some((at, value)) if !value.is_finite() => {
            Err(error(format!("element {at} is {value}, so the checkpoint is damaged")))
        }
        Some((at, value)) => {
            Err(error(format!("element {at} is {value}, beyond {instead}; keep weights in single precision (f32)")))
        }
    }
}

/// The first value of at least this magnitude, or that is no number.
fn first(view: &WeightView<'_>, limit: f32) -> Option<(usize, f32)> {
    let (pairs, _) = view.bytes.as_chunks();
    let (fours, _) = view.bytes.as_chunks();
    let exceeds = |value: f32| value.is_nan() || value.abs() >= limit;
    let upper = |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
    match view.storage {
        StorageType::F32 => {
            find(fours, |bytes| exceeds(f32::from_le_bytes(bytes))).map(|at| (at, f32::from_le_bytes(fours[at])))
        }
        StorageType::Bf16 => find(pairs, |bytes| exceeds(upper(bytes))).map(|at| (at, upper(pairs[at]))),
        // Every finite half is below every limit; the others have all bits of the exponent.
        StorageType::F16 => find(pairs, |bytes| u16::from_le_bytes(bytes) & 0x7c00 == 0x7c00)
            .map(|at| (at, f16::from_le_bytes(pairs[at]).to_f32())),
    }
}

/// The first element for which this holds. Elements are looked at in runs without an exit, many at a time.
fn find<T: Copy>(all: &[T], holds: impl Fn(T) -> bool) -> Option<usize> {
    const RUN: usize = 1024;
    let (i, run) = all.chunks(RUN).enumerate().find(|(_, run)| run.iter().fold(false, |any, one| any | holds(*one)))?;
    run.iter().position(|one| holds(*one)).map(|at| i * RUN + at)
}

/// All of a weight's values as singles, rounded to what is kept of them.
pub(crate) fn singles(tensor: WeightView<'_>, weight: &Weight, kept: Kept) -> Vec<f32> {
    let view = weight.value(tensor);
    match kept {
        Kept::F16 if view.storage != StorageType::F16 => view.to_f16().into_iter().map(f32::from).collect(),
        Kept::Q8_0 => {
            let blocks = q8_0::quantize(&view.to_f32()).expect("values beyond blocks were refused");
            q8_0::values(&blocks)
        }
        _ => view.to_f32(),
    }
}

/// A weight's values, put in order some rows at a time where that is possible: a second copy of a large weight takes time and memory.
pub(crate) struct InOrder<'a> {
    tensor: WeightView<'a>,
    axes: &'a [usize],
    first: usize,
}

impl<'a> InOrder<'a> {
    pub(crate) fn new(tensor: &'a WeightView<'_>, weight: &'a Weight) -> InOrder<'a> {
        let tensor = borrowed(tensor);
        if weight.axes.first() == Some(&0) {
            InOrder { tensor, axes: &weight.axes, first: weight.rows.start }
        } else {
            InOrder { tensor: weight.value(tensor), axes: &[], first: 0 }
        }
    }

    /// How they are stored.
    pub(crate) fn storage(&self) -> StorageType {
        self.tensor.storage
    }

    /// The values in some rows of the first axis.
    pub(crate) fn rows(&self, rows: Range<usize>) -> WeightView<'_> {
        let some = borrowed(&self.tensor).rows(&(self.first + rows.start..self.first + rows.end));
        if self.axes.is_empty() { some } else { some.permuted(self.axes) }
    }
}

/// The same tensor without a copy of its bytes.
fn borrowed<'a>(tensor: &'a WeightView<'_>) -> WeightView<'a> {
    let WeightView { storage, shape, bytes } = tensor;
    WeightView { storage: *storage, shape: shape.clone(), bytes: Cow::Borrowed(bytes) }
}
