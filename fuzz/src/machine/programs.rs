//! Contexts of programs, as `aya_ebpf::programs` has them.

use std::ffi::c_void;

use super::{EbpfContext, Frame};

/// What a program at XDP gets.
pub struct XdpContext(*mut Frame);

/// What a program at TC gets.
pub struct TcContext(*mut Frame);

impl XdpContext {
    /// The context of a run on `frame`, which must outlive it.
    pub fn new(frame: &mut Frame) -> Self {
        Self(frame)
    }

    /// Address of the first byte.
    pub fn data(&self) -> usize {
        data(self.0)
    }

    /// Address behind the last byte.
    pub fn data_end(&self) -> usize {
        self.data() + len(self.0)
    }

    /// The interface that the packet came in by.
    pub fn ingress_ifindex(&self) -> usize {
        1
    }
}

impl TcContext {
    /// The context of a run on `frame`, which must outlive it.
    pub fn new(frame: &mut Frame) -> Self {
        Self(frame)
    }

    /// Bytes of the frame.
    pub fn len(&self) -> u32 {
        len(self.0) as u32
    }

    /// Address of the first byte.
    pub fn data(&self) -> usize {
        data(self.0)
    }

    /// Address behind the last byte.
    pub fn data_end(&self) -> usize {
        self.data() + len(self.0)
    }
}

impl EbpfContext for XdpContext {
    fn as_ptr(&self) -> *mut c_void {
        self.0.cast()
    }
}

impl EbpfContext for TcContext {
    fn as_ptr(&self) -> *mut c_void {
        self.0.cast()
    }
}

fn data(frame: *mut Frame) -> usize {
    // SAFETY: the frame outlives its context, and helpers are not running.
    unsafe { (*frame).bytes.as_mut_ptr().expose_provenance() }
}

fn len(frame: *mut Frame) -> usize {
    // SAFETY: as above.
    unsafe { (*frame).bytes.len() }
}
