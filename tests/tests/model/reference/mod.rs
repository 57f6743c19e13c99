//! The reference: what must become of a packet, written from the design and the RFCs.
//!
//! It shares no code with the program; its types for verdicts and hooks are the
//! datapath's. Where the design leaves a choice to the program (which free port, which
//! slot for a hash) the reference looks at what the program chose, and checks that it
//! was allowed to.

mod act;
mod flows;
mod parse;
pub(crate) mod questions;
pub(crate) mod records;
mod rewrite;
mod source;
pub(crate) mod state;

use std::net::IpAddr;

use lb_common::{Hook, Verdict, verdict::Fate};

pub(crate) use state::State;

use self::{
    parse::{Body, Fragment, Packet, Quote},
    records::{FRAGMENT_TICKS, Note},
    rewrite::Output,
    state::Use,
};
use crate::{
    node::{self, Device, Unroutable},
    wire::{TCP, Tuple},
};

/// What the hook does with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pass,
    Drop,
    /// Out by the interface it came in by (XDP only).
    SentBack,
    /// Out by an interface that a redirect names.
    SentOn,
}

/// A frame at a hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) hook: Hook,
    pub(crate) device: &'static Device,
    pub(crate) frame: &'a [u8],
    /// The tick of the flows' clock.
    pub(crate) now: u32,
}

/// What the program did, as far as the reference may look at it.
pub(crate) trait Choices {
    /// The record that the program now has of a flow.
    fn flow(&self, tuple: &Tuple) -> Option<records::Flow>;
    /// Whether it dropped the packet, and how that was counted.
    fn dropped(&self) -> Option<Verdict>;
}

/// What must come of a frame.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) act: Act,
    pub(crate) out: Output,
    /// Bytes as the verdict's counter counts them.
    pub(crate) counted: usize,
}

/// Why it does not come to an outcome: a verdict that ends it, or a choice of the
/// program that it must not make.
pub(crate) enum Stop {
    Verdict(Verdict),
    Breach(String),
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// What is done with a packet that is not left or dropped.
enum Plan {
    Deliver(Tuple),
    Send(Tuple, Way),
    /// As it is, to a peer.
    HandOver(Way),
    /// As it is, to the node that had the address before.
    GiveBack(Way),
    /// An error about a flow; the outer addresses and the quoted packet.
    Translate(Tuple, Quote, Tuple, Option<Way>),
    Reset,
    Unreachable,
    Echo,
    /// By these bytes.
    Advertise(Vec<u8>),
    TooBig(usize),
}

/// How a packet is sent: by which interface, to which link address.
#[derive(Clone, Copy)]
struct Way {
    device: &'static Device,
    link: [u8; 6],
}

impl Input<'_> {
    /// Whether a peer handed the frame over.
    fn is_handed(&self) -> bool {
        self.frame[6..9] == *b"nar"
    }

    /// How often it has gone back to a node that had the address before.
    fn returns(&self) -> usize {
        match &self.frame[6..9] {
            b"nas" => 1,
            b"nat" => 2,
            _ => 0,
        }
    }

    /// Whether another node sent it on, without tags.
    fn is_sent_on(&self, packet: &Packet) -> bool {
        (self.is_handed() || self.returns() > 0) && packet.l3 == 14
    }
}

/// What must come of a frame; the state is then the one after it.
pub(crate) fn process(
    state: &mut State,
    input: &Input<'_>,
    choices: &dyn Choices,
) -> Result<Outcome, String> {
    let frame = input.frame;
    let mut packet = match parse::parse(frame) {
        Ok(packet) => packet,
        Err(verdict) => {
            let answer = questions::arp(state, input);
            return Ok(match answer.filter(|_| verdict == Verdict::NotIp) {
                Some(answer) => Outcome {
                    verdict: Verdict::ArpAnswered,
                    act: Act::SentBack,
                    out: Output::of(&answer),
                    counted: frame.len(),
                },
                None => stopped(verdict, frame, frame.len()),
            });
        }
    };
    let counted = packet.end;
    let decided = match input.hook {
        Hook::TcEgress => egress(state, input, &mut packet),
        _ => ingress(state, input, &mut packet, choices),
    };
    let done = decided.and_then(|(verdict, plan)| {
        let way = way_back(input, &packet, &plan)?;
        Ok((verdict, act::carry_out(input, &packet, plan, way)?))
    });
    match done {
        Ok((verdict, (act, out))) => Ok(Outcome {
            verdict,
            act,
            out,
            counted,
        }),
        Err(Stop::Verdict(verdict)) => Ok(stopped(verdict, frame, counted)),
        Err(Stop::Breach(breach)) => Err(breach),
    }
}

