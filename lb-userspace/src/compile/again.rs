//! Compiling again where nothing but endpoints of some services is another.
//!
//! That is what happens all day in a cluster, and it concerns the services that have these
//! endpoints, whatever else there is. They are compiled as if there were no others, beside all
//! that is in use; what comes of it takes the place of what was there of them. The rest would come
//! out as it is: what is in use keeps its number.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
};

use imbl::OrdMap;
use lb_common::{
    Addr, AddressUse, Backend, Frontend, SlotTable,
    config::{MAX_ADDRESSES, MAX_PRIMARIES, MAX_SERVICES},
    service::handover_table,
};

use super::{
    CompileError, Memo, compile_with, image,
    image::{InUse, MapImage},
    key, primaries, whole,
};
use crate::desired::{self, Census, Desired, Service, ServiceName, Shared, Surroundings};

/// The same as [`compile_with`], in the time that the services take whose endpoints have changed
/// since `before` came to `image`; where more has changed, in that of all.
///
/// `image` is in force: all that it has is among what is in use.
///
/// # Errors
/// As [`compile_with`].
pub fn compile_again(
    (before, image): ((&Desired, &Surroundings), &MapImage),
    (desired, surroundings): (&Desired, &Surroundings),
    in_use: &InUse,
    memo: &mut Memo,
) -> Result<MapImage, CompileError> {
    if let Some(change) = Change::between(before, (desired, surroundings), in_use) {
        let now = (desired, surroundings);
        let mut again = change.compile(image, now, in_use, memo);
        if let Err(TooNarrow::Endpoints) = again {
            again = change.widened().compile(image, now, in_use, memo);
        }
        if let Ok(image) = again {
            return Ok(image);
        }
    }
    compile_with(desired, surroundings, in_use, memo)
}

/// Services with other endpoints than before, or with endpoints at another place.
#[derive(Clone, Default)]
struct Change<'a> {
    /// As they were before and as they are now.
    services: BTreeMap<&'a ServiceName, [&'a Service; 2]>,
    /// The endpoints: what is known of each is worked out anew.
    endpoints: HashSet<Frontend>,
    /// Their addresses.
    addresses: BTreeSet<IpAddr>,
}

/// Why a change takes more than what it is of.
#[derive(Debug, PartialEq)]
enum TooNarrow {
    /// Others of the same services' endpoints are concerned.
    Endpoints,
    /// More than endpoints is.
    Altogether,
}

