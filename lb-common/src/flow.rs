//! Flow records: what is remembered of a connection, for how long, and its TCP state.

use crate::{Addr, BackendId, Port, cell::Cell, hash};

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

    /// Whether a packet with these may change what its flow is.
    #[inline(always)]
    pub const fn turns(flags: u8) -> bool {
        flags & (SYN | FIN | RST) != 0
    }
}

/// Whether a packet with these flags (0 for UDP) goes on with a connection, for all that it says.
#[inline(always)]
const fn goes_on(tcp_flags: u8) -> bool {
    tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) != tcp_flag::SYN
}

/// The clock of flow records: nanoseconds of CLOCK_MONOTONIC divided by 2³⁰, so a tick
/// is 1.07 s. A shift where seconds would cost a division for every packet.
#[inline(always)]
pub const fn tick(monotonic_ns: u64) -> u32 {
    (monotonic_ns >> 30) as u32
}

/// Whether the last [`tick`] in which something counts was before `now`.
#[inline(always)]
pub const fn is_past(expires: u32, now: u32) -> bool {
    // Half the range on either side, so that the clock may wrap.
    now.wrapping_sub(expires).cast_signed() > 0
}

/// For how many ticks after `now` a flow counts yet that counts until `expires`, of which bits 0–23
/// say that; more than [`LONGEST`] where it does not count any more.
#[inline(always)]
pub const fn ticks_left(expires: u32, now: u32) -> u32 {
    expires.wrapping_sub(now) & TICK
}

/// More than any timeout is. What is over is so for 206 days, before ticks come round.
pub const LONGEST: u32 = (1 << LONGEST_BITS) - 1;
/// The bits of that.
pub const LONGEST_BITS: u32 = 17;
/// Bits of a tick in a cell.
const SHORT: u32 = 24;
/// Which ones.
pub const TICK: u32 = u32::MAX >> (32 - SHORT);

/// For how many ticks a connection may be silent of which one side has sent all: the other one may
/// still have much to say.
pub(crate) const HALF_CLOSED: u32 = 3_600;

/// For so many ticks a flow is silent before others may have its port, unless both sides know of it:
/// by then whoever is there has gone on.
const QUIET: u64 = 2;

/// The most ticks that a flow of which both sides do not know (`nf_conntrack`'s ASSURED: here
/// [`FlowState::REPLIED`] and [`FlowState::CONFIRMED`]) has left of its [`FlowState::timeout`] once
/// it has been silent for [`QUIET`]. Whether it is TCP and replied are 1 or 0, so that there is no
/// branch.
#[inline(always)]
pub const fn quiet(tcp: u64, replied: u64) -> u64 {
    30 - QUIET + 30 * tcp + 90 * replied * (1 - tcp)
}

/// Until which tick a backend's packets need not keep their flow fresh any more, bits 0–23 of it,
/// after one in tick `now` that did and brought the flow to `state`: each would cost a look at the
/// flow's cell. (Those that [`tcp_flag::turns`] are always looked at.)
///
/// Of TCP the client says something, too. Of UDP a flow that backends alone keep alive is over up to
/// that much sooner than its timeout after the last one.
#[inline(always)]
pub const fn fresh_until(now: u32, state: FlowState, tcp: bool) -> u32 {
    match (tcp, state.is_closing()) {
        (_, true) => stale(now),
        (true, false) => now.wrapping_add(FRESH) & TICK,
        (false, false) => now.wrapping_add(16) & TICK,
    }
}

/// The same where the next one is looked at, also by a CPU whose clock is a tick behind.
#[inline(always)]
pub const fn stale(now: u32) -> u32 {
    now.wrapping_sub(2) & TICK
}

/// Whether a backend's packet in tick `now` need not, by what [`fresh_until`] says.
#[inline(always)]
pub const fn is_fresh(until: u32, now: u32) -> bool {
    ticks_left(until, now) <= FRESH
}

/// Ticks for which one keeps its flow fresh at most.
const FRESH: u32 = 64;

/// What has been seen of a flow, a bit set; its name and timeout follow from it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowState(pub u8);

