//! One `.safetensors` file: its header is checked, and its tensors are borrowed from the mapped bytes, or read one at a time where there is no map.

use crate::checkpoint::contents;
pub(crate) use crate::checkpoint::contents::PICKLE;
use crate::checkpoint::mapped::Bytes;
use crate::checkpoint::number_types::storage;
use crate::checkpoint::scaled::{DESCRIPTIONS, Scale, Scales};
use crate::error::ModelError;
use graph::{StorageType, WeightView};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Bytes of the header's length, which stands before the header.
const LENGTH: usize = 8;

/// No header is larger, as the format has it.
const MOST_HEADER: usize = 100_000_000;

/// Bytes of what is no model in which is looked for what it is.
const MOST_TEXT: usize = 1 << 20;

/// A file whose header has been checked: offsets lie inside it, do not overlap, and fit shapes and types.
#[derive(Debug)]
pub(crate) struct TensorFile {
    bytes: Bytes,
    metadata: Metadata,
    data: usize,
    scales: Scales,
}

/// Where one tensor lies in its file.
#[derive(Debug, Clone)]
pub(crate) struct TensorInfo {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Range<usize>,
    /// What its numbers are multiplied by.
    pub(crate) scale: Option<Scale>,
}

impl TensorFile {
    /// Opens a file that does not belong to a model's folder.
    pub(crate) fn at(path: &Path) -> Result<Self, ModelError> {
        let shown = path.display().to_string();
        let bytes = contents::open(path).map_err(|why| ModelError::new(&*shown, why))?;
        Self::read(bytes, &shown)
    }

    /// Checks the header of a file; `shown` names it in errors.
    pub(crate) fn read(bytes: Bytes, shown: &str) -> Result<Self, ModelError> {
        let fault = |message: String| ModelError::new(shown, message);
        let start = start(&bytes).map_err(fault)?;
        if let Some(what) = contents::foreign(&start) {
            return Err(fault(what));
        }
        let (header, metadata) = metadata(&start, &bytes).map_err(|error| fault(explain(&error, &start)))?;
        let data = LENGTH + header;
        if let Some(name) = duplicate(&start[LENGTH..data]) {
            return Err(fault(format!("is damaged: the header names {name:?} twice")));
        }
        drop(start);
        let mut file = Self { bytes, metadata, data, scales: Scales::default() };
        let tensors = file.listed().collect();
        let unread = RefCell::new(None);
        let bytes = |info: &TensorInfo| file.bytes(&info.bytes).map_err(|why| unread.replace(Some(why))).ok();
        let scales = Scales::find(&tensors, file.metadata(DESCRIPTIONS), bytes);
        // Without its scale a tensor's numbers would be others.
        if let Some(why) = unread.into_inner() {
            return Err(fault(why));
        }
        file.scales = scales;
        Ok(file)
    }

    /// All tensors but those that say what the numbers of others mean, where it is known what they say.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, TensorInfo)> + '_ {
        self.listed().filter(|(name, _)| !self.scales.tell(name)).map(|(name, info)| {
            let scale = self.scales.of(&name);
            (name, TensorInfo { scale, ..info })
        })
    }

    /// All tensors as they are in the header.
    fn listed(&self) -> impl Iterator<Item = (String, TensorInfo)> + '_ {
        self.metadata.tensors().into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let bytes = self.data + start..self.data + end;
            (name, TensorInfo { dtype: info.dtype, shape: info.shape.clone(), bytes, scale: None })
        })
    }

    /// An entry of the header's `__metadata__`.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(|value| &**value)
    }

    /// All of the header's `__metadata__`.
    pub(crate) fn all_metadata(&self) -> impl Iterator<Item = (&String, &String)> {
        self.metadata.metadata().iter().flatten()
    }

    /// A tensor as devices take it, if its numbers can be read.
    pub(crate) fn view(&self, info: &TensorInfo) -> Option<WeightView<'_>> {
        let view = storage(info)?.view(info.shape.clone(), self.bytes(&info.bytes).ok()?);
        Some(match &info.scale {
            Some(scale) => multiplied(view, scale),
            None => view,
        })
    }

    /// All numbers of a tensor, if they can be read.
    pub(crate) fn to_f32(&self, info: &TensorInfo) -> Option<Vec<f32>> {
        Some(self.view(info)?.to_f32())
    }

    pub(crate) fn bytes(&self, range: &Range<usize>) -> Result<Cow<'_, [u8]>, String> {
        self.bytes.read(range.clone())
    }

    /// Lets the system drop the pages of this range from memory.
    pub(crate) fn release(&self, range: &Range<usize>) {
        self.bytes.release(range);
    }
}