fn stopped(verdict: Verdict, frame: &[u8], counted: usize) -> Outcome {
    Outcome {
        verdict,
        act: match verdict.fate() {
            Fate::Pass => Act::Pass,
            _ => Act::Drop,
        },
        out: Output::of(frame),
        counted,
    }
}

type Decided = Result<(Verdict, Plan), Stop>;

/// Decides over a packet that came in.
fn ingress(
    state: &mut State,
    input: &Input<'_>,
    packet: &mut Packet,
    choices: &dyn Choices,
) -> Decided {
    if packet.body == Body::Neighbour {
        // Else it is the host's own business.
        let answer = questions::ndp(state, input, packet).ok_or(Verdict::NotOurs)?;
        return Ok((Verdict::NdpAnswered, Plan::Advertise(answer)));
    }
    let usage = state.usage(packet.dst).ok_or(Verdict::NotOurs)?;
    let device = input.device;
    let xdp = input.hook == Hook::Xdp;
    if input.frame[..6] != device.mac || xdp && !device.attached {
        return Err(Verdict::OtherHost.into());
    }
    // Generic XDP does not rewrite: it cannot know the state of checksums.
    let rewrites = !xdp || device.native;
    match packet.body {
        Body::Ports { .. } => {
            if !reassemble(state, packet, input.now) {
                return Err(unserved(usage, Verdict::VipFragment));
            }
            if usage.snat
                && rewrites
                && !input.is_handed()
                && let Some(reply) = state.reply(packet, input.now)
            {
                let to = reply.flow.reversed();
                let decided = send(input, packet, to, Verdict::ReplyNat)?;
                let bytes = packet.end as u64;
                state.count(reply.service, reply.backend, |count| {
                    count.packets_out += 1;
                    count.bytes_out += bytes;
                });
                remember(state, packet, input.now);
                return Ok(decided);
            }
            if usage.vip
                && let Some(service) = state.service(packet)
            {
                if !state.admits(service, packet.src) {
                    return Err(Verdict::SourceDenied.into());
                }
                if !rewrites {
                    return Err(Verdict::LeftToTc.into());
                }
                return state.request(input, packet, service, choices);
            }
            Err(unserved(usage, Verdict::VipPort))
        }
        Body::Error(_) if !rewrites => Err(Verdict::LeftToTc.into()),
        Body::Error(quote) => {
            if let Some(decided) = error(state, input, packet, quote)? {
                return Ok(decided);
            }
            let known = usage.vip && quote.tuple.protocol == TCP;
            match flows::give_back(input, packet).filter(|_| known) {
                Some(decided) => decided,
                None => Err(unserved(usage, Verdict::VipError)),
            }
        }
        Body::Echo if usage.pinged && !rewrites => Err(Verdict::LeftToTc.into()),
        Body::Echo if usage.pinged && !act::is_single(packet.src) => {
            Err(Verdict::RefusalSuppressed.into())
        }
        Body::Echo if usage.pinged => Ok((Verdict::EchoReply, Plan::Echo)),
        Body::Echo => Err(unserved(usage, Verdict::VipEcho)),
        Body::BadTcp => Err(unserved(usage, Verdict::BadTcp)),
        Body::BadUdp => Err(unserved(usage, Verdict::BadUdp)),
        Body::Short => Err(unserved(usage, Verdict::Short)),
        Body::Other | Body::Neighbour => Err(unserved(usage, Verdict::VipProtocol)),
    }
}

