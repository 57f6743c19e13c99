//! Frames at TC: bytes and checksums are changed by the kernel's helpers, which know
//! what a packet with a checksum still to be completed (CHECKSUM_PARTIAL) needs.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT,
    },
    helpers::generated::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
        bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_pull_data, bpf_skb_store_bytes,
        bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use lb_common::{Addr, Family, Hook, Tuple, Verdict};

use crate::{
    frame::{
        Context, Frame, IPV4_CHECKSUM, IPV4_TTL, IPV6_HOPS, address_offsets, checksum_at,
        has_transport,
    },
    headers::Headers,
    packet::{View, Wire},
};

/// `PACKET_HOST`: the frame is addressed to this host.
const PACKET_HOST: u32 = 0;
/// Bytes that must be linear for the headers to be read: link, IPv6 with some extensions,
/// and an ICMP error with the headers that it quotes. Longer ones are in there anyway, or
/// found truncated.
const HEADERS: u32 = 14 + 4 + 40 + 64 + 8 + 40 + 20;

/// A frame at TC ingress or, with `EGRESS`, at TC egress.
pub struct TcFrame<const EGRESS: bool> {
    ctx: TcContext,
}

impl<const EGRESS: bool> TcFrame<EGRESS> {
    /// The frame of this program run, its headers in the linear part.
    ///
    /// Of several packets put together the headers are there already, since whoever parts
    /// them reads them there. Others must not be moved there: the kernel may have them in a
    /// list, each with its length, and panics where one has changed (`skb_segment`, seen
    /// with SCTP and Linux 6.1).
    #[inline(always)]
    pub fn new(ctx: TcContext) -> Self {
        // SAFETY: a field of this run's context.
        let whole = unsafe { (*ctx.as_ptr().cast::<__sk_buff>()).gso_size } == 0;
        let wanted = HEADERS.min(ctx.len());
        if whole && ctx.data_end() - ctx.data() < wanted as usize {
            // SAFETY: a helper on this run's context; nothing was read from it yet. On
            // failure the parser finds the frame truncated.
            let _ = unsafe { bpf_skb_pull_data(ctx.as_ptr().cast(), wanted) };
        }
        Self { ctx }
    }

    /// The frame of a run whose headers are there already.
    #[inline(always)]
    pub fn again(ctx: TcContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn raw(&self) -> *mut __sk_buff {
        self.ctx.as_ptr().cast()
    }

    #[inline(always)]
    fn write<T: Wire>(&mut self, offset: usize, value: &T, flags: u64) -> Result<(), Verdict> {
        // SAFETY: a helper on this run's context and a value of the size passed.
        ok(unsafe {
            bpf_skb_store_bytes(
                self.raw(),
                offset as u32,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                flags,
            )
        })
    }

    /// Replaces `size` bytes covered by the transport checksum.
    #[inline(always)]
    fn transport(&mut self, offset: usize, old: u32, new: u32, flags: u64) -> Result<(), Verdict> {
        // SAFETY: a helper on this run's context.
        ok(
            unsafe {
                bpf_l4_csum_replace(self.raw(), offset as u32, old.into(), new.into(), flags)
            },
        )
    }

    /// Replaces an address in the header at `offset`, the checksums first.
    #[inline(always)]
    fn address(
        &mut self,
        headers: &Headers,
        offset: usize,
        old: &Addr,
        new: &Addr,
    ) -> Result<(), Verdict> {
        if old == new {
            return Ok(());
        }
        let (checksum, flags) = checksum(headers);
        let pseudo = flags | u64::from(BPF_F_PSEUDO_HDR) | 4;
        match old.family() {
            Family::V4 => {
                let (old, new) = (old.v4_word(), new.v4_word());
                // SAFETY: a helper on this run's context.
                ok(unsafe {
                    bpf_l3_csum_replace(
                        self.raw(),
                        (headers.l3() + IPV4_CHECKSUM) as u32,
                        old.into(),
                        new.into(),
                        4,
                    )
                })?;
                if let Some(checksum) = checksum {
                    self.transport(checksum, old, new, pseudo)?;
                }
                self.store(headers.l3() + offset, new)
            }
            Family::V6 => {
                if let Some(checksum) = checksum {
                    for (old, new) in old.words().into_iter().zip(new.words()) {
                        self.transport(checksum, old, new, pseudo)?;
                    }
                }
                self.store(headers.l3() + offset, new.words())
            }
        }
    }

    #[inline(always)]
    fn port(&mut self, headers: &Headers, at: usize, old: u16, new: u16) -> Result<(), Verdict> {
        if old == new {
            return Ok(());
        }
        let (checksum, flags) = checksum(headers);
        if let Some(checksum) = checksum {
            self.transport(checksum, old.into(), new.into(), flags | 2)?;
        }
        self.store(headers.l4() + at, new)
    }
}

/// Offset of the transport checksum, where the packet has one, and the flags its updates
/// need.
#[inline(always)]
fn checksum(headers: &Headers) -> (Option<usize>, u64) {
    let flags = if headers.is_tcp() {
        0
    } else {
        u64::from(BPF_F_MARK_MANGLED_0)
    };
    if has_transport(headers) {
        (checksum_at(headers), flags)
    } else {
        (None, flags)
    }
}

#[inline(always)]
fn ok(ret: i64) -> Result<(), Verdict> {
    if ret == 0 {
        Ok(())
    } else {
        Err(Verdict::EmitFailed)
    }
}

impl<const EGRESS: bool> Frame for TcFrame<EGRESS> {
    const HOOK: Hook = if EGRESS {
        Hook::TcEgress
    } else {
        Hook::TcIngress
    };
    const PASS: i32 = TC_ACT_UNSPEC;
    const DROP: i32 = TC_ACT_SHOT;

