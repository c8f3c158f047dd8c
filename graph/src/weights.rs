use crate::shape::{Shape, strides};
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// How a checkpoint stores numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
}

impl StorageType {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            StorageType::F32 => 4,
            StorageType::F16 | StorageType::Bf16 => 2,
        }
    }

    /// Elements so stored, widened to `f32`, exactly.
    ///
    /// # Panics
    /// When there are not as many of them as `to` has room for.
    pub fn widen(self, bytes: &[u8], to: &mut [f32]) {
        assert_eq!(bytes.len(), to.len() * self.size(), "as many elements as there is room for");
        let (pairs, _) = bytes.as_chunks();
        match self {
            StorageType::F32 => {
                bytes.as_chunks().0.iter().zip(to).for_each(|(four, to)| *to = f32::from_le_bytes(*four));
            }
            // The conversion that processors have takes aligned halves, and many at a time.
            StorageType::F16 => {
                let mut run = [f16::ZERO; 256];
                for (pairs, to) in pairs.chunks(run.len()).zip(to.chunks_mut(256)) {
                    let run = &mut run[..to.len()];
                    pairs.iter().zip(&mut *run).for_each(|(pair, half)| *half = f16::from_le_bytes(*pair));
                    run.convert_to_f32_slice(to);
                }
            }
            StorageType::Bf16 => pairs.iter().zip(to).for_each(|(pair, to)| *to = bf16::from_le_bytes(*pair).to_f32()),
        }
    }
}

/// One tensor of a checkpoint, usually borrowed from a mapped file. Little-endian.
#[derive(Debug, Clone)]
pub struct WeightView<'a> {
    /// How its elements are stored.
    pub storage: StorageType,
    /// Its extents.
    pub shape: Shape,
    /// Its elements, row-major; need not be aligned.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> WeightView<'a> {
    /// Some rows of the same tensor, along its first axis.
    #[must_use]
    pub fn rows(mut self, rows: &Range<usize>) -> WeightView<'a> {
        let Some(all) = self.shape.first().copied().filter(|all| rows.len() < *all) else { return self };
        let row = self.bytes.len() / all;
        self.shape[0] = rows.len();
        self.bytes = match self.bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[rows.start * row..rows.end * row]),
            Cow::Owned(bytes) => Cow::Owned(bytes[rows.start * row..rows.end * row].to_vec()),
        };
        self
    }

    /// The same tensor with its axes in another order: axis `i` of the result is axis `axes[i]` of this one.
    #[must_use]
    pub fn permuted(self, axes: &[usize]) -> WeightView<'a> {
        if axes.iter().copied().eq(0..self.shape.len()) {
            return self;
        }
        let bytes = match self.storage.size() {
            4 => permute::<4>(&self.bytes, &self.shape, axes),
            _ => permute::<2>(&self.bytes, &self.shape, axes),
        };
        let shape = axes.iter().map(|axis| self.shape[*axis]).collect();
        WeightView { storage: self.storage, shape, bytes: Cow::Owned(bytes) }
    }

    /// All elements widened to `f32`, exactly.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.bytes.len() / self.storage.size()];
        self.storage.widen(&self.bytes, &mut all);
        all
    }

    /// All elements rounded to half precision.
    #[must_use]
    pub fn to_f16(&self) -> Vec<f16> {
        match self.storage {
            StorageType::F16 => self.bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect(),
            _ => Vec::from_f32_slice(&self.to_f32()),
        }
    }
}

/// Elements of `N` bytes in another order of their axes.
fn permute<const N: usize>(bytes: &[u8], shape: &[usize], axes: &[usize]) -> Vec<u8> {
    let strides = strides(shape);
    let extents: Vec<usize> = axes.iter().map(|axis| shape[*axis]).collect();
    let (Some((&extent, outer)), Some((&last, before))) = (extents.split_last(), axes.split_last()) else {
        return bytes.to_vec();
    };
    let step = strides[last] * N;
    let mut out = vec![0; bytes.len()];
    let mut position = vec![0; outer.len()];
    for run in out.chunks_exact_mut((extent * N).max(1)) {
        let start: usize = position.iter().zip(before).map(|(i, axis)| i * strides[*axis]).sum();
        let mut at = start * N;
        for element in run.chunks_exact_mut(N) {
            element.copy_from_slice(&bytes[at..at + N]);
            at += step;
        }
        // Moves to the next position; the last of these axes counts fastest.
        for (i, extent) in position.iter_mut().zip(outer).rev() {
            *i += 1;
            if *i < *extent {
                break;
            }
            *i = 0;
        }
    }
    out
}

/// Where a device finds weights by name while it builds a plan: one tensor at a time, so that memory never holds a
/// second copy of a checkpoint. The native executor asks from several threads, each for a tensor of its own.
pub trait WeightSource: Sync {
    /// The tensor of that name.
    fn weight(&self, name: &str) -> Option<WeightView<'_>>;

    /// Why there is no tensor of that name, as the rest of a sentence about it.
    fn why_not(&self, _name: &str) -> String {
        "is missing from the checkpoint".into()
    }

    /// How the tensor of that name is stored.
    fn stored_as(&self, name: &str) -> Option<StorageType> {
        self.weight(name).map(|view| view.storage)
    }

    /// Tells the source that a tensor has been read and is not needed soon, so that a mapped file's pages need not stay
    /// in memory.
    fn release(&self, _name: &str) {}
}

/// Weights in memory, for tests and small tools.
#[derive(Debug, Clone, Default)]
pub struct MemoryWeights {
    tensors: BTreeMap<String, (Shape, Vec<u8>)>,
}

impl MemoryWeights {
    /// Adds a tensor.
    ///
    /// # Panics
    /// When the number of elements is not the shape's.
    pub fn insert(&mut self, name: impl Into<String>, shape: impl Into<Shape>, data: &[f32]) {
        let shape = shape.into();
        assert_eq!(crate::shape::numel(&shape), data.len(), "a weight of shape {shape:?} needs that many elements");
        self.tensors.insert(name.into(), (shape, data.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
}

impl WeightSource for MemoryWeights {
    fn weight(&self, name: &str) -> Option<WeightView<'_>> {
        let (shape, bytes) = self.tensors.get(name)?;
        Some(WeightView { storage: StorageType::F32, shape: shape.clone(), bytes: Cow::Borrowed(bytes) })
    }
}
