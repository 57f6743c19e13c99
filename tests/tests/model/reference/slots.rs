//! Which slot a flow falls on, and what a slot says of its flows.

use std::{net::IpAddr, rc::Rc};

use lb_common::{Algorithm, SlotTable};

use super::{parse::Packet, source::unspecified, state::State};
use crate::wire::{Tuple, octets};

/// The seed of the flow hash; not the one that is built in, so that it is known to be set.
pub(crate) const SEED: u64 = 0x0123_4567_89ab_cdef;

/// Names, in place of a backend, the node that had the VIP before.
pub(super) const FORMER: u32 = 1 << 20;

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The backend that flows begin with.
    pub(crate) current: u32,
    /// The one that those began with of which there is no record; 0: another table had them.
    pub(crate) previous: u32,
    /// Whether some flows may have records that say otherwise.
    looked_up: bool,
    /// Whether flows without a record may have begun at the node that had the VIP before.
    taken_over: bool,
    /// Whether all flows have records.
    recorded: bool,
}

impl Slot {
    /// Reads the word of map `SLOTS`.
    pub(crate) fn read(word: u64) -> Self {
        let half = |half: u64| (half & 0x3fff_ffff) as u32;
        Self {
            current: half(word),
            previous: half(word >> 32),
            looked_up: word >> 31 & 1 != 0,
            taken_over: word >> 62 & 1 != 0,
            recorded: word >> 63 != 0,
        }
    }

    /// Whether no record counts for its flows.
    pub(super) fn is_settled(self) -> bool {
        !self.is_changing() && !self.looked_up && !self.recorded
    }

    /// Whether records count, though flows without one are where flows begin.
    pub(super) fn is_looked_up(self) -> bool {
        self.looked_up
    }

    /// Whether its flows are recorded when they begin.
    pub(super) fn records(self) -> bool {
        self.recorded || self.is_changing()
    }

    /// Whether a flow without a record cannot have begun here.
    pub(super) fn knows_all(self) -> bool {
        self.recorded
    }

    /// Whether a flow without a record began at the node that had the VIP before.
    pub(super) fn is_taken_over(self) -> bool {
        self.taken_over
    }

    /// Whether it was another backend's within the drain window, or another node's.
    pub(super) fn is_changing(self) -> bool {
        self.current != self.previous || self.taken_over
    }
}

/// The slots of a service that are in force, those for what peers hand over, or its former ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) algorithm: Algorithm,
    pub(crate) slots: Rc<[Slot]>,
    /// Whether clients come back to their backend.
    pub(crate) affine: bool,
}

impl Table {
    /// A table by its word of map `SERVICES` and the words of its slots.
    pub(crate) fn read(word: u64, slots: impl Iterator<Item = u64>) -> Self {
        let table = SlotTable(word);
        Self {
            algorithm: table.algorithm(),
            slots: slots.map(Slot::read).collect(),
            affine: table.is_affine(),
        }
    }

    /// Whether flows begin with this backend.
    pub(super) fn names(&self, backend: u32) -> bool {
        self.slots.iter().any(|slot| slot.current == backend)
    }

    /// The index of the slot that a client's packet falls on by its hash.
    pub(super) fn index(&self, packet: &Tuple) -> usize {
        let hashed = if self.affine {
            // By the client's address alone.
            Tuple {
                src: packet.src,
                sport: 0,
                dst: unspecified(true),
                dport: 0,
                protocol: 0,
            }
        } else {
            *packet
        };
        let high = hash(&hashed) >> 32;
        ((high * self.slots.len() as u64) >> 32) as usize
    }

    /// That slot; none where flows take turns, or where there is none.
    pub(super) fn fixed(&self, packet: &Tuple) -> Option<Slot> {
        if self.algorithm == Algorithm::RoundRobin || self.slots.is_empty() {
            return None;
        }
        Some(self.slots[self.index(packet)])
    }
}

impl State {
    /// The slot that a client's packet falls on in the Maglev table of a service.
    pub(super) fn place(&self, service: u32, packet: &Tuple) -> Option<Slot> {
        self.tables.get(&service)?.fixed(packet)
    }

    /// The backend that a flow without a record began with, where that may be another than the
    /// one that flows of its slot begin with now: it goes on there. Datagrams do so only while
    /// that backend takes new flows, since nobody can tell whether they begin one.
    pub(super) fn home(&self, packet: &Packet, service: u32, place: Option<Slot>) -> Option<u32> {
        if packet.opens() {
            return None;
        }
        let id = match place {
            Some(slot) if slot.previous != 0 && slot.is_changing() => slot.previous,
            Some(slot) if slot.previous != 0 => return None,
            _ => self.place(former(service), &packet.tuple())?.previous,
        };
        let backend = self.backends.get(&id)?;
        let stays = packet.protocol == crate::wire::TCP || backend.answers && backend.open;
        stays.then_some(id)
    }
}

/// Index of a service's table for what peers hand over.
pub(super) const fn handed(service: u32) -> u32 {
    service + 65_536
}

/// Index of the table that a service had before, within the drain window.
pub(crate) const fn former(service: u32) -> u32 {
    service + 2 * 65_536
}

/// The flow hash: 64 bits at a time are mixed in, of IPv6 addresses the first halves alone
/// before the third and the last quarters of both; of IPv4 addresses all there is.
fn hash(tuple: &Tuple) -> u64 {
    let (src, dst) = (address(tuple.src), address(tuple.dst));
    let mut words = Vec::new();
    if tuple.dst.is_ipv6() {
        words.extend([&src[..8], &dst[..8], &src[8..12], &dst[8..12]].concat());
    }
    words.extend([&src[12..], &dst[12..]].concat());
    words.extend([tuple.sport.to_be_bytes(), tuple.dport.to_be_bytes()].concat());
    words.extend([tuple.protocol, 0, 0, 0]);
    let mut hash = SEED;
    for word in words.chunks(8) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = mixed ^ mixed >> 32;
    }
    let mixed = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}

/// An address in sixteen bytes, that of IPv4 mapped (RFC 4291 section 2.5.5.2).
fn address(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => octets(ip.to_ipv6_mapped().into()),
        IpAddr::V6(_) => octets(ip),
    }
}
