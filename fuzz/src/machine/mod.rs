//! What the kernel part needs of aya and of the kernel, in an ordinary process.

#[allow(
    dead_code,
    reason = "the kernel part uses some of them in stages that never run here"
)]
pub mod btf_maps;
pub mod helpers;
pub mod programs;

use std::ffi::c_void;

pub use aya_ebpf_macros as macros;

use crate::bindings::__sk_buff;

/// What the kernel writes into memory that a packet gains and nobody has written to.
const GARBAGE: u8 = 0xa5;

/// A packet as the kernel has it. Its address is the context that programs get.
#[repr(C)]
pub struct Frame {
    /// What programs at TC may read of it. First, so that its address is the frame's.
    skb: __sk_buff,
    /// From the first byte of the link header.
    bytes: Vec<u8>,
}

/// A program's argument, as helpers take it.
pub trait EbpfContext {
    /// Its address.
    fn as_ptr(&self) -> *mut c_void;
}

/// A constant that the loader may set; here it has the value that it is built with.
pub struct Global<T>(T);

// === impl Frame ===

impl Frame {
    /// A frame that has come in.
    pub fn new(bytes: &[u8]) -> Self {
        // SAFETY: a C struct of integers and pointers, for which zeros are valid.
        let mut skb: __sk_buff = unsafe { std::mem::zeroed() };
        skb.len = bytes.len() as u32;
        Self {
            skb,
            bytes: bytes.to_vec(),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds bytes in front.
    fn grow_head(&mut self, by: usize) {
        self.bytes.splice(0..0, std::iter::repeat_n(GARBAGE, by));
        self.skb.len = self.bytes.len() as u32;
    }

    /// Cuts it, or pads it with zeros, as the kernel does.
    fn set_len(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        self.skb.len = len as u32;
    }
}

// === impl Global ===

impl<T: Copy> Global<T> {
    /// A constant of this value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Its value.
    pub fn load(&self) -> T {
        self.0
    }
}
