//! Files mapped into memory: the only unsafe code of this crate.
#![allow(unsafe_code, reason = "mapping a file is unsafe; see Bytes::map")]

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// The bytes of a file, without a copy.
#[derive(Debug)]
pub enum Bytes {
    /// Bytes built into the program.
    Static(&'static [u8]),
    /// A file mapped into memory.
    Mapped(Mmap),
    /// A file that lies in memory.
    Shared(Arc<[u8]>),
}

impl Bytes {
    /// Maps a file.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub(crate) fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            // Mapping an empty file is an error on some systems.
            return Ok(Bytes::Static(&[]));
        }
        // SAFETY: the map is read-only, private to this process, and outlives the `File` by contract of mmap. What cannot
        // be ruled out is that another program changes or shortens the file while it is mapped; every reader of large
        // checkpoints accepts that, because the alternative is a second copy in memory. The consequences are bounded: the
        // bytes are only ever copied out as numbers (any bit pattern is a valid u8), offsets into them were checked
        // against the length of this map, and a file that shrinks ends the process by SIGBUS, never in a wild read.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Bytes::Mapped(map))
    }

    /// Gives the pages of a range back to the system, which reads them from the file again if they are asked for.
    pub(crate) fn release(&self, range: &Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            // SAFETY: the map is of a file and read-only, so that dropped pages come back with the same bytes; nothing of ours is ever
            // written to them. An error only means that the pages stay.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Static(bytes) => bytes,
            Bytes::Mapped(map) => map,
            Bytes::Shared(bytes) => bytes,
        }
    }
}
