//! Where a packet leaves: the kernel's own routing and neighbour tables.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibParams,
    },
    helpers::generated::bpf_fib_lookup,
};
use lb_common::{
    Family, Hook, Verdict,
    device::{is_handover, returns},
};

use crate::{
    frame::Context,
    headers::Headers,
    lookup::{Plan, Step},
    maps::{DEVICES, dry_run},
    packet::opaque,
    trace,
    work::Work,
};

/// How a packet would leave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The next hop's link address is known.
    Resolved,
    /// It takes TC to send it: the kernel does not know the neighbour yet, or the packet
    /// is larger than the MTU and may be several at TC.
    NotByXdp,
    /// It is larger than the MTU.
    TooBig,
}

/// Asks the kernel how [`Work::to`] would get to [`Work::hop`]: interface and link addresses are then
/// in [`Work::fib`], and where the packet is longer than the MTU that. The interface is
/// then not there: who wants it whatever the length gives a length of 0.
#[inline(always)]
pub fn lookup(
    ctx: Context<'_>,
    headers: &Headers,
    work: &mut Work,
    len: u16,
) -> Result<Way, Verdict> {
    let Work { fib, to, hop, .. } = work;
    // A packet may be handed over to a peer that is known by its other family's address;
    // then the source, which only policy rules look at, is none.
    let same = to.family() == hop.family();
    fib.l4_protocol = to.protocol;
    fib.sport = to.src_port.word();
    fib.dport = to.dst_port.word();
    fib.__bindgen_anon_1.tot_len = len;
    fib.ifindex = ctx.ifindex;
    match hop.family() {
        Family::V4 => {
            fib.family = 2;
            fib.__bindgen_anon_2.rt_metric = 0;
            fib.__bindgen_anon_2.tos = headers.tos;
            fib.__bindgen_anon_3.ipv4_src = if same { to.src.v4_word() } else { 0 };
            fib.__bindgen_anon_4.ipv4_dst = hop.v4_word();
        }
        Family::V6 => {
            fib.family = 10;
            fib.__bindgen_anon_2.flowinfo = 0;
            // Of bytes that it knows to be 0 the compiler would have a function of its own make a row.
            let none = [opaque(0) as u32; 4];
            fib.__bindgen_anon_3.ipv6_src = if same { to.src.words() } else { none };
            fib.__bindgen_anon_4.ipv6_dst = hop.words();
        }
    }
    fib.__bindgen_anon_5.tbid = 0;
    // SAFETY: the context of this run and a value of the size that is passed.
    let ret = unsafe { bpf_fib_lookup(ctx.raw, &raw mut *fib, size_of::<FibParams>() as i32, 0) };
    let resolved = match ret as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => Way::Resolved,
        BPF_FIB_LKUP_RET_NO_NEIGH => Way::NotByXdp,
        // A driver may have put packets together as well, and XDP cannot tell.
        BPF_FIB_LKUP_RET_FRAG_NEEDED if ctx.hook == Hook::Xdp => Way::NotByXdp,
        BPF_FIB_LKUP_RET_FRAG_NEEDED => return Ok(Way::TooBig),
        BPF_FIB_LKUP_RET_FWD_DISABLED => return Err(Verdict::ForwardingOff),
        _ => return Err(Verdict::NoRoute),
    };
    trace::egress(fib.ifindex);
    Ok(resolved)
}

/// Whether an interface is a tunnel.
#[inline(always)]
pub fn by_tunnel(ifindex: u32) -> bool {
    // SAFETY: one byte is read.
    unsafe { DEVICES.get(ifindex) }.is_some_and(|device| device.tunnel != 0)
}