/// The verdict on a packet that is for no service.
fn unserved(usage: Use, dropped: Verdict) -> Stop {
    Stop::Verdict(match usage {
        Use { vip: false, .. } => Verdict::NotOurs,
        Use { host: true, .. } => Verdict::HostPort,
        _ => dropped,
    })
}

/// Decides over a packet that leaves.
fn egress(state: &mut State, input: &Input<'_>, packet: &mut Packet) -> Decided {
    if let Body::Error(quote) = packet.body {
        let reply = state.replies.get(&quote.tuple.reversed());
        let flow = reply.ok_or(Verdict::NotOurs)?.flow;
        let mut outer = packet.tuple();
        outer.src = flow.dst;
        let plan = Plan::Translate(outer, quote, flow, None);
        return Ok((Verdict::ErrorReply, plan));
    }
    let local = state.usage(packet.src).is_some_and(|u| u.local_backend);
    let ports = matches!(packet.body, Body::Ports { .. });
    if !local || !ports || !reassemble(state, packet, input.now) {
        return Err(Verdict::NotOurs.into());
    }
    let reply = state.reply(packet, input.now).ok_or(Verdict::NotOurs)?;
    let bytes = packet.end as u64;
    state.count(reply.service, reply.backend, |count| {
        count.packets_out += 1;
        count.bytes_out += bytes;
    });
    remember(state, packet, input.now);
    Ok((Verdict::ReplyLocal, Plan::Deliver(reply.flow.reversed())))
}

/// Decides over an error about a packet of a flow; None where there is no such flow.
fn error(
    state: &State,
    input: &Input<'_>,
    packet: &Packet,
    quote: Quote,
) -> Result<Option<(Verdict, Plan)>, Stop> {
    let key = quote.tuple.reversed();
    let mut outer = packet.tuple();
    let (verdict, quoted);
    if let Some(flow) = state.flows.get(&key) {
        // About a reply: it goes to the backend that sent it.
        let Some(backend) = state.backends.get(&flow.backend) else {
            return Ok(None);
        };
        quoted = state.towards(&key, backend, flow).reversed();
        outer.dst = backend.addr.ip();
        if backend.local {
            let plan = Plan::Translate(outer, quote, quoted, None);
            return Ok(Some((Verdict::ErrorLocal, plan)));
        }
        if input.is_handed() {
            return Err(Verdict::NotHere.into());
        }
        if let Some(via) = backend.via.filter(|_| flow.snat.is_none()) {
            return hand_over(input, packet, via, Verdict::ErrorDsr).map(Some);
        }
        outer.src = flow.snat.map_or(outer.src, |(addr, _)| addr);
        verdict = Verdict::ErrorNat;
    } else if let Some(reply) = state.replies.get(&key)
        && !input.is_handed()
    {
        // About a request: it goes to the client, from the VIP.
        quoted = reply.flow;
        (outer.src, outer.dst) = (quoted.dst, quoted.src);
        verdict = Verdict::ErrorReply;
    } else {
        return Ok(None);
    }
    Ok(Some(match send(input, packet, outer, verdict)? {
        (verdict, Plan::Send(outer, way)) => {
            (verdict, Plan::Translate(outer, quote, quoted, Some(way)))
        }
        other => other,
    }))
}

/// Gives a later fragment the ports of the first; false where that was not seen.
fn reassemble(state: &State, packet: &mut Packet, now: u32) -> bool {
    if packet.fragment != Fragment::Later {
        return true;
    }
    let note = state.fragments.get(&fragment_key(packet));
    let Some(note) = note.filter(|note| now <= note.expires) else {
        return false;
    };
    if let Body::Ports { sport, dport, .. } = &mut packet.body {
        (*sport, *dport) = (note.sport, note.dport);
    }
    true
}

/// Notes the ports of a first fragment that goes on.
fn remember(state: &mut State, packet: &Packet, now: u32) {
    if packet.fragment == Fragment::First {
        let Tuple { sport, dport, .. } = packet.tuple();
        let expires = now + FRAGMENT_TICKS;
        let note = Note {
            sport,
            dport,
            expires,
        };
        state.fragments.insert(fragment_key(packet), note);
    }
}

