//! How weights lie in a device's memory, and how they get there from a checkpoint.

use crate::memory::Uploader;
use graph::shape::numel;
use graph::{DeviceError, Kept, WeightView, q8_0};
use half::f16;
use shaders::Format;
use std::borrow::Cow;

/// Bytes of `count` elements.
pub(crate) fn bytes(count: usize, format: Format) -> u64 {
    let size = match format {
        Format::F32 => 4,
        Format::F16 | Format::PackedF16 => 2,
        // Whole numbers, then scales.
        Format::Q8_0 => return count as u64 + (count / q8_0::BLOCK * 2) as u64,
    };
    count as u64 * size
}

/// The format of a weight: how halves are read depends on the adapter.
pub(crate) fn format(kept: Kept, shader_f16: bool) -> Format {
    match (kept, shader_f16) {
        (Kept::F32 | Kept::Bf16, _) => Format::F32,
        (Kept::F16, true) => Format::F16,
        (Kept::F16, false) => Format::PackedF16,
        (Kept::Q8_0, _) => Format::Q8_0,
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
pub(crate) async fn upload(
    uploader: &mut Uploader<'_>,
    buffer: &wgpu::Buffer,
    name: &str,
    view: &WeightView<'_>,
    format: Format,
) -> Result<(), DeviceError> {
    let fault = |reason: &str| DeviceError::Weight { name: name.to_owned(), reason: reason.to_owned() };
    let doing = format!("uploading weight {name}");
    // A multiple of 64 elements, so that pieces are whole words of packed halves and whole blocks.
    let elements = Uploader::PIECE / 4;
    let mut offset = 0;
    let mut scales = Vec::new();
    for piece in view.bytes.chunks(elements * view.storage.size()) {
        let piece = WeightView { storage: view.storage, shape: Vec::new(), bytes: Cow::Borrowed(piece) };
        let values = piece.to_f32();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(fault("it holds a value that is not a finite number, so the checkpoint is damaged"));
        }
        let halves: Vec<f16>;
        let quants: Vec<i8>;
        let data: &[u8] = match format {
            Format::F32 => bytemuck::cast_slice(&values),
            Format::F16 | Format::PackedF16 => {
                halves = to_halves(&piece, &values).ok_or_else(|| {
                    fault("it holds a value beyond half precision; keep weights in single precision (f32)")
                })?;
                bytemuck::cast_slice(&halves)
            }
            Format::Q8_0 => {
                let blocks = q8_0::quantize(&values).ok_or_else(|| {
                    fault("it holds a value beyond what blocks of eight bits can scale; keep weights in single precision (f32)")
                })?;
                quants = blocks.iter().flat_map(|block| block.quants).collect();
                scales.extend(blocks.iter().map(|block| block.scale));
                bytemuck::cast_slice(&quants)
            }
        };
        uploader.write(buffer, offset, data, &doing).await?;
        offset += data.len() as u64;
    }
    scales.resize(scales.len().next_multiple_of(2), f16::ZERO);
    for piece in scales.chunks(Uploader::PIECE / 2) {
        uploader.write(buffer, offset, bytemuck::cast_slice(piece), &doing).await?;
        offset += size_of_val(piece) as u64;
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
        Format::Q8_0 => {
            let blocks = q8_0::quantize(values).expect("tests' values are small");
            let quants = blocks.iter().flat_map(|block| block.quants).map(i8::cast_unsigned);
            quants.chain(blocks.iter().flat_map(|block| block.scale.to_le_bytes())).collect()
        }
    }
}

/// What a buffer of such a format holds, widened.
pub(crate) fn decode(bytes: &[u8], format: Format) -> Vec<f32> {
    let halves = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()
    };
    match format {
        Format::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Format::F16 | Format::PackedF16 => halves(bytes),
        Format::Q8_0 => {
            let (quants, scales) = bytes.split_at(bytes.len() / q8_0::BLOCK_BYTES * q8_0::BLOCK);
            let blocks = quants.chunks_exact(q8_0::BLOCK).zip(halves(scales));
            blocks
                .flat_map(|(block, scale)| block.iter().map(move |quant| f32::from(quant.cast_signed()) * scale))
                .collect()
        }
    }
}
