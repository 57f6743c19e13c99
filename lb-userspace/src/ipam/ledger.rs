//! The allocations that are known, in a form that nodes can exchange in any order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::desired::BalancerName;

/// So many allocations that were given up are remembered; of more, the latest.
pub const REMEMBERED: usize = 512;

/// Who was given which addresses, as far as a node knows.
///
/// One entry a balancer. Of two entries of the same balancer one wins, whichever is seen
/// first ([`Entry::wins_over`]), so [`Ledger::merge`] is a join: nodes that have seen the
/// same ledgers hold the same one. Where two balancers hold one address, both stay in the
/// ledger; [`assign`](super::assign()) gives it to the older one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The largest stamp so far.
    clock: u64,
    entries: BTreeMap<BalancerName, Entry>,
}

/// What a balancer was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts the changes to this entry: who made one had seen those before.
    generation: u64,
    /// When it was given, or given up, by the ledger's clock. Of two who hold one address
    /// the one with the smaller stamp keeps it.
    pub stamp: u64,
    /// At most one of each family.
    pub addresses: BTreeSet<IpAddr>,
    /// Where they are from.
    pub pool: String,
    /// Whether it was given up: the addresses are free, and remembered in case the
    /// balancer comes back.
    pub released: bool,
}

/// Another node's word that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("what it says of the addresses of {name} cannot be read: {source}")]
pub struct NoEntry {
    name: String,
    source: serde_json::Error,
}

impl Entry {
    /// A change that was made knowing of another is the newer one. Where two authorities
    /// changed the same without knowing of each other, what is in use wins, then what was
    /// given first, then the lower address.
    fn wins_over(&self, other: &Self) -> bool {
        let rank = |it: &Self| {
            (
                Reverse(it.generation),
                it.released,
                it.stamp,
                it.addresses.clone(),
                it.pool.clone(),
            )
        };
        rank(self) < rank(other)
    }
}

impl Ledger {
    /// Takes over what another ledger knows better. Says whether anything changed.
    ///
    /// Commutative, associative and idempotent.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut changed = other.clock > self.clock;
        self.clock = self.clock.max(other.clock);
        for (name, theirs) in &other.entries {
            let known = self.entries.get(name);
            if known.is_none_or(|ours| theirs.wins_over(ours)) {
                self.entries.insert(name.clone(), theirs.clone());
                changed = true;
            }
        }
        changed
    }

    /// What gossip carries of it: the entry of each of these balancers that has addresses,
    /// as JSON.
    pub fn to_words(&self, of: impl Fn(&BalancerName) -> bool) -> BTreeMap<String, String> {
        let entries = self.entries.iter();
        entries
            .filter(|(name, it)| !it.released && of(name))
            .filter_map(|(name, it)| Some((name.0.clone(), serde_json::to_string(it).ok()?)))
            .collect()
    }

    /// The ledger that another node's words make.
    ///
    /// # Errors
    /// Where one of them is no entry; it names the balancer.
    pub fn from_words(words: &BTreeMap<String, String>) -> Result<Self, NoEntry> {
        let mut ledger = Self::default();
        for (name, text) in words {
            let entry: Entry = serde_json::from_str(text).map_err(|source| NoEntry {
                name: name.clone(),
                source,
            })?;
            ledger.clock = ledger.clock.max(entry.stamp);
            ledger.entries.insert(BalancerName(name.clone()), entry);
        }
        Ok(ledger)
    }

    /// The entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&BalancerName, &Entry)> {
        self.entries.iter()
    }

    /// What a balancer was given last.
    pub fn get(&self, name: &BalancerName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The entries in use, the oldest first.
    pub(super) fn live(&self) -> Vec<(&BalancerName, &Entry)> {
        let mut live: Vec<_> = self.entries().filter(|(_, it)| !it.released).collect();
        live.sort_by_key(|(name, it)| (it.stamp, *name));
        live
    }

    /// The addresses that a balancer gave up last.
    pub(super) fn remembered(&self, name: &BalancerName) -> Option<&Entry> {
        self.get(name).filter(|it| it.released)
    }

    /// Notes that a balancer has these addresses from now on.
    pub(super) fn give(&mut self, name: &BalancerName, addresses: BTreeSet<IpAddr>, pool: &str) {
        self.clock = self.clock.saturating_add(1);
        let entry = Entry {
            generation: self.next_generation(name),
            stamp: self.clock,
            addresses,
            pool: pool.to_owned(),
            released: false,
        };
        self.entries.insert(name.clone(), entry);
    }

    /// Notes that a balancer that has addresses has others of them from now on: those that
    /// stay are as old as they were.
    pub(super) fn amend(&mut self, name: &BalancerName, addresses: BTreeSet<IpAddr>, pool: &str) {
        let generation = self.next_generation(name);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.generation = generation;
            entry.addresses = addresses;
            pool.clone_into(&mut entry.pool);
        }
    }

    /// Frees what a balancer has, and remembers it.
    pub(super) fn release(&mut self, name: &BalancerName) {
        let generation = self.next_generation(name);
        self.clock = self.clock.saturating_add(1);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.generation = generation;
            entry.stamp = self.clock;
            entry.released = true;
        }
    }

    /// Forgets all but the latest [`REMEMBERED`] of the allocations that were given up.
    ///
    /// A node that still remembers one that is forgotten brings it back by merging, and
    /// forgets it in its turn: every node does so by the same rule.
    pub(super) fn forget(&mut self) {
        let released = self.entries().filter(|(_, it)| it.released);
        let mut released: Vec<_> = released
            .map(|(name, it)| (Reverse(it.stamp), name.clone()))
            .collect();
        released.sort();
        for (_, name) in released.into_iter().skip(REMEMBERED) {
            self.entries.remove(&name);
        }
    }

    fn next_generation(&self, name: &BalancerName) -> u64 {
        let known = self.entries.get(name).map_or(0, |it| it.generation);
        known.saturating_add(1)
    }
}