impl FlowState {
    /// Nothing yet.
    pub const NEW: Self = Self(0);
    /// The backend answered (TCP: with SYN and ACK, or with anything later).
    pub const REPLIED: Self = Self(1);
    /// The client sent FIN.
    pub const CLIENT_FIN: Self = Self(1 << 1);
    /// The backend sent FIN.
    pub const BACKEND_FIN: Self = Self(1 << 2);
    /// The last packet of the client was an RST.
    pub const CLIENT_RST: Self = Self(1 << 3);
    /// The last packet of the backend was an RST.
    pub const BACKEND_RST: Self = Self(1 << 4);
    /// It goes to its backend by `nat`, from the source in its cell, or else in its
    /// [`crate::cell::Ends`].
    pub const NAT: Self = Self(1 << 5);
    /// The client sent more than what opens a connection, or than what was answered by datagrams:
    /// it has seen the backend's answer.
    pub const CONFIRMED: Self = Self(1 << 6);

    /// The state after a packet with `tcp_flags` (0 for UDP) from the client.
    #[inline(always)]
    #[must_use]
    pub const fn after_client(self, tcp_flags: u8) -> Self {
        let state = self.after(tcp_flags, Self::CLIENT_FIN, Self::CLIENT_RST);
        // A datagram does not tell whether it begins anything; that there was an answer does.
        let confirms = goes_on(tcp_flags) & (tcp_flags != 0 || self.has(Self::REPLIED));
        Self(state.0 | (confirms as u8 * Self::CONFIRMED.0))
    }

    /// The state after a packet with `tcp_flags` (0 for UDP) from the backend.
    #[inline(always)]
    #[must_use]
    pub const fn after_backend(self, tcp_flags: u8) -> Self {
        let state = self.after(tcp_flags, Self::BACKEND_FIN, Self::BACKEND_RST);
        Self(state.0 | Self::REPLIED.0)
    }

    /// The state after a packet with `tcp_flags` (0 for UDP) from the client of a flow whose
    /// replies go another way: whatever does not open a connection shows that the backend
    /// answers.
    #[inline(always)]
    #[must_use]
    pub const fn after_client_alone(self, tcp_flags: u8) -> Self {
        Self(self.0 | (goes_on(tcp_flags) as u8 * Self::REPLIED.0)).after_client(tcp_flags)
    }

    #[inline(always)]
    const fn after(self, tcp_flags: u8, fin: Self, rst: Self) -> Self {
        // Whoever goes on sending was not reset: the RST was forged, or out of window.
        let mut bits = self.0 & !rst.0;
        if tcp_flags & tcp_flag::FIN != 0 {
            bits |= fin.0;
        }
        if tcp_flags & tcp_flag::RST != 0 {
            bits |= rst.0;
        }
        Self(bits)
    }

    /// Whether all of `other` is in it.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether either side's last packet was an RST.
    #[inline(always)]
    pub const fn is_reset(self) -> bool {
        self.0 & (Self::CLIENT_RST.0 | Self::BACKEND_RST.0) != 0
    }

    /// Whether the connection is over: reset, or FIN seen from both sides.
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        self.is_reset() || self.has(Self(Self::CLIENT_FIN.0 | Self::BACKEND_FIN.0))
    }

    /// Whether FIN was seen from at least one side, or the connection was reset.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.is_reset() || self.0 & (Self::CLIENT_FIN.0 | Self::BACKEND_FIN.0) != 0
    }

    /// Whether its backend may have left it, so that by the same ports it answers another client's
    /// connection, or opens one: who has not ended its side does not. By `nat` nobody but the flow
    /// has these ports.
    #[inline(always)]
    pub const fn is_left(self) -> bool {
        let ended = self.is_reset() | self.has(Self::BACKEND_FIN);
        ended & !self.has(Self::NAT)
    }

    /// How long a flow in this state may stay silent, in ticks (see [`tick`]).
    ///
    /// Established TCP, and that of which one side has sent all, as kube-proxy sets conntrack (24 h
    /// and more, and an hour); the others as `nf_conntrack`'s defaults. That a backend answers a SYN
    /// does not establish anything: it does so in a flood, too. A closed flow stays as long as its
    /// sockets may be in TIME_WAIT, so that `nat` does not give its port to another flow meanwhile
    /// while there are others.
    #[inline(always)]
    pub const fn timeout(self, tcp: bool) -> u32 {
        match (tcp, self.has(Self::REPLIED)) {
            (true, _) if self.is_reset() => 10,
            (true, _) if self.is_closed() => 60,
            (true, true) if self.is_closing() && self.has(Self::CONFIRMED) => HALF_CLOSED,
            (true, _) if self.is_closing() => 120,
            (true, true) if self.has(Self::CONFIRMED) => 86_400,
            (true, _) => 60,
            (false, true) => 120,
            (false, false) => 30,
        }
    }

    /// The name that `naru flows` shows.
    pub const fn name(self, tcp: bool) -> &'static str {
        match (tcp, self.has(Self::REPLIED)) {
            (true, _) if self.is_reset() => "reset",
            (true, _) if self.is_closed() => "closed",
            (true, _) if self.is_closing() => "closing",
            (true, true) if self.has(Self::CONFIRMED) => "established",
            (true, true) => "syn-received",
            (true, false) => "syn-sent",
            (false, true) => "replied",
            (false, false) => "unreplied",
        }
    }
}

