//! The crate's one unsafe place: files mapped into memory.
#![allow(unsafe_code, reason = "mapping a file is unsafe; see Bytes::map")]

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file, without a copy.
#[derive(Debug)]
pub enum Bytes {
    /// Part of the program.
    Static(&'static [u8]),
    /// A file mapped into memory.
    Mapped(Mmap),
}

impl Bytes {
    /// Maps a file.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub(crate) fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            // Mapping nothing is an error on some systems.
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
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Static(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }
}
