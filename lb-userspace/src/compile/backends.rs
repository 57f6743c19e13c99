//! Which backend has which id, and how it is reached.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::{Backend, BackendId, Mode, Port, config::MAX_BACKENDS};

use super::{
    CompileError,
    image::InUse,
    parts::{Part, PartName, is_here},
};
use crate::desired::{Condition, Endpoint, Node, Surroundings};

/// What makes two endpoints the same backend, whichever services name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Identity {
    addr: SocketAddr,
    protocol: u8,
    reach: Reach,
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reach {
    Local,
    Nat,
    /// By the peer that has this address.
    Dsr(IpAddr),
}

/// The ids of all backends of one compile.
pub(super) struct Backends {
    /// Looked up several times for each endpoint, and in no order.
    ids: HashMap<Identity, BackendId>,
    /// Those that old flows alone go by.
    former: BTreeSet<Identity>,
}

impl Backends {
    /// Gives every endpoint, draining ones included, an id.
    pub(super) fn assign(
        parts: &BTreeMap<PartName<'_>, Part<'_>>,
        nodes: &BTreeMap<String, Node>,
        surroundings: &Surroundings,
        in_use: &InUse,
    ) -> Result<Self, CompileError> {
        let mut identities: BTreeSet<_> = parts
            .values()
            .flat_map(|part| {
                let endpoints = part.endpoints.iter();
                endpoints.map(|(&addr, endpoint)| identity(part, addr, endpoint, surroundings))
            })
            .collect();
        let mut live = HashMap::new();
        for backend in in_use
            .backends
            .values()
            .filter(|backend| backend.alive != 0)
        {
            let identity = Identity {
                addr: SocketAddr::new(backend.addr.to_ip(), backend.port.get()),
                protocol: backend.protocol,
                reach: match backend.mode() {
                    Mode::Local => Reach::Local,
                    Mode::Nat => Reach::Nat,
                    Mode::Dsr => Reach::Dsr(backend.via.to_ip()),
                },
            };
            live.entry(identity).or_insert(backend.id);
        }
        // Flows go on the way that they began by, also where new ones take another.
        let ways = parts.values().flat_map(|part| {
            let endpoints = part.endpoints.iter();
            let elsewhere = endpoints.filter(|&(&addr, it)| !is_here(addr, it, surroundings));
            elsewhere.flat_map(move |(&addr, it)| {
                let node = it.node.as_ref().and_then(|name| nodes.get(name));
                let peers = node.into_iter().flat_map(|it| it.addresses.iter().copied());
                let ways = peers.map(Reach::Dsr).chain([Reach::Nat]);
                ways.map(move |reach| Identity {
                    addr,
                    protocol: part.protocol as u8,
                    reach,
                })
            })
        });
        let former: BTreeSet<Identity> = ways
            .filter(|it| live.contains_key(it) && !identities.contains(it))
            .collect();
        identities.extend(&former);
        // An index that still lives is not free, even if this compile gives it up:
        // packets may be reading it until it has rested.
        let free = |index: &u32| {
            let dead = in_use
                .backends
                .get(index)
                .is_none_or(|backend| backend.alive == 0);
            dead && !in_use.resting_backends.contains(index)
        };
        let last = |index: &u32| in_use.leaves_gone && in_use.backends.contains_key(index);
        let all = 1..MAX_BACKENDS as u32;
        let first = all.clone().filter(|index| free(index) && !last(index));
        let mut free = first.chain(all.filter(|index| free(index) && last(index)));
        let mut ids = HashMap::with_capacity(identities.len());
        for identity in identities {
            let id = match live.get(&identity) {
                Some(&id) => id,
                None => free.next().map(|index| in_use.next_id(index)).ok_or(
                    CompileError::NoBackendIndex {
                        backend: identity.addr,
                    },
                )?,
            };
            ids.insert(identity, id);
        }
        Ok(Self { ids, former })
    }

    /// Indices of those that old flows alone go by.
    pub(super) fn former(&self) -> BTreeSet<u32> {
        let ids = self.former.iter().filter_map(|it| self.ids.get(it));
        ids.map(|id| id.index()).collect()
    }

    /// The id of one endpoint of `part`.
    pub(super) fn id(
        &self,
        part: &Part<'_>,
        addr: SocketAddr,
        surroundings: &Surroundings,
    ) -> Option<BackendId> {
        let endpoint = part.endpoints.get(&addr)?;
        let identity = identity(part, addr, endpoint, surroundings);
        self.ids.get(&identity).copied()
    }

    /// The contents of map `BACKENDS`.
    pub(super) fn entries(
        &self,
        parts: &BTreeMap<PartName<'_>, Part<'_>>,
    ) -> BTreeMap<u32, Backend> {
        // Whom one service finds in order serves the others' flows, too.
        let sound: HashSet<_> = parts
            .values()
            .flat_map(|part| {
                let endpoints = part.endpoints.iter();
                let sound = endpoints.filter(|(_, it)| it.condition != Condition::Unhealthy);
                sound.map(|(&addr, _)| (addr, part.protocol as u8))
            })
            .collect();
        let entry = |(identity, &id): (&Identity, &BackendId)| {
            let Identity {
                addr,
                protocol,
                reach,
            } = *identity;
            let port = Port::new(addr.port());
            let by = |mode| Backend::new(id, addr.ip().into(), port, protocol, mode);
            let mut backend = match reach {
                Reach::Local => by(Mode::Local),
                Reach::Nat => by(Mode::Nat),
                Reach::Dsr(via) => by(Mode::Dsr).on_peer(via.into()),
            };
            backend.alive = if sound.contains(&(addr, protocol)) {
                Backend::ALIVE
            } else {
                Backend::FAILED
            };
            (id.index(), backend)
        };
        self.ids.iter().map(entry).collect()
    }
}

/// The backend that an endpoint of `part` is.
fn identity(
    part: &Part<'_>,
    addr: SocketAddr,
    endpoint: &Endpoint,
    surroundings: &Surroundings,
) -> Identity {
    let peer = || {
        let node = endpoint.node.as_ref()?;
        let wanted = part.service.elsewhere == Mode::Dsr;
        surroundings.peers.get(node).filter(|_| wanted)
    };
    Identity {
        addr,
        protocol: part.protocol as u8,
        reach: if is_here(addr, endpoint, surroundings) {
            Reach::Local
        } else {
            peer().map_or(Reach::Nat, |&via| Reach::Dsr(via))
        },
    }
}
