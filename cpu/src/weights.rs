//! Reads weights out of a checkpoint and refuses those that cannot be right.

use graph::ops::Weight;
use graph::shape::numel;
use graph::{DeviceError, Kept, StorageType, WeightSource, WeightView, q8_0};
use half::f16;

/// The least magnitude that rounds to infinity in half precision: halfway from the largest half to the next power of two.
const BEYOND_HALF: f32 = 65520.0;

/// The tensor of that name, in the shape that the graph needs, when all of its values are finite and can be kept so.
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
    let view = weight.value(view);
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

/// All values as singles, rounded to what is kept of them.
pub(crate) fn singles(view: &WeightView<'_>, kept: Kept) -> Vec<f32> {
    match kept {
        Kept::F16 if view.storage != StorageType::F16 => view.to_f16().into_iter().map(f32::from).collect(),
        Kept::Q8_0 => {
            let blocks = q8_0::quantize(&view.to_f32()).expect("values beyond blocks were refused");
            q8_0::values(&blocks)
        }
        _ => view.to_f32(),
    }
}
