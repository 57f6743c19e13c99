//! Loaded datapaths that the cases share, one case after the other.
//!
//! The verifier walks half a million instructions to load one, which takes seconds where
//! the processor is emulated. So a case hands its datapath on, and the next one finds it
//! as if it were new: every map of its programs is emptied. One that failed is not.

use std::{
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use lb_common::{Entry, Frontend, Tuple, config::REFUSALS_PER_SECOND};
use naru::datapath::{self, Datapath, GoneFlows, Options, Records};

use crate::empty;

static FREE: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

/// A datapath and its pins, which go with it.
struct Loaded {
    datapath: Datapath,
    options: Options,
    pins: Pins,
}

/// Pins that are removed when this is dropped, after the datapath that holds them.
struct Pins(PathBuf);

/// A datapath for one case. It goes back to the pool, unless the case fails.
pub(crate) struct Lease(Option<Loaded>);

/// Flows that those of most cases have room for. All of it is looked through after each case.
pub(crate) const MANY: u32 = 1 << 15;

/// An empty datapath that treats flows of gone backends so and has room for `max_flows`, out of
/// the pool or newly loaded.
pub(crate) fn take(gone_flows: GoneFlows, max_flows: u32) -> Lease {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let at = free
        .iter()
        .position(|it| (it.options.gone_flows, it.options.max_flows) == (gone_flows, max_flows));
    let found = at.map(|at| free.swap_remove(at));
    drop(free);
    let loaded = match found {
        Some(mut loaded) => {
            loaded.empty();
            loaded
        }
        None => Loaded::new(gone_flows, max_flows),
    };
    Lease(Some(loaded))
}

/// Removes all that is in the pool, with its pins.
pub(crate) fn drain() {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

// === impl Loaded ===

impl Loaded {
    fn new(gone_flows: GoneFlows, max_flows: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("naru-packet-{}-{number}", std::process::id());
        let pin_dir = PathBuf::from("/sys/fs/bpf").join(name);
        datapath::preflight(&pin_dir).unwrap();
        let options = Options {
            pin_dir: pin_dir.clone(),
            max_flows,
            gone_flows,
            // Ended by the cases, when it suits them.
            drain_window: Duration::ZERO,
            ..Options::default()
        };
        // Before anything is pinned: what fails to load leaves its maps there.
        let pins = Pins(pin_dir);
        Self {
            datapath: Datapath::open(options.clone()).unwrap(),
            options,
            pins,
        }
    }

    /// Makes it what a newly loaded one is.
    fn empty(&mut self) {
        for map in empty::maps_of_programs_that_use(&self.pins.maps()) {
            empty::empty(&map);
        }
        self.datapath.start_over();
        assert_eq!(self.datapath.verdicts().unwrap(), [], "after emptying");
        let (flows, _) = self.datapath.flows(1).unwrap();
        assert!(flows.is_empty(), "flows after emptying");
    }
}

// === impl Pins ===

impl Pins {
    /// Where the maps are: in the directory that is named after the ABI's version.
    fn dir(&self) -> PathBuf {
        self.0.join(format!("v{}", lb_common::ABI_VERSION))
    }

    /// The pinned maps.
    fn maps(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        datapath::detach(&self.0).unwrap();
    }
}

// === impl Lease ===

impl Lease {
    /// Opens it anew over its pinned maps, as an agent does that restarts, after something has
    /// happened to them or to its options.
    pub(crate) fn reopen_after(mut self, happens: impl FnOnce(&Path, &mut Options)) -> Self {
        let Loaded {
            datapath,
            mut options,
            pins,
        } = self.0.take().unwrap();
        drop(datapath);
        happens(&pins.dir(), &mut options);
        Self(Some(Loaded {
            datapath: Datapath::open(options.clone()).unwrap(),
            options,
            pins,
        }))
    }

    /// The records of flows.
    pub(crate) fn records(&self) -> Records {
        Records::open(&self.0.as_ref().unwrap().pins.0).unwrap()
    }

    /// The buckets of a table of flows, as words.
    pub(crate) fn words<const WORDS: usize>(&self, map: &str) -> Array<MapData, [u64; WORDS]> {
        let dir = self.0.as_ref().unwrap().pins.dir();
        let data = MapData::from_pin(dir.join(map)).unwrap();
        Map::from_map_data(data).unwrap().try_into().unwrap()
    }

    /// How many entries a map has that tells something of values `V` by packets' addresses.
    pub(crate) fn count<V: aya::Pod>(&self, map: &str) -> usize {
        self.table::<V>(map).keys().map(Result::unwrap).count()
    }

    /// What the long way finds services by.
    pub(crate) fn frontends(&self) -> HashMap<MapData, Frontend, Entry> {
        let dir = self.0.as_ref().unwrap().pins.dir();
        let data = MapData::from_pin(dir.join("FRONTENDS")).unwrap();
        Map::from_map_data(data).unwrap().try_into().unwrap()
    }

    /// As though all but so many of the refusals that a CPU may send had been sent, in the second
    /// of the last one: slow machines do not reach the limit by themselves.
    pub(crate) fn leave_refusals(&self, left: u32) {
        let maps = empty::maps_of_programs_that_use(&self.0.as_ref().unwrap().pins.maps());
        let mut maps = maps.iter();
        let map = maps.find(|map| map.name_as_str() == Some("REFUSALS"));
        let map = Map::from_map_data(MapData::from_id(map.unwrap().id()).unwrap()).unwrap();
        let mut sent: PerCpuArray<_, u64> = map.try_into().unwrap();
        let by_cpu = sent.get(&0, 0).unwrap();
        let second = by_cpu.iter().map(|sent| sent >> 32).max().unwrap();
        let value = second << 32 | u64::from(REFUSALS_PER_SECOND - left);
        let values = PerCpuValues::try_from(vec![value; by_cpu.len()]).unwrap();
        sent.set(0, values, 0).unwrap();
    }

    /// A map that tells something by packets' addresses.
    pub(crate) fn table<V: aya::Pod>(&self, map: &str) -> HashMap<MapData, Tuple, V> {
        let dir = self.0.as_ref().unwrap().pins.dir();
        let data = MapData::from_pin(dir.join(map)).unwrap();
        Map::from_map_data(data).unwrap().try_into().unwrap()
    }
}

impl Deref for Lease {
    type Target = Datapath;

    fn deref(&self) -> &Datapath {
        &self.0.as_ref().unwrap().datapath
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Datapath {
        &mut self.0.as_mut().unwrap().datapath
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(loaded) = self.0.take()
            && !thread::panicking()
        {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.push(loaded);
        }
    }
}
