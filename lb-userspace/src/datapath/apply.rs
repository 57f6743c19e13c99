//! Image → maps: writes the difference, in an order in which every packet finds either
//! the old service or the new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use imbl::{OrdMap, OrdSet};
use lb_common::{
    Addr, AddressUse, Backend, BackendId, Claim, Device, Entry, Frontend, Primary, Slot, SlotTable,
    Stats, config,
    service::{former_table, handover_table},
};
use serde::Serialize;

use super::{
    Datapath, DatapathError, GoneFlows, claims, clients,
    difference::{absent, differing, put, take},
    generations::Generations,
    load::Maps,
};
use crate::compile::image::{Backends, InUse, MapImage, Network, spread};

/// How long what was given up is not given out again: far longer than any program run.
const REST: Duration = Duration::from_secs(2);

/// How many values an [`Datapath::apply`] wrote, by map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Addresses added, changed or removed.
    pub addresses: usize,
    /// Frontends added, changed or removed, those of packets and those of sockets.
    pub frontends: usize,
    /// Services switched to another slot table.
    pub services: usize,
    /// Slots stored.
    pub slots: usize,
    /// Backends added, changed or retired.
    pub backends: usize,
    /// Devices added, changed or removed.
    pub devices: usize,
    /// Networks admitted to a service, or no more.
    pub sources: usize,
}

impl Applied {
    /// All writes.
    pub fn total(&self) -> usize {
        let Self {
            addresses,
            frontends,
            services,
            slots,
            backends,
            devices,
            sources,
        } = self;
        addresses + frontends + services + slots + backends + devices + sources
    }
}

/// What the maps hold; read off them when they are opened and kept up with every write.
#[derive(Default)]
pub(super) struct Live {
    pub(super) addresses: OrdMap<Addr, AddressUse>,
    pub(super) frontends: OrdMap<Frontend, Entry>,
    pub(super) internal: OrdMap<Frontend, u32>,
    pub(super) sources: OrdSet<Network>,
    pub(super) services: OrdMap<u32, SlotTable>,
    pub(super) backends: Backends,
    pub(super) devices: OrdMap<u32, Device>,
    pub(super) claims: BTreeSet<Claim>,
    pub(super) formers: OrdMap<Addr, Addr>,
    pub(super) primaries: OrdMap<Frontend, Primary>,
    pub(super) generations: Generations,
    /// The image that was applied last, which may be told from the next one without looking at all;
    /// none where not all of it was written.
    applied: Option<MapImage>,
    /// Whether the filter may let packets through that concern nobody any more.
    pub(super) filter_is_wide: bool,
    /// Backends that are gone, until [`Datapath::stranded`] asks for them.
    pub(super) gone: Vec<Backend>,
    resting_backends: BTreeMap<u32, Instant>,
    resting_services: BTreeMap<u32, Instant>,
    resting_slots: Vec<(SlotTable, Instant)>,
}

impl Live {
    pub(super) fn read(maps: &Maps) -> Result<Self, DatapathError> {
        let mut live = Self {
            filter_is_wide: true,
            ..Self::default()
        };
        for entry in maps.addresses.iter() {
            live.addresses
                .extend([entry.map_err(DatapathError::map("ADDRESSES"))?]);
        }
        for entry in maps.frontends.iter() {
            live.frontends
                .extend([entry.map_err(DatapathError::map("FRONTENDS"))?]);
        }
        for entry in maps.internal.iter() {
            live.internal
                .extend([entry.map_err(DatapathError::map("INTERNAL"))?]);
        }
        for entry in maps.devices.iter() {
            live.devices
                .extend([entry.map_err(DatapathError::map("DEVICES"))?]);
        }
        for entry in maps.formers.iter() {
            live.formers
                .extend([entry.map_err(DatapathError::map("FORMERS"))?]);
        }
        for entry in maps.primaries.iter() {
            live.primaries
                .extend([entry.map_err(DatapathError::map("PRIMARIES"))?]);
        }
        live.claims = claims::read(maps)?;
        live.sources = clients::sources(maps)?;
        let by_packets = live.frontends.values().map(|entry| entry.service());
        for service in by_packets.chain(live.internal.values().copied()) {
            let table = SlotTable(maps.services.get(service as usize));
            live.services.insert(service, table);
            let index = handover_table(service);
            let table = SlotTable(maps.services.get(index as usize));
            if !table.is_empty() {
                live.services.insert(index, table);
            }
        }
        let backends = maps.backends.iter();
        let backends: Vec<_> = backends
            .filter(|it| it.as_ref().map_or(true, |it| it.id != BackendId::NONE))
            .collect::<Result<_, _>>()
            .map_err(DatapathError::map("BACKENDS"))?;
        live.backends = backends.into_iter().collect();
        live.generations = Generations::read(maps, &live.services);
        Ok(live)
    }

