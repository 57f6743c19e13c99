//! Packets of local backends that go without a record: whose they are.

use std::net::SocketAddr;

use super::{
    parse::{Fragment, Packet},
    records::{Direct, Seen},
    state::State,
};
use crate::wire::{SYN, TCP, Tuple};

/// What leaves from a local backend is restored to, where there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Primary {
    /// The frontend; none where there must be a record.
    pub(crate) frontend: Option<SocketAddr>,
    pub(crate) backend: u32,
    /// Whether replies without a record are restored yet.
    pub(crate) learned: bool,
    pub(crate) service: u32,
}

impl State {
    /// What is known of packets from this backend.
    pub(super) fn primary(&self, from: &Tuple) -> Option<Primary> {
        let addr = SocketAddr::new(from.src, from.sport);
        self.primaries.get(&(addr, from.protocol)).copied()
    }

    /// The frontend that a backend's packet comes from, if its connection came by that.
    pub(super) fn restored(&self, reply: &Tuple) -> Option<(SocketAddr, Primary)> {
        let primary = self.primary(reply)?;
        let frontend = primary.frontend?;
        // Not before direct connections are known.
        if !primary.learned {
            return None;
        }
        (!self.direct.contains_key(reply)).then_some((frontend, primary))
    }

    /// Notes that a client speaks to a backend by the backend's own address.
    pub(super) fn note_direct(&mut self, packet: &Packet, now: u32) {
        let reply = packet.tuple().reversed();
        let primary = self.primary(&reply);
        let restored = primary.is_some_and(|primary| primary.frontend.is_some());
        if packet.protocol == TCP && packet.fragment != Fragment::Later && restored {
            self.goes_direct(reply, packet, now);
        }
    }

    /// Takes a packet for one of the client of a connection that came by no frontend.
    pub(super) fn goes_direct(&mut self, reply: Tuple, packet: &Packet, now: u32) {
        let before = self.direct.get(&reply).copied().unwrap_or_default();
        let anew = packet.flags() & SYN != 0 && before.seen.closing();
        let before = if anew { Seen::default() } else { before.seen };
        let seen = before.after_client_alone(packet.flags());
        // The backend of one that its client has ended may have an hour to think.
        let silence = match seen.closing() && !seen.reset() {
            true => 3600,
            false => seen.timeout(true),
        };
        let expires = now + silence;
        self.direct.insert(reply, Direct { seen, expires });
    }
}