impl<'a> Change<'a> {
    /// None where anything else is another.
    fn between(
        before: (&'a Desired, &Surroundings),
        now: (&'a Desired, &Surroundings),
        in_use: &InUse,
    ) -> Option<Self> {
        // Whom old flows go by outlives its services.
        if in_use.leaves_gone || before.0.nodes != now.0.nodes {
            return None;
        }
        if !before.1.is_but_for_endpoints(now.1) {
            return None;
        }
        let mut change = Self::default();
        for (name, before, now) in before.0.services.changes(&now.0.services)? {
            if !before.is_but_for_endpoints(now) {
                return None;
            }
            let endpoints = before.exchanged(now).map(|(at, ..)| at);
            change.add(name, [before, now], endpoints)?;
        }
        let (before, here) = (&before.1.local_endpoints, &now.1.local_endpoints);
        let moved: BTreeSet<_> = before.symmetric_difference(here).collect();
        if !moved.is_empty() {
            let has_moved = |at: &SocketAddr| moved.contains(&at.ip());
            let services = now.0.services.iter();
            for (name, service) in services.filter(|it| it.1.endpoints.keys().any(has_moved)) {
                let known = change.services.get(name).copied();
                let endpoints = service.endpoints.keys().filter(|at| has_moved(at));
                change.add(name, known.unwrap_or([service; 2]), endpoints)?;
            }
        }
        Some(change)
    }

    /// Adds a service, as it was and as it is, with these of its endpoints; none where they are of
    /// no protocol.
    fn add(
        &mut self,
        name: &'a ServiceName,
        service: [&'a Service; 2],
        endpoints: impl Iterator<Item = &'a SocketAddr>,
    ) -> Option<()> {
        // Their frontends are the same.
        let protocol = service[0].protocol()?;
        for &addr in endpoints {
            self.addresses.insert(addr.ip());
            let endpoint = key(&desired::Frontend { addr, protocol });
            self.endpoints.insert(endpoint);
        }
        self.services.insert(name, service);
        Some(())
    }

    /// The same services with all endpoints that they had or have.
    fn widened(&self) -> Self {
        let mut wide = self.clone();
        for (&name, &service) in &self.services {
            let endpoints = service.into_iter().flat_map(|it| it.endpoints.keys());
            // All of them are of a protocol.
            wide.add(name, service, endpoints);
        }
        wide
    }

    /// What becomes of `image`.
    fn compile(
        &self,
        image: &MapImage,
        (desired, surroundings): (&Desired, &Surroundings),
        in_use: &InUse,
        memo: &mut Memo,
    ) -> Result<MapImage, TooNarrow> {
        let Memo { tables, census } = memo;
        tables.begin_part();
        census.follow(&desired.services);
        let desired = self.part(desired, image, in_use, census);
        let Ok((part, parts)) = whole(&desired, surroundings, in_use, tables) else {
            return Err(TooNarrow::Altogether);
        };
        // Where none is ready any more others take new flows, and they are other backends by that.
        let services = parts.values();
        let services = services.filter(|it| self.services.contains_key(it.name));
        let mut indices = services.flat_map(|it| it.endpoints.iter().map(|it| it.id.index()));
        let same = indices.all(|index| {
            let now = part.backends.get(&index);
            now.is_none_or(|it| self.has(it)) || now == image.backends.get(&index)
        });
        let Some(mut merged) = self.merge(image, part, in_use) else {
            return Err(TooNarrow::Altogether);
        };
        if !same {
            return Err(TooNarrow::Endpoints);
        }
        primaries::record(&mut merged, &parts);
        Ok(merged)
    }

    /// These services, those that have endpoints at the same addresses, and those that replies
    /// of such are restored to, though they may have left them: what is in use has more of these
    /// than the image.
    fn part(
        &self,
        desired: &Desired,
        image: &MapImage,
        in_use: &InUse,
        census: &Census,
    ) -> Desired {
        let primaries = self.endpoints.iter();
        let primaries = primaries.filter_map(|it| Some((in_use.primaries.get(it)?, it.protocol)));
        let owners = primaries.filter_map(|(to, protocol)| {
            let frontend = Frontend::new(to.addr, to.port, protocol);
            image.names.get(&image.frontends.get(&frontend)?.service())
        });
        let names = self.services.keys().copied().chain(owners);
        let names: BTreeSet<&ServiceName> = names.collect();
        let own = |ip: IpAddr| self.services.values().map(move |[_, it]| it.at(ip).count());
        let mut addresses = self.addresses.iter();
        let services = if addresses.any(|&ip| census.count(ip) > own(ip).sum()) {
            let concerned = |name: &ServiceName, service: &Service| {
                names.contains(name) || service.is_at(&self.addresses)
            };
            desired.services.filtered(concerned)
        } else {
            let mut named = Shared::<ServiceName, _>::default();
            for name in &names {
                named.share(name, &desired.services);
            }
            named
        };
        Desired {
            services,
            nodes: desired.nodes.clone(),
            ..Desired::default()
        }
    }

    fn has(&self, backend: &Backend) -> bool {
        self.endpoints.contains(&image::place(backend))
    }

    /// `image` with what these services came to, compiled alone; none where more than their
    /// endpoints would differ.
    fn merge(&self, image: &MapImage, part: MapImage, in_use: &InUse) -> Option<MapImage> {
        // They are what they were, by the same frontends: alone they have no fewer than among all,
        // as frontends are no matter of endpoints, and what another one is given is no node port.
        let same = part
            .names
            .iter()
            .all(|(it, name)| image.names.get(it) == Some(name));
        let mut by_packets = part.frontends.iter();
        let same = same
            && by_packets.all(|(it, entry)| {
                let before = image.frontends.get(it);
                before.is_some_and(|before| before.service() == entry.service())
            });
        let mut by_sockets = part.internal.iter();
        if !same || !by_sockets.all(|(it, index)| image.internal.get(it) == Some(index)) {
            return None;
        }
        let mut merged = image.clone();
        for (&index, name) in &part.names {
            if !self.services.contains_key(name) {
                continue;
            }
            for index in [index, handover_table(index)] {
                let before = merged.services.remove(&index);
                let now = part.services.get(&index);
                let is_empty = |table: Option<&SlotTable>| table.is_none_or(|it| it.is_empty());
                // Whether addresses are claimed and answer goes by it.
                if index < MAX_SERVICES as u32 && is_empty(before.as_ref()) != is_empty(now) {
                    return None;
                }
                if let Some(table) = before.filter(|it| !it.is_empty()) {
                    merged.tables.remove(&table.offset());
                }
            }
        }
        for (&index, name) in &part.names {
            if !self.services.contains_key(name) {
                continue;
            }
            for index in [index, handover_table(index)] {
                if let Some(&table) = part.services.get(&index) {
                    merged.services.insert(index, table);
                    if let Some(slots) = part.tables.get(&table.offset()) {
                        merged.tables.insert(table.offset(), slots.clone());
                    }
                }
            }
        }
        for &endpoint in &self.endpoints {
            for known in in_use.backends.at(endpoint) {
                let index = known.id.index();
                let theirs = image.backends.get(&index);
                if theirs.is_some_and(|it| image::place(it) == endpoint) {
                    merged.former.remove(&index);
                    merged.backends.remove(&index);
                }
            }
            merged.primaries.remove(&endpoint);
        }
        for (index, backend) in part.backends.into_iter().filter(|(_, it)| self.has(it)) {
            if part.former.contains(&index) {
                merged.former.insert(index);
            }
            merged.backends.insert(index, backend);
        }
        let primaries = part.primaries.into_iter();
        merged
            .primaries
            .extend(primaries.filter(|(at, _)| self.endpoints.contains(at)));
        for (frontend, entry) in part.frontends {
            if merged.frontends.get(&frontend) != Some(&entry) {
                merged.frontends.insert(frontend, entry);
            }
        }
        for &ip in &self.addresses {
            let addr = Addr::from(ip);
            let is_backend = |uses: &OrdMap<Addr, AddressUse>| {
                let found = uses.get(&addr);
                found.is_some_and(|it| it.contains(AddressUse::LOCAL_BACKEND))
            };
            match (is_backend(&merged.addresses), is_backend(&part.addresses)) {
                (false, true) => {
                    let usage = merged.addresses.entry(addr).or_default();
                    *usage = usage.with(AddressUse::LOCAL_BACKEND);
                }
                (true, false) => {
                    let usage = merged.addresses.entry(addr).or_default();
                    *usage = usage.without(AddressUse::LOCAL_BACKEND);
                    if *usage == AddressUse::default() {
                        merged.addresses.remove(&addr);
                    }
                }
                _ => {}
            }
        }
        let fits =
            merged.addresses.len() <= MAX_ADDRESSES && merged.primaries.len() <= MAX_PRIMARIES;
        fits.then_some(merged)
    }
}

#[cfg(test)]
mod tests;
