//! What replies of local backends are restored to: one frontend each, without a record.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::{Backend, Frontend, Mode, Port, Primary, Protocol};

use super::{
    backends::Backends,
    image::{InUse, MapImage},
    key,
    parts::{Part, PartName, is_here},
};
use crate::desired::{self, Surroundings};

/// Whether a flow to a backend may go without a record, both ways. Of datagrams nobody can
/// tell whether they answer anything, and `nat` has ports to remember.
pub(super) fn goes_alone(backend: &Backend, protocol: Protocol) -> bool {
    match backend.mode() {
        Mode::Local => protocol == Protocol::Tcp,
        Mode::Dsr => true,
        Mode::Nat => false,
    }
}

/// What is known when primaries are chosen.
pub(super) struct Reached<'a> {
    pub(super) parts: &'a BTreeMap<PartName<'a>, Part<'a>>,
    pub(super) owners: &'a BTreeMap<desired::Frontend, PartName<'a>>,
    pub(super) indices: &'a BTreeMap<PartName<'a>, u32>,
    pub(super) backends: &'a Backends,
    pub(super) surroundings: &'a Surroundings,
    pub(super) in_use: &'a InUse,
}

/// What map `PRIMARIES` shall hold: all local backends that packets reach.
///
/// A primary stays as long as its frontend is there, since flows rely on it, also those that
/// began before the backend left the frontend's service to others. A
/// new one is the first frontend of a service whose flows go without records: an address of
/// its own before an external one, and that before a node port.
pub(super) fn primaries(reached: &Reached<'_>) -> BTreeMap<Frontend, Primary> {
    let mut chosen: BTreeMap<Frontend, Primary> = BTreeMap::new();
    for (name, part) in reached.parts {
        let candidate = reached.candidate(name, part);
        for addr in local(part, reached.surroundings) {
            let Some(id) = reached.backends.id(part, addr, reached.surroundings) else {
                continue;
            };
            let of = desired::Frontend {
                addr,
                protocol: part.protocol,
            };
            let none = Primary::none(id);
            let entry = chosen.entry(key(&of)).or_insert_with(|| {
                reached.kept(&key(&of)).map_or(none, |(primary, index)| {
                    none.to(primary.addr, primary.port, index)
                })
            });
            if let (true, Some((frontend, index))) = (entry.is_none(), candidate) {
                let to = key(&frontend);
                *entry = none.to(to.addr, to.port, index);
            }
        }
    }
    let gone = reached.in_use.primaries.iter().filter(|(addr, primary)| {
        let backend = reached.in_use.backends.get(&primary.backend.index());
        let left = backend.is_some_and(|it| it.is(primary.backend) && it.mode() == Mode::Local);
        reached.in_use.leaves_gone && left && !chosen.contains_key(addr)
    });
    let gone: Vec<_> = gone.map(|(&addr, &primary)| (addr, primary)).collect();
    chosen.extend(gone);
    chosen
}

/// The endpoints of a part that packets reach on this node.
fn local<'a>(
    part: &'a Part<'_>,
    surroundings: &'a Surroundings,
) -> impl Iterator<Item = SocketAddr> + 'a {
    let endpoints = part.endpoints.iter().filter(|_| !part.frontends.is_empty());
    let here = endpoints.filter(|(addr, it)| is_here(**addr, it, surroundings));
    here.map(|(&addr, _)| addr)
}

impl Reached<'_> {
    /// The frontend that a part's local endpoints may be restored to.
    fn candidate(&self, name: &PartName<'_>, part: &Part<'_>) -> Option<(desired::Frontend, u32)> {
        if part.protocol != Protocol::Tcp || !part.computes(self.surroundings) {
            return None;
        }
        let rank = |frontend: &&desired::Frontend| {
            let own = part.service.frontends.contains(frontend);
            let external = part.service.external.contains(frontend);
            (!own, !external, **frontend)
        };
        let first = part.frontends.iter().min_by_key(rank)?;
        Some((*first, *self.indices.get(name)?))
    }

    /// The primary that a backend has, with the service that it is of now.
    fn kept(&self, of: &Frontend) -> Option<(Primary, u32)> {
        let primary = *self.in_use.primaries.get(of).filter(|it| !it.is_none())?;
        let frontend = desired::Frontend {
            addr: SocketAddr::new(primary.addr.to_ip(), primary.port.get()),
            protocol: Protocol::from_number(of.protocol)?,
        };
        let owner = self.owners.get(&frontend)?;
        Some((primary, *self.indices.get(owner)?))
    }
}

/// Says of backends that they have primaries, and of frontends that flows by them need records,
/// since some of their local backends' replies are restored to another one.
pub(super) fn mark(
    image: &mut MapImage,
    parts: &BTreeMap<PartName<'_>, Part<'_>>,
    surroundings: &Surroundings,
) {
    for primary in image.primaries.values().filter(|it| !it.is_none()) {
        let backend = image.backends.get_mut(&primary.backend.index());
        if let Some(backend) = backend.filter(|it| it.id == primary.backend) {
            backend.restored = 1;
        }
    }
    for part in parts.values() {
        let restored: BTreeSet<(lb_common::Addr, Port)> = local(part, surroundings)
            .filter_map(|addr| {
                let protocol = part.protocol;
                let of = key(&desired::Frontend { addr, protocol });
                let primary = image.primaries.get(&of).filter(|it| !it.is_none())?;
                Some((primary.addr, primary.port))
            })
            .collect();
        for frontend in part.frontends.iter().map(key) {
            let other = restored
                .iter()
                .any(|it| *it != (frontend.addr, frontend.port));
            if let Some(entry) = image.frontends.get_mut(&frontend) {
                *entry = entry.recorded(other);
            }
        }
    }
}

#[cfg(test)]
mod tests;
