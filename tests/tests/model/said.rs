//! What the agent says in the maps of the program, as the reference takes it.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::{
    Backend, BackendId, Frontend, Primary, Slot, SlotTable,
    config::{MAX_SLOTS, MAX_TABLES},
};
use naru::compile::image::MapImage;

use crate::{
    reference::{
        direct,
        slots::{Table, former},
        state::Said,
    },
    tables::{Words, open},
};

/// The maps by which the agent tells of flows that go without records.
pub(crate) struct Agent {
    services: Words,
    slots: Words,
    backends: Array<MapData, Backend>,
    primaries: HashMap<MapData, Frontend, Primary>,
    /// Indices of tables that may be in force.
    tables: BTreeSet<u32>,
    /// Indices of backends that are.
    alive: BTreeSet<u32>,
}

impl Agent {
    pub(crate) fn open(pin_dir: &Path) -> Self {
        let backends = Map::Array(open(pin_dir, "BACKENDS"));
        let primaries = Map::HashMap(open(pin_dir, "PRIMARIES"));
        Self {
            services: Words::open(pin_dir, "SERVICES", MAX_TABLES),
            slots: Words::open(pin_dir, "SLOTS", MAX_SLOTS),
            backends: Array::try_from(backends).expect("an array"),
            primaries: HashMap::try_from(primaries).expect("a table"),
            tables: BTreeSet::new(),
            alive: BTreeSet::new(),
        }
    }

    /// Takes over which indices are in use.
    pub(crate) fn serves(&mut self, image: &MapImage) {
        let indices = image.services.keys();
        self.tables = indices
            .flat_map(|&index| [index, former(index)])
            .filter(|&index| (index as usize) < MAX_TABLES)
            .collect();
        self.alive = image.backends.keys().copied().collect();
    }

    pub(crate) fn said(&self) -> Said {
        let tables = self.tables.iter().filter_map(|&index| {
            let word = self.services.get(index);
            let slots = places(word).map(|place| self.slots.get(place));
            // A service has its table, be it empty; a former one is there or not.
            (index < former(0) || word != 0).then(|| (index, Table::read(word, slots)))
        });
        let backends = self.alive.iter().map(|index| {
            let backend = self.backends.get(index, 0);
            backend.expect("a backend")
        });
        let primaries = self.primaries.iter().map(|entry| {
            let (of, to) = entry.expect("an entry");
            let addr = SocketAddr::new(of.addr.to_ip(), of.port.get());
            let frontend = SocketAddr::new(to.addr.to_ip(), to.port.get());
            let backend = self.backends.get(&to.backend.index(), 0);
            let backend = backend.expect("a backend");
            let primary = direct::Primary {
                learned: backend.is(to.backend) && backend.restored != 0,
                frontend: (!to.addr.is_unspecified()).then_some(frontend),
                backend: to.backend.0,
                service: to.service,
            };
            ((addr, of.protocol), primary)
        });
        Said {
            tables: tables.collect(),
            primaries: primaries.collect(),
            restored: backends
                .filter(|backend| backend.restored != 0)
                .map(|backend| backend.id.0)
                .collect(),
        }
    }

    /// Ends the drain window of all slots.
    pub(crate) fn age(&self) {
        self.change(Slot::aged);
    }

    /// Ends the time in which slots are looked up.
    pub(crate) fn clear(&self) {
        self.change(Slot::cleared);
    }

    fn change(&self, change: impl Fn(Slot) -> Slot) {
        for &index in &self.tables {
            for place in places(self.services.get(index)) {
                let slot = Slot(self.slots.get(place));
                // One whose flows had another table counts on that as long as it is there.
                if slot.current() != BackendId::NONE {
                    self.slots.set(place, change(slot).0);
                }
            }
        }
    }
}

/// Indices of a table's slots.
fn places(word: u64) -> std::ops::Range<u32> {
    let table = SlotTable(word);
    table.offset()..table.offset() + table.len()
}