    /// What is to be told from an image that is wanted.
    fn image(&self) -> MapImage {
        MapImage {
            addresses: self.addresses.clone(),
            frontends: self.frontends.clone(),
            internal: self.internal.clone(),
            sources: self.sources.clone(),
            services: self.services.clone(),
            backends: self.backends.by_index().clone(),
            primaries: self.primaries.clone(),
            devices: self.devices.clone(),
            ..MapImage::default()
        }
    }

    /// Remembers that all of an image was written, with one copy of what is the same here and there.
    fn hold(&mut self, image: &MapImage) {
        self.addresses.clone_from(&image.addresses);
        self.frontends.clone_from(&image.frontends);
        self.internal.clone_from(&image.internal);
        self.sources.clone_from(&image.sources);
        self.services.clone_from(&image.services);
        // Those of backends that are gone are more, for some seconds.
        if self.primaries.len() == image.primaries.len() {
            self.primaries.clone_from(&image.primaries);
        }
        self.applied = Some(image.clone());
    }

    fn wake(&mut self) {
        let rested = |since: &Instant| since.elapsed() < REST;
        self.resting_backends.retain(|_, since| rested(since));
        self.resting_services.retain(|_, since| rested(since));
        self.resting_slots.retain(|(_, since)| rested(since));
    }
}

/// From what the maps hold to what they shall.
pub(super) struct Change<'a> {
    pub(super) before: MapImage,
    pub(super) image: &'a MapImage,
}

impl Datapath {
    /// What must keep its number: the input of `compile` beside what is desired.
    pub fn in_use(&mut self) -> InUse {
        self.live.wake();
        let live = &self.live;
        InUse {
            frontends: live.frontends.clone(),
            internal: live.internal.clone(),
            services: live.services.clone(),
            backends: live.backends.clone(),
            resting_backends: live.resting_backends.keys().copied().collect(),
            resting_services: live.resting_services.keys().copied().collect(),
            resting_slots: live
                .resting_slots
                .iter()
                .map(|(table, _)| table)
                .chain(live.generations.former_tables())
                .map(|table| (table.offset(), table.len()))
                .collect(),
            primaries: live.primaries.clone(),
            leaves_gone: self.options.gone_flows == GoneFlows::Leave,
        }
    }

    /// What the maps hold, as far as they tell: services have no names.
    pub fn live_image(&self) -> MapImage {
        let live = &self.live;
        let tables = live.services.values().filter(|table| !table.is_empty());
        let backends = live.backends.by_index().iter();
        MapImage {
            tables: tables
                .map(|table| {
                    let range = table.offset()..table.offset() + table.len();
                    let slots = range.map(|index| Slot(self.maps.slots.get(index as usize)));
                    let slots = slots.map(Slot::wanted);
                    (table.offset(), slots.collect::<Arc<[Slot]>>())
                })
                .collect(),
            backends: backends
                .filter(|(_, backend)| backend.alive != 0)
                .map(|(&index, &backend)| (index, backend))
                .collect(),
            ..live.image()
        }
    }

    /// Makes the maps hold `image`. Applying the same image again writes nothing. What is to
    /// follow with time does so by [`Self::settle`].
    ///
    /// What is new is filled before anything points to it, and what is old is taken
    /// away after nothing does: devices, backends, slots, services, frontends,
    /// addresses, and back.
    pub fn apply(&mut self, image: &MapImage) -> Result<Applied, DatapathError> {
        let mut applied = Applied::default();
        let before = self.live.applied.take();
        let change = &Change {
            before: before.unwrap_or_else(|| self.live.image()),
            image,
        };
        self.open_filter(change);
        self.add_devices(change, &mut applied)?;
        self.add_backends(change, &mut applied)?;
        if applied.backends > 0 {
            // Before any slot names them.
            self.forget_hops();
        }
        self.set_primaries(change, &mut applied)?;
        self.add_sources(change, &mut applied)?;
        self.set_affinity(change, &mut applied)?;
        self.store_slots(change, &mut applied);
        self.switch_services(change, &mut applied)?;
        self.exchange_frontends(change, &mut applied)?;
        self.exchange_internal(change, &mut applied)?;
        self.remove_sources(change, &mut applied)?;
        self.retire_services(change, &mut applied);
        self.forget_clients(change, &applied)?;
        self.retire_backends(change, &mut applied)?;
        self.let_primaries_go(change);
        self.remove_devices(change, &mut applied)?;
        self.live.hold(image);
        Ok(applied)
    }

    fn add_devices(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        self.set_near_sources(change.image);
        let devices = differing(&change.before.devices, &change.image.devices);
        let (map, live) = (&mut self.maps.devices, &mut self.live.devices);
        applied.devices += put("DEVICES", map, live, devices)?;
        self.set_near();
        Ok(())
    }

    fn add_backends(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        self.forget_learning(change.image);
        let backends = differing(&change.before.backends, &change.image.backends);
        // In whichever order to the programs: nothing names them yet.
        for (index, backend) in spread(backends) {
            let live = self.live.backends.get(index).copied();
            let backend = &self.learning(&backend);
            if live == Some(*backend) {
                continue;
            }
            if live.is_none_or(|live| live.id != backend.id) {
                let zero = zeroed_stats()?;
                self.maps
                    .backend_stats
                    .set(index, zero, 0)
                    .map_err(DatapathError::map("BACKEND_STATS"))?;
            }
            self.maps
                .backends
                .set(index, backend, 0)
                .map_err(DatapathError::map("BACKENDS"))?;
            self.live.backends.insert(*backend);
            applied.backends += 1;
        }
        Ok(())
    }

