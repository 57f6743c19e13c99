//! Which backend has which id, and how it is reached.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
};

use lb_common::{Backend, BackendId, Frontend, Mode, Port};

use super::{
    CompileError,
    image::InUse,
    parts::{Located, Part, PartName, Reach},
};
use crate::desired::{Condition, Node};

/// What makes two endpoints the same backend, whichever services name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Identity {
    addr: SocketAddr,
    protocol: u8,
    reach: Reach,
}

/// The backends that old flows alone go by: their endpoints are reached in another way now.
#[derive(Default)]
pub(super) struct Former(BTreeMap<Identity, BackendId>);

/// Gives every endpoint, draining ones included, its id.
pub(super) fn assign(
    parts: &mut BTreeMap<PartName, Part<'_>>,
    nodes: &BTreeMap<String, Node>,
    in_use: &InUse,
) -> Result<Former, CompileError> {
    let mut new = BTreeMap::new();
    let mut others = Vec::new();
    for part in parts.values_mut() {
        let protocol = part.protocol as u8;
        for it in &mut part.endpoints {
            let identity = Identity::of(it, protocol);
            let there = in_use.backends.at(identity.place());
            for backend in there.filter(|it| it.alive != 0) {
                if Identity::read(backend) != identity {
                    others.push(backend);
                } else if it.id.is_none() {
                    it.id = backend.id;
                }
            }
            if it.id.is_none() {
                new.insert(identity, BackendId::NONE);
            }
        }
    }
    let mut free = free(in_use);
    for (identity, id) in &mut new {
        let index = free.next().ok_or(CompileError::NoBackendIndex {
            backend: identity.addr,
        })?;
        *id = in_use.next_id(index);
    }
    if !new.is_empty() {
        for part in parts.values_mut() {
            let protocol = part.protocol as u8;
            for it in part.endpoints.iter_mut().filter(|it| it.id.is_none()) {
                let id = new.get(&Identity::of(it, protocol));
                it.id = id.copied().unwrap_or(BackendId::NONE);
            }
        }
    }
    let mut left = BTreeMap::new();
    if !others.is_empty() {
        let parts = parts.values();
        let wanted = parts.flat_map(|part| {
            let protocol = part.protocol as u8;
            let endpoints = part.endpoints.iter();
            endpoints.map(move |it| Identity::of(it, protocol))
        });
        let wanted: HashSet<Identity> = wanted.collect();
        for backend in others {
            let identity = Identity::read(backend);
            if !wanted.contains(&identity) {
                left.entry(identity).or_insert(backend.id);
            }
        }
    }
    Ok(Former::among(&left, parts, nodes))
}

/// The indices that new backends may have, the best ones first: those of dead ones, so that the map
/// stays dense, unless connections go on with such.
///
/// One that still lives is not free, even if this compile gives it up: packets may be reading
/// it until it has rested.
fn free(in_use: &InUse) -> impl Iterator<Item = u32> {
    let dead = |wanted: bool| wanted.then(|| in_use.backends.dead()).into_iter().flatten();
    let last = in_use.leaves_gone;
    let indices = dead(!last)
        .chain(in_use.backends.unknown())
        .chain(dead(last));
    indices.filter(|index| !in_use.resting_backends.contains(index))
}

/// The contents of map `BACKENDS`.
pub(super) fn entries(
    parts: &BTreeMap<PartName, Part<'_>>,
    former: &Former,
) -> BTreeMap<u32, Backend> {
    let endpoints = || {
        let parts = parts.values();
        parts.flat_map(|part| part.endpoints.iter().map(|it| (it, part.protocol as u8)))
    };
    let is_sound = |it: &Located<'_>| it.endpoint.condition != Condition::Unhealthy;
    let failed = endpoints().filter(|(it, _)| !is_sound(it));
    let mut failed: BTreeSet<_> = failed.map(|(it, protocol)| (it.addr, protocol)).collect();
    if !failed.is_empty() {
        // Whom one service finds in order serves the others' flows, too.
        for (it, protocol) in endpoints().filter(|(it, _)| is_sound(it)) {
            failed.remove(&(it.addr, protocol));
        }
    }
    let wanted = endpoints().map(|(it, protocol)| (Identity::of(it, protocol), it.id));
    let former = former.0.iter().map(|(identity, id)| (*identity, *id));
    let mut entries = BTreeMap::new();
    for (identity, id) in wanted.chain(former) {
        let mut backend = identity.entry(id);
        if failed.contains(&(identity.addr, identity.protocol)) {
            backend.alive = Backend::FAILED;
        }
        entries.insert(id.index(), backend);
    }
    entries
}

// === impl Identity ===

impl Identity {
    /// The backend that an endpoint is.
    fn of(it: &Located<'_>, protocol: u8) -> Self {
        Self {
            addr: it.addr,
            protocol,
            reach: it.reach,
        }
    }

    /// Where it is, whichever way it is reached.
    fn place(&self) -> Frontend {
        let (addr, port) = (self.addr.ip().into(), Port::new(self.addr.port()));
        Frontend::new(addr, port, self.protocol)
    }

    fn read(backend: &Backend) -> Self {
        Self {
            addr: SocketAddr::new(backend.addr.to_ip(), backend.port.get()),
            protocol: backend.protocol,
            reach: match backend.mode() {
                Mode::Local => Reach::Local,
                Mode::Nat => Reach::Nat,
                Mode::Dsr => Reach::Dsr(backend.via.to_ip()),
            },
        }
    }

    fn entry(&self, id: BackendId) -> Backend {
        let Frontend { addr, port, .. } = self.place();
        let by = |mode| Backend::new(id, addr, port, self.protocol, mode);
        let mut backend = match self.reach {
            Reach::Local => by(Mode::Local),
            Reach::Nat => by(Mode::Nat),
            Reach::Dsr(via) => by(Mode::Dsr).on_peer(via.into()),
        };
        backend.alive = Backend::ALIVE;
        backend
    }
}

// === impl Former ===

impl Former {
    /// Those of the backends that are `left`, wanted no more, by which endpoints elsewhere were
    /// reached: flows go on the way that they began by, also where new ones take another.
    fn among(
        left: &BTreeMap<Identity, BackendId>,
        parts: &BTreeMap<PartName, Part<'_>>,
        nodes: &BTreeMap<String, Node>,
    ) -> Self {
        let mut former = BTreeMap::new();
        if left.is_empty() {
            return Self(former);
        }
        for part in parts.values() {
            let elsewhere = part.endpoints.iter().filter(|it| !it.is_here());
            for it in elsewhere {
                let first = Identity {
                    reach: Reach::Nat,
                    ..Identity::of(it, part.protocol as u8)
                };
                let same =
                    |other: &Identity| other.addr == first.addr && other.protocol == first.protocol;
                let node = it.endpoint.node.as_ref().and_then(|name| nodes.get(name));
                let others = left.range(first..).take_while(|(other, _)| same(other));
                former.extend(others.filter_map(|(other, id)| {
                    let was_way = match other.reach {
                        Reach::Dsr(via) => node.is_some_and(|it| it.addresses.contains(&via)),
                        Reach::Local | Reach::Nat => true,
                    };
                    was_way.then_some((*other, *id))
                }));
            }
        }
        Self(former)
    }

    /// Their indices.
    pub(super) fn indices(&self) -> BTreeSet<u32> {
        self.0.values().map(|id| id.index()).collect()
    }
}