/// The plan for [`Work::to`] to leave towards [`Work::hop`], or what to do instead.
#[inline(always)]
pub fn leave(
    ctx: Context<'_>,
    headers: &Headers,
    work: &mut Work,
    plan: Plan,
) -> Result<Plan, Verdict> {
    if headers.ttl <= 1 {
        return Err(Verdict::TtlExpired);
    }
    let len = ctx.packet_len(headers) as u16;
    let way = lookup(ctx, headers, work, len)?;
    trace::rewritten(&work.to);
    if way == Way::TooBig {
        if headers.whole {
            return Ok(Step::TooBig.with(Verdict::TooBig));
        }
        // Who lets routers cut it does not listen to the answer. The kernel cuts what a
        // tunnel makes of it.
        lookup(ctx, headers, work, 0)?;
        if !by_tunnel(work.fib.ifindex) {
            return Err(Verdict::Uncut);
        }
    }
    if !ctx.can_send(headers, work.fib.ifindex, way == Way::Resolved) {
        return Err(Verdict::LeftToTc);
    }
    if matches!(plan.step, Step::HandOver | Step::GiveBack) {
        if way != Way::Resolved {
            return Err(Verdict::NoPeer);
        }
        // SAFETY: the hardware address of an entry changes with the interface's own.
        let device = unsafe { DEVICES.get(work.fib.ifindex) }.ok_or(Verdict::NoDevice)?;
        work.fib.smac = device.handover_mac();
        if plan.step == Step::GiveBack {
            // It came from there: that node does not run Naru any more, or knows no such VIP.
            if ctx.view.load::<[u8; 6]>(6) == Some(work.fib.dmac) {
                return Err(Verdict::NoPeer);
            }
            work.fib.smac = device.return_mac(work.returns);
        }
    }
    Ok(plan)
}

/// Finds the way for an answer to a packet that another node has sent on: its sender is then in
/// [`Work::hop`], its way in [`Work::fib`], whose MTU stays what it was.
#[inline(always)]
pub fn way_back(ctx: Context<'_>, headers: &Headers, work: &mut Work) -> Result<(), Verdict> {
    // SAFETY: any number is valid.
    let mtu = unsafe { work.fib.__bindgen_anon_1.mtu_result };
    work.to = headers.tuple.reversed();
    work.hop = headers.tuple.src;
    let way = lookup(ctx, headers, work, 0)?;
    if !ctx.can_send(headers, work.fib.ifindex, way == Way::Resolved) {
        return Err(Verdict::LeftToTc);
    }
    work.fib.__bindgen_anon_1.mtu_result = mtu;
    Ok(())
}

impl Context<'_> {
    /// Whether a peer handed the frame over: it is for this node, and goes no further.
    #[inline(always)]
    pub fn is_handover(&self) -> bool {
        self.view.load(6).is_some_and(is_handover)
    }

    /// How often the frame has gone back to a node that had the VIP before.
    #[inline(always)]
    pub fn returns(&self) -> u32 {
        self.view.load(6).map_or(0, returns)
    }

    /// Whether another node sent the frame on: who it is from is not behind its link address.
    #[inline(always)]
    pub fn is_sent_on(&self) -> bool {
        self.is_handover() || self.returns() != 0
    }

    /// Whether this hook may rewrite the frame; none where it was not sent to this
    /// host's own hardware address.
    ///
    /// Generic XDP may not: the stack may have put segments together and left their
    /// checksum to the device, which XDP neither sees nor can keep right. TC can.
    #[inline(always)]
    pub fn rewrites(&self) -> Option<bool> {
        if self.hook != Hook::Xdp {
            return self.host_frame.then_some(true);
        }
        // SAFETY: the hardware address of an entry changes with the interface's own.
        let device = unsafe { DEVICES.get(self.ifindex) }?;
        let native = device.xdp_redirect != 0;
        // The dry run foretells what TC will do.
        (self.view.load::<[u8; 6]>(0) == Some(device.mac)).then_some(native || dry_run())
    }

    /// Whether this hook can send by the interface `egress` itself, its neighbour being
    /// `resolved` or not; otherwise TC ingress does.
    #[inline(always)]
    pub fn can_send(&self, headers: &Headers, egress: u32, resolved: bool) -> bool {
        if self.hook != Hook::Xdp {
            return true;
        }
        if headers.is_tagged() {
            return false;
        }
        // SAFETY: one word is read.
        let redirects =
            || unsafe { DEVICES.get(egress) }.is_some_and(|device| device.xdp_redirect != 0);
        resolved && (egress == self.ifindex || redirects())
    }
}
