//! The program's tables as the reference has them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    os::fd::AsFd,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{HashMap, Map, MapData};
use lb_common::{ABI_VERSION, FlowState, Port, Tuple as Key};
use memmap2::{MmapOptions, MmapRaw};
use naru::datapath::Record;

use crate::{
    reference::records::{Count, Flow, Seen},
    wire::Tuple,
};

/// A pinned map.
pub(crate) type Table<K, V> = RefCell<HashMap<MapData, K, V>>;

pub(crate) fn table<K: aya::Pod, V: aya::Pod>(pin_dir: &Path, name: &str) -> Table<K, V> {
    let map = Map::LruHashMap(open(pin_dir, name));
    RefCell::new(HashMap::try_from(map).expect("a table"))
}

pub(crate) fn open(pin_dir: &Path, name: &str) -> MapData {
    let path = pin_dir.join(format!("v{ABI_VERSION}")).join(name);
    MapData::from_pin(path).expect("a pinned map")
}

/// An array of words, in memory that is shared with the program: there are too many to ask the
/// kernel for each.
pub(crate) struct Words {
    map: MmapRaw,
    len: usize,
}

impl Words {
    pub(crate) fn open(pin_dir: &Path, name: &str, len: usize) -> Self {
        let data = open(pin_dir, name);
        let bytes = (len * size_of::<u64>()).next_multiple_of(4_096);
        let map = MmapOptions::new().len(bytes).map_raw(&data.fd().as_fd());
        let map = map.expect("a map that can be mapped");
        Self { map, len }
    }

    fn word(&self, index: u32) -> &AtomicU64 {
        assert!((index as usize) < self.len, "an index of the map");
        let word = self.map.as_mut_ptr().cast::<u64>();
        // SAFETY: within the mapping, which is aligned to pages and lives as long as `self`; the
        // agent and the program use it by whole words, too.
        unsafe { AtomicU64::from_ptr(word.add(index as usize)) }
    }

    pub(crate) fn get(&self, index: u32) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, index: u32, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }
}

pub(crate) fn clear<K: aya::Pod, V: aya::Pod>(table: &Table<K, V>) {
    let mut table = table.borrow_mut();
    let keys: Vec<K> = table.keys().map(|key| key.expect("a key")).collect();
    for key in keys {
        table.remove(&key).expect("an entry");
    }
}

pub(crate) fn all<V: aya::Pod, T>(
    table: &Table<Key, V>,
    read: impl Fn(&Key, V) -> T,
) -> BTreeMap<Tuple, T> {
    let table = table.borrow();
    let entries = table.iter().map(|entry| entry.expect("an entry"));
    entries
        .map(|(key, value)| (tuple(&key), read(&key, value)))
        .collect()
}

pub(crate) fn key(tuple: &Tuple) -> Key {
    let port = Port::new;
    Key::new(
        tuple.src.into(),
        port(tuple.sport),
        tuple.dst.into(),
        port(tuple.dport),
        tuple.protocol,
    )
}

pub(crate) fn tuple(key: &Key) -> Tuple {
    Tuple {
        src: key.src.to_ip(),
        sport: key.src_port.get(),
        dst: key.dst.to_ip(),
        dport: key.dst_port.get(),
        protocol: key.protocol,
    }
}

pub(crate) fn flow(record: &Record) -> Flow {
    let snat = record.snat();
    Flow {
        backend: record.flow.backend.0,
        snat: snat.map(|(addr, port)| (addr.to_ip(), port.get())),
        seen: seen(record.flow.state),
        expires: record.flow.expires,
    }
}

pub(crate) fn seen(state: FlowState) -> Seen {
    let bit = |bit: FlowState| state.0 & bit.0 != 0;
    Seen {
        replied: bit(FlowState::REPLIED),
        confirmed: bit(FlowState::CONFIRMED),
        client_fin: bit(FlowState::CLIENT_FIN),
        backend_fin: bit(FlowState::BACKEND_FIN),
        client_rst: bit(FlowState::CLIENT_RST),
        backend_rst: bit(FlowState::BACKEND_RST),
    }
}

pub(crate) fn count(stats: lb_common::Stats) -> Count {
    Count {
        packets_in: stats.packets_in,
        bytes_in: stats.bytes_in,
        packets_out: stats.packets_out,
        bytes_out: stats.bytes_out,
        flows: stats.flows,
    }
}
