//! The output of `compile`: what every BPF map shall hold, as plain data.

mod backends;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use lb_common::{
    Addr, AddressUse, Backend, BackendId, Client, Device, Entry, Family, Frontend, Primary, Slot,
    SlotTable, config::MAX_SERVICES,
};

pub use self::backends::Backends;
use crate::desired::ServiceName;

/// The contents of all maps that configuration decides.
///
/// A copy shares with the image that it is of all that is not changed in it, and two such are
/// compared in the time that their differences take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapImage {
    /// Map `ADDRESSES`.
    pub addresses: OrdMap<Addr, AddressUse>,
    /// Map `FRONTENDS`: the way to a service, by frontend.
    pub frontends: OrdMap<Frontend, Entry>,
    /// Map `INTERNAL`: the service that a frontend is to sockets of the node.
    pub internal: OrdMap<Frontend, u32>,
    /// Map `SOURCES`: who may use the guarded frontends of a service.
    pub sources: OrdSet<Network>,
    /// Map `AFFINITY_TICKS`, by service index.
    pub affinity: OrdMap<u32, u32>,
    /// Map `SERVICES`, by service index; beside it the table for what peers hand over, where
    /// that has any slots ([`lb_common::service::handover_table`]).
    pub services: OrdMap<u32, SlotTable>,
    /// The contents of every table that `services` names, by first slot: which backend flows
    /// begin with, and whether all of them are recorded. What else a slot says of flows that
    /// began earlier follows from what it said before ([`Slot::changed`]).
    pub tables: OrdMap<u32, Arc<[Slot]>>,
    /// Map `BACKENDS`, by [`BackendId::index`].
    pub backends: OrdMap<u32, Backend>,
    /// Map `PRIMARIES`: local backends that packets reach, by their own address and port.
    pub primaries: OrdMap<Frontend, Primary>,
    /// Those of the backends, by index, that only flows of a time go by in which the endpoint was
    /// reached in another way.
    pub former: BTreeSet<u32>,
    /// Map `DEVICES`, by interface index.
    pub devices: OrdMap<u32, Device>,
    /// Which service has which index, for people.
    pub names: OrdMap<u32, ServiceName>,
}

impl MapImage {
    /// Number of services, each of one port and family.
    pub fn service_count(&self) -> usize {
        self.services.range(..MAX_SERVICES as u32).count()
    }
}

/// A network that may use a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// Bits of `client` that count, the service's 32 included.
    pub bits: u32,
    /// The service, and the network's first address.
    pub client: Client,
}

impl Network {
    /// The network `net` for the service with this index.
    pub fn new(service: u32, net: IpNet) -> Self {
        let before = match net {
            IpNet::V4(_) => Client::V4_BITS,
            IpNet::V6(_) => Client::V6_BITS,
        };
        Self {
            bits: before + u32::from(net.prefix_len()),
            client: Client {
                service,
                addr: net.network().into(),
            },
        }
    }

    /// The network as people write it: `ADDRESS/LENGTH`.
    pub fn net(&self) -> String {
        let addr = self.client.addr;
        let before = match addr.family() {
            Family::V4 => Client::V4_BITS,
            Family::V6 => Client::V6_BITS,
        };
        format!("{addr}/{}", self.bits.saturating_sub(before))
    }
}

/// What is in use already, so that nothing that lives changes its number.
///
/// Read off the live maps at start, afterwards the last image plus what is still
/// within its grace period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// The way to a service that every frontend in force is.
    pub frontends: OrdMap<Frontend, Entry>,
    /// Service index of every frontend that is in force for sockets of the node.
    pub internal: OrdMap<Frontend, u32>,
    /// Slot table of every service in force.
    pub services: OrdMap<u32, SlotTable>,
    /// Every entry of map `BACKENDS` that was ever written, dead ones included: they
    /// tell which generation an index has reached.
    pub backends: Backends,
    /// What replies of local backends are restored to.
    pub primaries: OrdMap<Frontend, Primary>,
    /// Backend indices, service indices and slot ranges `(first, length)` that were
    /// given up so recently that a packet may still be reading them.
    pub resting_backends: BTreeSet<u32>,
    /// See [`Self::resting_backends`].
    pub resting_services: BTreeSet<u32>,
    /// See [`Self::resting_backends`].
    pub resting_slots: BTreeMap<u32, u32>,
    /// Whether connections go on with backends that are gone: then the index of such is
    /// given out again last, and replies still come from its address.
    pub leaves_gone: bool,
}

impl MapImage {
    /// The frontends by which sockets of the node reach a service, and packets do not:
    /// cluster IPs, and where policies differ those that are another service to packets.
    pub fn internal_of(&self, service: u32) -> impl Iterator<Item = &Frontend> {
        let internal = self.internal.iter();
        let there = internal.filter(move |(_, index)| **index == service);
        there.map(|(frontend, _)| frontend).filter(move |frontend| {
            let entry = self.frontends.get(*frontend);
            entry.is_none_or(|entry| entry.service() != service)
        })
    }
}

/// What comes in ascending order, in one that leaves the nodes of an ordered map of `imbl` full. A
/// node that overflows is split in halves, and what follows in order never comes to the first: so
/// every other entry goes first, and those between fill the halves.
pub fn spread<T>(ascending: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let numbered = ascending.into_iter().enumerate();
    let (first, between): (Vec<_>, Vec<_>) = numbered.partition(|(number, _)| number % 2 == 0);
    first.into_iter().chain(between).map(|(_, it)| it)
}

/// Where a backend is, whichever way it is reached.
pub(super) fn place(backend: &Backend) -> Frontend {
    Frontend::new(backend.addr, backend.port, backend.protocol)
}

impl InUse {
    /// What is in use once `image` is in force and nothing rests.
    ///
    /// Backends that died before are not part of an image: keep them beside it, or
    /// their indices start again at a generation that flows may remember.
    pub fn of(image: &MapImage) -> Self {
        Self {
            frontends: image.frontends.clone(),
            internal: image.internal.clone(),
            services: image.services.clone(),
            backends: image.backends.values().copied().collect(),
            primaries: image.primaries.clone(),
            ..Self::default()
        }
    }

    /// The backends that connections may go on with although `image` has them no more.
    pub fn gone<'a>(&'a self, image: &'a MapImage) -> impl Iterator<Item = &'a Backend> {
        let known = self.leaves_gone.then(|| self.backends.iter());
        let known = known.into_iter().flatten();
        known.filter(|it| !image.backends.contains_key(&it.id.index()))
    }

    /// The id that `index` would carry if it were given to a new backend now.
    pub fn next_id(&self, index: u32) -> BackendId {
        let generation = self
            .backends
            .get(index)
            .map_or(0, |backend| backend.id.generation() + 1);
        BackendId::new(index, generation)
    }
}
