//! The parts of services that have a slot table each: the frontends of one family, with
//! the endpoints of that family.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::SocketAddr,
};

use lb_common::{Mode, Protocol};

use super::CompileError;
use crate::desired::{
    Desired, Endpoint, Family, Frontend, Service, ServiceName, Surroundings, TrafficPolicy,
};

/// Names a part.
pub(super) type PartName<'a> = (&'a ServiceName, Family);

/// The part of a service that is of one family.
pub(super) struct Part<'a> {
    pub(super) service: &'a Service,
    pub(super) protocol: Protocol,
    /// Never empty; node ports on every address are among them.
    pub(super) frontends: BTreeSet<Frontend>,
    pub(super) endpoints: BTreeMap<SocketAddr, &'a Endpoint>,
}

/// The parts that clients can reach, and the owner of every frontend.
pub(super) struct Parts<'a> {
    pub(super) parts: BTreeMap<PartName<'a>, Part<'a>>,
    pub(super) owners: BTreeMap<Frontend, PartName<'a>>,
}

/// Takes the services apart; refuses what no two map entries could say.
pub(super) fn parts<'a>(
    desired: &'a Desired,
    surroundings: &Surroundings,
) -> Result<Parts<'a>, CompileError> {
    let mut owners = BTreeMap::new();
    for (name, service) in &desired.services {
        for &frontend in service.frontends.union(&service.external) {
            own(&mut owners, frontend, name)?;
        }
    }
    // What a service was given by name is its own, also where it is another one's node
    // port, as kube-proxy has it.
    let given: BTreeSet<Frontend> = owners.keys().copied().collect();
    for (name, service) in &desired.services {
        for frontend in on_node(service, surroundings) {
            if !given.contains(&frontend) {
                own(&mut owners, frontend, name)?;
            }
        }
    }
    let mut parts: BTreeMap<PartName<'a>, Part<'a>> = BTreeMap::new();
    for (&frontend, &(name, family)) in &owners {
        let Some(service) = desired.services.get(name) else {
            continue;
        };
        let part = parts.entry((name, family)).or_insert_with(|| Part {
            service,
            protocol: frontend.protocol,
            frontends: BTreeSet::new(),
            endpoints: of_family(service, family),
        });
        part.frontends.insert(frontend);
    }
    for (name, service) in &desired.services {
        let protocol = service.protocol();
        let all = service.frontends.iter().chain(&service.external);
        let of_node = service.node_port.iter().map(|it| it.protocol);
        let mut protocols = all.map(|it| it.protocol).chain(of_node);
        if protocols.any(|other| Some(other) != protocol) {
            return Err(CompileError::MixedProtocols(name.clone()));
        }
    }
    Ok(Parts { parts, owners })
}

fn own<'a>(
    owners: &mut BTreeMap<Frontend, PartName<'a>>,
    frontend: Frontend,
    name: &'a ServiceName,
) -> Result<(), CompileError> {
    match owners.entry(frontend) {
        Entry::Vacant(entry) => {
            entry.insert((name, Family::of(frontend.addr.ip())));
            Ok(())
        }
        Entry::Occupied(entry) => Err(CompileError::FrontendTwice {
            frontend,
            one: entry.get().0.clone(),
            other: name.clone(),
        }),
    }
}

/// A service's node port on every address that it is served on.
fn on_node<'a>(
    service: &'a Service,
    surroundings: &'a Surroundings,
) -> impl Iterator<Item = Frontend> + 'a {
    service.node_port.iter().flat_map(|node_port| {
        let addresses = surroundings.node_port_addresses.iter();
        addresses
            .filter(|&&ip| node_port.families.contains(&Family::of(ip)))
            .map(|&ip| Frontend {
                addr: SocketAddr::new(ip, node_port.port),
                protocol: node_port.protocol,
            })
    })
}

fn of_family(service: &Service, family: Family) -> BTreeMap<SocketAddr, &Endpoint> {
    let endpoints = service.endpoints.iter();
    endpoints
        .filter(|(addr, _)| Family::of(addr.ip()) == family)
        .map(|(&addr, endpoint)| (addr, endpoint))
        .collect()
}

impl Part<'_> {
    /// The endpoints that may take new flows as far as their place decides it.
    pub(super) fn admitted(
        &self,
        surroundings: &Surroundings,
    ) -> impl Iterator<Item = (SocketAddr, &Endpoint)> {
        let policy = self.service.external_policy;
        let all = self.endpoints.iter().map(|(&addr, &it)| (addr, it));
        all.filter(move |&(addr, endpoint)| match policy {
            TrafficPolicy::Cluster => true,
            TrafficPolicy::Local => is_here(addr, endpoint, surroundings),
        })
    }

    /// The endpoints of this node, which serve what peers hand over; none where no peer does.
    pub(super) fn handed(
        &self,
        surroundings: &Surroundings,
    ) -> impl Iterator<Item = (SocketAddr, &Endpoint)> {
        let handed = self.service.elsewhere == Mode::Dsr;
        let all = self.endpoints.iter().map(|(&addr, &it)| (addr, it));
        all.filter(move |&(addr, endpoint)| handed && is_here(addr, endpoint, surroundings))
    }

    /// Whether its addresses may be claimed, where `served` says whether any backend
    /// takes new flows: a node that cannot serve leaves them to one that can, where
    /// only endpoints of the node may.
    pub(super) fn announced(&self, served: bool) -> bool {
        served || self.service.external_policy == TrafficPolicy::Cluster
    }
}

/// Whether an endpoint is on this node: what the source says of its node counts before
/// what the routing table shows.
pub(super) fn is_here(addr: SocketAddr, endpoint: &Endpoint, surroundings: &Surroundings) -> bool {
    let ip = &addr.ip();
    match &endpoint.node {
        Some(node) => *node == surroundings.node,
        None => {
            surroundings.host_addresses.contains(ip) || surroundings.local_endpoints.contains(ip)
        }
    }
}
