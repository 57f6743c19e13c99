//! Plan → action and bytes.

use std::net::IpAddr;

use lb_common::{Hook, Verdict};

use super::{
    Act, Input, Plan, Stop, Way,
    parse::{Body, Fragment, Packet},
    rewrite::{self, Output},
};
use crate::wire::RST;

/// Does to the frame what is planned.
pub(super) fn carry_out(
    input: &Input<'_>,
    packet: &Packet,
    plan: Plan,
    way_back: Option<Way>,
) -> Result<(Act, Output), Stop> {
    let frame = input.frame;
    let xdp = input.hook == Hook::Xdp;
    let back = if xdp { Act::SentBack } else { Act::SentOn };
    let answer = |out: Output| match way_back {
        Some(way) => dispatch(input, packet, out, way),
        None => (back, out),
    };
    Ok(match plan {
        Plan::Deliver(to) => (Act::Pass, rewrite::rewrite(frame, packet, &to, packet.ttl)),
        Plan::Send(to, way) => {
            let out = rewrite::rewrite(frame, packet, &to, packet.ttl - 1);
            dispatch(input, packet, out, way)
        }
        Plan::HandOver(way) => as_it_is(input, packet, way, *b"nar"),
        Plan::GiveBack(way) if input.returns() == 0 => as_it_is(input, packet, way, *b"nas"),
        Plan::GiveBack(way) => as_it_is(input, packet, way, *b"nat"),
        Plan::Translate(outer, quote, quoted, way) => {
            let ttl = packet.ttl - u8::from(way.is_some());
            let ends = (outer.src, outer.dst);
            let out = rewrite::translate(frame, packet, ends, ttl, &quote, &quoted);
            match way {
                Some(way) => dispatch(input, packet, out, way),
                None => (Act::Pass, out),
            }
        }
        Plan::Echo => (back, rewrite::echo(frame, packet)),
        Plan::Advertise(answer) => (back, Output::of(&answer)),
        Plan::Reset => {
            may_answer(packet)?;
            answer(Output::of(&rewrite::reset(frame, packet)))
        }
        Plan::Unreachable => {
            may_answer(packet)?;
            let (kind, code) = if packet.v6 { (1, 4) } else { (3, 3) };
            answer(Output::of(&rewrite::error(frame, packet, kind, code, 0)))
        }
        Plan::TooBig(mtu) => {
            may_answer(packet)?;
            let (kind, code) = if packet.v6 { (2, 0) } else { (3, 4) };
            let error = rewrite::error(frame, packet, kind, code, mtu as u32);
            answer(Output::of(&error))
        }
    })
}

/// Sends the frame to another node, marked in its source address.
fn as_it_is(input: &Input<'_>, packet: &Packet, way: Way, mark: [u8; 3]) -> (Act, Output) {
    let (act, mut out) = dispatch(input, packet, Output::of(input.frame), way);
    out.bytes[..6].copy_from_slice(&way.link);
    out.bytes[6..9].copy_from_slice(&mark);
    out.bytes[9..12].copy_from_slice(&way.device.mac[3..]);
    (act, out)
}

/// Sends the rewritten frame: XDP writes the link addresses itself, TC leaves those to
/// the kernel and takes VLAN tags off.
fn dispatch(input: &Input<'_>, packet: &Packet, mut out: Output, way: Way) -> (Act, Output) {
    if input.hook == Hook::Xdp {
        out.bytes[..6].copy_from_slice(&way.link);
        out.bytes[6..12].copy_from_slice(&way.device.mac);
        let back = way.device.name == input.device.name;
        return (if back { Act::SentBack } else { Act::SentOn }, out);
    }
    let tags = packet.l3 - 14;
    out.bytes.drain(12..12 + tags);
    for at in &mut out.loose {
        *at -= tags;
    }
    (Act::SentOn, out)
}

/// Whether an address may be a single host's elsewhere.
pub(super) fn is_single(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(ip) => !ip.is_multicast() && ip.segments()[..6] != [0; 6],
    }
}

/// Whether a packet may be answered with RST or an ICMP error (RFC 1122 section 3.2.2):
/// no RST, no later fragment, no error, nothing that comes from no single host. Nor is one with
/// more than 128 bytes of network headers, which an answer could not quote.
fn may_answer(packet: &Packet) -> Result<(), Stop> {
    let single = is_single(packet.src);
    let error = matches!(packet.body, Body::Error(_));
    let reset = packet.flags() & RST != 0;
    let later = packet.fragment == Fragment::Later;
    if later || error || reset || !single || packet.l4 - packet.l3 > 128 {
        return Err(Verdict::RefusalSuppressed.into());
    }
    Ok(())
}
