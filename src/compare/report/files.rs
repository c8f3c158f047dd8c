//! Files that are whole or not there.

use super::ReportError;
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
