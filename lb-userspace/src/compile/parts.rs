//! The parts of services that have a slot table each: the frontends of one family and one
//! traffic policy, with the endpoints of that family.
//!
//! Packets come by the external policy. Sockets of the node and its pods reach cluster IPs
//! by the internal one, and all endpoints by any other frontend: what is inside already
//! is not held to a policy for what comes in. So a service of one family has two tables
//! at most.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use lb_common::{Algorithm, BackendId, Mode, Protocol};

use super::CompileError;
use crate::desired::{
    Desired, Endpoint, Family, Frontend, Service, ServiceName, Surroundings, TrafficPolicy,
};

/// Names a part: in the order of the services' names, without comparing any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartName {
    /// The service's place among all.
    service: usize,
    family: Family,
    policy: TrafficPolicy,
}

/// The part of a service that is of one family and one policy.
pub(super) struct Part<'a> {
    /// The service's.
    pub(super) name: &'a ServiceName,
    pub(super) service: &'a Service,
    pub(super) protocol: Protocol,
    /// Which endpoints take new flows.
    pub(super) policy: TrafficPolicy,
    /// What packets come by; node ports on every address are among them.
    pub(super) frontends: BTreeSet<Frontend>,
    /// What sockets of the node come by.
    pub(super) internal: BTreeSet<Frontend>,
    /// By address.
    pub(super) endpoints: Vec<Located<'a>>,
}

/// An endpoint of a part, with what is looked up of it once and asked for many times.
pub(super) struct Located<'a> {
    pub(super) addr: SocketAddr,
    pub(super) endpoint: &'a Endpoint,
    pub(super) reach: Reach,
    /// The backend that it is; none before [`super::backends::assign`].
    pub(super) id: BackendId,
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reach {
    Local,
    Nat,
    /// By the peer that has this address.
    Dsr(IpAddr),
}

/// The parts that clients can reach, and the owner of every frontend.
pub(super) struct Parts<'a> {
    pub(super) parts: BTreeMap<PartName, Part<'a>>,
    /// To packets.
    pub(super) owners: Owners,
    /// To sockets of the node.
    pub(super) internal: Owners,
}

type Owners = BTreeMap<Frontend, PartName>;
/// All services, by their places in the names of their parts.
type Services<'a> = [(&'a ServiceName, &'a Service)];

/// Takes the services apart; refuses what no two map entries could say.
pub(super) fn parts<'a>(
    desired: &'a Desired,
    surroundings: &Surroundings,
) -> Result<Parts<'a>, CompileError> {
    let services: Vec<_> = desired.services.iter().collect();
    let owners = owners(&services, surroundings)?;
    let internal = internal(&services, surroundings, &owners)?;
    let mut parts = BTreeMap::new();
    for (&frontend, &name) in &owners {
        let part = parts.entry(name);
        let part = part.or_insert_with(|| part_of(&services, name, frontend, surroundings));
        part.frontends.insert(frontend);
    }
    for (&frontend, &name) in &internal {
        let part = parts.entry(name);
        let part = part.or_insert_with(|| part_of(&services, name, frontend, surroundings));
        part.internal.insert(frontend);
    }
    for &(name, service) in &services {
        let protocol = service.protocol();
        let of_node = service.node_port.iter().map(|it| it.protocol);
        let mut protocols = service.named().map(|it| it.protocol).chain(of_node);
        if protocols.any(|other| Some(other) != protocol) {
            return Err(CompileError::MixedProtocols(name.clone()));
        }
    }
    Ok(Parts {
        parts,
        owners,
        internal,
    })
}

/// The owners of all frontends that packets come by.
fn owners(services: &Services<'_>, surroundings: &Surroundings) -> Result<Owners, CompileError> {
    let mut owners = BTreeMap::new();
    let give = |owners: &mut Owners, frontend, place, service: &Service| {
        let policy = service.external_policy;
        own(owners, frontend, (services, place), policy)
    };
    for (place, (_, service)) in services.iter().enumerate() {
        for &frontend in service.frontends.union(&service.external) {
            give(&mut owners, frontend, place, service)?;
        }
    }
    // What a service was given by name is its own, also where it is another one's node
    // port, as kube-proxy has it.
    let given: BTreeSet<Frontend> = owners.keys().copied().collect();
    for (place, (_, service)) in services.iter().enumerate() {
        for frontend in on_node(service, surroundings) {
            if !given.contains(&frontend) {
                give(&mut owners, frontend, place, service)?;
            }
        }
    }
    Ok(owners)
}

