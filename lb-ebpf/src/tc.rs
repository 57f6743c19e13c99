//! Frames at TC: bytes are changed by the kernel's helpers, and checksums by what they tell of
//! them: a packet's may be still to be completed (CHECKSUM_PARTIAL).

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
    frame::{Context, Frame, IPV4_TTL, checksum_at, has_transport},
    headers::{Headers, NETWORK},
    packet::{View, Wire},
    transport::{TCP_LEN, UDP_LEN},
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
        self.write_bytes(offset, value, size_of::<T>(), flags)
    }

    /// Writes `len` bytes that are this run's own.
    #[inline(always)]
    fn write_bytes<T: Wire>(
        &mut self,
        offset: usize,
        from: *const T,
        len: usize,
        flags: u64,
    ) -> Result<(), Verdict> {
        // SAFETY: a helper on this run's context and bytes of the caller's.
        ok(unsafe {
            bpf_skb_store_bytes(self.raw(), offset as u32, from.cast(), len as u32, flags)
        })
    }

    #[inline(always)]
    fn load<T: Wire>(&self, offset: usize) -> Result<T, Verdict> {
        self.context().view.load(offset).ok_or(Verdict::EmitFailed)
    }

    /// Brings the transport checksum at `offset` in line with a change of addresses, and gives what
    /// it is to be when the ports are written that move, too.
    ///
    /// One call does for both: what it has made of the field tells whether the device is still to
    /// complete that, as the ports then are in its own sum.
    #[inline(always)]
    fn checksum(
        &mut self,
        offset: usize,
        tcp: bool,
        addresses: Delta,
        ports: Delta,
        moves: bool,
    ) -> Result<u16, Verdict> {
        let flags = if tcp { 0 } else { BPF_F_MARK_MANGLED_0 };
        let neutral = addresses.is_neutral();
        let (change, flags) = match neutral {
            true => (ports, flags),
            false => (addresses, flags | BPF_F_PSEUDO_HDR),
        };
        let before: u16 = self.load(offset)?;
        // SAFETY: a helper on this run's context; a size of 0 in the flags: the change itself.
        ok(unsafe {
            let sum = u64::from(change.sum());
            bpf_l4_csum_replace(self.raw(), offset as u32, 0, sum, flags.into())
        })?;
        if !moves {
            return Ok(0);
        }
        let after = self.load(offset)?;
        Ok(if neutral || addresses.is_pending(before, after) {
            after
        } else if tcp {
            ports.apply(after)
        } else {
            ports.apply_udp(after)
        })
    }

    /// Puts the transport header into [`Headers::words`], to the word with the checksum, with the
    /// ports of `to` and this checksum; gives the bytes.
    #[inline(always)]
    fn transport(&self, headers: &mut Headers, to: &Tuple, sum: u16) -> Result<usize, Verdict> {
        let l4 = headers.l4();
        let [a, b] = to.src_port.word().to_ne_bytes();
        let [c, d] = to.dst_port.word().to_ne_bytes();
        headers.words[NETWORK] = u32::from_ne_bytes([a, b, c, d]);
        let [e, f] = sum.to_ne_bytes();
        if headers.is_tcp() {
            let [_, seq, ack, window, last] = self.load::<[u32; 5]>(l4)?;
            let [.., g, h] = last.to_ne_bytes();
            headers.words[NETWORK + 1] = seq;
            headers.words[NETWORK + 2] = ack;
            headers.words[NETWORK + 3] = window;
            headers.words[NETWORK + 4] = u32::from_ne_bytes([e, f, g, h]);
            Ok(TCP_LEN)
        } else {
            let [_, last] = self.load::<[u32; 2]>(l4)?;
            let [g, h, ..] = last.to_ne_bytes();
            headers.words[NETWORK + 1] = u32::from_ne_bytes([g, h, e, f]);
            Ok(UDP_LEN)
        }
    }
}

/// Bytes of a word.
const WORD: usize = size_of::<u32>();
/// Offset of the word of an IPv6 header that has the hop limit.
const IPV6_LIMIT: usize = 4;

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
    fn rewrite(&mut self, headers: &mut Headers, to: &Tuple, hop: bool) -> Result<(), Verdict> {
        let from = &headers.tuple;
        let addresses = Delta::NONE
            .addr(&from.src, &to.src)
            .addr(&from.dst, &to.dst);
        let ports = Delta::NONE
            .port(from.src_port, to.src_port)
            .port(from.dst_port, to.dst_port);
        let moves = from.src_port != to.src_port || from.dst_port != to.dst_port;
        let (l3, l4) = (headers.l3(), headers.l4());
        // Before anything else, since what is written below has its outcome in it.
        let mut transport = 0;
        if let Some(at) = checksum_at(headers).filter(|_| has_transport(headers)) {
            let sum = self.checksum(at, headers.is_tcp(), addresses, ports, moves)?;
            if moves {
                transport = self.transport(headers, to, sum)?;
            }
        }
        let protocol = headers.tuple.protocol;
        let ttl = headers.ttl - u8::from(hop);
        let (first, at, flags) = match headers.tuple.family() {
            Family::V4 => {
                let at = l3 + IPV4_TTL;
                let [.., low, high] = self.load::<u32>(at)?.to_ne_bytes();
                let before = u16::from_ne_bytes([headers.ttl, protocol]);
                let after = u16::from_ne_bytes([ttl, protocol]);
                let change = addresses.word16(before, after);
                let [low, high] = change.apply(u16::from_ne_bytes([low, high])).to_ne_bytes();
                headers.words[NETWORK - 3] = u32::from_ne_bytes([ttl, protocol, low, high]);
                headers.words[NETWORK - 2] = to.src.v4_word();
                headers.words[NETWORK - 1] = to.dst.v4_word();
                (NETWORK - 3, at, 0)
            }
            Family::V6 => {
                let at = l3 + IPV6_LIMIT;
                let [high, low, next, _] = self.load::<u32>(at)?.to_ne_bytes();
                headers.words[0] = u32::from_ne_bytes([high, low, next, ttl]);
                let ([a, b, c, d], [e, f, g, h]) = (to.src.words(), to.dst.words());
                headers.words[1..NETWORK].copy_from_slice(&[a, b, c, d, e, f, g, h]);
                // In a sum over all of the packet this and the checksum make up for each other,
                // which the helper does not know of IPv6; neutral, it need not know, and has
                // changed the checksum by the ports.
                let flags = match addresses.is_neutral() {
                    true => 0,
                    false => BPF_F_RECOMPUTE_CSUM,
                };
                (0, at, flags)
            }
        };
        let network = (NETWORK - first) * WORD;
        let flags = u64::from(flags);
        let words = headers.words.as_ptr();
        // SAFETY: both are within the array.
        let (network_words, transport_words) = unsafe { (words.add(first), words.add(NETWORK)) };
        if at + network == l4 {
            return self.write_bytes(at, network_words, network + transport, flags);
        }
        // Options stand between.
        self.write_bytes(at, network_words, network, flags)?;
        if transport > 0 {
            self.write_bytes(l4, transport_words, transport, 0)?;
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