    #[inline(always)]
    fn logger(&self) -> &impl EbpfContext {
        &self.ctx
    }

    #[inline(always)]
    fn context(&self) -> Context<'_> {
        // SAFETY: of this run's context; helpers that move the packet take `&mut self`.
        let view = unsafe { View::new(self.ctx.data(), self.ctx.data_end()) };
        // SAFETY: fields of this run's context.
        let (ifindex, pkt_type) = unsafe { ((*self.raw()).ifindex, (*self.raw()).pkt_type) };
        Context {
            raw: self.ctx.as_ptr(),
            ifindex,
            hook: Self::HOOK,
            view,
            host_frame: pkt_type == PACKET_HOST,
        }
    }

    #[inline(always)]
    fn store<T: Wire>(&mut self, offset: usize, value: T) -> Result<(), Verdict> {
        self.write(offset, &value, 0)
    }

    #[inline(always)]
    fn overwrite<T: Wire>(&mut self, offset: usize, value: T) -> Result<(), Verdict> {
        self.write(offset, &value, BPF_F_RECOMPUTE_CSUM.into())
    }

    #[inline(always)]
    fn reshape(&mut self, head: usize, len: usize) -> Result<(), Verdict> {
        // SAFETY: helpers on this run's context; no view is alive.
        unsafe {
            if head > 0 {
                ok(bpf_skb_change_head(self.raw(), head as u32, 0))?;
            }
            ok(bpf_skb_change_tail(self.raw(), len as u32, 0))
        }
    }

    #[inline(always)]
    fn rewrite(&mut self, headers: &Headers, to: &Tuple, hop: bool) -> Result<(), Verdict> {
        let from = &headers.tuple;
        let (src, dst) = address_offsets(from.family());
        self.address(headers, src, &from.src, &to.src)?;
        self.address(headers, dst, &from.dst, &to.dst)?;
        if has_transport(headers) {
            self.port(headers, 0, from.src_port.word(), to.src_port.word())?;
            self.port(headers, 2, from.dst_port.word(), to.dst_port.word())?;
        }
        if !hop {
            return Ok(());
        }
        match from.family() {
            Family::V4 => {
                let old = u16::from_ne_bytes([headers.ttl, from.protocol]);
                let new = u16::from_ne_bytes([headers.ttl - 1, from.protocol]);
                // SAFETY: a helper on this run's context.
                ok(unsafe {
                    bpf_l3_csum_replace(
                        self.raw(),
                        (headers.l3() + IPV4_CHECKSUM) as u32,
                        old.into(),
                        new.into(),
                        2,
                    )
                })?;
                self.store(headers.l3() + IPV4_TTL, new)
            }
            Family::V6 => self.store(headers.l3() + IPV6_HOPS, headers.ttl - 1),
        }
    }

    #[inline(always)]
    fn untag(&mut self, headers: &Headers) -> Result<(), Verdict> {
        // SAFETY: a field and a helper of this run's context; no view is alive.
        unsafe {
            if (*self.raw()).vlan_present != 0 {
                ok(bpf_skb_vlan_pop(self.raw()))?;
            }
            // A second tag stood in the frame; the kernel took it out by now.
            if headers.is_tagged() {
                ok(bpf_skb_vlan_pop(self.raw()))?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn send(&mut self, egress: u32, _link: [[u8; 6]; 2]) -> Result<i32, Verdict> {
        // SAFETY: a helper on plain numbers; it resolves the neighbour itself.
        Ok(unsafe { bpf_redirect_neigh(egress, core::ptr::null_mut(), 0, 0) } as i32)
    }

    #[inline(always)]
    fn hand_over(&mut self, egress: u32, link: &[[u8; 6]; 2]) -> Result<i32, Verdict> {
        // The helper that resolves neighbours would put its own source there.
        self.write(0, link, 0)?;
        // SAFETY: a helper on plain numbers.
        Ok(unsafe { bpf_redirect(egress, 0) } as i32)
    }

    #[inline(always)]
    fn send_back(&mut self) -> i32 {
        // SAFETY: fields of this run's context, and a helper on plain numbers.
        unsafe { bpf_redirect((*self.raw()).ifindex, 0) as i32 }
    }
}

/// `TC_ACT_UNSPEC`: go on with the next program; with TCX that is `TCX_NEXT`.
const TC_ACT_UNSPEC: i32 = -1;
