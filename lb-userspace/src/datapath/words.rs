//! Maps of single words, mapped into memory: one store publishes one value.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

use super::DatapathError;

/// An array map with `BPF_F_MMAPABLE` whose values are words of 8 bytes, or whose one value is an
/// array of them, shared with the running programs.
pub(super) struct Words {
    map: MmapRaw,
    len: usize,
    /// Open for programs that are loaded later: they name it by its descriptor.
    _data: MapData,
}

impl Words {
    /// Maps `data`, an array map of `len` words in all.
    pub(super) fn new(
        name: &'static str,
        data: MapData,
        len: usize,
    ) -> Result<Self, DatapathError> {
        let page = 4096;
        let bytes = (len * size_of::<u64>()).next_multiple_of(page);
        let fd = data.fd().as_fd();
        let map = MmapOptions::new()
            .len(bytes)
            .map_raw(&fd)
            .map_err(|error| DatapathError::Map {
                map: name,
                reason: format!("mmap: {error}"),
            })?;
        Ok(Self {
            map,
            len,
            _data: data,
        })
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.len {
            return None;
        }
        // SAFETY: within the mapping, which is page-aligned and lives as long as `self`.
        // Programs read and change the word as a whole, or write single bytes of it.
        Some(unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) })
    }

    /// The word at `index`; 0 beyond the end.
    pub(super) fn get(&self, index: usize) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Stores `new` where `old` stands; false where another has stored another word meanwhile,
    /// who has his way.
    pub(super) fn exchange(&self, index: usize, old: u64, new: u64) -> bool {
        self.word(index).is_some_and(|word| {
            word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// Stores a word; true where that changed it. A packet sees the old or the new one,
    /// and whoever sees the new one sees all that was stored before.
    pub(super) fn set(&self, index: usize, value: u64) -> bool {
        self.word(index).is_some_and(|word| {
            let changed = word.load(Ordering::Relaxed) != value;
            if changed {
                word.store(value, Ordering::Release);
            }
            changed
        })
    }
}
