//! Which part of a service has which index.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use lb_common::config::MAX_SERVICES;

use super::{
    CompileError,
    image::InUse,
    key,
    parts::{Part, PartName},
};
use crate::desired::Frontend;

/// Gives every part an index: the one its frontends have, else the lowest free one. What
/// packets come by counts first.
pub(super) fn indices(
    parts: &BTreeMap<PartName, Part<'_>>,
    in_use: &InUse,
) -> Result<BTreeMap<PartName, u32>, CompileError> {
    let mut indices = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let by_packets = |it: &_| Some(in_use.frontends.get(it)?.service());
    let by_sockets = |it: &_| in_use.internal.get(it).copied();
    let mut keep = |name, frontends: &BTreeSet<Frontend>, live: &dyn Fn(&_) -> Option<u32>| {
        if let Entry::Vacant(entry) = indices.entry(name) {
            let live = frontends.iter().filter_map(|it| live(&key(it)));
            // Where frontends of several services were joined, or those of one were
            // parted, each index still goes to one service only.
            let kept = live.filter(|index| !taken.contains(index)).min();
            if let Some(index) = kept {
                taken.insert(index);
                entry.insert(index);
            }
        }
    };
    for (&name, part) in parts {
        keep(name, &part.frontends, &by_packets);
    }
    for (&name, part) in parts {
        keep(name, &part.internal, &by_sockets);
    }
    if indices.len() == parts.len() {
        return Ok(indices);
    }
    // What lives or rests is no free index, even if this compile gives it up.
    taken.extend(in_use.frontends.values().map(|it| it.service()));
    taken.extend(in_use.internal.values());
    taken.extend(in_use.services.keys());
    taken.extend(&in_use.resting_services);
    let mut free = (0..MAX_SERVICES as u32).filter(|index| !taken.contains(index));
    for (&name, part) in parts {
        if let Entry::Vacant(entry) = indices.entry(name) {
            let index = free.next();
            entry.insert(index.ok_or_else(|| CompileError::NoServiceIndex(part.name.clone()))?);
        }
    }
    Ok(indices)
}
