//! Which service has which index.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use lb_common::config::MAX_SERVICES;

use super::{CompileError, image::InUse, key};
use crate::desired::{Frontend, Service, ServiceName};

/// Every frontend with its service; refuses what no two maps entries could say.
pub(super) fn frontends<'a>(
    wanted: &BTreeMap<&'a ServiceName, &'a Service>,
) -> Result<BTreeMap<Frontend, &'a ServiceName>, CompileError> {
    let mut owners = BTreeMap::new();
    for (&name, service) in wanted {
        let mut protocols = service.frontends.iter().map(|frontend| frontend.protocol);
        let first = protocols.next();
        if protocols.any(|protocol| Some(protocol) != first) {
            return Err(CompileError::MixedProtocols(name.clone()));
        }
        for &frontend in &service.frontends {
            match owners.entry(frontend) {
                Entry::Vacant(entry) => {
                    entry.insert(name);
                }
                Entry::Occupied(entry) => {
                    return Err(CompileError::FrontendTwice {
                        frontend,
                        one: (*entry.get()).clone(),
                        other: name.clone(),
                    });
                }
            }
        }
    }
    Ok(owners)
}

/// Gives every service an index: the one its frontends have, else the lowest free one.
pub(super) fn indices<'a>(
    wanted: &BTreeMap<&'a ServiceName, &'a Service>,
    in_use: &InUse,
) -> Result<BTreeMap<&'a ServiceName, u32>, CompileError> {
    let mut indices = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (&name, service) in wanted {
        let live = service
            .frontends
            .iter()
            .filter_map(|it| in_use.frontends.get(&key(it)));
        // Where frontends of several services were joined, or those of one were
        // parted, each index still goes to one service only.
        let kept = live.copied().filter(|index| !taken.contains(index)).min();
        if let Some(index) = kept {
            taken.insert(index);
            indices.insert(name, index);
        }
    }
    // What lives or rests is no free index, even if this compile gives it up.
    taken.extend(in_use.frontends.values());
    taken.extend(in_use.services.keys());
    taken.extend(&in_use.resting_services);
    let mut free = (0..MAX_SERVICES as u32).filter(|index| !taken.contains(index));
    for &name in wanted.keys() {
        if let Entry::Vacant(entry) = indices.entry(name) {
            let index = free.next();
            entry.insert(index.ok_or_else(|| CompileError::NoServiceIndex(name.clone()))?);
        }
    }
    Ok(indices)
}
