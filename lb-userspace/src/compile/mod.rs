//! Desired state and what is in use → the contents of every map. Pure.
//!
//! No I/O, no clock, no randomness: equal input gives equal bytes. What is in use
//! keeps its number: a frontend its service index, a backend its id, a service its
//! place in the slots while its table keeps its length, algorithm and hash. What is new
//! takes the lowest number that neither lives nor rests; a backend that of one that is gone before
//! any that nobody had, or after those where connections go on with such.
//!
//! A service of both families is two to the kernel, each with its own table, and so is
//! one that serves packets by another policy than sockets of the node ([`parts`]).

mod again;
mod backends;
mod fit;
pub mod image;
mod maglev;
mod parts;
mod primaries;
pub mod render;
mod services;
mod slots;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use imbl::OrdMap;
use lb_common::{
    Addr, AddressUse, Algorithm, Backend, Device, Entry, Frontend, Mode, Port, Slot, SlotTable,
    SnatSource,
    config::{
        MAX_ADDRESSES, MAX_BACKENDS, MAX_DEVICES, MAX_FRONTENDS, MAX_INTERNAL, MAX_PRIMARIES,
        MAX_SERVICES, MAX_SLOTS, MAX_SOURCES,
    },
    service::handover_table,
};

use crate::desired::{self, Census, Desired, DeviceFacts, ServiceName, Snat, Surroundings};

pub use self::{
    again::compile_again,
    fit::{Fit, Lack, compile_fitting},
    parts::is_here,
};
use self::{
    image::{InUse, MapImage, Network, spread},
    maglev::Tables,
    parts::{Part, PartName, Parts},
    slots::Space,
};

/// What one compile leaves to the next. It decides how long that takes, never what comes of it.
#[derive(Debug)]
pub struct Memo {
    tables: Tables,
    /// All endpoints.
    census: Census,
}

impl Default for Memo {
    fn default() -> Self {
        Self {
            tables: Tables::default(),
            census: Census::of(|_| true),
        }
    }
}

/// Why a desired state does not fit into the maps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Two services want the same frontend.
    #[error("{frontend} is a frontend of both {one} and {other}; give it to one of them")]
    FrontendTwice {
        /// What both want.
        frontend: desired::Frontend,
        /// The first by name.
        one: ServiceName,
        /// The second by name.
        other: ServiceName,
    },
    /// A slot names one backend, and a backend has one protocol.
    #[error("{0} has frontends of several protocols; make a service for each protocol")]
    MixedProtocols(ServiceName),
    /// No free run of slots is long enough.
    #[error(
        "no room for the {wanted} slots of {service}: {MAX_SLOTS} are all there are; give large \
         services smaller tables by the annotation naru.dev/maglev-slots (maglev_slots in a \
         configuration file), or use round-robin"
    )]
    NoSlots {
        /// The first service that found no room.
        service: ServiceName,
        /// The length of its table.
        wanted: u32,
    },
    /// Every service index is in use.
    #[error("no service index left for {0}: at most {MAX_SERVICES} ports of services; remove some")]
    NoServiceIndex(ServiceName),
    /// Every backend index is in use.
    #[error(
        "no backend index left for {backend}: at most {max} backends, recently removed ones \
         included; remove some services or endpoints",
        max = MAX_BACKENDS - 1
    )]
    NoBackendIndex {
        /// The first backend that found none.
        backend: SocketAddr,
    },
    /// A map has fewer entries than are wanted.
    #[error("{wanted} {what}, but at most {max}; remove some services")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        wanted: usize,
        /// How many fit.
        max: usize,
    },
}

/// What services have of which one alone may have too many.
const SOURCE_RANGES: &str = "source ranges";

/// Works out what every map shall hold.
pub fn compile(
    desired: &Desired,
    surroundings: &Surroundings,
    in_use: &InUse,
) -> Result<MapImage, CompileError> {
    compile_with(desired, surroundings, in_use, &mut Memo::default())
}

/// The same, with what an earlier one has left.
pub fn compile_with(
    desired: &Desired,
    surroundings: &Surroundings,
    in_use: &InUse,
    memo: &mut Memo,
) -> Result<MapImage, CompileError> {
    memo.tables.begin();
    whole(desired, surroundings, in_use, &mut memo.tables).map(|(image, _)| image)
}