/// What the cell of a flow in map `FLOWS` says of it: the [`FlowState`] in bits 0–7 of word 0 and
/// the port in 8–23; of word 1 the backend's id in bits 0–31, the source in 32–39 and the tick in
/// which it expires in 40–63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The backend that serves the flow.
    pub backend: BackendId,
    /// The last [`tick`] in which the flow counts unless another packet comes: when it was
    /// last refreshed, and the timeout of its state. Bits 0–23 of it.
    pub expires: u32,
    /// By `nat` the address that the backend sees, see [`source`]; 0 where only
    /// [`crate::cell::Ends`] says.
    pub source: u8,
    /// By `nat` the port that it sees.
    pub port: Port,
    /// What has been seen of it.
    pub state: FlowState,
}

impl Flow {
    /// A flow in `state` that was refreshed in tick `now`.
    #[inline(always)]
    pub const fn new(backend: BackendId, now: u32, state: FlowState, tcp: bool) -> Self {
        Self {
            backend,
            expires: now.wrapping_add(state.timeout(tcp)) & TICK,
            source: 0,
            port: Port::new(0),
            state,
        }
    }

    /// What a cell says.
    #[inline(always)]
    pub const fn read(cell: Cell) -> Self {
        Self {
            backend: BackendId(cell.0[1] as u32),
            expires: (cell.0[1] >> 40) as u32,
            source: (cell.0[1] >> 32) as u8,
            port: Port::from_word((cell.0[0] >> 8) as u16),
            state: FlowState(cell.0[0] as u8),
        }
    }

    /// The cell of a flow whose tuple has this mark.
    #[inline(always)]
    pub const fn cell(self, mark: u64) -> Cell {
        Cell([
            mark & Cell::MARK | (self.port.word() as u64) << 8 | self.state.0 as u64,
            self.backend.0 as u64 | (self.source as u64) << 32 | (self.expires as u64) << 40,
        ])
    }

    /// The flow after a packet in tick `now` that brings it to `state`.
    #[inline(always)]
    #[must_use]
    pub const fn refreshed(self, now: u32, state: FlowState, tcp: bool) -> Self {
        Self {
            source: self.source,
            port: self.port,
            ..Self::new(self.backend, now, state, tcp)
        }
    }

    /// Whether the flow has been silent in tick `now` for longer than its state allows.
    #[inline(always)]
    pub const fn is_expired(&self, now: u32) -> bool {
        ticks_left(self.expires, now) > LONGEST
    }

    /// For how many ticks it has been silent in tick `now`.
    pub const fn idle(&self, now: u32, tcp: bool) -> u32 {
        let refreshed = self.expires.wrapping_sub(self.state.timeout(tcp));
        // A CPU may hold a slightly older clock than the one that refreshed it.
        let idle = (now.wrapping_sub(refreshed) << (32 - SHORT)).cast_signed();
        if idle < 0 {
            0
        } else {
            idle.cast_unsigned() >> (32 - SHORT)
        }
    }
}

/// Entries of map `NEAR_SOURCES`.
pub const SOURCES: usize = 1 << 8;

