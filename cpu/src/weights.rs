//! Reads weights out of a checkpoint and refuses those that cannot be right.

use graph::ops::Weight;
use graph::shape::numel;
use graph::{DeviceError, StorageType, WeightSource};

/// The tensor of that name in single precision.
///
/// Products are computed in singles from packed panels, so halves are widened here, exactly. A weight that is used in `half`
/// precision is rounded first: the numbers are then those of a device that keeps halves.
pub(crate) fn load(source: &dyn WeightSource, weight: &Weight, half: bool) -> Result<Vec<f32>, DeviceError> {
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
    let values = view.to_f32();
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return Err(error(format!("element {at} is {}, so the checkpoint is damaged", values[at])));
    }
    if !half || view.storage == StorageType::F16 {
        return Ok(values);
    }
    let halves: Vec<f32> = view.to_f16().into_iter().map(f32::from).collect();
    match halves.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(error(format!(
            "element {at} is {}, beyond half precision; keep weights in single precision (f32)",
            values[at]
        ))),
        None => Ok(halves),
    }
}
