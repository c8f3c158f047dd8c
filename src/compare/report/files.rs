//! Files that are whole or not there.

use super::ReportError;
use pipelines::{SampleShape, nchw_from_nhwc};
use safetensors::{Dtype, tensor::TensorView};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Writes a file beside its place, then renames it.
pub(super) fn write(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), ReportError> {
    let failed = |error: std::io::Error| ReportError::Write { path: path.to_owned(), error };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".headwater-");
    // Temporary files are private to their owner; results are as any new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(failed)?;
    {
        let mut buffered = std::io::BufWriter::new(file.as_file_mut());
        write(&mut buffered).and_then(|()| buffered.flush()).map_err(failed)?;
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The same with these bytes.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    write(path, |file| file.write_all(bytes))
}

pub(super) fn make_folder(path: &Path) -> Result<(), ReportError> {
    fs::create_dir_all(path).map_err(|error| ReportError::Write { path: path.to_owned(), error })
}

/// The bytes of a safetensors file of samples in diffusers' layout, `[1, C, H, W]`, with texts in its metadata.
pub(crate) fn tensor_file(
    tensors: &[(&str, &[f32])],
    shape: SampleShape,
    texts: &[(&str, &str)],
) -> Result<Vec<u8>, String> {
    let bytes = |sample: &[f32]| -> Vec<u8> {
        nchw_from_nhwc(sample, shape).iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let data: Vec<(&str, Vec<u8>)> = tensors.iter().map(|(name, sample)| (*name, bytes(sample))).collect();
    let extents = vec![1, shape.channels, shape.height, shape.width];
    let metadata = texts.iter().map(|(keyword, text)| ((*keyword).to_owned(), (*text).to_owned())).collect();
    data.iter()
        .map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::F32, extents.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|error| format!("cannot encode the sample: {error}"))
}
