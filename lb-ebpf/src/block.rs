//! Arrays in one map value: what packets of known flows look up one after the other.
//!
//! The key of an ordinary array is an index that goes by way of the stack, where the next load
//! waits for it. Here the key is always 0, and the index is added to an address that was there
//! before.

use aya_ebpf::btf_maps::Array;

use crate::{maps::MMAPABLE, packet::opaque};

/// `N` entries in one value, which the agent may map into its memory.
pub type Block<T, const N: usize> = Array<[T; N], 1, MMAPABLE>;

/// Where the entry at `index` stands, if there is one.
#[inline(always)]
pub fn place<T, const N: usize>(block: &Block<T, N>, index: u32) -> Option<*mut T> {
    let first = block.get_ptr_mut(0)?.cast::<T>();
    let index = opaque(index.into());
    // SAFETY: within the value, as the verifier sees for itself.
    (index < N as u64).then(|| unsafe { first.add(index as usize) })
}

/// The entry at `index`, if there is one.
#[inline(always)]
pub fn entry<T: Copy, const N: usize>(block: &Block<T, N>, index: u32) -> Option<T> {
    // SAFETY: words of a map value, of which any bits are valid. Where they are several, what they
    // say tells whether they are of one moment (`Hop`, `NearFrontend`), or they never change once
    // anything leads there (`NEAR_SOURCES`).
    place(block, index).map(|entry| unsafe { *entry })
}
