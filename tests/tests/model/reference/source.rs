//! Where `nat` flows come from, as their backends see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::Verdict;

use super::{
    Choices, Input, Stop,
    parse::Packet,
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
        let taken = |port: u16, closed_too: bool| {
            let sent = Tuple {
                src,
                sport: port,
                ..to
            };
            self.is_taken(&sent.reversed(), &tuple, closed_too, input.now)
        };
        // SCTP's checksum covers the ports, so the client's own stays.
        let range = if packet.protocol == SCTP {
            tuple.sport..=tuple.sport
        } else {
            FIRST_PORT..=LAST_PORT
        };
        let free = range.clone().any(|port| !taken(port, false));
        if !free && range.clone().all(|port| taken(port, true)) {
            return Err(Verdict::PortsExhausted.into());
        }
        let seen = choices.flow(&tuple).and_then(|flow| flow.snat);
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
        // backend: it is taken only where no other is free.
        if taken(port, !free) {
            return breach("nat: a port that is in use");
        }
        Ok((src, port))
    }
}
