//! An assignment in the making: what is kept, then what is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    Assignment, Authority, Change, Displaced, Entry, Ledger, Refusal,
    choose::{self, Chooser},
    holdings::Holdings,
};
use crate::desired::{Balancer, BalancerName, Desired, Family, Frontend, Service, ServiceName};

/// See [`assign`](super::assign()).
pub(super) fn run(desired: &Desired, ledger: &Ledger, authority: Authority<'_>) -> Assignment {
    let mut run = Run {
        desired,
        authority,
        holdings: Holdings::new(desired),
        chooser: Chooser::new(desired),
        addresses: BTreeMap::new(),
        ledger: ledger.clone(),
        refused: BTreeMap::new(),
        changes: Vec::new(),
    };
    let gives = authority.is_this();
    if authority == Authority::Source {
        run.as_given();
    } else if desired.pools.is_empty() {
        if gives {
            run.give_up_all();
        }
        run.as_they_ask();
    } else {
        run.keep();
        if gives {
            run.complete();
            run.give();
        } else {
            run.wait();
        }
    }
    run.ledger.forget();
    run.finish()
}

/// When a balancer without addresses gets some.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It says which ones it has.
    Given,
    /// It asks for particular ones.
    Requested,
    /// It had some before.
    Remembered,
    /// Everybody else.
    Last,
}

/// An assignment in the making.
struct Run<'a> {
    desired: &'a Desired,
    authority: Authority<'a>,
    holdings: Holdings<'a>,
    chooser: Chooser<'a>,
    addresses: BTreeMap<BalancerName, BTreeSet<IpAddr>>,
    ledger: Ledger,
    refused: BTreeMap<BalancerName, Refusal>,
    changes: Vec<Change>,
}

impl<'a> Run<'a> {
    /// Honours what was given before, the oldest first. An authority takes back what cannot
    /// stay; the others leave that to it, but for what two cannot both have.
    fn keep(&mut self) {
        let live = self.ledger.live().into_iter();
        let live: Vec<_> = live.map(|(name, it)| (name.clone(), it.clone())).collect();
        for (name, entry) in live {
            let Some((name, balancer)) = self.desired.balancers.get_key_value(&name) else {
                match self.authority {
                    Authority::Among(others) if let Some(name) = others.get(&name) => {
                        self.holdings.take(name, &entry.addresses);
                    }
                    _ => self.take_back(&name, &entry, Refusal::Gone),
                }
                continue;
            };
            let kept = match self.authority {
                Authority::This | Authority::Among(_) => self.still_fits(name, balancer, &entry),
                Authority::Other(_) | Authority::Source => {
                    let mut all = entry.addresses.iter();
                    let company = all.find_map(|ip| self.holdings.company(name, balancer, *ip));
                    company.map_or(Ok(entry.addresses.clone()), Err)
                }
            };
            match kept {
                Ok(addresses) => self.hold(name, addresses),
                Err(why) => self.take_back(name, &entry, why),
            }
        }
    }

    /// What a balancer may keep of what it has.
    fn still_fits(
        &mut self,
        name: &BalancerName,
        balancer: &Balancer,
        entry: &Entry,
    ) -> Result<BTreeSet<IpAddr>, Refusal> {
        let mut kept = entry.addresses.clone();
        let families = &balancer.families;
        if !families.is_empty() && kept.iter().any(|ip| families.contains(&Family::of(*ip))) {
            kept.retain(|ip| families.contains(&Family::of(*ip)));
        }
        let pool = self.chooser.fits(name, balancer, &kept, &self.holdings)?;
        if kept != entry.addresses || pool != entry.pool {
            self.ledger.amend(name, kept.clone(), &pool);
        }
        Ok(kept)
    }

    /// Adds the other family to who has one address and prefers two.
    fn complete(&mut self) {
        for (name, balancer) in self.desired.balancers.iter() {
            let Some(addresses) = self.addresses.get(name) else {
                continue;
            };
            let Some(Entry { pool, .. }) = self.ledger.get(name) else {
                continue;
            };
            let (chooser, holdings) = (&mut self.chooser, &self.holdings);
            let Some(ip) = chooser.second(name, balancer, (addresses, pool), holdings) else {
                continue;
            };
            let (mut addresses, pool) = (addresses.clone(), pool.clone());
            addresses.insert(ip);
            self.ledger.amend(name, addresses.clone(), &pool);
            self.holdings.take(name, &BTreeSet::from([ip]));
            self.change(name, BTreeSet::from([ip]), None);
            self.addresses.insert(name.clone(), addresses);
        }
    }

    /// Gives addresses to who has none. First come those that had some by their own word,
    /// then those that ask for particular ones, then those that had some before, then the
    /// others; each in the order of their names.
    fn give(&mut self) {
        for turn in [Turn::Given, Turn::Requested, Turn::Remembered, Turn::Last] {
            if turn == Turn::Last {
                // What somebody had may have been one address of two.
                self.complete();
            }
            for (name, balancer) in self.desired.balancers.iter() {
                if !self.addresses.contains_key(name) {
                    self.give_in_turn(turn, name, balancer);
                }
            }
        }
    }

