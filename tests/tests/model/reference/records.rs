//! What is remembered of flows, clients and fragments.

use std::net::IpAddr;

use crate::wire::{ACK, FIN, RST, SYN, Tuple};

/// How long the ports of a fragmented packet are remembered, in ticks.
pub(super) const FRAGMENT_TICKS: u32 = 30;

/// What has been seen of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) replied: bool,
    /// The client has sent more than what opens a connection, or than a datagram before any
    /// answer.
    pub(crate) confirmed: bool,
    pub(crate) client_fin: bool,
    pub(crate) backend_fin: bool,
    /// The last packet of that side was an RST.
    pub(crate) client_rst: bool,
    pub(crate) backend_rst: bool,
}

impl Seen {
    pub(crate) fn after_client(mut self, flags: u8) -> Self {
        self.client_fin |= flags & FIN != 0;
        self.client_rst = flags & RST != 0;
        self.confirmed |= goes_on(flags) && (flags != 0 || self.replied);
        self
    }

    pub(crate) fn after_backend(mut self, flags: u8) -> Self {
        self.backend_fin |= flags & FIN != 0;
        self.backend_rst = flags & RST != 0;
        self.replied = true;
        self
    }

    /// After a packet of a client whose answers go another way: whatever opens no
    /// connection says that there are answers.
    pub(crate) fn after_client_alone(mut self, flags: u8) -> Self {
        self.replied |= goes_on(flags);
        self.after_client(flags)
    }

    /// Whether both sides have shown that they know of it.
    pub(crate) fn assured(self) -> bool {
        self.replied && self.confirmed
    }

    pub(crate) fn reset(self) -> bool {
        self.client_rst || self.backend_rst
    }

    pub(crate) fn closed(self) -> bool {
        self.reset() || self.client_fin && self.backend_fin
    }

    pub(crate) fn closing(self) -> bool {
        self.reset() || self.client_fin || self.backend_fin
    }

    /// How long such a flow may be silent, in ticks.
    pub(crate) fn timeout(self, tcp: bool) -> u32 {
        if !tcp {
            return if self.replied { 120 } else { 30 };
        }
        if self.reset() {
            10
        } else if self.closed() {
            60
        } else if self.closing() {
            if self.replied && self.confirmed {
                3600
            } else {
                120
            }
        } else if self.replied && self.confirmed {
            86_400
        } else {
            60
        }
    }
}

/// Whether a packet opens no connection.
fn goes_on(flags: u8) -> bool {
    flags & (SYN | ACK) != SYN
}

/// What makes room for a flow that wants its tuple, each as well as those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Yields {
    /// Nothing but what is over.
    Nothing,
    /// Connections that were closed by FIN.
    Closed,
    /// Flows of which both sides do not yet know.
    Unassured,
}

/// A flow, by the client's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) backend: u32,
    /// The source of a `nat` flow.
    pub(crate) snat: Option<(IpAddr, u16)>,
    pub(crate) seen: Seen,
    /// The last tick in which it counts.
    pub(crate) expires: u32,
}

/// A connection that came by no frontend, by the backend's packet: as its client's tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Direct {
    pub(crate) seen: Seen,
    /// The last tick in which it counts.
    pub(crate) expires: u32,
}

/// Whose packets a backend's are, by the backend's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) flow: Tuple,
    pub(crate) backend: u32,
    pub(crate) service: u32,
    /// Until when further ones need not keep their flow fresh, of which 24 bits are stored.
    pub(crate) fresh_until: u32,
}

impl Reply {
    /// Where the next one does.
    pub(crate) fn never(now: u32) -> u32 {
        now.wrapping_sub(2) & 0xff_ffff
    }

    /// Whether another packet need not.
    pub(crate) fn is_fresh(&self, now: u32) -> bool {
        self.fresh_until.wrapping_sub(now) & 0xff_ffff <= 64
    }
}

/// The ports of a fragmented packet and the last tick in which they count, by its
/// addresses and protocol, with the identification in place of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) expires: u32,
}

/// What is counted of a service or a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) flows: u64,
}

/// Where a client's next flow to a service goes, and the last tick in which that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) backend: u32,
    pub(crate) expires: u32,
}
