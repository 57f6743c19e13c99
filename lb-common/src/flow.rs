//! Flow records: what is remembered of a connection, for how long, and its TCP state.

use crate::{Addr, BackendId, Port, Tuple};

/// TCP header flags, byte 13 of the header (RFC 9293 section 3.1).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is meaningful.
    pub const ACK: u8 = 0x10;
}

/// The clock of flow records: nanoseconds of CLOCK_MONOTONIC divided by 2³⁰, so a tick
/// is 1.07 s. A shift where seconds would cost a division for every packet.
#[inline(always)]
pub const fn tick(monotonic_ns: u64) -> u32 {
    (monotonic_ns >> 30) as u32
}

/// What has been seen of a flow, a bit set; its name and timeout follow from it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowState(pub u8);

impl FlowState {
    /// The backend answered (TCP: with SYN and ACK, or with anything later).
    pub const REPLIED: Self = Self(1);
    /// The client sent FIN.
    pub const CLIENT_FIN: Self = Self(1 << 1);
    /// The backend sent FIN.
    pub const BACKEND_FIN: Self = Self(1 << 2);
    /// Either side sent RST.
    pub const RESET: Self = Self(1 << 3);

    /// The state after a packet with `tcp_flags` (0 for UDP) from the client.
    #[inline(always)]
    #[must_use]
    pub const fn after_client(self, tcp_flags: u8) -> Self {
        self.after(tcp_flags, Self::CLIENT_FIN)
    }

    /// The state after a packet with `tcp_flags` (0 for UDP) from the backend.
    #[inline(always)]
    #[must_use]
    pub const fn after_backend(self, tcp_flags: u8) -> Self {
        Self(self.after(tcp_flags, Self::BACKEND_FIN).0 | Self::REPLIED.0)
    }

    #[inline(always)]
    const fn after(self, tcp_flags: u8, fin: Self) -> Self {
        let mut bits = self.0;
        if tcp_flags & tcp_flag::FIN != 0 {
            bits |= fin.0;
        }
        if tcp_flags & tcp_flag::RST != 0 {
            bits |= Self::RESET.0;
        }
        Self(bits)
    }

    #[inline(always)]
    const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the connection is over: reset, or FIN seen from both sides.
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        self.has(Self::RESET) || self.has(Self(Self::CLIENT_FIN.0 | Self::BACKEND_FIN.0))
    }

    /// Whether FIN was seen from at least one side, or RST.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.0 & (Self::CLIENT_FIN.0 | Self::BACKEND_FIN.0 | Self::RESET.0) != 0
    }

    /// How long a flow in this state may stay silent, in ticks (see [`tick`]).
    ///
    /// Established TCP as kube-proxy sets conntrack (24 h and more); the others as
    /// `nf_conntrack`'s defaults, but a closed flow goes after 10 ticks, since a new SYN
    /// replaces it at once anyway.
    #[inline(always)]
    pub const fn timeout(self, tcp: bool) -> u32 {
        match (tcp, self.has(Self::REPLIED)) {
            (true, _) if self.is_closed() => 10,
            (true, _) if self.is_closing() => 120,
            (true, true) => 86_400,
            (true, false) => 60,
            (false, true) => 120,
            (false, false) => 30,
        }
    }

    /// The name that `naru flows` shows.
    pub const fn name(self, tcp: bool) -> &'static str {
        match (tcp, self.has(Self::REPLIED)) {
            (true, _) if self.has(Self::RESET) => "reset",
            (true, _) if self.is_closed() => "closed",
            (true, _) if self.is_closing() => "closing",
            (true, true) => "established",
            (true, false) => "syn-sent",
            (false, true) => "replied",
            (false, false) => "unreplied",
        }
    }
}

/// Value of map `FLOWS` (key: the client's packet as [`Tuple`]), 28 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The backend that serves the flow.
    pub backend: BackendId,
    /// The [`tick`] in which the flow was last refreshed.
    pub seen: u32,
    /// The SNAT source of a `nat` flow, else unspecified.
    pub snat_addr: Addr,
    /// The SNAT port of a `nat` flow, else 0.
    pub snat_port: Port,
    /// What has been seen of it.
    pub state: FlowState,
    pad: u8,
}

impl Flow {
    /// A flow with its padding zeroed.
    #[inline(always)]
    pub const fn new(
        backend: BackendId,
        seen: u32,
        snat_addr: Addr,
        snat_port: Port,
        state: FlowState,
    ) -> Self {
        Self {
            backend,
            seen,
            snat_addr,
            snat_port,
            state,
            pad: 0,
        }
    }

    /// Whether the flow has been silent for longer than its state allows in tick `now`.
    #[inline(always)]
    pub const fn is_expired(&self, now: u32, tcp: bool) -> bool {
        // A CPU may hold a slightly older clock than the one that wrote `seen`.
        let silent = now.wrapping_sub(self.seen);
        silent < u32::MAX / 2 && silent > self.state.timeout(tcp)
    }
}

/// Value of map `REPLIES` (key: the backend's packet as [`Tuple`]), 52 bytes.
///
/// The reply is rewritten to come from the flow's VIP and port and to go to its
/// client: the reverse of the flow's own key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Key of the flow in `FLOWS`.
    pub flow: Tuple,
    /// The backend that replies.
    pub backend: BackendId,
    /// Index of the service, for its counters.
    pub service: u32,
    /// The [`tick`] in which a reply last refreshed the flow; 0 before the first.
    pub seen: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_walks_through_its_states() {
        let syn = FlowState::default().after_client(tcp_flag::SYN);
        assert_eq!(syn.name(true), "syn-sent");
        let open = syn.after_backend(tcp_flag::SYN | tcp_flag::ACK);
        assert_eq!(open.name(true), "established");
        let half = open.after_client(tcp_flag::FIN | tcp_flag::ACK);
        assert_eq!(half.name(true), "closing");
        let closed = half.after_backend(tcp_flag::FIN | tcp_flag::ACK);
        assert_eq!(closed.name(true), "closed");
        assert_eq!(open.after_backend(tcp_flag::RST).name(true), "reset");
    }

    #[test]
    fn an_older_clock_does_not_expire_a_flow() {
        let flow = Flow::new(
            BackendId::new(1, 0),
            100,
            Addr::UNSPECIFIED,
            Port::default(),
            FlowState::default(),
        );
        assert!(!flow.is_expired(99, true));
        assert!(!flow.is_expired(160, true));
        assert!(flow.is_expired(161, true));
    }
}
