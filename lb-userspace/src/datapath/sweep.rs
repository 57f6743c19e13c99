//! The sweep of flows that are over, beside the agent's own work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::{
    Addr, Algorithm, Backend, BackendId, Direct, Entry, Flow, FlowState, Frontend, Mode, Slot,
    SlotTable, Tuple,
    config::{MAX_SERVICES, MAX_SLOTS, MAX_TABLES},
    exceptions, hash,
};

use super::{
    Datapath, DatapathError, GoneFlows, Unrecorded,
    load::maps_dir,
    read::{now, removed},
    records::{Records, Stuck},
    words::Words,
};

/// Longer than any run of a program takes.
const UNDER_WAY: Duration = Duration::from_millis(20);

/// What a sweep removed, and what it found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Flows that were silent for too long, or whose backend is gone.
    pub flows: usize,
    /// Records of flows that go the same way without.
    pub needless: usize,
    /// What led from replies to flows that are no more.
    pub replies: usize,
    /// Slots whose flows need not be looked up any more.
    pub unrecorded: Unrecorded,
}

/// Sweeps the flow tables through handles of its own, so that it may run on another
/// thread: a table of millions takes a second to walk.
pub struct Sweeper {
    records: Arc<Records>,
    /// Cells that somebody had in hand at the last sweep.
    stuck: BTreeSet<Stuck>,
    direct: HashMap<MapData, Tuple, Direct>,
    exceptions: Words,
    round: Words,
    frontends: HashMap<MapData, Frontend, Entry>,
    backends: Array<MapData, Backend>,
    formers: HashMap<MapData, Addr, Addr>,
    services: Words,
    slots: Words,
    gone_flows: GoneFlows,
    seed: u64,
    serial: Arc<AtomicU64>,
}

impl Datapath {
    /// A sweeper of this datapath's tables.
    pub fn sweeper(&self) -> Result<Sweeper, DatapathError> {
        let dir = maps_dir(&self.options.pin_dir);
        let open = |name: &'static str| {
            MapData::from_pin(dir.join(name))
                .and_then(Map::from_map_data)
                .map_err(DatapathError::map(name))
        };
        let words = |name: &'static str, len: usize| {
            let data = MapData::from_pin(dir.join(name)).map_err(DatapathError::map(name))?;
            Words::new(name, data, len)
        };
        Ok(Sweeper {
            records: self.records.clone(),
            stuck: BTreeSet::new(),
            direct: open("DIRECT")?
                .try_into()
                .map_err(DatapathError::map("DIRECT"))?,
            exceptions: words("EXCEPTIONS", exceptions::LEN / size_of::<u64>())?,
            round: words("ROUND", 1)?,
            frontends: open("FRONTENDS")?
                .try_into()
                .map_err(DatapathError::map("FRONTENDS"))?,
            backends: open("BACKENDS")?
                .try_into()
                .map_err(DatapathError::map("BACKENDS"))?,
            formers: open("FORMERS")?
                .try_into()
                .map_err(DatapathError::map("FORMERS"))?,
            services: words("SERVICES", MAX_TABLES)?,
            slots: words("SLOTS", MAX_SLOTS)?,
            gone_flows: self.options.gone_flows,
            seed: self.options.seed,
            serial: self.live.generations.serial(),
        })
    }
}

impl Sweeper {
    /// Removes flows that are over, records that say nothing, and the reply records of flows
    /// that are no more.
    pub fn sweep(&mut self) -> Result<Swept, DatapathError> {
        let now = now()?;
        let mut swept = Swept::default();
        swept.unrecorded.serial = self.serial.load(Ordering::Acquire);
        let entries = self.entries();
        let mut looked_up = self.looked_up(&entries);
        for record in self.records.iter() {
            let (tuple, flow) = (&record.tuple, &record.flow);
            if self.is_over(tuple, flow, now) {
                swept.flows += usize::from(self.records.remove(&record));
                continue;
            }
            let Some((entry, index)) = self.place(&entries, tuple) else {
                continue;
            };
            let slot = self.slot(index);
            if slot.current() != flow.backend {
                looked_up.remove(&index);
            } else if !slot.records()
                && self.is_needless(entry, flow)
                // Where the slot has changed since, the record says where the flow began.
                && self.serial.load(Ordering::Acquire) == swept.unrecorded.serial
            {
                swept.needless += usize::from(self.records.remove(&record));
            }
        }
        let slots = looked_up.into_iter();
        swept.unrecorded.slots = slots.map(|index| (index, self.slot(index))).collect();
        swept.replies = self.records.remove_stray();
        self.records.free_stuck(&mut self.stuck);
        self.forget_direct(now)?;
        self.clear_exceptions();
        Ok(swept)
    }

