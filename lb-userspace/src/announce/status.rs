//! What the operator sees of the announcer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lb_common::ClaimCount;
use serde::Serialize;

use super::Claims;
use crate::net::{Link, Mac};

/// One address on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnnounceStatus {
    /// The virtual IP.
    pub vip: IpAddr,
    /// The interface's name; its index in the form `#7` where it was never seen.
    pub interface: String,
    /// The interface's index.
    pub index: u32,
    /// Whether it is answered there, and if not, why.
    #[serde(flatten)]
    pub state: AnnounceState,
    /// Questions for the address, counted while it is claimed.
    pub requests_received: u64,
    /// Answers to those.
    pub responses_sent: u64,
    /// Frames sent unasked, in a round two for IPv4 and one for IPv6.
    pub gratuitous_sent: u64,
    /// Frames of another station that says the address is its own.
    pub conflicts: u64,
}

/// What becomes of the claims on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub enum AnnounceState {
    /// Claimed a moment ago, not looked at yet.
    Pending,
    /// Announced, and questions are answered.
    Answering,
    /// The interface cannot carry it now; it starts when that changes.
    Skipped(SkipReason),
    /// The socket failed, for this reason; it is tried again every second.
    Failed(String),
}

/// Why nothing is answered on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// There is no interface with that index.
    Gone,
    /// Not set up.
    Down,
    /// No cable, or nothing at its other end.
    NoCarrier,
    /// The loopback device.
    Loopback,
    /// A port of the bridge, bond or VRF of this name, which is to be claimed on
    /// instead.
    Enslaved(String),
    /// Has no Ethernet address.
    NotEthernet,
    /// Set to do without ARP and neighbour discovery.
    NoArp,
    /// Cannot send to all stations.
    NoBroadcast,
    /// Cannot send to groups of stations, as neighbour discovery does.
    NoMulticast,
}

/// Counts for one address on one interface; they survive a restarted speaker.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// How often the address was to be announced once more.
    pub(super) repeats: Counter,
    pub(super) gratuitous: Counter,
    pub(super) conflicts: Counter,
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

/// What the tasks know, for [`super::Announcer::status`].
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The Ethernet addresses of all interfaces of this host.
    pub(super) own_macs: BTreeSet<Mac>,
    /// Names by index, also of interfaces that are gone while something is claimed
    /// on them.
    names: BTreeMap<u32, String>,
    states: BTreeMap<(u32, &'static str), AnnounceState>,
    counters: BTreeMap<(IpAddr, u32), Arc<Counters>>,
}

// === impl SkipReason ===

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the interface does not exist"),
            Self::Down => f.write_str("the interface is down"),
            Self::NoCarrier => f.write_str("the interface has no carrier"),
            Self::Loopback => f.write_str("loopback reaches no other host"),
            Self::Enslaved(master) => write!(f, "it is a port of {master}; claim there instead"),
            Self::NotEthernet => f.write_str("not an Ethernet device"),
            Self::NoArp => f.write_str("ARP and NDP are off on the interface (NOARP)"),
            Self::NoBroadcast => f.write_str("the interface has no broadcast"),
            Self::NoMulticast => f.write_str("the interface has no multicast"),
        }
    }
}

impl Serialize for SkipReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Counter ===

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Table ===

impl Table {
    /// Takes names and addresses from the interfaces that there are.
    pub(super) fn note_links(&mut self, links: &BTreeMap<u32, Link>) {
        self.own_macs = links.values().filter_map(|link| link.mac).collect();
        let Self { names, states, .. } = self;
        names.retain(|index, _| states.keys().any(|(claimed, _)| claimed == index));
        names.extend(
            links
                .iter()
                .map(|(&index, link)| (index, link.name.clone())),
        );
    }

    pub(super) fn name(&self, index: u32) -> String {
        self.names
            .get(&index)
            .map_or_else(|| format!("#{index}"), Clone::clone)
    }

    pub(super) fn state(&self, index: u32, protocol: &'static str) -> AnnounceState {
        self.states
            .get(&(index, protocol))
            .map_or(AnnounceState::Pending, Clone::clone)
    }

    /// Notes the state; true where it was another one.
    pub(super) fn set_state(
        &mut self,
        index: u32,
        protocol: &'static str,
        state: AnnounceState,
    ) -> bool {
        let before = self.states.insert((index, protocol), state.clone());
        before.as_ref() != Some(&state)
    }

    /// Forgets interfaces on which nothing is claimed any more.
    pub(super) fn retain_states(&mut self, protocol: &'static str, claimed: &BTreeSet<u32>) {
        self.states
            .retain(|(index, of), _| *of != protocol || claimed.contains(index));
    }

    pub(super) fn counters(&mut self, vip: IpAddr, index: u32) -> Arc<Counters> {
        Arc::clone(self.counters.entry((vip, index)).or_default())
    }

    /// Has these addresses announced once more.
    pub(super) fn repeat(&self, addresses: &BTreeSet<IpAddr>) {
        for ((vip, _), counters) in &self.counters {
            if addresses.contains(vip) {
                counters.repeats.add();
            }
        }
    }

    pub(super) fn retain_counters(&mut self, claims: &Claims) {
        self.counters
            .retain(|(vip, index), _| claims.get(vip).is_some_and(|on| on.contains(index)));
    }

    pub(super) fn status(
        &self,
        vip: IpAddr,
        index: u32,
        state: AnnounceState,
        count: ClaimCount,
    ) -> AnnounceStatus {
        let counters = self.counters.get(&(vip, index));
        let get = |of: fn(&Counters) -> &Counter| counters.map_or(0, |all| of(all).get());
        AnnounceStatus {
            vip,
            interface: self.name(index),
            index,
            state,
            requests_received: count.requests,
            responses_sent: count.responses,
            gratuitous_sent: get(|all| &all.gratuitous),
            conflicts: get(|all| &all.conflicts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_claim_says_why_in_json() {
        let mut table = Table::default();
        table.names.insert(3, "eth1".to_owned());
        let vip = IpAddr::from([192, 168, 56, 11]);
        table.counters(vip, 3).conflicts.add();
        let state = AnnounceState::Skipped(SkipReason::Enslaved("br0".to_owned()));
        assert!(table.set_state(3, "ARP", state.clone()));
        assert!(!table.set_state(3, "ARP", state));
        let count = ClaimCount {
            requests: 2,
            responses: 1,
        };
        let status = table.status(vip, 3, table.state(3, "ARP"), count);
        assert_eq!(
            serde_json::to_value(status).unwrap(),
            serde_json::json!({
                "vip": "192.168.56.11",
                "interface": "eth1",
                "index": 3,
                "state": "skipped",
                "reason": "it is a port of br0; claim there instead",
                "requests_received": 2,
                "responses_sent": 1,
                "gratuitous_sent": 0,
                "conflicts": 1,
            })
        );
    }

    #[test]
    fn counts_last_as_long_as_the_claim() {
        let mut table = Table::default();
        let vip = IpAddr::from([192, 168, 56, 11]);
        table.counters(vip, 3).gratuitous.add();
        table.counters(vip, 4).gratuitous.add();
        table.retain_counters(&Claims::from([(vip, BTreeSet::from([4]))]));
        assert_eq!(table.counters(vip, 3).gratuitous.get(), 0);
        assert_eq!(table.counters(vip, 4).gratuitous.get(), 1);
    }

    #[test]
    fn what_was_never_seen_goes_by_its_index() {
        let table = Table::default();
        assert_eq!(table.name(7), "#7");
        assert_eq!(table.state(7, "ARP"), AnnounceState::Pending);
    }
}
