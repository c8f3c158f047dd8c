//! What a driver compiled, kept on disk for the next run. Vulkan alone hands it out; elsewhere nothing is kept.
//!
//! A cache is only ever a shortcut: whatever is wrong with its file or folder, kernels are compiled as without one.

use crate::inner::Inner;
use crate::trusted;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Begins every file; the checksum of the rest follows.
const MAGIC: [u8; 8] = *b"hwkernl1";
const HEADER: usize = MAGIC.len() + 8;

/// The driver's cache and its file.
#[derive(Debug)]
pub(crate) struct Cache {
    handle: wgpu::PipelineCache,
    file: PathBuf,
    /// Of the folder.
    most_bytes: u64,
    /// Whether anything was compiled since the file was read or written.
    grown: AtomicBool,
}

impl Cache {
    /// The cache of an adapter in a folder, with what its file holds; none where the interface has no such thing.
    pub(crate) fn open(inner: &Inner, adapter: &wgpu::AdapterInfo, folder: &Path, most_bytes: u64) -> Option<Self> {
        if !inner.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.join(file_name(adapter)?);
        let data = read(&file, most_bytes);
        let handle =
            inner.guarded("reading compiled kernels", || trusted::cache(&inner.device, data.as_deref())).ok()?;
        Some(Self { handle, file, most_bytes, grown: AtomicBool::new(false) })
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
            let _ = self.handle.get_data().map(|data| write(&self.file, &data, self.most_bytes));
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
fn read(file: &Path, most_bytes: u64) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    File::open(file).ok()?.take(most_bytes).read_to_end(&mut data).ok()?;
    let (magic, rest) = data.split_at_checked(MAGIC.len())?;
    let (sum, contents) = rest.split_first_chunk()?;
    (magic == MAGIC && u64::from_le_bytes(*sum) == checksum(contents)).then(|| data.split_off(HEADER))
}

/// Writes beside the file and renames, so that whoever reads it meanwhile sees one of the two whole. What is larger than all files
/// together may be is not written, and an older, smaller one goes, because it lacks what took time.
fn write(file: &Path, data: &[u8], most_bytes: u64) -> std::io::Result<()> {
    let Some(room) = most_bytes.checked_sub((HEADER + data.len()) as u64) else {
        return std::fs::remove_file(file);
    };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
        trim(folder, file, room)?;
    }
    // A name that nobody else has: processes in containers have the same number, and one process may have several devices.
    let beside = file.with_extension(format!("{:016x}.part", RandomState::new().build_hasher().finish()));
    let contents = [&MAGIC[..], &checksum(data).to_le_bytes(), data].concat();
    let renamed = std::fs::write(&beside, contents).and_then(|()| std::fs::rename(&beside, file));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    renamed
}

/// Removes the files of other adapters and drivers, those first that were written longest ago, until they hold no more than `room`.
/// What is not such a file is left alone, and what another process has removed or renamed meanwhile is no longer there to count.
fn trim(folder: &Path, but: &Path, room: u64) -> std::io::Result<()> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Some(about) = unless_gone(entry.metadata())? else { continue };
        let path = entry.path();
        let mut magic = [0; MAGIC.len()];
        let ours = about.is_file() && File::open(&path).and_then(|mut file| file.read_exact(&mut magic)).is_ok();
        if ours && magic == MAGIC && path != but {
            others.push((about.modified()?, about.len(), path));
        }
    }
    others.sort();
    let mut held: u64 = others.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in others {
        if held <= room {
            break;
        }
        unless_gone(std::fs::remove_file(path))?;
        held -= bytes;
    }
    Ok(())
}

/// None where there is no such file.
fn unless_gone<T>(found: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
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
        let read = |file: &Path| super::read(file, 1 << 20);
        assert_eq!(read(&file), None, "there is none yet");
        let data: Vec<u8> = (0..200).collect();
        write(&file, &data, 1 << 20).expect("a temporary folder can be written");
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

    #[test]
    fn several_that_write_at_once_leave_one_that_is_whole() {
        let folder = std::env::temp_dir().join(format!("headwater-cache-several-{}", std::process::id()));
        let file = folder.join("a_cache");
        let contents = [vec![1_u8; 100_000], vec![2; 150_000], vec![3; 50_000]];
        write(&file, &contents[0], 1 << 20).expect("a temporary folder can be written");
        std::thread::scope(|scope| {
            for data in &contents {
                scope.spawn(|| (0..40).for_each(|_| write(&file, data, 1 << 20).expect("writes")));
            }
            for _ in 0..200 {
                let found = super::read(&file, 1 << 20);
                assert!(found.is_some_and(|found| contents.contains(&found)), "a file that is not whole");
            }
        });
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn files_together_keep_to_their_limit() {
        let folder = std::env::temp_dir().join(format!("headwater-cache-limit-{}", std::process::id()));
        let file = |name: &str| folder.join(name);
        let there = |names: &[&str]| {
            let mut all: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            all.sort();
            assert_eq!(all, names);
        };
        let each = 100 + HEADER as u64;
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(file("notes"), "not ours").unwrap();
        for (name, seconds) in [("a", 30), ("b", 10), ("c", 20)] {
            write(&file(name), &[1; 100], 10 * each).unwrap();
            let written = std::time::SystemTime::now() - std::time::Duration::from_secs(1000 - seconds);
            File::options().write(true).open(file(name)).unwrap().set_modified(written).unwrap();
        }
        there(&["a", "b", "c", "notes"]);
        // The oldest goes, and what is no file of ours stays.
        write(&file("d"), &[1; 100], 3 * each).unwrap();
        there(&["a", "c", "d", "notes"]);
        // One's own file counts once.
        write(&file("a"), &[2; 100], 3 * each).unwrap();
        there(&["a", "c", "d", "notes"]);
        write(&file("a"), &[3; 100], each).unwrap();
        there(&["a", "notes"]);
        // Too large to keep.
        write(&file("a"), &[4; 101], each).unwrap();
        there(&["notes"]);
        assert_eq!(read(&file("a"), each), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
