//! What differs between what there was and what is wanted, and hash maps that are to hold it.

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use imbl::{OrdMap, ordmap::DiffItem};

use super::{DatapathError, read::removed};

/// Writes entries into a hash map unless they live in it, and remembers that they do; says how many.
pub(super) fn put<K: Pod + Ord, V: Pod + PartialEq>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    live: &mut OrdMap<K, V>,
    entries: Vec<(K, V)>,
) -> Result<usize, DatapathError> {
    let mut count = 0;
    for (key, value) in entries {
        if live.get(&key) == Some(&value) {
            continue;
        }
        count += 1;
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
    live: &mut OrdMap<K, V>,
    keys: Vec<K>,
) -> Result<usize, DatapathError> {
    let count = keys.len();
    for key in keys {
        removed(name, map.remove(&key))?;
        live.remove(&key);
    }
    Ok(count)
}

/// What there was before and is wanted no more.
pub(super) fn absent<K: Ord + Copy, V: PartialEq>(
    before: &OrdMap<K, V>,
    wanted: &OrdMap<K, V>,
) -> Vec<K> {
    let gone = before.diff(wanted).filter_map(|it| match it {
        DiffItem::Remove(&key, _) => Some(key),
        DiffItem::Add(..) | DiffItem::Update { .. } => None,
    });
    gone.collect()
}

/// What is wanted and was not there before, or as something else.
pub(super) fn differing<K: Ord + Copy, V: PartialEq + Copy>(
    before: &OrdMap<K, V>,
    wanted: &OrdMap<K, V>,
) -> Vec<(K, V)> {
    let differing = before.diff(wanted).filter_map(|it| match it {
        DiffItem::Add(&key, &value) => Some((key, value)),
        DiffItem::Update {
            new: (&key, &value),
            ..
        } => Some((key, value)),
        DiffItem::Remove(..) => None,
    });
    differing.collect()
}
