//! What there is to measure.

use lb_common::{Algorithm, Hook, Mode};

use crate::net::{FAR_PODS, Net, PODS, STRANGERS};

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Reply,
}

/// The packets that a program is run on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alone {
    pub(crate) hook: Hook,
    pub(crate) direction: Direction,
}

/// What carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program that sends back whatever comes.
    Tx,
    /// One that drops it.
    Drop,
    /// The kernel, to where packets are addressed.
    Kernel,
    /// kube-proxy's rules.
    Nftables,
    /// Likewise.
    Iptables,
    Naru(Algorithm, Mode),
    /// Naru, and packets for none of its services.
    Stranger,
}

// === impl Kind ===

impl Kind {
    /// All of them, the one that others are held against first.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Tx,
            Self::Drop,
            Self::Kernel,
            Self::Nftables,
            Self::Iptables,
        ];
        for algorithm in [Algorithm::Maglev, Algorithm::RoundRobin] {
            let modes = [Mode::Dsr, Mode::Nat, Mode::Local];
            all.extend(modes.map(|mode| Self::Naru(algorithm, mode)));
        }
        all.push(Self::Stranger);
        all
    }

    /// Its name in rows.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tx => "xdp_tx".to_owned(),
            Self::Drop => "xdp_drop".to_owned(),
            Self::Kernel => "kernel-forwarding".to_owned(),
            Self::Nftables => "nftables".to_owned(),
            Self::Iptables => "iptables".to_owned(),
            Self::Naru(algorithm, mode) => format!("naru-{}-{}", algorithm.name(), mode.name()),
            Self::Stranger => "naru-no-vip".to_owned(),
        }
    }

    /// Whether every connection is in the kernel's table.
    pub(crate) const fn is_tracked(self) -> bool {
        matches!(self, Self::Nftables | Self::Iptables)
    }

    /// The network whose hosts clients reach in the end; none where frames go as they are.
    pub(crate) const fn reaches(self) -> Option<Net> {
        match self {
            Self::Naru(_, Mode::Nat) => Some(FAR_PODS),
            Self::Naru(_, Mode::Local) | Self::Nftables | Self::Iptables => Some(PODS),
            Self::Kernel | Self::Stranger => Some(STRANGERS),
            Self::Tx | Self::Drop | Self::Naru(_, Mode::Dsr) => None,
        }
    }

    /// Whether there are replies for it to carry: with `dsr` they go another way.
    pub(crate) const fn has_replies(self) -> bool {
        !matches!(self, Self::Drop | Self::Naru(_, Mode::Dsr))
    }

    /// Whether replies are of this node's own pods, which the stack sends.
    pub(crate) const fn sends_replies(self) -> bool {
        self.has_replies() && !matches!(self, Self::Tx | Self::Naru(_, Mode::Nat))
    }

    /// Whether somebody stands between client and host.
    pub(crate) const fn is_served(self) -> bool {
        self.reaches().is_some() && !matches!(self, Self::Kernel | Self::Stranger)
    }

    /// Whether a program of its own meets such packets at a hook.
    pub(crate) const fn meets(self, alone: Alone) -> bool {
        let local = matches!(self, Self::Naru(_, Mode::Local) | Self::Stranger);
        match (alone.hook, alone.direction) {
            (Hook::Xdp, Direction::Forward) => {
                matches!(self, Self::Tx | Self::Naru(..) | Self::Stranger)
            }
            (Hook::Xdp, Direction::Reply) => matches!(self, Self::Tx | Self::Naru(_, Mode::Nat)),
            (Hook::TcIngress, Direction::Forward) => local,
            (Hook::TcEgress, Direction::Reply) => local,
            (Hook::TcIngress, Direction::Reply) | (Hook::TcEgress, Direction::Forward) => false,
        }
    }

    /// How many lookups that go by a hash, a prefix or a route its program makes for a packet
    /// of a flow that has begun, one after the other: each may wait for memory. Read off
    /// `lb-ebpf/src/fast.rs`, and to be changed with it. The tables of flows are among them,
    /// and what is beside them where that is read; other arrays are not, which stay in the cache.
    pub(crate) const fn lookups(self, alone: Alone) -> u32 {
        match (alone.hook, alone.direction, self) {
            (_, _, Self::Tx | Self::Drop | Self::Kernel | Self::Nftables | Self::Iptables) => 0,
            // FILTER says that it is nothing.
            (_, _, Self::Stranger) | (Hook::TcIngress, ..) => 0,
            // NEAR_FRONTENDS, and SLOTS or FLOWS.
            (Hook::Xdp, Direction::Forward, Self::Naru(..)) => 2,
            // NEAR_FRONTENDS, the marks of REPLIES, and a line beside them.
            (Hook::Xdp, Direction::Reply, _) => 3,
            // PRIMARIES, EXCEPTIONS.
            (Hook::TcEgress, _, Self::Naru(Algorithm::Maglev, _)) => 2,
            // And the marks of REPLIES, and a line beside them.
            (Hook::TcEgress, ..) => 4,
        }
    }
}
