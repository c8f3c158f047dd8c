//! How weights lie in a device's memory, and how they get there from a checkpoint.

use crate::memory::Uploader;
use graph::shape::numel;
use graph::{DeviceError, Graph, Op, Slots, Storage, StorageType, WeightView};
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

/// Which nodes are weights that only ever serve as the right factor of a product or as a table of rows. These hold
/// nearly all of a model's numbers, and may be kept in half precision; biases and norms cost next to nothing in single.
pub(crate) fn may_be_half(graph: &Graph, slots: &Slots) -> Vec<bool> {
    let mut half: Vec<bool> = graph.nodes().iter().map(|node| matches!(node.op, Op::Weight(_))).collect();
    for node in graph.nodes() {
        let large = match node.op {
            Op::MatMul(_) | Op::Conv2d(_) => Some(1),
            Op::Gather(_) => Some(0),
            // The readers of a reshape are looked at themselves.
            Op::Reshape(_) => continue,
            _ => None,
        };
        let extras = node.epilogue.iter().flat_map(|epilogue| &epilogue.inputs);
        let small = node.inputs.iter().enumerate().filter(|(i, _)| Some(*i) != large).map(|(_, id)| id);
        for id in small.chain(extras) {
            half[slots.root(*id).index()] = false;
        }
    }
    for (_, id) in graph.outputs() {
        half[slots.root(*id).index()] = false;
    }
    half
}

/// The format to keep a weight in.
pub(crate) fn choose(wanted: Storage, stored: StorageType, may_be_half: bool, shader_f16: bool) -> Format {
    let half = may_be_half
        && match wanted {
            Storage::Auto => stored == StorageType::F16,
            Storage::F32 => false,
            Storage::F16 => true,
        };
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
                halves = to_halves(&piece, &values)
                    .ok_or_else(|| fault("it holds a value beyond half precision; use --dtype f32"))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Rate, Scope, passes};

    #[test]
    fn only_large_weights_may_be_half() {
        let s = Scope::root();
        let ids = s.input("ids", &[2, 3], Rate::Once);
        let x = s.at("embed").embedding(&ids, 7, 4);
        let position = s.weight("position", &[3, 4]);
        let y = s.at("proj").linear(&(&x + &position), 5);
        let graph = passes::optimize(&s.finish(&[("y", &y)]).unwrap());
        let half = may_be_half(&graph, &Slots::assign(&graph));
        let names = graph.nodes().iter().zip(half).filter(|(_, half)| *half).map(|(node, _)| match &node.op {
            Op::Weight(weight) => weight.name.clone(),
            other => panic!("{other:?} is no weight"),
        });
        assert_eq!(names.collect::<Vec<_>>(), ["embed.weight", "proj.weight"]);
    }

    #[test]
    fn formats_follow_the_request_and_the_adapter() {
        let cases = [
            (Storage::Auto, StorageType::F32, true, true, Format::F32),
            (Storage::Auto, StorageType::F16, true, true, Format::F16),
            (Storage::Auto, StorageType::F16, true, false, Format::PackedF16),
            (Storage::Auto, StorageType::Bf16, true, true, Format::F32),
            (Storage::F16, StorageType::F32, true, true, Format::F16),
            (Storage::F16, StorageType::F32, false, true, Format::F32),
            (Storage::F32, StorageType::F16, true, true, Format::F32),
        ];
        for (wanted, stored, may, f16, format) in cases {
            assert_eq!(choose(wanted, stored, may, f16), format, "{wanted:?} {stored:?} {may} {f16}");
        }
    }
}
