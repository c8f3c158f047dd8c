//! What a driver compiled, kept on disk for the next run. Vulkan alone hands it out; elsewhere nothing is kept.
//!
//! A cache is only ever a shortcut: whatever is wrong with its file or folder, kernels are compiled as without one.

use crate::inner::Inner;
use crate::trusted;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Begins every file; the checksum of the rest follows.
const MAGIC: [u8; 8] = *b"hwkernl1";
const HEADER: usize = MAGIC.len() + 8;

/// The driver's cache and its file.
#[derive(Debug)]
pub(crate) struct Cache {
    handle: wgpu::PipelineCache,
    file: PathBuf,
    /// Whether anything was compiled since the file was read or written.
    grown: AtomicBool,
}

impl Cache {
    /// The cache of an adapter in a folder, with what its file holds; none where the interface has no such thing.
    pub(crate) fn open(inner: &Inner, adapter: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        if !inner.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.join(file_name(adapter)?);
        let data = read(&file);
        let handle =
            inner.guarded("reading compiled kernels", || trusted::cache(&inner.device, data.as_deref())).ok()?;
        Some(Self { handle, file, grown: AtomicBool::new(false) })
    }

    /// For a pipeline that is about to be compiled.
    pub(crate) fn used(&self) -> &wgpu::PipelineCache {
        self.grown.store(true, Ordering::Relaxed);
        &self.handle
    }

    /// Writes the file if it lacks anything.
    pub(crate) fn save(&self) {
        if self.grown.swap(false, Ordering::Relaxed) {
            // A full disk or a folder that may not be written costs the next run its time, and this one nothing.
            let _ = self.handle.get_data().map(|data| write(&self.file, &data));
        }
    }
}

/// One file for each adapter and driver: another version of a driver compiles other code.
fn file_name(adapter: &wgpu::AdapterInfo) -> Option<String> {
    let key = wgpu::util::pipeline_cache_key(adapter)?;
    let driver = format!("{}\n{}\n{}", adapter.name, adapter.driver, adapter.driver_info);
    Some(format!("{key}_{:016x}", checksum(driver.as_bytes())))
}

/// A file's contents; none when there is no such file, or it is not whole.
fn read(file: &Path) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    File::open(file).ok()?.take(MOST_BYTES).read_to_end(&mut data).ok()?;
    let (magic, rest) = data.split_at_checked(MAGIC.len())?;
    let (sum, contents) = rest.split_first_chunk()?;
    (magic == MAGIC && u64::from_le_bytes(*sum) == checksum(contents)).then(|| data.split_off(HEADER))
}

/// Writes beside the file and renames, so that whoever reads it meanwhile sees one of the two whole.
fn write(file: &Path, data: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = file.with_extension(format!("{}.part", std::process::id()));
    let contents = [&MAGIC[..], &checksum(data).to_le_bytes(), data].concat();
    let renamed = std::fs::write(&beside, contents).and_then(|()| std::fs::rename(&beside, file));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    renamed
}

/// FNV-1a: against damage, not against malice; whoever may write to the folder may replace the program's other files too.
fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("headwater-cache-{}", std::process::id()));
        let file = folder.join("inner").join("a_cache");
        assert_eq!(read(&file), None, "there is none yet");
        let data: Vec<u8> = (0..200).collect();
        write(&file, &data).expect("a temporary folder can be written");
        assert_eq!(read(&file).as_deref(), Some(&data[..]));
        assert_eq!(std::fs::read_dir(folder.join("inner")).unwrap().count(), 1, "nothing is left beside it");
        let whole = std::fs::read(&file).unwrap();
        for cut in [0, 5, HEADER, whole.len() - 1] {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert_eq!(read(&file), None, "cut to {cut} bytes");
        }
        for at in [0, 9, HEADER, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&file, &damaged).unwrap();
            assert_eq!(read(&file), None, "damaged at byte {at}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
