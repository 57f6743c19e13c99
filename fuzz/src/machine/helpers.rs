//! Helpers, as `aya_ebpf::helpers` has them.

pub mod generated {
    //! The kernel's functions on a [`Frame`], by what its documentation and sources say
    //! (`include/uapi/linux/bpf.h`, `net/core/filter.c` of Linux 6.12).

    #![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

    use std::{
        ffi::{c_int, c_long, c_void},
        slice,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::super::Frame;
    use crate::bindings::{
        __sk_buff, BPF_F_HDR_FIELD_MASK, BPF_F_MARK_MANGLED_0, bpf_fib_lookup as FibParams,
        bpf_redir_neigh as NextHop, xdp_md,
    };

    const EINVAL: c_long = -22;
    const EFAULT: c_long = -14;

    /// Longest packet that TC lets a program make, and the least that XDP does.
    const LONGEST: usize = 64 * 1024;
    const SHORTEST: usize = 14;

    /// # Safety
    /// It is the context of a program run.
    unsafe fn frame<'a, T>(context: *mut T) -> &'a mut Frame {
        // SAFETY: contexts are frames; the program holds no reference to it.
        unsafe { &mut *context.cast() }
    }

    /// A clock that goes on by a tick of the program's with every look at it, so that
    /// limits on what is done in a tick do not come into play.
    pub unsafe fn bpf_ktime_get_coarse_ns() -> u64 {
        static NOW: AtomicU64 = AtomicU64::new(0);
        NOW.fetch_add(1 << 30, Ordering::Relaxed)
    }

    /// As that one: the program reads it anew in every one of these.
    pub unsafe fn bpf_jiffies64() -> u64 {
        static JIFFIES: AtomicU64 = AtomicU64::new(1);
        JIFFIES.fetch_add(1, Ordering::Relaxed)
    }

    pub unsafe fn bpf_ktime_get_boot_ns() -> u64 {
        1
    }

    pub unsafe fn bpf_xdp_get_buff_len(context: *mut xdp_md) -> u64 {
        // SAFETY: by the caller's promise.
        unsafe { frame(context) }.bytes.len() as u64
    }

    pub unsafe fn bpf_xdp_adjust_head(context: *mut xdp_md, delta: i32) -> c_long {
        // SAFETY: by the caller's promise.
        let frame = unsafe { frame(context) };
        // Headroom that a driver gives at least: XDP_PACKET_HEADROOM.
        if !(-256..=0).contains(&delta) {
            return EINVAL;
        }
        frame.grow_head(delta.unsigned_abs() as usize);
        0
    }

    pub unsafe fn bpf_xdp_adjust_tail(context: *mut xdp_md, delta: i32) -> c_long {
        // SAFETY: by the caller's promise.
        let frame = unsafe { frame(context) };
        match frame.bytes.len().checked_add_signed(delta as isize) {
            Some(len) if len >= SHORTEST => frame.set_len(len),
            _ => return EINVAL,
        }
        0
    }

    pub unsafe fn bpf_skb_change_head(context: *mut __sk_buff, by: u32, _flags: u64) -> c_long {
        // SAFETY: by the caller's promise.
        unsafe { frame(context) }.grow_head(by as usize);
        0
    }

    pub unsafe fn bpf_skb_change_tail(context: *mut __sk_buff, len: u32, _flags: u64) -> c_long {
        // SAFETY: by the caller's promise.
        let frame = unsafe { frame(context) };
        if !(SHORTEST..=LONGEST).contains(&(len as usize)) {
            return EINVAL;
        }
        frame.set_len(len as usize);
        0
    }

    pub unsafe fn bpf_skb_store_bytes(
        context: *mut __sk_buff,
        offset: u32,
        from: *const c_void,
        len: u32,
        _flags: u64,
    ) -> c_long {
        // SAFETY: by the caller's promise.
        let frame = unsafe { frame(context) };
        // SAFETY: as above.
        let from = unsafe { slice::from_raw_parts(from.cast::<u8>(), len as usize) };
        let at = offset as usize;
        let Some(to) = frame.bytes.get_mut(at..at + from.len()) else {
            return EFAULT;
        };
        to.copy_from_slice(from);
        0
    }

    pub unsafe fn bpf_l4_csum_replace(
        context: *mut __sk_buff,
        offset: u32,
        from: u64,
        to: u64,
        flags: u64,
    ) -> c_long {
        // SAFETY: by the caller's promise.
        replace(unsafe { frame(context) }, offset, from, to, flags)
    }

    /// Of a packet whose checksum is complete, so that pseudo-headers are as other data.
    fn replace(frame: &mut Frame, offset: u32, from: u64, to: u64, flags: u64) -> c_long {
        let at = offset as usize;
        let Some(field) = frame.bytes.get_mut(at..at + 2) else {
            return EFAULT;
        };
        let mangled = flags & u64::from(BPF_F_MARK_MANGLED_0) != 0;
        let old = u16::from_ne_bytes([field[0], field[1]]);
        if mangled && old == 0 {
            return 0;
        }
        let removed = match flags & u64::from(BPF_F_HDR_FIELD_MASK) {
            // The change itself.
            0 => 0,
            2 => u64::from(!(from as u16)),
            4 => u64::from(!(from as u32)),
            _ => return EINVAL,
        };
        let mut sum = u64::from(!old) + removed + to;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let new = match !(sum as u16) {
            0 if mangled => 0xffff,
            new => new,
        };
        field.copy_from_slice(&new.to_ne_bytes());
        0
    }

    // None of the stages under test gets here.

    pub unsafe fn bpf_skb_pull_data(_: *mut __sk_buff, _: u32) -> c_long {
        EINVAL
    }

    pub unsafe fn bpf_skb_vlan_pop(_: *mut __sk_buff) -> c_long {
        EINVAL
    }

    pub unsafe fn bpf_redirect(_: u32, _: u64) -> c_long {
        EINVAL
    }

    pub unsafe fn bpf_redirect_neigh(_: u32, _: *mut NextHop, _: c_int, _: u64) -> c_long {
        EINVAL
    }

    pub unsafe fn bpf_fib_lookup(_: *mut c_void, _: *mut FibParams, _: c_int, _: u32) -> c_long {
        EINVAL
    }
}
