//! Headers → plan: what shall become of a packet. Nothing of the packet is changed here.

use lb_common::{AddressUse, Frontend, Hook, Verdict};

use crate::{
    announce, client, count, direct, fast, flow, fragment,
    frame::{Context, Frame},
    headers::{Headers, Payload},
    icmp,
    maps::{ADDRESSES, FRONTENDS},
    refuse, stage, trace,
    work::{Counted, Recorded, Work},
};

/// What shall become of a packet that concerns a service.
#[derive(Clone, Copy)]
pub struct Plan {
    /// What is done.
    pub step: Step,
    /// What it is called once it is done.
    pub verdict: Verdict,
}

/// What is done with a packet.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Find the backend of its flow: a client sent it by [`Work::entry`].
    Find,
    /// Find one for a flow that begins, or that nobody has recorded.
    Begin,
    /// Give the flow to a backend, see [`crate::request::take`].
    Take,
    /// Give it to one that is elsewhere.
    Elsewhere,
    /// Find the flow that it is about, an ICMP error.
    FindQuoted,
    /// Rewrite it to [`Work::to`] and let the stack deliver it.
    Deliver,
    /// Rewrite it to [`Work::to`] and send it out by the way in [`Work::fib`].
    Send,
    /// Send it as it is to the peer whose link address is in [`Work::fib`].
    HandOver,
    /// The same, to the node that had the VIP before.
    GiveBack,
    /// Answer it: nobody serves it.
    Refuse,
    /// Answer it: it asks for the link address in [`Work::link`].
    Advertise,
    /// Answer it: it is a ping.
    Echo,
    /// Answer it: it is larger than the MTU in [`Work::fib`].
    TooBig,
}

impl Step {
    /// The one with the highest number.
    pub const LAST: Self = Self::TooBig;

    /// Whether the packet leaves towards [`Work::hop`].
    #[inline(always)]
    pub const fn leaves(self) -> bool {
        matches!(self, Self::Send | Self::HandOver | Self::GiveBack)
    }

    #[inline(always)]
    pub const fn with(self, verdict: Verdict) -> Plan {
        Plan {
            step: self,
            verdict,
        }
    }
}

/// Tells what a packet that came in is to a service: what shall become of it, or what is to be
/// found out first.
#[inline(always)]
pub fn arrive(ctx: Context<'_>, headers: &mut Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if headers.payload == Payload::Neighbour {
        return announce::solicited(ctx, headers, work);
    }
    // SAFETY: `AddressUse` is one word.
    let usage = match unsafe { ADDRESSES.get(&headers.tuple.dst) } {
        // What is for local backends alone has met XDP, which notes it.
        Some(usage) if ctx.hook == Hook::Xdp || *usage != AddressUse::LOCAL_BACKEND => *usage,
        _ => return Err(Verdict::NotOurs),
    };
    let now = flow::now();
    let Some(rewrites) = ctx.rewrites() else {
        // Behind a bridge a backend has a link address of its own.
        if ctx.hook == Hook::Xdp
            && headers.payload == Payload::Ports
            && usage.contains(AddressUse::LOCAL_BACKEND)
        {
            direct::note(headers, now, work);
        }
        return Err(Verdict::OtherHost);
    };
    work.usage = usage;
    work.now = now;
    work.tag = fast::tag();
    match headers.payload {
        Payload::Ports => {
            if !fragment::find(headers, now) {
                return Err(unserved(usage, Verdict::VipFragment));
            }
            if usage.contains(AddressUse::SNAT)
                && rewrites
                && !ctx.is_handover()
                && let Some((service, backend)) = flow::find_reply(headers, now, &mut work.to)
            {
                work.hop = work.to.dst;
                work.counts(Counted::Reply, service, backend);
                return Ok(Step::Send.with(Verdict::ReplyNat));
            }
            if usage.contains(AddressUse::VIP) {
                let frontend = Frontend::new(
                    headers.tuple.dst,
                    headers.tuple.dst_port,
                    headers.tuple.protocol,
                );
                // SAFETY: the value is one word.
                if let Some(entry) = unsafe { FRONTENDS.get(frontend) } {
                    let service = entry.service();
                    if entry.is_guarded() && !client::is_admitted(headers.tuple.src, service) {
                        trace::service(service);
                        return Err(Verdict::SourceDenied);
                    }
                    if !rewrites {
                        return Err(Verdict::LeftToTc);
                    }
                    work.entry = *entry;
                    return Ok(Step::Find.with(Verdict::NotOurs));
                }
            }
            // TC sees there what XDP has sent to a backend, too.
            if usage.contains(AddressUse::LOCAL_BACKEND) && ctx.hook == Hook::Xdp {
                direct::note(headers, now, work);
            }
        }
        Payload::Error if !rewrites => return Err(Verdict::LeftToTc),
        Payload::Error => return Ok(Step::FindQuoted.with(Verdict::NotOurs)),
        Payload::Echo if usage.contains(AddressUse::PINGED) => {
            if !rewrites {
                return Err(Verdict::LeftToTc);
            }
            if !refuse::is_unicast(&headers.tuple.src) {
                return Err(Verdict::RefusalSuppressed);
            }
            return Ok(Step::Echo.with(Verdict::EchoReply));
        }
        _ => {}
    }
    Err(unserved(usage, headers.payload.dropped()))
}

