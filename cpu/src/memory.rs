//! Memory of many megabytes, in large pages where the system has them.
//!
//! A system clears memory page by page when it is first touched. In pages of 4 KiB that took a third of the time in which the weights of
//! Stable Diffusion were packed. A page of 2 MiB is one fault in place of 512.

use bytemuck::Pod;
#[cfg(target_os = "linux")]
use memmap2::{Advice, MmapMut};
use std::ops::{Deref, DerefMut};

/// What lies in large pages: with less, the part of the last page that stays empty would count.
#[cfg(target_os = "linux")]
const LARGE: usize = 2 << 20;

/// Elements whose number never changes.
pub(crate) enum Memory<E> {
    Heap(Vec<E>),
    #[cfg(target_os = "linux")]
    Pages {
        map: MmapMut,
        len: usize,
    },
}

impl<E: Pod> Memory<E> {
    /// So many zeros; none where there is no memory for them.
    pub(crate) fn zeroed(len: usize) -> Option<Memory<E>> {
        #[cfg(target_os = "linux")]
        if let Some(bytes) = len.checked_mul(size_of::<E>()).filter(|bytes| *bytes >= LARGE) {
            let map = MmapMut::map_anon(bytes).ok()?;
            // A system without large pages says so, and has given small ones.
            let _ = map.advise(Advice::HugePage);
            return Some(Memory::Pages { map, len });
        }
        let mut all = Vec::new();
        all.try_reserve_exact(len).ok()?;
        all.resize(len, E::zeroed());
        Some(Memory::Heap(all))
    }
}

impl<E> Default for Memory<E> {
    fn default() -> Self {
        Memory::Heap(Vec::new())
    }
}

impl<E> From<Vec<E>> for Memory<E> {
    fn from(all: Vec<E>) -> Self {
        Memory::Heap(all)
    }
}

impl<E: Pod> Deref for Memory<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        match self {
            Memory::Heap(all) => all,
            #[cfg(target_os = "linux")]
            Memory::Pages { map, len } => &bytemuck::cast_slice(map)[..*len],
        }
    }
}

impl<E: Pod> DerefMut for Memory<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        match self {
            Memory::Heap(all) => all,
            #[cfg(target_os = "linux")]
            Memory::Pages { map, len } => &mut bytemuck::cast_slice_mut(map)[..*len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn is_zero_and_holds_what_is_written_in_small_and_in_large_pages() {
        for len in [0, 3, 1 << 19, (1 << 20) + 7] {
            let mut memory = Memory::<i16>::zeroed(len).expect("a few megabytes");
            assert_eq!((memory.len(), memory.iter().any(|x| *x != 0)), (len, false));
            if let Some(last) = memory.last_mut() {
                *last = 5;
                assert_eq!(memory[len - 1], 5);
            }
        }
        assert!(Memory::<f32>::zeroed(1 << 61).is_none());
    }
}
