//! What a service is, apart from its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use itertools::{EitherOrBoth, Itertools};
use lb_common::{Algorithm, Mode, Protocol, maglev};

#[cfg(doc)]
use super::Surroundings;
use super::{Endpoint, Frontend, HealthCheck, NodePort, TrafficPolicy};

/// A service port with all that stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where clients reach it, all of one protocol; no other service has any of these.
    /// Their addresses are claimed on the LAN.
    pub frontends: BTreeSet<Frontend>,
    /// Further frontends, whose addresses somebody else routes to this node.
    pub external: BTreeSet<Frontend>,
    /// Further frontends, which only sockets of the node and its pods reach: cluster IPs.
    pub cluster: BTreeSet<Frontend>,
    /// A further frontend on every address of the node.
    pub node_port: Option<NodePort>,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// Size of the Maglev table, one of [`lb_common::maglev::LADDER`].
    pub maglev_slots: u32,
    /// How packets reach the endpoints of other nodes: [`Mode::Nat`], or [`Mode::Dsr`] for
    /// those that are among [`Surroundings::peers`].
    pub elsewhere: Mode,
    /// Which endpoints serve packets that come in. Sockets of the node and its pods are
    /// inside already: by the same frontends they reach all endpoints, as kube-proxy has it.
    pub external_policy: TrafficPolicy,
    /// Which endpoints serve those who come by [`Self::cluster`].
    pub internal_policy: TrafficPolicy,
    /// For how long a client that is silent comes back to its backend, if it shall.
    pub affinity: Option<Duration>,
    /// The networks that may use [`Self::frontends`]; empty: all. Sorted.
    pub source_ranges: Vec<IpNet>,
    /// How its endpoints are asked whether they live, if they are.
    pub health_check: Option<HealthCheck>,
    /// The TCP port by which the node tells load balancers before it whether there are endpoints
    /// on it: Kubernetes' `healthCheckNodePort`. The same for all ports of a Service.
    pub health_check_port: Option<u16>,
    /// The endpoints, by address and port; those of a family serve its frontends.
    /// Empty: clients are refused.
    pub endpoints: BTreeMap<SocketAddr, Endpoint>,
}

impl Service {
    /// The protocol of its frontends; `None` where it has none.
    pub fn protocol(&self) -> Option<Protocol> {
        let first = self.named().next().map(|frontend| frontend.protocol);
        first.or_else(|| Some(self.node_port.as_ref()?.protocol))
    }

    /// Whether another is the same but for its endpoints.
    pub fn is_but_for_endpoints(&self, other: &Self) -> bool {
        let Self {
            frontends,
            external,
            cluster,
            node_port,
            algorithm,
            maglev_slots,
            elsewhere,
            external_policy,
            internal_policy,
            affinity,
            source_ranges,
            health_check,
            health_check_port,
            endpoints: _,
        } = self;
        *frontends == other.frontends
            && *external == other.external
            && *cluster == other.cluster
            && *node_port == other.node_port
            && *algorithm == other.algorithm
            && *maglev_slots == other.maglev_slots
            && *elsewhere == other.elsewhere
            && *external_policy == other.external_policy
            && *internal_policy == other.internal_policy
            && *affinity == other.affinity
            && *source_ranges == other.source_ranges
            && *health_check == other.health_check
            && *health_check_port == other.health_check_port
    }

    /// All frontends that it was given by name: those that are no node port.
    pub fn named(&self) -> impl Iterator<Item = &Frontend> {
        let for_packets = self.frontends.union(&self.external);
        for_packets.chain(&self.cluster)
    }

    /// Where it has an endpoint that `other` has not, or not as it is there, with both; and the other
    /// way round.
    pub fn exchanged<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a SocketAddr, Option<&'a Endpoint>, Option<&'a Endpoint>)> {
        let by_address = |one: &(&SocketAddr, _), other: &(&SocketAddr, _)| one.0.cmp(other.0);
        let endpoints = self.endpoints.iter();
        let pairs = endpoints.merge_join_by(&other.endpoints, by_address);
        pairs.filter_map(|it| match it {
            EitherOrBoth::Both((at, one), (_, other)) => {
                (one != other).then_some((at, Some(one), Some(other)))
            }
            EitherOrBoth::Left((at, one)) => Some((at, Some(one), None)),
            EitherOrBoth::Right((at, other)) => Some((at, None, Some(other))),
        })
    }

    /// Those of its endpoints that have this address.
    pub fn at(&self, ip: IpAddr) -> impl Iterator<Item = (&SocketAddr, &Endpoint)> {
        let ports = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        self.endpoints.range(ports)
    }

    /// Whether any of its endpoints has one of these addresses.
    pub fn is_at(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        if addresses.len() > self.endpoints.len() {
            let mut endpoints = self.endpoints.keys();
            return endpoints.any(|at| addresses.contains(&at.ip()));
        }
        addresses.iter().any(|&ip| self.at(ip).next().is_some())
    }

    /// Whether packets that come in can reach it.
    pub fn takes_packets(&self) -> bool {
        !(self.frontends.is_empty() && self.external.is_empty()) || self.node_port.is_some()
    }
}

impl Default for Service {
    /// A service that nobody reaches, with the choices of one that says nothing.
    fn default() -> Self {
        Self {
            frontends: BTreeSet::new(),
            external: BTreeSet::new(),
            cluster: BTreeSet::new(),
            node_port: None,
            algorithm: Algorithm::default(),
            maglev_slots: maglev::DEFAULT_SLOTS,
            elsewhere: Mode::Nat,
            external_policy: TrafficPolicy::default(),
            internal_policy: TrafficPolicy::default(),
            affinity: None,
            source_ranges: Vec::new(),
            health_check: None,
            health_check_port: None,
            endpoints: BTreeMap::new(),
        }
    }
}
