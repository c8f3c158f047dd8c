//! How weights lie in a device's memory, and how they get there from a checkpoint.

use crate::memory::Uploader;
use graph::shape::numel;
use graph::{DeviceError, WeightView};
use half::f16;
use shaders::Format;
use std::borrow::Cow;

/// Bytes of `count` elements.
pub(crate) fn bytes(count: usize, format: Format) -> u64 {
    let size = match format {
        Format::F32 => 4,
        Format::F16 | Format::PackedF16 => 2,
    };
    count as u64 * size
}

/// The format of a weight: how halves are read depends on the adapter.
pub(crate) fn format(half: bool, shader_f16: bool) -> Format {
    match (half, shader_f16) {
        (false, _) => Format::F32,
        (true, true) => Format::F16,
        (true, false) => Format::PackedF16,
    }
}

/// Checks that a checkpoint's tensor is what the graph expects.
pub(crate) fn check(name: &str, shape: &[usize], view: &WeightView<'_>) -> Result<(), DeviceError> {
    let fault = |reason: String| DeviceError::Weight { name: name.to_owned(), reason };
    if view.shape != shape {
        return Err(fault(format!("the model expects shape {shape:?} and the checkpoint has {:?}", view.shape)));
    }
    let expected = numel(shape) * view.storage.size();
    if view.bytes.len() != expected {
        return Err(fault(format!("{} bytes are stored where its shape needs {expected}", view.bytes.len())));
    }
    Ok(())
}

/// Converts a weight piece by piece and writes it to its buffer.
pub(crate) fn upload(
    uploader: &mut Uploader<'_>,
    buffer: &wgpu::Buffer,
    name: &str,
    view: &WeightView<'_>,
    format: Format,
) -> Result<(), DeviceError> {
    let fault = |reason: &str| DeviceError::Weight { name: name.to_owned(), reason: reason.to_owned() };
    let doing = format!("uploading weight {name}");
    // An even number of elements, so that pieces of packed halves begin on whole words.
    let elements = Uploader::PIECE / 4;
    let mut offset = 0;
    for piece in view.bytes.chunks(elements * view.storage.size()) {
        let piece = WeightView { storage: view.storage, shape: Vec::new(), bytes: Cow::Borrowed(piece) };
        let values = piece.to_f32();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(fault("it holds a value that is not a finite number, so the checkpoint is damaged"));
        }
        let halves: Vec<f16>;
        let data: &[u8] = match format {
            Format::F32 => bytemuck::cast_slice(&values),
            Format::F16 | Format::PackedF16 => {
                halves = to_halves(&piece, &values).ok_or_else(|| {
                    fault("it holds a value beyond half precision; keep weights in single precision (f32)")
                })?;
                bytemuck::cast_slice(&halves)
            }
        };
        uploader.write(buffer, offset, data, &doing)?;
        offset += data.len() as u64;
    }
    Ok(())
}

/// A piece in half precision, filled up to whole words; none when a finite value becomes infinite.
fn to_halves(piece: &WeightView<'_>, values: &[f32]) -> Option<Vec<f16>> {
    let mut halves = piece.to_f16();
    if halves.iter().zip(values).any(|(half, value)| half.is_infinite() && value.is_finite()) {
        return None;
    }
    halves.resize(halves.len().next_multiple_of(2), f16::ZERO);
    Some(halves)
}

/// Numbers as an operand of the given format, for tests of single kernels: values are rounded where they must be.
pub(crate) fn encode(values: &[f32], format: Format) -> Vec<u8> {
    match format {
        Format::F32 => bytemuck::cast_slice(values).to_vec(),
        Format::F16 | Format::PackedF16 => {
            let halves: Vec<f16> = values.iter().copied().map(f16::from_f32).collect();
            bytemuck::cast_slice(&halves).to_vec()
        }
    }
}
