//! Where `nat` flows come from, as their backends see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::Verdict;

use super::{
    Choices, Input, Stop,
    parse::Packet,
    records::Yields,
    state::{Backend, FIRST_PORT, LAST_PORT, State},
    ways::routed,
};
use crate::wire::{SCTP, Tuple};

/// The bytes 0, where no address is known yet.
pub(super) fn unspecified(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

impl State {
    /// Address and port that a new `nat` flow is sent from: the program's choice among
    /// those that are free.
    pub(super) fn source(
        &self,
        input: &Input<'_>,
        packet: &Packet,
        backend: &Backend,
        choices: &dyn Choices,
    ) -> Result<(IpAddr, u16), Stop> {
        let tuple = packet.tuple();
        let to = Tuple {
            src: unspecified(packet.v6),
            dst: backend.addr.ip(),
            dport: backend.addr.port(),
            ..tuple
        };
        let device = routed(input.device, &to)?.device;
        if !device.attached || packet.v6 && !device.snat_v6 {
            return Err(Verdict::NoDevice.into());
        }
        let src = if packet.v6 {
            device.v6.into()
        } else {
            device.v4.into()
        };
        let taken = |port: u16, yields: Yields| {
            let sent = Tuple {
                src,
                sport: port,
                ..to
            };
            self.is_taken(&sent.reversed(), &tuple, yields, input.now)
        };
        // SCTP's checksum covers the ports, so the client's own stays.
        let (range, least) = if packet.protocol == SCTP {
            (tuple.sport..=tuple.sport, Yields::Nothing)
        } else {
            (FIRST_PORT..=LAST_PORT, Yields::Unassured)
        };
        let free = range.clone().any(|port| !taken(port, Yields::Nothing));
        let seen = choices.flow(&tuple).and_then(|flow| flow.snat);
        // What might make room is not looked for at each of the ports.
        let none = range.clone().all(|port| taken(port, least));
        if !free && (none || seen.is_none()) {
            return Err(Verdict::PortsExhausted.into());
        }
        let breach = |what: &str| Err(Stop::Breach(format!("{what}: {tuple:?} by {seen:?}")));
        let Some((addr, port)) = seen else {
            return breach("nat: no source was recorded");
        };
        if addr != src {
            return breach("nat: the source is not of the interface it leaves by");
        }
        if !range.contains(&port) {
            return breach("nat: a port outside of the range");
        }
        // The port of a connection that was closed by FIN may be in TIME_WAIT at the
        // backend, and who has not yet answered may do so: they are taken only where no other
        // is free.
        let yields = if free { Yields::Nothing } else { least };
        if taken(port, yields) {
            return breach("nat: a port that is in use");
        }
        Ok((src, port))
    }
}