/// The same, with the parts that it is of.
fn whole<'a>(
    desired: &'a Desired,
    surroundings: &Surroundings,
    in_use: &InUse,
    tables: &mut Tables,
) -> Result<(MapImage, BTreeMap<PartName, Part<'a>>), CompileError> {
    // A service without a frontend cannot be reached and takes no room.
    let Parts {
        mut parts,
        owners,
        internal,
    } = parts::parts(desired, surroundings)?;
    let indices = services::indices(&parts, in_use)?;
    let former = backends::assign(&mut parts, &desired.nodes, in_use)?;

    let mut image = MapImage {
        former: former.indices(),
        ..MapImage::default()
    };
    let open = place(&mut image, &parts, &indices, surroundings, (in_use, tables))?;
    let backends = backends::entries(&parts, &former).into_iter();
    let backends = backends.map(|(index, backend)| (index, open.said_of(backend)));
    image.backends = spread(backends).collect();
    image.primaries = primaries::primaries(&primaries::Reached {
        parts: &parts,
        owners: &owners,
        indices: &indices,
        surroundings,
        in_use,
    });
    for (frontend, name) in owners {
        let (index, service) = (indices[&name], parts[&name].service);
        // Ranges are for the service's own addresses, as kube-proxy has it.
        let guarded = !service.source_ranges.is_empty() && service.frontends.contains(&frontend);
        image
            .frontends
            .insert(key(&frontend), Entry::new(index, guarded));
    }
    primaries::restore(&mut image);
    primaries::record(&mut image, &parts);
    for (frontend, name) in internal {
        image.internal.insert(key(&frontend), indices[&name]);
    }
    for (name, part) in &parts {
        image.names.insert(indices[name], part.name.clone());
        if !part.frontends.is_empty() {
            let ranges = part.service.source_ranges.iter();
            let networks = ranges.map(|&net| Network::new(indices[name], net));
            image.sources.extend(networks);
        }
        if let Some(timeout) = part.service.affinity {
            image.affinity.insert(indices[name], ticks(timeout));
        }
    }
    let reached = parts.values().filter(|part| !part.frontends.is_empty());
    let reached = reached.flat_map(|part| &part.endpoints);
    let reached = reached.map(|it| it.addr.ip().into()).collect();
    let mut addresses = addresses(&image, &reached, surroundings, in_use);
    for (name, part) in &parts {
        // Where no backend takes new flows, the address is left to a node that has one.
        if !image.services[&indices[name]].is_empty() {
            announce(&mut addresses, part);
        }
    }
    image.addresses = spread(addresses).collect();
    let frontends = image.frontends.iter().map(|(frontend, entry)| {
        let usage = image.addresses.get(&frontend.addr);
        let source = usage.is_some_and(|it| it.contains(AddressUse::SNAT));
        (*frontend, entry.source(source))
    });
    image.frontends = spread(frontends).collect();
    image.devices = devices(surroundings);
    within("addresses", image.addresses.len(), MAX_ADDRESSES)?;
    within(SOURCE_RANGES, image.sources.len(), MAX_SOURCES)?;
    within("frontends", image.frontends.len(), MAX_FRONTENDS)?;
    within("frontends of sockets", image.internal.len(), MAX_INTERNAL)?;
    within("interfaces", image.devices.len(), MAX_DEVICES)?;
    within("local backends", image.primaries.len(), MAX_PRIMARIES)?;
    Ok((image, parts))
}

/// Fills the slot tables and gives each its place. Tells which backends are in one.
fn place(
    image: &mut MapImage,
    parts: &BTreeMap<PartName, Part<'_>>,
    indices: &BTreeMap<PartName, u32>,
    surroundings: &Surroundings,
    (in_use, known): (&InUse, &mut Tables),
) -> Result<Open, CompileError> {
    let mut space = Space::new(in_use);
    let tables = parts.iter().flat_map(|(name, part)| {
        let index = indices[name];
        let chosen = slots::chosen(part);
        let handed = part.handed(&chosen);
        let whole = (part, index, chosen);
        let further = (part, handover_table(index), handed);
        [Some(whole), Some(further).filter(|it| !it.2.is_empty())]
    });
    let mut open = Open(vec![false; MAX_BACKENDS]);
    for (part, index, chosen) in tables.flatten() {
        // Worked out once for each endpoint: a table may have thousands of slots for one.
        let hashed = part.service.algorithm == Algorithm::Maglev;
        let computes = part.computes(surroundings);
        let own: Vec<Slot> = chosen
            .iter()
            .map(|it| {
                let unrecorded = computes && primaries::goes_alone(it.mode(), part.protocol);
                Slot::settled(it.id).recorded(hashed && !unrecorded)
            })
            .collect();
        let turns = slots::order((part, index), &chosen, surroundings, known);
        let own_slot = |&turn: &u32| own.get(turn as usize).copied();
        let table: Vec<Slot> = turns.iter().filter_map(own_slot).collect();
        let len = table.len() as u32;
        let algorithm = part.service.algorithm;
        if len == 0 {
            image
                .services
                .insert(index, SlotTable::new(0, 0, algorithm));
            continue;
        }
        let full = || CompileError::NoSlots {
            service: part.name.clone(),
            wanted: len,
        };
        let affine = part.service.affinity.is_some();
        let kept = in_use
            .services
            .get(&index)
            .filter(|live| live.len() == len && live.algorithm() == algorithm)
            // By another hash, flows are on other slots.
            .filter(|live| live.is_affine() == affine)
            .map(|live| live.offset());
        let offset = match kept {
            Some(offset) => offset,
            None => space.take(len).ok_or_else(full)?,
        };
        let place = SlotTable::new(offset, len, algorithm).affine(affine);
        image.services.insert(index, place);
        for slot in &table {
            if let Some(open) = open.0.get_mut(slot.current().index() as usize) {
                *open = true;
            }
        }
        image.tables.insert(offset, table.into());
    }
    Ok(open)
}

