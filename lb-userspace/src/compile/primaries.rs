//! What replies of local backends are restored to: one frontend each, without a record.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use imbl::OrdMap;
use lb_common::{Addr, Frontend, Mode, Port, Primary, Protocol};

use super::{
    image::{InUse, MapImage, spread},
    key,
    parts::{Located, Part, PartName},
};
use crate::desired::{self, Surroundings};

/// Whether a flow to a backend may go without a record, both ways. Of datagrams nobody can
/// tell whether they answer anything, and `nat` has ports to remember.
pub(super) fn goes_alone(mode: Mode, protocol: Protocol) -> bool {
    match mode {
        Mode::Local => protocol == Protocol::Tcp,
        Mode::Dsr => true,
        Mode::Nat => false,
    }
}

/// What is known when primaries are chosen.
pub(super) struct Reached<'a> {
    pub(super) parts: &'a BTreeMap<PartName, Part<'a>>,
    pub(super) owners: &'a BTreeMap<desired::Frontend, PartName>,
    pub(super) indices: &'a BTreeMap<PartName, u32>,
    pub(super) surroundings: &'a Surroundings,
    pub(super) in_use: &'a InUse,
}

/// What map `PRIMARIES` shall hold: all local backends that packets reach.
///
/// A primary stays as long as its frontend is there, since flows rely on it, also those that
/// began before the backend left the frontend's service to others. A
/// new one is the first frontend of a service whose flows go without records: an address of
/// its own before an external one, and that before a node port.
pub(super) fn primaries(reached: &Reached<'_>) -> OrdMap<Frontend, Primary> {
    let parts = reached.parts.iter();
    let parts: Vec<_> = parts
        .map(|(name, part)| (part, reached.candidate(name, part)))
        .collect();
    let mut here = Vec::with_capacity(parts.iter().map(|(part, _)| local(part).count()).sum());
    for (place, (part, _)) in parts.iter().enumerate() {
        let protocol = part.protocol;
        here.extend(local(part).map(|it| {
            let addr = it.addr;
            (key(&desired::Frontend { addr, protocol }), place, it.id)
        }));
    }
    // What is said of each backend together, in the order of the parts.
    here.sort_unstable_by_key(|&(of, place, _)| (of, place));
    // One by one, as all at once would need the memory twice for a moment.
    let mut chosen: OrdMap<Frontend, Primary> = OrdMap::new();
    for said in spread(here.chunk_by(|one, other| one.0 == other.0)) {
        let Some(&(of, _, id)) = said.first() else {
            continue;
        };
        let primary = reached.in_use.primaries.get(&of);
        let kept = primary.and_then(|it| reached.kept(&of, *it));
        let first = || said.iter().find_map(|&(_, place, _)| parts[place].1);
        let to = kept.or_else(|| {
            let (frontend, index) = first()?;
            let to = key(&frontend);
            Some((to.addr, to.port, index))
        });
        let none = Primary::none(id);
        let primary = to.map_or(none, |(addr, port, index)| none.to(addr, port, index));
        chosen.insert(of, primary);
    }
    if reached.in_use.leaves_gone {
        let gone = reached.in_use.primaries.iter().filter(|(addr, primary)| {
            let backend = reached.in_use.backends.get(primary.backend.index());
            let left = backend.is_some_and(|it| it.is(primary.backend) && it.mode() == Mode::Local);
            left && !chosen.contains_key(*addr)
        });
        let gone: Vec<_> = gone.map(|(&addr, &primary)| (addr, primary)).collect();
        chosen.extend(gone);
    }
    chosen
}

/// The endpoints of a part that packets reach on this node.
fn local<'a>(part: &'a Part<'_>) -> impl Iterator<Item = &'a Located<'a>> {
    let endpoints = part.endpoints.iter().filter(|_| !part.frontends.is_empty());
    endpoints.filter(|it| it.is_here())
}

impl Reached<'_> {
    /// The frontend that a part's local endpoints may be restored to.
    fn candidate(&self, name: &PartName, part: &Part<'_>) -> Option<(desired::Frontend, u32)> {
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

    /// Where the `primary` that a backend has leads, with the service that it is of now.
    fn kept(&self, of: &Frontend, primary: Primary) -> Option<(Addr, Port, u32)> {
        if primary.is_none() {
            return None;
        }
        let frontend = desired::Frontend {
            addr: SocketAddr::new(primary.addr.to_ip(), primary.port.get()),
            protocol: Protocol::from_number(of.protocol)?,
        };
        let owner = self.owners.get(&frontend)?;
        Some((primary.addr, primary.port, *self.indices.get(owner)?))
    }
}

/// Says of backends that they have primaries.
pub(super) fn restore(image: &mut MapImage) {
    for primary in image.primaries.values().filter(|it| !it.is_none()) {
        let backend = image.backends.get_mut(&primary.backend.index());
        if let Some(backend) = backend.filter(|it| it.id == primary.backend) {
            backend.restored = 1;
        }
    }
}

/// Says of the frontends of these parts whether flows by them need records, since some of their
/// local backends' replies are restored to another one.
pub(super) fn record(image: &mut MapImage, parts: &BTreeMap<PartName, Part<'_>>) {
    if image.primaries.values().all(Primary::is_none) {
        return;
    }
    for part in parts.values() {
        let restored: BTreeSet<(Addr, Port)> = local(part)
            .filter_map(|it| {
                let (addr, protocol) = (it.addr, part.protocol);
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
