//! Addresses for Services of type LoadBalancer, out of pools.
//!
//! Pure: no I/O, no clock. What was given is in a [`Ledger`]; [`assign()`] makes of it and of
//! what is wanted the services with their addresses, and the ledger after that. One node, the
//! [`Authority`], gives addresses out and takes them back; the others go by its ledger. In a
//! cluster that is the controller, and all nodes go by what it wrote into the Services. What
//! somebody has, stays with them as long as they may have it.

mod choose;
mod holdings;
mod ledger;
mod refusal;
mod run;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

pub use self::{
    ledger::{Entry, Ledger, NoEntry, REMEMBERED},
    refusal::Refusal,
    usage::{Count, PoolUse, usage},
};
use crate::desired::{BalancerName, Desired, Frontend, ServiceName};

/// Who gives addresses out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// This node, alone.
    This,
    /// This node, beside others who say that they want these: what they have is not given up
    /// because this node does not know of it.
    Among(&'a BTreeSet<BalancerName>),
    /// The node of this name.
    Other(&'a str),
    /// The source itself: what it says that a balancer was given counts, where a pool has it.
    Source,
}

impl Authority<'_> {
    /// Whether it is this node.
    pub fn is_this(self) -> bool {
        matches!(self, Self::This | Self::Among(_))
    }
}

/// Services with their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// What is wanted, with the frontends that the addresses make. Services that nobody
    /// reaches without them are left out.
    pub desired: Desired,
    /// Who has which addresses; every balancer is here or in `refused`, but for those that
    /// ask for nothing where there are no pools.
    pub addresses: BTreeMap<BalancerName, BTreeSet<IpAddr>>,
    /// What is known from now on.
    pub ledger: Ledger,
    /// Who has none, and why.
    pub refused: BTreeMap<BalancerName, Refusal>,
    /// External and cluster IPs that are not served, because they had been given to others.
    pub displaced: BTreeSet<Displaced>,
    /// What was given and taken, for the log.
    pub changes: Vec<Change>,
}

/// An external or cluster IP that came later than the one who was given it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error(
    "{service}: its external or cluster IP {frontend} is not served, because that was given to \
     another Service before; remove it, or give that one another address"
)]
pub struct Displaced {
    /// Whose.
    pub service: ServiceName,
    /// It.
    pub frontend: Frontend,
}

/// What an authority changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose addresses.
    pub name: BalancerName,
    /// Which ones.
    pub addresses: BTreeSet<IpAddr>,
    /// Why they were taken away; `None` where they were given.
    pub why: Option<Refusal>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            addresses,
            why,
        } = self;
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        match why {
            None => write!(f, "{name} is given {addresses}"),
            Some(why) => write!(f, "{name} loses {addresses}: {why}"),
        }
    }
}

/// Works out who has which address. Equal input gives equal output, and a second run with
/// the ledger of the first changes nothing.
pub fn assign(desired: &Desired, ledger: &Ledger, authority: Authority<'_>) -> Assignment {
    run::run(desired, ledger, authority)
}

impl Assignment {
    /// Goes over to what is wanted `now` where nobody's addresses can be others by it: where that
    /// differs from what is assigned here, which `before` was wanted of, in endpoints alone that
    /// have no address of a pool. False where all is to be worked out anew.
    pub fn follow(&mut self, before: &Desired, now: &Desired) -> bool {
        let Some(changes) = now.endpoint_changes(before) else {
            return false;
        };
        let pooled = |addr: &SocketAddr| now.pools.values().any(|it| choose::holds(it, addr.ip()));
        let mut endpoints = changes
            .iter()
            .flat_map(|(_, one, other)| one.endpoints.keys().chain(other.endpoints.keys()));
        if endpoints.any(pooled) {
            return false;
        }
        for (name, service, former) in changes {
            let services = &mut self.desired.services;
            if services.get(name) == Some(former) {
                // Without an address that was given: what is wanted is what is assigned.
                services.share(name, &now.services);
            } else if let Some(assigned) = services.get_mut(name) {
                assigned.endpoints.clone_from(&service.endpoints);
            }
        }
        self.changes.clear();
        true
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
