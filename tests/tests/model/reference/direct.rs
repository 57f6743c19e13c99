//! Packets of local backends that go without a record: whose they are.

use std::net::SocketAddr;

use super::{
    parse::{Fragment, Packet},
    state::State,
};
use crate::wire::{TCP, Tuple};

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
            self.direct.insert(reply, now);
        }
    }
}
