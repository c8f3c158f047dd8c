//! Files mapped into memory, and others that are read in pieces: the only unsafe code of this crate.
#![allow(unsafe_code, reason = "mapping a file is unsafe; see Bytes::map")]

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A file that can be read in pieces and not mapped, such as one of a browser: a model on it is in memory no more than the tensor that is being read.
pub trait Pieces: fmt::Debug + Send + Sync {
    /// Bytes of the whole file.
    fn length(&self) -> usize;

    /// The bytes of a range that lies inside the file.
    ///
    /// # Errors
    /// Why they cannot be read, as the rest of a sentence about the file.
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>, String>;
}

impl Pieces for Vec<u8> {
    fn length(&self) -> usize {
        self.len()
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>, String> {
        self.get(range).map(<[u8]>::to_vec).ok_or_else(|| "ended before its end".into())
    }
}

/// The bytes of a file, without a copy where the system has them in memory.
#[derive(Debug)]
pub enum Bytes {
    /// Bytes built into the program.
    Static(&'static [u8]),
    /// A file mapped into memory.
    Mapped(Mmap),
    /// A file that is read in pieces.
    Pieces(Arc<dyn Pieces>),
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

impl Bytes {
    /// How many there are.
    pub(crate) fn length(&self) -> usize {
        match self {
            Bytes::Static(bytes) => bytes.len(),
            Bytes::Mapped(map) => map.len(),
            Bytes::Pieces(file) => file.length(),
        }
    }

    /// Those of a range, which must lie inside the file.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>, String> {
        Ok(match self {
            Bytes::Static(bytes) => Cow::Borrowed(&bytes[range]),
            Bytes::Mapped(map) => Cow::Borrowed(&map[range]),
            Bytes::Pieces(file) => {
                let (length, bytes) = (range.len(), file.read(range)?);
                if bytes.len() != length {
                    return Err("was changed while it was read".into());
                }
                Cow::Owned(bytes)
            }
        })
    }

    /// All of them.
    pub(crate) fn all(&self) -> Result<Cow<'_, [u8]>, String> {
        self.read(0..self.length())
    }
}
