//! What differs between what lives and what is wanted, and hash maps that are to hold it.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{HashMap, MapData},
};

use super::{DatapathError, read::removed};

/// Writes entries into a hash map and remembers that they live; says how many.
pub(super) fn put<K: Pod + Ord, V: Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    live: &mut BTreeMap<K, V>,
    entries: Vec<(K, V)>,
) -> Result<usize, DatapathError> {
    let count = entries.len();
    for (key, value) in entries {
        map.insert(key, value, 0)
            .map_err(DatapathError::map(name))?;
        live.insert(key, value);
    }
    Ok(count)
}

/// Takes entries out of one; says how many.
pub(super) fn take<K: Pod + Ord, V: Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    live: &mut BTreeMap<K, V>,
    keys: Vec<K>,
) -> Result<usize, DatapathError> {
    let count = keys.len();
    for key in keys {
        removed(name, map.remove(&key))?;
        live.remove(&key);
    }
    Ok(count)
}

/// What lives and is wanted no more. Both are walked side by side, as most of them is the same.
pub(super) fn absent<K: Ord + Copy, A, B>(
    live: &BTreeMap<K, A>,
    wanted: &BTreeMap<K, B>,
) -> Vec<K> {
    let mut wanted = wanted.keys().peekable();
    let is_absent = |key: &&K| {
        while wanted.next_if(|it| it < key).is_some() {}
        wanted.next_if(|it| it == key).is_none()
    };
    live.keys().filter(is_absent).copied().collect()
}

/// What is wanted and does not live, or as something else.
pub(super) fn differing<K: Ord + Copy, V: PartialEq + Copy>(
    live: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Vec<(K, V)> {
    let mut live = live.iter().peekable();
    let differs = |(key, value): &(&K, &V)| {
        while live.next_if(|(it, _)| it < key).is_some() {}
        let same = live.next_if(|(it, _)| it == key);
        same.is_none_or(|(_, live)| live != *value)
    };
    let differing = wanted.iter().filter(differs);
    differing.map(|(&key, &value)| (key, value)).collect()
}
