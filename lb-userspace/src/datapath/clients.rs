//! What services know of their clients: who may use them, and where they were last.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::lpm_trie::Key;
use imbl::{OrdSet, ordset::DiffItem};
use lb_common::{BackendId, Slot};

use super::{
    Datapath, DatapathError,
    apply::{Applied, Change},
    difference::differing,
    load::Maps,
    read::removed,
};
use crate::compile::image::Network;

fn key(network: &Network) -> Key<lb_common::Client> {
    Key::new(network.bits, network.client)
}

/// The networks in map `SOURCES`.
pub(super) fn sources(maps: &Maps) -> Result<OrdSet<Network>, DatapathError> {
    let entries = maps.sources.iter();
    entries
        .map(|entry| {
            let (key, _) = entry.map_err(DatapathError::map("SOURCES"))?;
            Ok(Network {
                bits: key.prefix_len(),
                client: key.data(),
            })
        })
        .collect()
}

impl Datapath {
    /// Admits new networks: before any frontend is guarded.
    pub(super) fn add_sources(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        for difference in change.before.sources.diff(&change.image.sources) {
            let DiffItem::Add(network) = difference else {
                continue;
            };
            self.maps
                .sources
                .insert(&key(network), 0, 0)
                .map_err(DatapathError::map("SOURCES"))?;
            self.live.sources.insert(*network);
            applied.sources += 1;
        }
        Ok(())
    }

    /// Admits networks no more: after the frontends that were open to them.
    pub(super) fn remove_sources(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        for difference in change.before.sources.diff(&change.image.sources) {
            let DiffItem::Remove(network) = difference else {
                continue;
            };
            removed("SOURCES", self.maps.sources.remove(&key(network)))?;
            self.live.sources.remove(network);
            applied.sources += 1;
        }
        Ok(())
    }

    /// Sets how long clients come back to their backends: before their services know
    /// that they do.
    pub(super) fn set_affinity(
        &mut self,
        change: &Change<'_>,
        applied: &mut Applied,
    ) -> Result<(), DatapathError> {
        for (service, ticks) in differing(&change.before.affinity, &change.image.affinity) {
            let old = self.maps.affinity_ticks.get(&service, 0);
            if old.map_err(DatapathError::map("AFFINITY_TICKS"))? != ticks {
                self.maps
                    .affinity_ticks
                    .set(service, ticks, 0)
                    .map_err(DatapathError::map("AFFINITY_TICKS"))?;
                applied.services += 1;
            }
        }
        Ok(())
    }

    /// Makes clients forget backends that are not their service's any more: an index
    /// that another service had, or a backend that goes on serving others. After the
    /// services that go have gone: an index rests before it is given out again, and is
    /// then as good as new.
    pub(super) fn forget_clients(
        &mut self,
        change: &Change<'_>,
        applied: &Applied,
    ) -> Result<(), DatapathError> {
        let Change { before, image } = change;
        // No service has affinity, nor had any; of an earlier agent's that is not known, and an image
        // that was read off the maps has no names.
        let none =
            before.affinity.is_empty() && image.affinity.is_empty() && !before.names.is_empty();
        if none || applied.services + applied.slots == 0 {
            return Ok(());
        }
        let table = |service: &u32| -> BTreeSet<BackendId> {
            // The place of an empty one is some other's.
            let place = image.services.get(service).filter(|it| !it.is_empty());
            let slots = place.and_then(|table| image.tables.get(&table.offset()));
            let slots = slots.into_iter().flat_map(|slots| slots.iter());
            slots.copied().map(Slot::current).collect()
        };
        let allowed: BTreeMap<u32, BTreeSet<BackendId>> = image
            .affinity
            .keys()
            .map(|service| (*service, table(service)))
            .collect();
        let mut strangers = Vec::new();
        for entry in self.maps.affinity.iter() {
            let (client, last) = entry.map_err(DatapathError::map("AFFINITY"))?;
            let backends = allowed.get(&client.service);
            if backends.is_none_or(|backends| !backends.contains(&last.backend())) {
                strangers.push(client);
            }
        }
        for client in strangers {
            removed("AFFINITY", self.maps.affinity.remove(&client))?;
        }
        Ok(())
    }
}
