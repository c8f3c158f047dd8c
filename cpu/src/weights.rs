//! Reads weights out of a checkpoint and refuses those that cannot be right.

use graph::ops::Weight;
use graph::shape::numel;
use graph::{DeviceError, Kept, StorageType, WeightSource, WeightView, q8_0};
use std::borrow::Cow;
use std::ops::Range;

/// The least magnitude that rounds to infinity in half precision: halfway from the largest half to the next power of two.
const BEYOND_HALF: f32 = 65520.0;

/// The checkpoint's tensor of that name, when it has the shape that the model needs.
pub(crate) fn load<'a>(source: &'a dyn WeightSource, weight: &Weight) -> Result<WeightView<'a>, DeviceError> {
    let Weight { name, shape, .. } = weight;
    let error = |reason: String| DeviceError::Weight { name: name.to_owned(), reason };
    let view = source.weight(name).ok_or_else(|| error(source.why_not(name)))?;
    if view.shape != *shape {
        return Err(error(format!("has shape {:?} and the model needs {shape:?}", view.shape)));
    }
    let (bytes, wanted) = (view.bytes.len(), numel(shape) * view.storage.size());
    if bytes != wanted {
        return Err(error(format!("holds {bytes} bytes and its shape {shape:?} needs {wanted}")));
    }
    Ok(view)
}

/// An error unless all of a tensor's values are finite and can be kept so.
pub(crate) fn check(view: &WeightView<'_>, weight: &Weight, kept: Kept) -> Result<(), DeviceError> {
    let instead = match kept {
        Kept::Q8_0 => "what blocks of eight bits can scale",
        _ => "half precision",
    };
    let limit = limit(view.storage, kept);
    let size = view.storage.size();
    let runs = view.bytes.chunks(RUN * size);
    let Some((run, values)) = runs.enumerate().find(|(_, run)| exceed(view.storage, run, limit)) else {
        return Ok(());
    };
    let mut widened = [0.0; RUN];
    let widened = &mut widened[..values.len() / size];
    view.storage.widen(values, widened);
    let beyond = |value: &f32| value.is_nan() || value.abs() >= limit;
    let at = widened.iter().position(beyond).expect("one of them was found to be beyond the limit");
    let (at, value) = (run * RUN + at, widened[at]);
    let reason = if value.is_finite() {
        format!("element {at} is {value}, beyond {instead}; keep weights in single precision (f32)")
    } else {
        format!("element {at} is {value}, so the checkpoint is damaged")
    };
    Err(DeviceError::Weight { name: weight.name.clone(), reason })
}

/// Elements that are looked at without an exit, many at a time.
const RUN: usize = 1024;

/// The least magnitude that cannot be kept so.
pub(crate) fn limit(storage: StorageType, kept: Kept) -> f32 {
    match kept {
        Kept::F16 if storage != StorageType::F16 => BEYOND_HALF,
        Kept::Q8_0 => 127.0 * BEYOND_HALF,
        _ => f32::INFINITY,
    }
}

/// Whether one of these values has at least this magnitude or is no number.
pub(crate) fn exceed(storage: StorageType, bytes: &[u8], limit: f32) -> bool {
    let (pairs, _) = bytes.as_chunks();
    let (fours, _) = bytes.as_chunks();
    let beyond = |value: f32| value.is_nan() || value.abs() >= limit;
    match storage {
        StorageType::F32 => any(fours, |bytes| beyond(f32::from_le_bytes(bytes))),
        StorageType::Bf16 => any(pairs, |bytes| beyond(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))),
        // Every finite half is below every limit; the others have all bits of the exponent.
        StorageType::F16 => any(pairs, |bytes| u16::from_le_bytes(bytes) & 0x7c00 == 0x7c00),
    }
}

fn any<T: Copy>(all: &[T], holds: impl Fn(T) -> bool) -> bool {
    all.iter().fold(false, |any, one| any | holds(*one))
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

/// A weight's values. Where only the axes behind the first are in another order, they are put in order while they are read: a second copy of
/// a large weight takes time and memory.
pub(crate) struct InOrder<'a> {
    tensor: WeightView<'a>,
    first: usize,
    /// For each element of a row the place where it belongs; none where they lie in order.
    places: Option<Vec<usize>>,
}

impl<'a> InOrder<'a> {
    /// `by_rows` says whether rows are read one by one.
    pub(crate) fn new(tensor: &'a WeightView<'_>, weight: &'a Weight, by_rows: bool) -> InOrder<'a> {
        let tensor = borrowed(tensor);
        let in_order = weight.axes.iter().copied().eq(0..weight.axes.len());
        if in_order || (by_rows && weight.axes.first() == Some(&0)) {
            let places = (!in_order).then(|| places(&weight.shape, &weight.axes));
            InOrder { tensor, first: weight.rows.start, places }
        } else {
            InOrder { tensor: weight.value(tensor), first: 0, places: None }
        }
    }

    /// How they are stored.
    pub(crate) fn storage(&self) -> StorageType {
        self.tensor.storage
    }

    /// Some rows of `k` elements as they are stored, and where each element of a row belongs.
    pub(crate) fn rows(&self, rows: Range<usize>, k: usize) -> (&[u8], Option<&[usize]>) {
        let row = k * self.tensor.storage.size();
        (&self.tensor.bytes[(self.first + rows.start) * row..(self.first + rows.end) * row], self.places.as_deref())
    }
}

/// Where each element of a row belongs when the axes behind the first are in another order.
fn places(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut elements = 1;
    for axis in axes[1..].iter().rev() {
        strides[*axis] = elements;
        elements *= shape[*axis];
    }
    let mut places = vec![0];
    for (extent, stride) in shape.iter().zip(strides).skip(1) {
        places = places.iter().flat_map(|place| (0..*extent).map(move |i| place + i * stride)).collect();
    }
    places
}

/// The same tensor without a copy of its bytes.
fn borrowed<'a>(tensor: &'a WeightView<'_>) -> WeightView<'a> {
    let WeightView { storage, shape, bytes } = tensor;
    WeightView { storage: *storage, shape: shape.clone(), bytes: Cow::Borrowed(bytes) }
}