/// Which backends take new flows, by index.
struct Open(Vec<bool>);

impl Open {
    fn said_of(&self, mut backend: Backend) -> Backend {
        let open = self.0.get(backend.id.index() as usize);
        backend.open = open.is_some_and(|open| *open).into();
        backend
    }
}

/// An address that is for `nat` flows alone: nobody else answers for it.
const DEDICATED: AddressUse = AddressUse::VIP
    .with(AddressUse::PINGED)
    .with(AddressUse::ANNOUNCED);

/// What every address means to the program, which sends packets to those of `reached`.
fn addresses(
    image: &MapImage,
    reached: &BTreeSet<Addr>,
    surroundings: &Surroundings,
    in_use: &InUse,
) -> BTreeMap<Addr, AddressUse> {
    let here = image.backends.values();
    let here = here.filter(|backend| backend.mode() == Mode::Local);
    let here: BTreeSet<Addr> = here.map(|backend| backend.addr).collect();
    // Most of them, all at once.
    let mut addresses: BTreeMap<Addr, AddressUse> = here
        .intersection(reached)
        .map(|addr| (*addr, AddressUse::LOCAL_BACKEND))
        .collect();
    let mut mark = |addr: Addr, what: AddressUse| {
        let entry = addresses.entry(addr).or_default();
        *entry = entry.with(what);
    };
    for (frontend, entry) in &image.frontends {
        mark(frontend.addr, AddressUse::VIP);
        if surroundings.host_addresses.contains(&frontend.addr.to_ip()) {
            mark(frontend.addr, AddressUse::HOST);
            continue;
        }
        let table = image.services.get(&entry.service());
        if table.is_some_and(|table| !table.is_empty()) {
            mark(frontend.addr, AddressUse::PINGED);
        }
    }
    for facts in surroundings.devices.values() {
        for source in [&facts.snat_v4, &facts.snat_v6].into_iter().flatten() {
            mark(source.addr.into(), AddressUse::SNAT);
            if !surroundings.host_addresses.contains(&source.addr) {
                mark(source.addr.into(), DEDICATED);
            }
        }
    }
    for backend in in_use.gone(image) {
        if backend.mode() == Mode::Local {
            mark(backend.addr, AddressUse::LOCAL_BACKEND);
        }
    }
    addresses
}

/// Marks the addresses that the node may claim for a part. The host's own it has already,
/// and external ones are somebody else's to bring here.
fn announce(addresses: &mut BTreeMap<Addr, AddressUse>, part: &Part<'_>) {
    for frontend in part.frontends.intersection(&part.service.frontends) {
        if let Some(usage) = addresses.get_mut(&frontend.addr.ip().into())
            && !usage.contains(AddressUse::HOST)
        {
            *usage = usage.with(AddressUse::ANNOUNCED);
        }
    }
}

/// What map `DEVICES` shall hold.
pub fn devices(surroundings: &Surroundings) -> OrdMap<u32, Device> {
    let devices = surroundings.devices.iter();
    devices.map(|(&i, facts)| (i, device(facts))).collect()
}

fn device(facts: &DeviceFacts) -> Device {
    let source = |snat: &Option<Snat>| match snat {
        Some(Snat { addr, ports }) => SnatSource {
            addr: (*addr).into(),
            first_port: *ports.start(),
            ports: ports.end() - ports.start() + 1,
        },
        None => SnatSource::NONE,
    };
    Device::new(
        source(&facts.snat_v4),
        source(&facts.snat_v6),
        facts.mac,
        facts.xdp_redirect,
    )
    .tunnel(facts.tunnel)
}

/// A time in [`lb_common::flow::tick`]s, rounded up.
fn ticks(time: std::time::Duration) -> u32 {
    let ticks = time.as_nanos().div_ceil(1 << 30);
    u32::try_from(ticks).unwrap_or(u32::MAX / 4)
}

/// The map key of a frontend.
fn key(frontend: &desired::Frontend) -> Frontend {
    Frontend::new(
        frontend.addr.ip().into(),
        Port::new(frontend.addr.port()),
        frontend.protocol as u8,
    )
}

fn within(what: &'static str, wanted: usize, max: usize) -> Result<(), CompileError> {
    if wanted <= max {
        return Ok(());
    }
    Err(CompileError::TooMany { what, wanted, max })
}

#[cfg(test)]
mod tests;