    fn give_in_turn(&mut self, turn: Turn, name: &'a BalancerName, balancer: &Balancer) {
        let had = match turn {
            Turn::Given => balancer.given.iter().copied().collect(),
            Turn::Remembered => match self.ledger.remembered(name) {
                Some(entry) => entry.addresses.clone(),
                None => BTreeSet::new(),
            },
            Turn::Requested if balancer.requested.is_empty() => return,
            Turn::Requested | Turn::Last => BTreeSet::new(),
        };
        let (chooser, holdings) = (&mut self.chooser, &self.holdings);
        let chosen = match turn {
            Turn::Given | Turn::Remembered if had.is_empty() => return,
            Turn::Given | Turn::Remembered => {
                let pool = chooser.may_have(name, balancer, &had, holdings);
                pool.map(|pool| (had, pool))
            }
            Turn::Requested | Turn::Last => chooser.choose(name, balancer, holdings),
        };
        match chosen {
            Ok((addresses, pool)) => {
                self.ledger.give(name, addresses.clone(), &pool);
                self.change(name, addresses.clone(), None);
                self.hold(name, addresses);
            }
            Err(why) if turn == Turn::Last => {
                self.refused.insert(name.clone(), why);
            }
            Err(_) => {} // Its last turn is still to come.
        }
    }

    /// Honours what the source says that was given. What is of no pool somebody else gave: it
    /// may be a node's own address.
    fn as_given(&mut self) {
        let desired = self.desired;
        for (name, balancer) in desired.balancers.iter() {
            let given: BTreeSet<IpAddr> = balancer.given.iter().copied().collect();
            let refused = given.iter().find_map(|ip| {
                let pooled = desired.pools.values().any(|pool| choose::holds(pool, *ip));
                match pooled {
                    true => self.holdings.company(name, balancer, *ip),
                    false => Some(Refusal::NotInPool(*ip)),
                }
            });
            match refused {
                None if given.is_empty() => {
                    self.refused.insert(name.clone(), Refusal::NotGiven);
                }
                None => self.hold(name, given),
                Some(why) => {
                    self.refused.insert(name.clone(), why);
                }
            }
        }
    }

    /// Who has no address waits for one.
    fn wait(&mut self) {
        let Authority::Other(node) = self.authority else {
            return;
        };
        for name in self.desired.balancers.keys() {
            if !self.addresses.contains_key(name) {
                let waiting = Refusal::Waiting(node.to_owned());
                self.refused.insert(name.clone(), waiting);
            }
        }
    }

    fn hold(&mut self, name: &'a BalancerName, addresses: BTreeSet<IpAddr>) {
        self.holdings.take(name, &addresses);
        self.addresses.insert(name.clone(), addresses);
    }

    fn take_back(&mut self, name: &BalancerName, entry: &Entry, why: Refusal) {
        if self.authority.is_this() {
            self.ledger.release(name);
            self.change(name, entry.addresses.clone(), Some(why));
        }
    }

    fn change(&mut self, name: &BalancerName, addresses: BTreeSet<IpAddr>, why: Option<Refusal>) {
        self.changes.push(Change {
            name: name.clone(),
            addresses,
            why,
        });
    }

    /// Without pools nothing is given out.
    fn give_up_all(&mut self) {
        let live = self.ledger.live().into_iter();
        let live: Vec<_> = live.map(|(name, it)| (name.clone(), it.clone())).collect();
        for (name, entry) in live {
            let why = match self.desired.balancers.contains_key(&name) {
                true => Refusal::NoPools,
                false => Refusal::Gone,
            };
            self.take_back(&name, &entry, why);
        }
    }

    /// Without pools the source has filled the frontends.
    fn as_they_ask(&mut self) {
        for (name, balancer) in self.desired.balancers.iter() {
            let services = balancer.ports.keys();
            let services = services.filter_map(|port| self.desired.services.get(port));
            let frontends = services.flat_map(|service| &service.frontends);
            let addresses: BTreeSet<IpAddr> = frontends.map(|it| it.addr.ip()).collect();
            if !addresses.is_empty() {
                self.addresses.insert(name.clone(), addresses);
            }
        }
    }

    /// Puts the addresses in.
    fn finish(self) -> Assignment {
        let mut desired = self.desired.clone();
        let mut displaced = BTreeSet::new();
        if self.authority == Authority::Source || !desired.pools.is_empty() {
            let mut given = BTreeSet::new();
            for (name, addresses) in &self.addresses {
                let balancer = self.desired.balancers.get(name);
                for (port, &(number, protocol)) in balancer.iter().flat_map(|it| &it.ports) {
                    let frontends = addresses.iter().map(|ip| Frontend {
                        addr: SocketAddr::new(*ip, number),
                        protocol,
                    });
                    if let Some(service) = desired.services.get_mut(port) {
                        service.frontends.extend(frontends);
                        given.extend(service.frontends.iter().copied());
                    }
                }
            }
            desired.services.change(
                |_, service| {
                    let mut fixed = service.external.union(&service.cluster);
                    fixed.any(|it| given.contains(it))
                },
                |name, service| displaced.extend(displace(name, service, &given)),
            );
            desired.services.retain(|_, it| it.protocol().is_some());
        }
        Assignment {
            desired,
            addresses: self.addresses,
            ledger: self.ledger,
            refused: self.refused,
            displaced,
            changes: self.changes,
        }
    }
}

/// Takes away what was given to others, and what the service itself was given.
fn displace(
    name: &ServiceName,
    service: &mut Service,
    given: &BTreeSet<Frontend>,
) -> Vec<Displaced> {
    let own = &service.frontends;
    let fixed = service.external.union(&service.cluster).copied();
    let displaced = fixed.filter(|it| given.contains(it) && !own.contains(it));
    let displaced: BTreeSet<_> = displaced.collect();
    service.external.retain(|it| !given.contains(it));
    service.cluster.retain(|it| !displaced.contains(it));
    let displaced = displaced.into_iter().map(|frontend| Displaced {
        service: name.clone(),
        frontend,
    });
    displaced.collect()
}
