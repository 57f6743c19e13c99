//! The parts of services that have a slot table each: the frontends of one family and one
//! traffic policy, with the endpoints of that family.
//!
//! Packets come by the external policy. Sockets of the node and its pods reach cluster IPs
//! by the internal one, and all endpoints by any other frontend: what is inside already
//! is not held to a policy for what comes in. So a service of one family has two tables
//! at most.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::SocketAddr,
};

use lb_common::{Algorithm, Mode, Protocol};

use super::CompileError;
use crate::desired::{
    Desired, Endpoint, Family, Frontend, Service, ServiceName, Surroundings, TrafficPolicy,
};

/// Names a part.
pub(super) type PartName<'a> = (&'a ServiceName, Family, TrafficPolicy);

/// The part of a service that is of one family and one policy.
pub(super) struct Part<'a> {
    pub(super) service: &'a Service,
    pub(super) protocol: Protocol,
    /// Which endpoints take new flows.
    pub(super) policy: TrafficPolicy,
    /// What packets come by; node ports on every address are among them.
    pub(super) frontends: BTreeSet<Frontend>,
    /// What sockets of the node come by.
    pub(super) internal: BTreeSet<Frontend>,
    pub(super) endpoints: BTreeMap<SocketAddr, &'a Endpoint>,
}

/// The parts that clients can reach, and the owner of every frontend.
pub(super) struct Parts<'a> {
    pub(super) parts: BTreeMap<PartName<'a>, Part<'a>>,
    /// To packets.
    pub(super) owners: Owners<'a>,
    /// To sockets of the node.
    pub(super) internal: Owners<'a>,
}

type Owners<'a> = BTreeMap<Frontend, PartName<'a>>;

/// Takes the services apart; refuses what no two map entries could say.
pub(super) fn parts<'a>(
    desired: &'a Desired,
    surroundings: &Surroundings,
) -> Result<Parts<'a>, CompileError> {
    let owners = owners(desired, surroundings)?;
    let internal = internal(desired, surroundings, &owners)?;
    let mut parts = BTreeMap::new();
    for (&frontend, &name) in &owners {
        if let Some(part) = part(&mut parts, desired, name, frontend.protocol) {
            part.frontends.insert(frontend);
        }
    }
    for (&frontend, &name) in &internal {
        if let Some(part) = part(&mut parts, desired, name, frontend.protocol) {
            part.internal.insert(frontend);
        }
    }
    for (name, service) in desired.services.iter() {
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
fn owners<'a>(
    desired: &'a Desired,
    surroundings: &Surroundings,
) -> Result<Owners<'a>, CompileError> {
    let mut owners = BTreeMap::new();
    for (name, service) in desired.services.iter() {
        for &frontend in service.frontends.union(&service.external) {
            own(&mut owners, frontend, name, service.external_policy)?;
        }
    }
    // What a service was given by name is its own, also where it is another one's node
    // port, as kube-proxy has it.
    let given: BTreeSet<Frontend> = owners.keys().copied().collect();
    for (name, service) in desired.services.iter() {
        for frontend in on_node(service, surroundings) {
            if !given.contains(&frontend) {
                own(&mut owners, frontend, name, service.external_policy)?;
            }
        }
    }
    Ok(owners)
}

/// The owners of all frontends that sockets of the node come by, where those are served.
fn internal<'a>(
    desired: &'a Desired,
    surroundings: &Surroundings,
    owners: &Owners<'a>,
) -> Result<Owners<'a>, CompileError> {
    if !surroundings.sockets {
        return Ok(Owners::new());
    }
    let mut internal: Owners<'a> = owners
        .iter()
        .map(|(&frontend, &(name, family, _))| (frontend, (name, family, TrafficPolicy::Cluster)))
        .collect();
    for (name, service) in desired.services.iter() {
        for &frontend in &service.cluster {
            own(&mut internal, frontend, name, service.internal_policy)?;
        }
    }
    Ok(internal)
}

fn own<'a>(
    owners: &mut Owners<'a>,
    frontend: Frontend,
    name: &'a ServiceName,
    policy: TrafficPolicy,
) -> Result<(), CompileError> {
    let part = (name, Family::of(frontend.addr.ip()), policy);
    match owners.entry(frontend) {
        Entry::Vacant(entry) => {
            entry.insert(part);
            Ok(())
        }
        // An external IP that is also its cluster IP.
        Entry::Occupied(mut entry) if entry.get().0 == name => {
            entry.insert(part);
            Ok(())
        }
        Entry::Occupied(entry) => Err(CompileError::FrontendTwice {
            frontend,
            one: entry.get().0.clone(),
            other: name.clone(),
        }),
    }
}

/// The part of this name, made where there is none yet.
fn part<'a, 'b>(
    parts: &'b mut BTreeMap<PartName<'a>, Part<'a>>,
    desired: &'a Desired,
    name: PartName<'a>,
    protocol: Protocol,
) -> Option<&'b mut Part<'a>> {
    let (service, family, policy) = (desired.services.get(name.0)?, name.1, name.2);
    Some(parts.entry(name).or_insert_with(|| Part {
        service,
        protocol,
        policy,
        frontends: BTreeSet::new(),
        internal: BTreeSet::new(),
        endpoints: of_family(service, family),
    }))
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
        let policy = self.policy;
        let all = self.endpoints.iter().map(|(&addr, &it)| (addr, it));
        all.filter(move |&(addr, endpoint)| match policy {
            TrafficPolicy::Cluster => true,
            TrafficPolicy::Local => is_here(addr, endpoint, surroundings),
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
    pub(super) fn handed(
        &self,
        chosen: &[(SocketAddr, u32)],
        surroundings: &Surroundings,
    ) -> Vec<(SocketAddr, u32)> {
        if self.service.elsewhere != Mode::Dsr || self.frontends.is_empty() {
            return Vec::new();
        }
        let here = |addr: &SocketAddr| {
            let endpoint = self.endpoints.get(addr);
            endpoint.is_some_and(|endpoint| is_here(*addr, endpoint, surroundings))
        };
        let chosen = chosen.iter().filter(|(addr, _)| here(addr));
        chosen.copied().collect()
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

#[cfg(test)]
mod tests;