/// As much of a file as it takes to tell what it is: all that lies in memory anyway, and of others the header.
fn start(bytes: &Bytes) -> Result<Cow<'_, [u8]>, String> {
    let length = bytes.length();
    let Bytes::Pieces(_) = bytes else { return bytes.all() };
    let first = bytes.read(0..length.min(LENGTH + 1))?;
    let declared = first.first_chunk::<LENGTH>().map_or(0, |length| u64::from_le_bytes(*length));
    let header = usize::try_from(declared).ok().filter(|bytes| *bytes <= MOST_HEADER && first.last() == Some(&b'{'));
    bytes.read(0..length.min(header.map_or(MOST_TEXT, |header| LENGTH + header)))
}

/// The header's length and what it says, checked against the length of the whole file.
fn metadata(start: &[u8], bytes: &Bytes) -> Result<(usize, Metadata), SafeTensorError> {
    match SafeTensors::read_metadata(start) {
        // The last of its checks, for which the whole file would be needed: that the tensors end where the file does.
        Err(SafeTensorError::MetadataIncompleteBuffer) if start.len() < bytes.length() => {
            let header = &start[LENGTH..];
            let metadata: Metadata =
                serde_json::from_slice(header).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
            let ends = metadata.data_len().checked_add(start.len());
            let fits = ends == Some(bytes.length());
            fits.then_some((header.len(), metadata)).ok_or(SafeTensorError::MetadataIncompleteBuffer)
        }
        result => result,
    }
}

/// Numbers times one scale, or each row times its own. Rows are those of the file, whatever shape they are seen in.
fn multiplied<'a>(view: WeightView<'a>, scale: &Scale) -> WeightView<'a> {
    let mut values = view.to_f32();
    let row = (values.len() / scale.len().max(1)).max(1);
    for (row, scale) in values.chunks_mut(row).zip(scale.iter()) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    WeightView { storage: StorageType::F32, shape: view.shape, bytes: Cow::Owned(bytes) }
}

fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    use SafeTensorError as E;
    let declared = bytes.first_chunk::<LENGTH>().map_or(0, |length| u64::from_le_bytes(*length));
    match error {
        E::HeaderTooSmall => format!("is not a safetensors file: it has only {} bytes", bytes.len()),
        E::HeaderTooLarge | E::InvalidHeaderLength => {
            format!("is truncated or no safetensors file: it announces a header of {declared} bytes")
        }
        E::InvalidHeader(_) | E::InvalidHeaderDeserialization(_) => {
            "is not a safetensors file: its header is not the JSON that the format asks for".into()
        }
        E::InvalidOffset(name) => format!("is damaged: the place of {name:?} overlaps another tensor or leaves a gap"),
        E::MetadataIncompleteBuffer => {
            "is truncated or damaged: its length is not what the header's tensors add up to".into()
        }
        E::TensorInvalidInfo => "is damaged: a tensor's place does not fit its shape and type".into(),
        E::ValidationOverflow => "is damaged: a tensor's shape is larger than any memory".into(),
        E::MisalignedSlice => "is damaged: a tensor ends within a byte".into(),
        E::TensorNotFound(name) => format!("is damaged: it lacks {name:?}"),
        E::JsonError(_) | E::IoError(_) | E::InvalidTensorView(..) => "is not a usable safetensors file".into(),
    }
}

/// A name that occurs twice in the header. JSON parsers keep only one of the two without an error, so different readers
/// of one file could see different models.
fn duplicate(header: &[u8]) -> Option<String> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut seen = HashSet::new();
            let mut twice = None;
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if !seen.insert(name.clone()) {
                    twice.get_or_insert(name);
                }
            }
            Ok(twice)
        }
    }
    let mut parser = serde_json::Deserializer::from_slice(header);
    serde::Deserializer::deserialize_map(&mut parser, Names).ok().flatten()
}