    fn switch_services(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        for (index, table) in differing(&change.before.services, &change.image.services) {
            let old = self.live.services.get(&index).copied();
            if old == Some(table) {
                continue;
            }
            if old.is_none() {
                if index < config::MAX_SERVICES as u32 {
                    let zero = zeroed_stats()?;
                    self.maps
                        .service_stats
                        .set(index, zero, 0)
                        .map_err(DatapathError::map("SERVICE_STATS"))?;
                    // Whatever a former owner of the index left, if its agent was killed.
                    for further in [handover_table(index), former_table(index)] {
                        let none = SlotTable::default();
                        self.maps.services.set(further as usize, none.0);
                    }
                }
                self.maps
                    .turns
                    .set(index, 0, 0)
                    .map_err(DatapathError::map("TURNS"))?;
            }
            let kept = old.is_some_and(|old| self.keep_former(index, old, table));
            self.maps.services.set(index as usize, table.0);
            self.live.services.insert(index, table);
            if let Some(old) = old.filter(|old| !kept && old.offset() != table.offset()) {
                self.rest_slots(old);
            }
            applied.services += 1;
        }
        Ok(())
    }

    pub(super) fn rest_slots(&mut self, old: SlotTable) {
        if !old.is_empty() {
            self.live.generations.forget(old);
            self.live.resting_slots.push((old, Instant::now()));
        }
    }

    fn exchange_frontends(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        if change.before.frontends == change.image.frontends {
            return self.store_frontends(change, applied);
        }
        self.set_near_frontends(Some(change.image));
        let stored = self.store_frontends(change, applied);
        // Whatever of it has failed, what is there is found.
        self.set_near_frontends(None);
        stored
    }

    fn store_frontends(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        // An address is known before its frontends are, and forgotten after them: a
        // packet to an unknown frontend of a known VIP is dropped, not misdirected.
        let Change { before, image } = change;
        let addresses = differing(&before.addresses, &image.addresses);
        let (changed, new): (Vec<_>, Vec<_>) = addresses
            .into_iter()
            .partition(|(addr, _)| self.live.addresses.contains_key(addr));
        let (maps, live) = (&mut self.maps, &mut self.live);
        let at = "ADDRESSES";
        applied.addresses += put(at, &mut maps.addresses, &mut live.addresses, new)?;
        let entries = differing(&before.frontends, &image.frontends);
        let gone = absent(&before.frontends, &image.frontends);
        let of = (&mut maps.frontends, &mut live.frontends);
        applied.frontends += put("FRONTENDS", of.0, of.1, entries)?;
        applied.frontends += take("FRONTENDS", of.0, of.1, gone)?;
        let gone = absent(&before.addresses, &image.addresses);
        applied.addresses += put(at, &mut maps.addresses, &mut live.addresses, changed)?;
        applied.addresses += take(at, &mut maps.addresses, &mut live.addresses, gone)?;
        Ok(())
    }

    fn retire_services(&mut self, change: &Change<'_>, applied: &mut Applied) {
        for index in absent(&change.before.services, &change.image.services) {
            let empty = SlotTable::default();
            self.forget_former(index);
            self.maps.services.set(index as usize, empty.0);
            if let Some(old) = self.live.services.remove(&index) {
                self.rest_slots(old);
            }
            self.live.resting_services.insert(index, Instant::now());
            applied.services += 1;
        }
    }

    fn retire_backends(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        for index in absent(&change.before.backends, &change.image.backends) {
            let live = self.live.backends.get(index).filter(|it| it.alive != 0);
            let Some(dead) = live.map(Backend::retired) else {
                continue;
            };
            self.maps
                .backends
                .set(index, dead, 0)
                .map_err(DatapathError::map("BACKENDS"))?;
            self.live.backends.insert(dead);
            self.live.gone.push(dead);
            self.live.resting_backends.insert(index, Instant::now());
            self.live.generations.retire(index);
            applied.backends += 1;
        }
        Ok(())
    }

    fn remove_devices(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        let gone = absent(&change.before.devices, &change.image.devices);
        let (map, live) = (&mut self.maps.devices, &mut self.live.devices);
        applied.devices += take("DEVICES", map, live, gone)?;
        self.set_near();
        Ok(())
    }
}

fn zeroed_stats() -> Result<aya::maps::PerCpuValues<Stats>, DatapathError> {
    let cpus = super::read::cpus()?;
    vec![Stats::default(); cpus]
        .try_into()
        .map_err(|error: std::io::Error| DatapathError::Map {
            map: "SERVICE_STATS",
            reason: error.to_string(),
        })
}

const _: () = assert!(config::MAX_BACKENDS <= 1 << BackendId::INDEX_BITS);
