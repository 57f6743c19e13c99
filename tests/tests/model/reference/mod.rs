//! The reference: what must become of a packet, written from the design and the RFCs.
//!
//! It shares no code with the program; its types for verdicts and hooks are the
//! datapath's. Where the design leaves a choice to the program (which free port) the
//! reference looks at what the program chose, and checks that it was allowed to. What
//! stands in the slots is the agent's, and read off its maps.

mod act;
mod begin;
pub(crate) mod direct;
mod errors;
mod flows;
mod fragments;
mod parse;
pub(crate) mod questions;
pub(crate) mod records;
mod rewrite;
pub(crate) mod slots;
mod source;
pub(crate) mod state;
mod ways;

use lb_common::{Hook, Verdict, verdict::Fate};

pub(crate) use state::State;

use self::{
    errors::error,
    fragments::{reassemble, remember},
    parse::{Body, Packet, Quote},
    rewrite::Output,
    state::Use,
    ways::{send, way_back},
};
use crate::{
    node::Device,
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
    let pods_alone = usage.local_backend && !usage.vip && !usage.host && !usage.snat;
    if pods_alone && !xdp {
        // XDP has dealt with it.
        return Err(Verdict::NotOurs.into());
    }
    if input.frame[..6] != device.mac || xdp && !device.attached {
        if xdp && usage.local_backend && matches!(packet.body, Body::Ports { .. }) {
            state.note_direct(packet, input.now);
        }
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
                && let Some(entry) = state.entry(packet)
            {
                if !state.admits(entry.service, packet.src) {
                    return Err(Verdict::SourceDenied.into());
                }
                if !rewrites {
                    return Err(Verdict::LeftToTc.into());
                }
                return state.request(input, packet, entry, choices);
            }
            if usage.local_backend && xdp {
                state.note_direct(packet, input.now);
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
        return errors::leaving(state, packet, quote);
    }
    let ports = matches!(packet.body, Body::Ports { .. });
    if !ports || !reassemble(state, packet, input.now) {
        return Err(Verdict::NotOurs.into());
    }
    let tuple = packet.tuple();
    state.primary(&tuple).ok_or(Verdict::NotOurs)?;
    let (to, service, backend) = if let Some(reply) = state.reply(packet, input.now) {
        (reply.flow.reversed(), reply.service, reply.backend)
    } else {
        if state.direct.contains_key(&tuple) {
            state.note("direct connection's reply");
        }
        let (frontend, primary) = state.restored(&tuple).ok_or(Verdict::NotOurs)?;
        if packet.opens() {
            state.note("connection of a backend");
            // The backend is a client here, by a port that it serves.
            state.goes_direct(tuple, packet, input.now);
            return Err(Verdict::NotOurs.into());
        }
        state.note("reply by its primary");
        let to = Tuple {
            src: frontend.ip(),
            sport: frontend.port(),
            ..tuple
        };
        (to, primary.service, primary.backend)
    };
    let bytes = packet.end as u64;
    state.count(service, backend, |count| {
        count.packets_out += 1;
        count.bytes_out += bytes;
    });
    remember(state, packet, input.now);
    Ok((Verdict::ReplyLocal, Plan::Deliver(to)))
}

/// What is said to a packet that nobody serves.
fn refuse(packet: &Packet) -> (Verdict, Plan) {
    if packet.protocol == TCP {
        (Verdict::RefusedReset, Plan::Reset)
    } else {
        (Verdict::RefusedUnreachable, Plan::Unreachable)
    }
}