fn fragment_key(packet: &Packet) -> Tuple {
    Tuple {
        sport: packet.id as u16,
        dport: (packet.id >> 16) as u16,
        ..packet.tuple()
    }
}

/// Plans to send a packet on.
fn send(input: &Input<'_>, packet: &Packet, to: Tuple, verdict: Verdict) -> Decided {
    leave(input, packet, to, verdict, |way| Plan::Send(to, way))
}

/// Plans to hand a packet over to the peer that has this address.
fn hand_over(input: &Input<'_>, packet: &Packet, via: IpAddr, verdict: Verdict) -> Decided {
    let (verdict, plan) = leave(input, packet, towards(packet, via), verdict, Plan::HandOver)?;
    match plan {
        Plan::HandOver(way) if way.link == [0; 6] => Err(Verdict::NoPeer.into()),
        Plan::HandOver(way) if !way.device.attached => Err(Verdict::NoDevice.into()),
        plan => Ok((verdict, plan)),
    }
}

/// What the way to a peer is asked by.
fn towards(packet: &Packet, via: IpAddr) -> Tuple {
    let tuple = packet.tuple();
    let src = if tuple.src.is_ipv6() == via.is_ipv6() {
        tuple.src
    } else {
        source::unspecified(via.is_ipv6())
    };
    Tuple {
        src,
        dst: via,
        ..tuple
    }
}

/// The way of an answer to what another node has sent on: not back there.
fn way_back(input: &Input<'_>, packet: &Packet, plan: &Plan) -> Result<Option<Way>, Stop> {
    let answers = matches!(plan, Plan::Reset | Plan::Unreachable | Plan::TooBig(_));
    if !answers || !input.is_sent_on(packet) {
        return Ok(None);
    }
    let route = routed(input.device, &packet.tuple().reversed())?;
    let back = route.device.name == input.device.name;
    let reaches = back || route.device.attached && route.device.native;
    if input.hook == Hook::Xdp && (route.neighbour.is_none() || !reaches) {
        return Err(Verdict::LeftToTc.into());
    }
    Ok(Some(Way {
        device: route.device,
        link: route.neighbour.unwrap_or_default(),
    }))
}

fn leave(
    input: &Input<'_>,
    packet: &Packet,
    to: Tuple,
    verdict: Verdict,
    plan: impl Fn(Way) -> Plan,
) -> Decided {
    if packet.ttl <= 1 {
        return Err(Verdict::TtlExpired.into());
    }
    let route = routed(input.device, &to)?;
    let xdp = input.hook == Hook::Xdp;
    let fits = packet.end - packet.l3 <= route.device.mtu;
    if !fits && !xdp {
        return if packet.whole {
            Ok((Verdict::TooBig, Plan::TooBig(route.device.mtu)))
        } else {
            Err(Verdict::Uncut.into())
        };
    }
    let back = route.device.name == input.device.name;
    let reaches = back || route.device.attached && route.device.native;
    let link = match route.neighbour {
        Some(link) => link,
        None if xdp => return Err(Verdict::LeftToTc.into()),
        None => [0; 6],
    };
    if xdp && (!fits || !reaches || packet.l3 != 14) {
        return Err(Verdict::LeftToTc.into());
    }
    let device = route.device;
    Ok((verdict, plan(Way { device, link })))
}

fn routed(ingress: &Device, to: &Tuple) -> Result<node::Route, Stop> {
    node::route(ingress, to.src, to.dst).map_err(|why| {
        Stop::Verdict(match why {
            Unroutable::NoRoute => Verdict::NoRoute,
            Unroutable::ForwardingOff => Verdict::ForwardingOff,
        })
    })
}

/// What is said to a packet that nobody serves.
fn refuse(packet: &Packet) -> (Verdict, Plan) {
    if packet.protocol == TCP {
        (Verdict::RefusedReset, Plan::Reset)
    } else {
        (Verdict::RefusedUnreachable, Plan::Unreachable)
    }
}
