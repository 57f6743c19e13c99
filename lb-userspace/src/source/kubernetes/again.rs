//! Translating again where nothing but the contents of EndpointSlices is another.
//!
//! That is what happens all day in a cluster. It concerns the Services of these slices, and of those
//! the endpoints; all else is as it was. Where anything more could be another, all is translated.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{Key, Known, Objects, Slice, Sourced, Terms, known::Input, service};
use crate::source::{Findings, Loaded};

/// The last translation, which was valid, and of what it was.
#[derive(Debug)]
pub(super) struct Last {
    objects: Objects,
    loaded: Loaded,
}

impl Known {
    /// Remembers a translation; `loaded` is what `objects` came to.
    pub(super) fn keep(&mut self, objects: Objects, loaded: &Loaded) {
        self.last = Some(Last {
            objects,
            loaded: loaded.clone(),
        });
    }

    /// What `objects` come to, in the time that the Services take whose slices have changed; none
    /// where all have to be looked at.
    pub(in crate::source) fn again(&mut self, objects: &Objects, terms: &Terms) -> Option<Loaded> {
        let Last {
            objects: before,
            mut loaded,
        } = self.last.take()?;
        let (former, changed) = before.other_slices(objects)?;
        let gone: HashSet<_> = former.iter().map(Arc::as_ptr).collect();
        let mut concerned: BTreeMap<&Key, Vec<_>> = BTreeMap::new();
        for service in services(former) {
            concerned.entry(service?).or_default();
        }
        for (service, slice) in services(changed).zip(changed) {
            concerned.entry(service?).or_default().push(slice);
        }
        for (key, changed) in concerned {
            let entry = self.entries.get_mut(key)?;
            let before = entry.input.slices.iter();
            let kept = before.filter(|it| !gone.contains(&Arc::as_ptr(it)));
            let mut slices: Vec<_> = kept.chain(changed).map(Arc::clone).collect();
            slices.sort_by(|one, other| one.object.key.cmp(&other.object.key));
            // Its Endpoints count where there are no slices.
            if slices.is_empty() || entry.input.legacy.is_some() {
                return None;
            }
            let pooled = entry.input.pooled;
            let input = Input {
                service: Arc::clone(&entry.input.service),
                slices,
                legacy: None,
                pooled,
            };
            let terms = Terms {
                pooled,
                ..terms.clone()
            };
            let mut findings = Findings::default();
            let object = format!("Service {key}");
            let ports = service::ports(key, &object, &input, &terms, &mut findings).ports;
            let mut pairs = entry.found.ports.iter().zip(&ports);
            let same = entry.found.ports.len() == ports.len()
                && pairs.all(|(before, now)| {
                    before.0 == now.0 && before.1.is_but_for_endpoints(&now.1)
                });
            if !same || findings != entry.findings {
                return None;
            }
            for (name, port) in &ports {
                loaded
                    .desired
                    .services
                    .insert(name.clone(), Arc::clone(port));
            }
            (entry.input, entry.found.ports) = (input, ports);
        }
        self.keep(objects.clone(), &loaded);
        Some(loaded)
    }
}

impl Objects {
    /// Whose the slices are that differ, by the same names; none where more does.
    pub(in crate::source) fn differing<'a>(
        &'a self,
        others: &'a Self,
    ) -> Option<impl Iterator<Item = Option<&'a Key>>> {
        let (former, changed) = self.other_slices(others)?;
        Some(services(former).chain(services(changed)))
    }

    /// The slices that are others, with what lies between them, as they were and are.
    fn other_slices<'a>(&'a self, others: &'a Self) -> Option<(&'a Slices, &'a Slices)> {
        let (former, changed) = differing(&self.slices, &others.slices);
        let alike = self.is_but_for_slices(others) && names(former) == names(changed);
        alike.then_some((former, changed))
    }

    /// Whether the others are the very same but for the slices.
    fn is_but_for_slices(&self, others: &Self) -> bool {
        let Self {
            services,
            endpoints,
            slices: _,
            nodes,
            namespaces,
            pools,
            advertisements,
            legacy,
        } = self;
        same(services, &others.services)
            && same(endpoints, &others.endpoints)
            && same(nodes, &others.nodes)
            && same(namespaces, &others.namespaces)
            && same(pools, &others.pools)
            && same(advertisements, &others.advertisements)
            && same(legacy, &others.legacy)
    }
}

type Slices = [Arc<Sourced<Slice>>];

/// Whose they are.
fn services(slices: &Slices) -> impl Iterator<Item = Option<&Key>> {
    slices.iter().map(|it| it.object.service.as_ref())
}

/// Whether they are the very same, by their places in memory.
pub(in crate::source) fn same<T>(some: &[Arc<T>], others: &[Arc<T>]) -> bool {
    let mut pairs = some.iter().zip(others);
    some.len() == others.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
}

/// Both without what they begin with and end with alike.
fn differing<'a, T>(some: &'a [Arc<T>], others: &'a [Arc<T>]) -> (&'a [Arc<T>], &'a [Arc<T>]) {
    let alike = |(one, other): &(&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, other);
    let first = some.iter().zip(others).take_while(alike).count();
    let (some, others) = (&some[first..], &others[first..]);
    let pairs = some.iter().rev().zip(others.iter().rev());
    let last = pairs.take_while(alike).count();
    (&some[..some.len() - last], &others[..others.len() - last])
}

/// The names of slices, in order.
fn names(slices: &Slices) -> Vec<&Key> {
    let mut names: Vec<_> = slices.iter().map(|it| &it.object.key).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