    /// Removes connections that came by no frontend and are over: there are some for every health
    /// check from elsewhere.
    fn forget_direct(&mut self, now: u32) -> Result<(), DatapathError> {
        let entries = self.direct.iter().filter_map(Result::ok);
        let over = entries.filter(|(_, it)| it.is_expired(now));
        let over: Vec<Tuple> = over.map(|(reply, _)| reply).collect();
        for reply in over {
            // A packet may have begun it anew since it was read.
            if self
                .direct
                .get(&reply, 0)
                .is_ok_and(|it| it.is_expired(now))
            {
                removed("DIRECT", self.direct.remove(&reply))?;
            }
        }
        Ok(())
    }

    /// Says of replies that nothing needs to be looked up, where there is nothing any more; and that
    /// something does, where a program was held up between saying so and storing the record.
    fn clear_exceptions(&self) {
        let round = exceptions::next(self.round.get(0) as u8);
        self.round.set(0, round.into());
        // What was noted in the round before is stored by then.
        sleep(UNDER_WAY);
        let mut needed = vec![false; exceptions::LEN];
        let direct = self.direct.keys().filter_map(Result::ok);
        for reply in self.records.replies().chain(direct) {
            needed[exceptions::place(hash::tuple_hash(&reply, self.seed))] = true;
        }
        for (index, needed) in needed.chunks(size_of::<u64>()).enumerate() {
            let old = self.exceptions.get(index);
            let mut bytes = old.to_ne_bytes();
            for (byte, needed) in bytes.iter_mut().zip(needed) {
                match (needed, *byte) {
                    (true, 0) => *byte = exceptions::noted(round),
                    (false, noted) if noted != exceptions::noted(round) => *byte = 0,
                    _ => {}
                }
            }
            // What has been noted since stays.
            let _ = self
                .exceptions
                .exchange(index, old, u64::from_ne_bytes(bytes));
        }
    }

    fn is_over(&self, tuple: &Tuple, flow: &Flow, now: u32) -> bool {
        if flow.backend == BackendId::FORMER {
            return flow.is_expired(now) || self.formers.get(&tuple.dst, 0).is_err();
        }
        let backend = self.backends.get(&flow.backend.index(), 0);
        let kept = |backend: Backend| self.gone_flows.keep(tuple, flow, &backend);
        flow.is_expired(now) || !backend.is_ok_and(kept)
    }

    /// Whether a flow to its slot's own backend goes the same way without a record.
    fn is_needless(&self, entry: Entry, flow: &Flow) -> bool {
        let Ok(backend) = self.backends.get(&flow.backend.index(), 0) else {
            return false;
        };
        match backend.mode() {
            Mode::Local => backend.restored != 0 && !entry.is_recorded(),
            Mode::Dsr => !flow.state.has(FlowState::NAT),
            Mode::Nat => false,
        }
    }

    fn entries(&self) -> BTreeMap<Frontend, Entry> {
        self.frontends.iter().filter_map(Result::ok).collect()
    }

    fn slot(&self, index: u32) -> Slot {
        Slot(self.slots.get(index as usize))
    }

    /// The table that flows of a service are looked for in: none where they take turns.
    fn table(&self, service: u32) -> Option<SlotTable> {
        let table = SlotTable(self.services.get(service as usize));
        let computes = table.algorithm() == Algorithm::Maglev && !table.is_affine();
        Some(table).filter(|table| computes && !table.is_empty())
    }

    /// All slots that are looked up.
    fn looked_up(&self, entries: &BTreeMap<Frontend, Entry>) -> BTreeSet<u32> {
        let services: BTreeSet<u32> = entries.values().map(|entry| entry.service()).collect();
        let services = services.into_iter().filter(|it| *it < MAX_SERVICES as u32);
        let tables = services.filter_map(|service| self.table(service));
        let slots = tables.flat_map(|table| table.offset()..table.offset() + table.len());
        slots
            .filter(|index| self.slot(*index).is_looked_up())
            .collect()
    }

    /// The way that a flow came by, and its slot.
    fn place(&self, entries: &BTreeMap<Frontend, Entry>, tuple: &Tuple) -> Option<(Entry, u32)> {
        let frontend = Frontend::new(tuple.dst, tuple.dst_port, tuple.protocol);
        let entry = *entries.get(&frontend)?;
        let table = self.table(entry.service())?;
        let hash = hash::tuple_hash(tuple, self.seed);
        Some((entry, table.offset() + hash::reduce(hash, table.len())))
    }
}
