//! Frames at TC: bytes and checksums are changed by the kernel's helpers, which know
//! what a packet with a checksum still to be completed (CHECKSUM_PARTIAL) needs.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT,
    },
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head,
        bpf_skb_change_tail, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use lb_common::{Family, Hook, Tuple, Verdict, checksum::Delta};

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

    #[inline(always)]
    fn load<T: Wire>(&self, offset: usize) -> Result<T, Verdict> {
        self.context().view.load(offset).ok_or(Verdict::EmitFailed)
    }

    /// Brings the transport checksum at `offset` in line with a change.
    #[inline(always)]
    fn transport(&mut self, offset: usize, change: Delta, flags: u64) -> Result<(), Verdict> {
        let sum = u64::from(change.sum());
        // SAFETY: a helper on this run's context; a size of 0 in the flags: the change itself.
        ok(unsafe { bpf_l4_csum_replace(self.raw(), offset as u32, 0, sum, flags) })
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
        let addresses = Delta::NONE
            .addr(&from.src, &to.src)
            .addr(&from.dst, &to.dst);
        let ports = Delta::NONE
            .port(from.src_port, to.src_port)
            .port(from.dst_port, to.dst_port);
        let moves = from.src_port != to.src_port || from.dst_port != to.dst_port;
        let ttl = headers.ttl - u8::from(hop);
        let (l3, l4) = (headers.l3(), headers.l4());
        let old: u16 = match from.family() {
            Family::V4 => self.load(l3 + IPV4_CHECKSUM)?,
            Family::V6 => 0,
        };
        let (checksum, flags) = checksum(headers);
        if let Some(checksum) = checksum {
            // The two differ where the device is still to complete the checksum.
            self.transport(checksum, addresses, flags | u64::from(BPF_F_PSEUDO_HDR))?;
            if moves {
                self.transport(checksum, ports, flags)?;
            }
        }
        match from.family() {
            Family::V4 => {
                let before = u16::from_ne_bytes([headers.ttl, from.protocol]);
                let after = u16::from_ne_bytes([ttl, from.protocol]);
                let sum = addresses.word16(before, after).apply(old);
                let words = [
                    u32::from(after) | u32::from(sum) << 16,
                    to.src.v4_word(),
                    to.dst.v4_word(),
                ];
                self.store(l3 + IPV4_TTL, words)?;
            }
            Family::V6 => {
                let (src, _) = address_offsets(Family::V6);
                let ([a, b, c, d], [e, f, g, h]) = (to.src.words(), to.dst.words());
                // In a sum over all of the packet this and the checksum make up for each other,
                // which the helper above does not know of IPv6.
                self.overwrite(l3 + src, [a, b, c, d, e, f, g, h])?;
                if hop {
                    self.store(l3 + IPV6_HOPS, ttl)?;
                }
            }
        }
        if moves && has_transport(headers) {
            self.store(l4, [to.src_port.word(), to.dst_port.word()])?;
        }
        Ok(())
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
