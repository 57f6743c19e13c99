//! Packet bytes. The only module that turns packet addresses into pointers, and that
//! knows what the verifier and the compiler make of them: on a host another stands for it
//! (`fuzz/src/packet.rs`).

/// The linear part of a frame: from the first byte of its link header to the end.
///
/// A view is taken anew from the context after every helper that may move the
/// packet; those helpers take the frame by `&mut`, which ends all borrows of it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: usize,
    data_end: usize,
    frame: core::marker::PhantomData<&'a ()>,
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

impl<'a> View<'a> {
    /// A view of the bytes between two addresses of a context.
    ///
    /// # Safety
    /// They are `data` and `data_end` of the running program's context, and no
    /// helper moves the packet during `'a`.
    #[inline(always)]
    pub const unsafe fn new(data: usize, data_end: usize) -> Self {
        Self {
            data,
            data_end,
            frame: core::marker::PhantomData,
        }
    }

    /// Bytes in the linear part.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.data_end - self.data
    }

    #[inline(always)]
    fn pointer<T: Wire>(&self, offset: usize) -> Option<*mut T> {
        let mut at = self.data + offset;
        // The verifier learns the bounds of one register; without the barrier LLVM
        // computes the sum below in another.
        // SAFETY: copies a register onto itself (an empty template would upset the BTF line info).
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) at, options(pure, nomem, nostack)) };
        if at + size_of::<T>() > self.data_end {
            return None;
        }
        Some(at as *mut T)
    }

    /// The value at `offset` in memory order, or nothing where the frame ends before.
    #[inline(always)]
    pub fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        // SAFETY: in bounds, as the verifier sees for itself. Alignment is of no
        // concern to BPF loads of the platforms that have XDP; an unaligned read in
        // Rust's terms would be compiled to single bytes.
        self.pointer(offset).map(|at| unsafe { *at })
    }

    /// Writes `value` in memory order at `offset`; false where the frame ends before.
    #[inline(always)]
    #[must_use]
    pub fn store<T: Wire>(&self, offset: usize, value: T) -> bool {
        match self.pointer(offset) {
            // SAFETY: as in `load`; nothing else accesses the packet meanwhile.
            Some(at) => {
                unsafe { *at = value };
                true
            }
            None => false,
        }
    }
}

/// The same value, of which the compiler knows no more than the verifier.
#[inline(always)]
pub fn sealed<T>(value: &mut T) -> &mut T {
    let mut at: *mut T = value;
    // SAFETY: copies a register onto itself. Since it may touch memory, what is read
    // later is read from there, and not remembered path by path.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) at, options(nostack)) };
    // SAFETY: the very reference.
    unsafe { &mut *at }
}

/// The same number, of which the compiler knows no more than the verifier: it would make branches
/// of what is meant to be arithmetic.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: copies a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}
