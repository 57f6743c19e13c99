//! Maps, as `aya_ebpf::btf_maps` has them. All are empty and stay so, but those of one
//! value for every CPU, which are the program's scratch memory.

use std::{borrow::Borrow, cell::UnsafeCell, marker::PhantomData, sync::OnceLock};

/// Scratch memory and counters, zeros at first.
pub struct PerCpuArray<V, const N: usize>(OnceLock<Box<[UnsafeCell<V>]>>);

// SAFETY: for programs of which one runs at a time, as fuzz targets let them.
unsafe impl<V, const N: usize> Sync for PerCpuArray<V, N> {}

impl<V, const N: usize> PerCpuArray<V, N> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    pub fn get_ptr_mut(&self, index: u32) -> Option<*mut V> {
        // SAFETY: values of maps are integers, and structs and enums that have a zero.
        let zero = |_| UnsafeCell::new(unsafe { std::mem::zeroed() });
        let values = self.0.get_or_init(|| (0..N).map(zero).collect());
        values.get(index as usize).map(UnsafeCell::get)
    }
}

/// A map without entries, and the ways in which the kernel part uses one of its kind.
macro_rules! empty {
    ($name:ident<$($param:ident),+> $(, $function:item)*) => {
        pub struct $name<$($param),+, const N: usize, const FLAGS: usize = 0>(
            // A cell, so that all maps are alike to the linker: memory to be written to.
            UnsafeCell<u8>,
            PhantomData<($($param,)+)>,
        );

        // SAFETY: nothing is ever read or written.
        unsafe impl<$($param),+, const N: usize, const FLAGS: usize> Sync
            for $name<$($param),+, N, FLAGS> {}

        #[allow(clippy::missing_safety_doc, clippy::new_without_default)]
        impl<$($param),+, const N: usize, const FLAGS: usize> $name<$($param),+, N, FLAGS> {
            pub const fn new() -> Self {
                Self(UnsafeCell::new(0), PhantomData)
            }

            $($function)*
        }
    };
}

macro_rules! empty_hash {
    ($name:ident) => {
        empty! {
            $name<K, V>,
            pub unsafe fn get(&self, _: impl Borrow<K>) -> Option<&V> { None },
            pub fn get_ptr(&self, _: impl Borrow<K>) -> Option<*const V> { None },
            pub fn get_ptr_mut(&self, _: impl Borrow<K>) -> Option<*mut V> { None },
            pub fn insert(&self, _: impl Borrow<K>, _: impl Borrow<V>, _: u64) -> Result<(), i32> {
                Err(-1)
            },
            pub fn remove(&self, _: impl Borrow<K>) -> Result<(), i32> { Err(-1) }
        }
    };
}

empty_hash!(HashMap);
empty_hash!(LruHashMap);
empty! {
    Array<V>,
    pub fn get(&self, _: u32) -> Option<&V> { None },
    pub fn get_ptr(&self, _: u32) -> Option<*const V> { None },
    pub fn get_ptr_mut(&self, _: u32) -> Option<*mut V> { None }
}
empty! {
    LpmTrie<K, V>,
    pub fn get(&self, _: &lpm_trie::Key<K>) -> Option<&V> { None }
}

pub mod lpm_trie {
    //! Keys of longest-prefix maps.

    /// A prefix.
    pub struct Key<K> {
        _prefix: K,
    }

    impl<K> Key<K> {
        pub fn new(_bits: u32, prefix: K) -> Self {
            Self { _prefix: prefix }
        }
    }
}
