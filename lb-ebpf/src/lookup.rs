//! Headers → plan: what shall become of a packet. Nothing of the packet is changed here.

use lb_common::{AddressUse, Frontend, Protocol, Verdict};

use crate::{
    announce, client, count, direct, flow, fragment,
    frame::Context,
    headers::{Headers, Payload},
    icmp,
    maps::{ADDRESSES, FRONTENDS},
    refuse, request, route, trace,
    work::Work,
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
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
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
    #[inline(always)]
    pub const fn with(self, verdict: Verdict) -> Plan {
        Plan {
            step: self,
            verdict,
        }
    }
}

/// Decides over a packet that came in.
#[inline(always)]
pub fn ingress(ctx: Context<'_>, headers: &mut Headers, work: &mut Work) -> Result<Plan, Verdict> {
    if headers.payload == Payload::Neighbour {
        return announce::solicited(ctx, headers, work);
    }
    // SAFETY: `AddressUse` is one word.
    let usage = match unsafe { ADDRESSES.get(&headers.tuple.dst) } {
        Some(usage) => *usage,
        None => return Err(Verdict::NotOurs),
    };
    let rewrites = ctx.rewrites().ok_or(Verdict::OtherHost)?;
    let now = flow::now();
    let vip = usage.contains(AddressUse::VIP);
    match headers.payload {
        Payload::Ports => {
            if !fragment::find(headers, now) {
                return Err(unserved(usage, Verdict::VipFragment));
            }
            if usage.contains(AddressUse::SNAT)
                && rewrites
                && !ctx.is_handover()
                && let Some(reply) = flow::find_reply(headers, now)
            {
                work.to = reply.flow.reversed();
                work.hop = reply.flow.src;
                let plan = route::send(ctx, headers, work, Step::Send.with(Verdict::ReplyNat))?;
                count::reply(reply.service, reply.backend, headers);
                fragment::record(headers, now);
                return Ok(plan);
            }
            if vip {
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
                    return request::request(ctx, headers, *entry, now, work);
                }
            }
            if usage.contains(AddressUse::LOCAL_BACKEND) {
                direct::note(headers, now, work);
            }
        }
        Payload::Error if !rewrites => return Err(Verdict::LeftToTc),
        Payload::Error => {
            if let Some(plan) = icmp::inbound(ctx, headers, work)? {
                return Ok(plan);
            }
            if vip
                && headers.quoted.protocol == Protocol::Tcp as u8
                && let Some(plan) = request::give_back(ctx, headers, work)?
            {
                return Ok(plan);
            }
        }
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

/// What is said of a packet to an address of ours that is for no service.
#[inline(always)]
fn unserved(usage: AddressUse, dropped: Verdict) -> Verdict {
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
    if let Some(reply) = flow::find_reply(headers, now) {
        count::reply(reply.service, reply.backend, headers);
        work.to = reply.flow.reversed();
    } else {
        if primary.is_none() || direct::is_known(&headers.tuple) {
            return Err(Verdict::NotOurs);
        }
        if headers.opens() {
            // The backend is a client here, by a port that it serves.
            direct::record(&headers.tuple, now);
            return Err(Verdict::NotOurs);
        }
        count::reply(primary.service, primary.backend, headers);
        work.to = headers.tuple;
        work.to.src = primary.addr;
        work.to.src_port = primary.port;
    }
    fragment::record(headers, now);
    Ok(Step::Deliver.with(Verdict::ReplyLocal))
}
