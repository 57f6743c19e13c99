//! Where a packet leaves, and whether it can.

use std::net::IpAddr;

use lb_common::{Hook, Verdict};

use super::{Decided, Input, Plan, Stop, Way, parse::Packet, source::unspecified};
use crate::{
    node::{self, Device, Unroutable},
    wire::Tuple,
};

/// Plans to send a packet on.
pub(super) fn send(input: &Input<'_>, packet: &Packet, to: Tuple, verdict: Verdict) -> Decided {
    leave(input, packet, to, verdict, |way| Plan::Send(to, way))
}

/// Plans to hand a packet over to the peer that has this address.
pub(super) fn hand_over(
    input: &Input<'_>,
    packet: &Packet,
    via: IpAddr,
    verdict: Verdict,
) -> Decided {
    let (verdict, plan) = leave(input, packet, towards(packet, via), verdict, Plan::HandOver)?;
    match plan {
        Plan::HandOver(way) if way.link == [0; 6] => Err(Verdict::NoPeer.into()),
        Plan::HandOver(way) if !way.device.attached => Err(Verdict::NoDevice.into()),
        plan => Ok((verdict, plan)),
    }
}

/// What the way to a peer is asked by.
pub(super) fn towards(packet: &Packet, via: IpAddr) -> Tuple {
    let tuple = packet.tuple();
    let src = if tuple.src.is_ipv6() == via.is_ipv6() {
        tuple.src
    } else {
        unspecified(via.is_ipv6())
    };
    Tuple {
        src,
        dst: via,
        ..tuple
    }
}

/// The way of an answer to what another node has sent on: not back there.
pub(super) fn way_back(
    input: &Input<'_>,
    packet: &Packet,
    plan: &Plan,
) -> Result<Option<Way>, Stop> {
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

pub(super) fn routed(ingress: &Device, to: &Tuple) -> Result<node::Route, Stop> {
    node::route(ingress, to.src, to.dst).map_err(|why| {
        Stop::Verdict(match why {
            Unroutable::NoRoute => Verdict::NoRoute,
            Unroutable::ForwardingOff => Verdict::ForwardingOff,
        })
    })
}
