//! Connections to local backends that come by no frontend.

use crate::{
    FlowState,
    flow::{HALF_CLOSED, is_past, tcp_flag},
};

/// Value of map `DIRECT` (key: the backend's packet as [`crate::Tuple`]), 8 bytes: a TCP
/// connection as far as its client's packets tell of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direct {
    /// The last tick in which it counts, as in [`crate::Flow`].
    pub expires: u32,
    /// What has been seen of it.
    pub state: FlowState,
    pad: [u8; 3],
}

impl Direct {
    /// The connection after a packet with `tcp_flags` from its client in tick `now`.
    #[inline(always)]
    #[must_use]
    pub const fn after_client(self, tcp_flags: u8, now: u32) -> Self {
        // By the ports of one that is over another begins; where the backend opens it, the client
        // answers that.
        let begins = tcp_flags & tcp_flag::SYN != 0;
        let before = if begins && self.state.is_closing() {
            FlowState::NEW
        } else {
            self.state
        };
        let state = before.after_client_alone(tcp_flags);
        let silence = if state.is_closing() && !state.is_reset() {
            HALF_CLOSED
        } else {
            state.timeout(true)
        };
        Self {
            expires: now.wrapping_add(silence),
            state,
            pad: [0; 3],
        }
    }

    /// Whether nothing has changed, which need not be stored.
    #[inline(always)]
    pub const fn is_same(self, other: Self) -> bool {
        self.expires == other.expires && self.state.0 == other.state.0
    }

    /// Whether it has been silent in tick `now` for longer than its state allows.
    pub const fn is_expired(&self, now: u32) -> bool {
        is_past(self.expires, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ended_is_over_soon_and_another_may_begin() {
        let open = Direct::default().after_client(tcp_flag::SYN, 100);
        assert!(!open.is_expired(160) && open.is_expired(161));
        let open = open.after_client(tcp_flag::ACK, 100);
        assert!(!open.is_expired(100 + 86_400));
        let over = open.after_client(tcp_flag::FIN | tcp_flag::ACK, 200);
        let over = over.after_client(tcp_flag::ACK, 200);
        assert!(!over.is_expired(3800) && over.is_expired(3801));
        let answered = over.after_client(tcp_flag::SYN | tcp_flag::ACK, 210);
        assert!(!answered.is_expired(210 + 86_400), "the backend opened it");
        let again = over.after_client(tcp_flag::SYN, 210);
        assert_eq!(again, Direct::default().after_client(tcp_flag::SYN, 210));
        let reset = open.after_client(tcp_flag::RST, 200);
        assert!(reset.is_expired(211));
    }
}
