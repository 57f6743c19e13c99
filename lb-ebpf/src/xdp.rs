//! Frames at XDP: bytes are changed in place, checksums by RFC 1624.

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
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

/// A frame at XDP.
pub struct XdpFrame {
    ctx: XdpContext,
    ifindex: u32,
}

impl XdpFrame {
    /// The frame of this program run.
    #[inline(always)]
    pub fn new(ctx: XdpContext) -> Self {
        let ifindex = ctx.ingress_ifindex() as u32;
        Self { ctx, ifindex }
    }

    #[inline(always)]
    fn raw(&self) -> *mut xdp_md {
        self.ctx.as_ptr().cast()
    }

    #[inline(always)]
    fn view(&self) -> View<'_> {
        // SAFETY: of this run's context; helpers that move the packet take `&mut self`.
        unsafe { View::new(self.ctx.data(), self.ctx.data_end()) }
    }

    /// Replaces a 16-bit checksum field by what `change` makes of it.
    #[inline(always)]
    fn update(&mut self, offset: usize, change: impl Fn(u16) -> u16) -> Result<(), Verdict> {
        let field = self.view().load(offset).ok_or(Verdict::EmitFailed)?;
        self.store(offset, change(field))
    }
}

impl Frame for XdpFrame {
    const HOOK: Hook = Hook::Xdp;
    const PASS: i32 = xdp_action::XDP_PASS as i32;
    const DROP: i32 = xdp_action::XDP_DROP as i32;

    #[inline(always)]
    fn logger(&self) -> &impl EbpfContext {
        &self.ctx
    }

    #[inline(always)]
    fn context(&self) -> Context<'_> {
        Context {
            raw: self.ctx.as_ptr(),
            ifindex: self.ifindex,
            hook: Hook::Xdp,
            view: self.view(),
            host_frame: false,
        }
    }

    #[inline(always)]
    fn store<T: Wire>(&mut self, offset: usize, value: T) -> Result<(), Verdict> {
        if self.view().store(offset, value) {
            Ok(())
        } else {
            Err(Verdict::EmitFailed)
        }
    }

    #[inline(always)]
    fn overwrite<T: Wire>(&mut self, offset: usize, value: T) -> Result<(), Verdict> {
        self.store(offset, value)
    }

    #[inline(always)]
    fn reshape(&mut self, head: usize, len: usize) -> Result<(), Verdict> {
        let now = self.context().frame_len() + head;
        // SAFETY: helpers on this run's context; no view is alive.
        unsafe {
            if head > 0 && bpf_xdp_adjust_head(self.raw(), -(head as i32)) != 0 {
                return Err(Verdict::EmitFailed);
            }
            if bpf_xdp_adjust_tail(self.raw(), len as i32 - now as i32) != 0 {
                return Err(Verdict::EmitFailed);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn rewrite(&mut self, headers: &mut Headers, to: &Tuple, hop: bool) -> Result<(), Verdict> {
        let from = &headers.tuple;
        let addresses = Delta::NONE
            .addr(&from.src, &to.src)
            .addr(&from.dst, &to.dst);
        let (src, dst) = address_offsets(from.family());
        match from.family() {
            Family::V4 => {
                let mut header = addresses;
                if hop {
                    let old = u16::from_ne_bytes([headers.ttl, from.protocol]);
                    let new = u16::from_ne_bytes([headers.ttl - 1, from.protocol]);
                    header = header.word16(old, new);
                    self.store(headers.l3() + IPV4_TTL, new)?;
                }
                self.update(headers.l3() + IPV4_CHECKSUM, |sum| header.apply(sum))?;
                self.store(headers.l3() + src, to.src.v4_word())?;
                self.store(headers.l3() + dst, to.dst.v4_word())?;
            }
            Family::V6 => {
                if hop {
                    self.store(headers.l3() + IPV6_HOPS, headers.ttl - 1)?;
                }
                self.store(headers.l3() + src, to.src.words())?;
                self.store(headers.l3() + dst, to.dst.words())?;
            }
        }
        let all = addresses
            .port(from.src_port, to.src_port)
            .port(from.dst_port, to.dst_port);
        if !has_transport(headers) {
            return Ok(());
        }
        if let Some(checksum) = checksum_at(headers) {
            let tcp = headers.is_tcp();
            self.update(checksum, |sum| {
                if tcp {
                    all.apply(sum)
                } else {
                    all.apply_udp(sum)
                }
            })?;
        }
        self.store(headers.l4(), [to.src_port.word(), to.dst_port.word()])
    }

    #[inline(always)]
    fn untag(&mut self, _: &Headers) -> Result<(), Verdict> {
        // A tagged frame leaves by a device that only TC can send by.
        Ok(())
    }

    #[inline(always)]
    fn send(&mut self, egress: u32, link: [[u8; 6]; 2]) -> Result<i32, Verdict> {
        self.store(0, link)?;
        if egress == self.ifindex {
            return Ok(xdp_action::XDP_TX as i32);
        }
        // SAFETY: a helper on plain numbers.
        Ok(unsafe { bpf_redirect(egress, 0) } as i32)
    }

    #[inline(always)]
    fn hand_over(&mut self, egress: u32, link: &[[u8; 6]; 2]) -> Result<i32, Verdict> {
        self.send(egress, *link)
    }

    #[inline(always)]
    fn send_back(&mut self) -> i32 {
        xdp_action::XDP_TX as i32
    }
}