/// Where in map `NEAR_SOURCES` the address stands that `nat` flows come from: never at 0, which a
/// cell says where its flow's does not stand there. Once an address stands somewhere it stays: flows
/// go by it.
#[inline(always)]
pub const fn source(addr: &Addr) -> u8 {
    1 + hash::reduce(hash::addr_hash(addr), SOURCES as u32 - 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_walks_through_its_states() {
        let syn = FlowState::default().after_client(tcp_flag::SYN);
        assert_eq!(syn.name(true), "syn-sent");
        let answered = syn.after_backend(tcp_flag::SYN | tcp_flag::ACK);
        assert_eq!(answered.name(true), "syn-received");
        assert_eq!(answered.after_client(tcp_flag::SYN), answered, "once more");
        let open = answered.after_client(tcp_flag::ACK);
        assert_eq!(open.name(true), "established");
        let half = open.after_client(tcp_flag::FIN | tcp_flag::ACK);
        assert_eq!(half.name(true), "closing");
        assert_eq!(half.timeout(true), 3_600);
        assert_eq!(syn.after_client(tcp_flag::FIN).timeout(true), 120);
        assert!(!half.is_left() && half.after_backend(tcp_flag::FIN).is_left());
        assert!(
            !FlowState(open.0 | FlowState::NAT.0)
                .after_backend(tcp_flag::RST)
                .is_left()
        );
        let closed = half.after_backend(tcp_flag::FIN | tcp_flag::ACK);
        assert_eq!(closed.name(true), "closed");
        let reset = open.after_backend(tcp_flag::RST);
        assert_eq!(reset.name(true), "reset");
        assert_eq!(reset.after_client(tcp_flag::ACK).name(true), "reset");
        assert_eq!(reset.after_backend(tcp_flag::ACK), open, "it was forged");
    }

    #[test]
    fn datagrams_are_known_to_both_sides_once_an_answer_was_answered() {
        let known =
            |state: FlowState| state.has(FlowState::REPLIED) && state.has(FlowState::CONFIRMED);
        let asked = FlowState::default().after_client(0).after_client(0);
        let answered = asked.after_backend(0);
        assert!(!known(asked) && !known(answered));
        assert!(known(answered.after_client(0)));
        let alone = FlowState::default().after_client_alone(0);
        assert!(known(alone), "nobody sees the answers");
        let opens = FlowState::default().after_client_alone(tcp_flag::SYN);
        assert!(!known(opens) && known(opens.after_client_alone(tcp_flag::ACK)));
    }

    #[test]
    fn what_is_silent_is_told_by_what_it_has_left() {
        let (syn, asked) = (tcp_flag::SYN, 0);
        for (flags, tcp) in [(syn, true), (asked, false)] {
            let begun = FlowState::default().after_client(flags);
            for state in [begun, begun.after_backend(flags | tcp_flag::ACK)] {
                let left = u64::from(state.timeout(tcp)) - QUIET;
                let replied = state.has(FlowState::REPLIED);
                assert_eq!(
                    quiet(tcp.into(), replied.into()),
                    left,
                    "{}",
                    state.name(tcp)
                );
            }
        }
    }

    #[test]
    fn a_flow_expires_after_the_timeout_of_its_state() {
        let start = u32::MAX - 10;
        let state = FlowState::default();
        let flow = Flow::new(BackendId::new(1, 0), start, state, true);
        let at = |ticks: u32| start.wrapping_add(ticks);
        assert!(!flow.is_expired(start.wrapping_sub(1)), "an older clock");
        assert!(!flow.is_expired(at(60)));
        assert!(flow.is_expired(at(61)));
        let flow = flow.refreshed(at(50), state, true);
        assert_eq!(flow.refreshed(at(50), state, true), flow, "once a tick");
        assert!(!flow.is_expired(at(110)));
        assert_eq!(flow.idle(at(53), true), 3);
        let open = state.after_backend(0).after_client(tcp_flag::ACK);
        let flow = flow.refreshed(at(50), open, true);
        assert!(!flow.is_expired(at(50 + 86_400)));
        assert!(flow.is_expired(at(50 + 86_401)));
        assert!(flow.is_expired(at(200 * 80_000)), "half a year later");
    }

    #[test]
    fn a_cell_says_all_of_a_flow() {
        let state = FlowState(FlowState::NAT.0 | FlowState::REPLIED.0);
        let mut flow = Flow::new(BackendId::new(0xffff, 0xfe), 0xfffe_0000, state, true);
        flow.source = 0xfd;
        flow.port = Port::new(0xfcfb);
        let cell = flow.cell(Cell::TAKEN | 0x00ab_cdef_0123_4567);
        assert_eq!(Flow::read(cell), flow);
        assert_eq!(cell.0[0] & Cell::MARK, Cell::TAKEN | 0x00ab_cdef_0100_0000);
        let later = flow.refreshed(0xffff_ffff, state, true);
        assert_eq!((later.source, later.port), (flow.source, flow.port));
    }
}