/// Decides over a packet that came in, which stages of the program do in turn.
#[inline(always)]
pub fn ingress<F: Frame>(frame: &F) -> Result<Plan, Verdict> {
    let mut plan = stage::arrive(frame.context())?;
    if plan.step == Step::Find {
        plan = stage::find(frame.context())?;
    } else if plan.step == Step::FindQuoted {
        plan = stage::find_quoted(frame.context())?;
    }
    if plan.step == Step::Begin {
        plan = begin(frame.context())?;
    }
    if plan.step.leaves() {
        let gone = match stage::leave(frame.context(), plan) {
            // The node that had the VIP before is gone, and what it knew with it.
            Err(why) if plan.step == Step::GiveBack && !is_of_this_node(why) => true,
            left => {
                plan = left?;
                false
            }
        };
        if gone {
            if Headers::of(F::HOOK)?.payload == Payload::Error {
                return Err(unserved(Work::of(F::HOOK)?.usage, Verdict::VipError));
            }
            plan = begin(frame.context())?;
            if plan.step.leaves() {
                plan = stage::leave(frame.context(), plan)?;
            }
        }
    }
    let (headers, work) = (Headers::of(F::HOOK)?, Work::of(F::HOOK)?);
    // What nobody serves leaves nothing behind.
    if headers.payload == Payload::Ports && plan.step != Step::Refuse {
        fragment::record(headers, work.now);
        work.count(headers);
        if plan.step == Step::GiveBack && work.leaves != 0 {
            flow::leave(headers, work.now, work);
            // Without a record it goes back all the same, for a window.
            let _ = stage::record(frame.context());
        }
    }
    Ok(plan)
}

/// The plan for a packet of a flow that begins.
#[inline(always)]
fn begin(ctx: Context<'_>) -> Result<Plan, Verdict> {
    let mut plan = stage::begin(ctx)?;
    // Four backends, and no loop: how the compiler lays those out that call functions, kernel
    // 6.1 does not take.
    plan = taken(ctx, plan)?;
    plan = taken(ctx, plan)?;
    plan = taken(ctx, plan)?;
    plan = taken(ctx, plan)?;
    plan = match plan.step {
        Step::Take => return Err(plan.verdict),
        Step::Elsewhere => stage::elsewhere(ctx)?,
        _ => plan,
    };
    if Work::of(ctx.hook)?.recorded != Recorded::Not as u32 {
        stage::record(ctx)?;
    }
    Ok(plan)
}

/// The plan after another backend was tried, where that is still to be done.
#[inline(always)]
fn taken(ctx: Context<'_>, plan: Plan) -> Result<Plan, Verdict> {
    if plan.step == Step::Take {
        stage::take(ctx)
    } else {
        Ok(plan)
    }
}

/// Whether a packet cannot leave by a fault of its own or of this node's.
#[inline(always)]
fn is_of_this_node(why: Verdict) -> bool {
    matches!(
        why,
        Verdict::LeftToTc | Verdict::TtlExpired | Verdict::Uncut
    )
}

/// What is said of a packet to an address of ours that is for no service.
#[inline(always)]
pub fn unserved(usage: AddressUse, dropped: Verdict) -> Verdict {
    if !usage.contains(AddressUse::VIP) {
        Verdict::NotOurs
    } else if usage.contains(AddressUse::HOST) {
        Verdict::HostPort
    } else {
        dropped
    }
}

/// Decides over a packet that leaves: the reply of a local backend becomes the VIP's.
#[inline(always)]
pub fn egress(headers: &mut Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if headers.payload == Payload::Error {
        return icmp::outbound(headers, work);
    }
    let now = flow::now();
    if headers.payload != Payload::Ports || !fragment::find(headers, now) {
        return Err(Verdict::NotOurs);
    }
    let primary = direct::primary(&headers.tuple).ok_or(Verdict::NotOurs)?;
    if let Some((service, backend)) = flow::find_reply(headers, now, &mut work.to) {
        count::reply(service, backend, headers.frame_len());
    } else {
        if !direct::restores(primary) || direct::is_known(&headers.tuple) {
            return Err(Verdict::NotOurs);
        }
        if headers.opens() {
            // The backend is a client here, by a port that it serves.
            direct::record(&headers.tuple, headers.tcp_flags, now);
            return Err(Verdict::NotOurs);
        }
        count::reply(primary.service, primary.backend, headers.frame_len());
        work.to = headers.tuple;
        work.to.src = primary.addr;
        work.to.src_port = primary.port;
    }
    fragment::record(headers, now);
    Ok(Step::Deliver.with(Verdict::ReplyLocal))
}
