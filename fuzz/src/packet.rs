//! Packet bytes on the host: what `lb-ebpf/src/packet.rs` is to the kernel program.

use std::marker::PhantomData;

/// The bytes of a frame: from the first of its link header to the end.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: usize,
    data_end: usize,
    frame: PhantomData<&'a ()>,
}

/// Integers and arrays of them that may be read from and written to packets.
///
/// # Safety
/// Any bit pattern is valid and there is no padding.
pub unsafe trait Wire: Copy {}
// SAFETY: plain integers.
unsafe impl Wire for u8 {}
// SAFETY: as above.
unsafe impl Wire for u16 {}
// SAFETY: as above.
unsafe impl Wire for u32 {}
// SAFETY: an array of plain integers.
unsafe impl<T: Wire, const N: usize> Wire for [T; N] {}

impl View<'_> {
    /// A view of the bytes between two addresses.
    ///
    /// # Safety
    /// They are those of a frame that stays where it is as long as the view is used.
    pub const unsafe fn new(data: usize, data_end: usize) -> Self {
        Self {
            data,
            data_end,
            frame: PhantomData,
        }
    }

    /// Bytes of the frame.
    pub const fn len(&self) -> usize {
        self.data_end - self.data
    }

    fn pointer<T: Wire>(&self, offset: usize) -> Option<*mut T> {
        let end = offset.checked_add(size_of::<T>())?;
        (end <= self.len()).then(|| std::ptr::with_exposed_provenance_mut(self.data + offset))
    }

    /// The value at `offset` in memory order, or nothing where the frame ends before.
    pub fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        // SAFETY: within the frame, and any bytes are a value.
        self.pointer(offset)
            .map(|at: *mut T| unsafe { at.read_unaligned() })
    }

    /// Writes `value` in memory order at `offset`; false where the frame ends before.
    #[must_use]
    pub fn store<T: Wire>(&self, offset: usize, value: T) -> bool {
        let at: Option<*mut T> = self.pointer(offset);
        if let Some(at) = at {
            // SAFETY: within the frame, which nothing else accesses meanwhile.
            unsafe { at.write_unaligned(value) };
        }
        at.is_some()
    }
}

/// The same value: there is no verifier to be kept in step with.
pub fn sealed<T>(value: &mut T) -> &mut T {
    value
}

/// The same number.
pub fn opaque(value: u64) -> u64 {
    value
}