/// The owners of all frontends that sockets of the node come by, where those are served.
fn internal(
    services: &Services<'_>,
    surroundings: &Surroundings,
    owners: &Owners,
) -> Result<Owners, CompileError> {
    if !surroundings.sockets {
        return Ok(Owners::new());
    }
    let everywhere = |name: PartName| PartName {
        policy: TrafficPolicy::Cluster,
        ..name
    };
    let mut internal: Owners = owners
        .iter()
        .map(|(&frontend, &name)| (frontend, everywhere(name)))
        .collect();
    for (place, (_, service)) in services.iter().enumerate() {
        for &frontend in &service.cluster {
            own(
                &mut internal,
                frontend,
                (services, place),
                service.internal_policy,
            )?;
        }
    }
    Ok(internal)
}

fn own(
    owners: &mut Owners,
    frontend: Frontend,
    (services, place): (&Services<'_>, usize),
    policy: TrafficPolicy,
) -> Result<(), CompileError> {
    let part = PartName {
        service: place,
        family: Family::of(frontend.addr.ip()),
        policy,
    };
    match owners.entry(frontend) {
        Entry::Vacant(entry) => {
            entry.insert(part);
            Ok(())
        }
        // An external IP that is also its cluster IP.
        Entry::Occupied(mut entry) if entry.get().service == place => {
            entry.insert(part);
            Ok(())
        }
        Entry::Occupied(entry) => Err(CompileError::FrontendTwice {
            frontend,
            one: services[entry.get().service].0.clone(),
            other: services[place].0.clone(),
        }),
    }
}

/// The part of this name, without its frontends, of which this is one.
fn part_of<'a>(
    services: &Services<'a>,
    name: PartName,
    frontend: Frontend,
    surroundings: &Surroundings,
) -> Part<'a> {
    let (named, service) = services[name.service];
    let endpoints = service.endpoints.iter();
    let of_family = endpoints.filter(|(addr, _)| Family::of(addr.ip()) == name.family);
    Part {
        name: named,
        service,
        protocol: frontend.protocol,
        policy: name.policy,
        frontends: BTreeSet::new(),
        internal: BTreeSet::new(),
        endpoints: of_family
            .map(|(&addr, endpoint)| Located {
                addr,
                endpoint,
                reach: reach(service, addr, endpoint, surroundings),
                id: BackendId::NONE,
            })
            .collect(),
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

impl Part<'_> {
    /// The endpoints that may take new flows as far as their place decides it.
    pub(super) fn admitted(&self) -> impl Iterator<Item = &Located<'_>> {
        let all = self.endpoints.iter();
        all.filter(|it| match self.policy {
            TrafficPolicy::Cluster => true,
            TrafficPolicy::Local => it.is_here(),
        })
    }

    /// Whether packets of a flow find its backend without a record of it, as long as nothing
    /// changes: by a hash that every node which may get the VIP computes alike, and reaches the
    /// same endpoints by.
    pub(super) fn computes(&self, surroundings: &Surroundings) -> bool {
        let agreed = self.policy == TrafficPolicy::Cluster && self.service.elsewhere == Mode::Dsr;
        self.service.algorithm == Algorithm::Maglev
            && self.service.affinity.is_none()
            && (agreed || !surroundings.shared)
    }

    /// Those of some endpoints that serve what peers hand over: the ones on this node; none
    /// where no peer does.
    pub(super) fn handed<'b>(&self, chosen: &[&'b Located<'b>]) -> Vec<&'b Located<'b>> {
        if self.service.elsewhere != Mode::Dsr || self.frontends.is_empty() {
            return Vec::new();
        }
        chosen.iter().filter(|it| it.is_here()).copied().collect()
    }
}

// === impl Located ===

impl Located<'_> {
    /// Whether it is on this node.
    pub(super) fn is_here(&self) -> bool {
        self.reach == Reach::Local
    }

    /// The mode of the backend that it is.
    pub(super) fn mode(&self) -> Mode {
        match self.reach {
            Reach::Local => Mode::Local,
            Reach::Nat => Mode::Nat,
            Reach::Dsr(_) => Mode::Dsr,
        }
    }
}

fn reach(
    service: &Service,
    addr: SocketAddr,
    endpoint: &Endpoint,
    surroundings: &Surroundings,
) -> Reach {
    if is_here(addr, endpoint, surroundings) {
        return Reach::Local;
    }
    let wanted = service.elsewhere == Mode::Dsr;
    let node = endpoint.node.as_ref().filter(|_| wanted);
    let peer = node.and_then(|node| surroundings.peers.get(node));
    peer.map_or(Reach::Nat, |&via| Reach::Dsr(via))
}

/// Whether an endpoint is on this node: what the source says of its node counts before
/// what the routing table shows.
pub fn is_here(addr: SocketAddr, endpoint: &Endpoint, surroundings: &Surroundings) -> bool {
    let ip = &addr.ip();
    match &endpoint.node {
        Some(node) => *node == surroundings.node,
        None => {
            surroundings.host_addresses.contains(ip) || surroundings.local_endpoints.contains(ip)
        }
    }
}

#[cfg(test)]
mod tests;
