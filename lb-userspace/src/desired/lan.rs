//! What is wanted of the LAN: pools of addresses, who announces them, who may have one.
//!
//! The meaning of every field is MetalLB's of the same name, so that its users find what
//! they know.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kube_core::Selector;
use lb_common::Protocol;

use super::{Family, ServiceName, TrafficPolicy};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A machine that may announce addresses and run endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its own addresses (`InternalIP`).
    pub addresses: BTreeSet<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Its condition NetworkUnavailable: it cannot announce.
    pub network_unavailable: bool,
}

/// A range of addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    /// The first one.
    pub first: IpAddr,
    /// The last one, not before the first.
    pub last: IpAddr,
}

impl AddressRange {
    /// Whether the address is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Family::of(self.first) == Family::of(ip) && self.first <= ip && ip <= self.last
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Addresses that Services of type LoadBalancer are given (IPAddressPool).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// In the order in which they are given out; of no two pools do any overlap.
    pub ranges: Vec<AddressRange>,
    /// Whether a Service gets one without asking for this pool.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in .0 or .255 are left out.
    pub avoid_buggy_ips: bool,
    /// Which Services may have one; none: all.
    pub allocation: Option<ServiceAllocation>,
    /// Its labels, for [`Advertisement::pools`].
    pub labels: Labels,
}

/// Whom a pool is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// Pools with a lower one come first; 0 comes last.
    pub priority: u32,
    /// Namespaces by name.
    pub namespaces: BTreeSet<String>,
    /// Namespaces by their labels.
    pub namespace_selectors: Vec<Selector>,
    /// Services by their labels.
    pub service_selectors: Vec<Selector>,
}

/// How addresses of some pools are claimed on the LAN (L2Advertisement).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// The pools by name, selectors already resolved.
    pub pools: BTreeSet<String>,
    /// The nodes that may announce; none: all.
    pub node_selectors: Vec<Selector>,
    /// The interfaces to announce on, by name; none: all.
    pub interfaces: BTreeSet<String>,
    /// The Services whose addresses it is about; none: all.
    pub service_selectors: Vec<Selector>,
    /// Weights of 1 to 100 that nodes get by their labels.
    pub preferences: Vec<(u32, Selector)>,
}

/// `namespace/name` of a Service of type LoadBalancer.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct BalancerName(pub String);

impl std::fmt::Display for BalancerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Service of type LoadBalancer, as far as it is about its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// Its namespace.
    pub namespace: String,
    /// The labels of its namespace, where the source knows them.
    pub namespace_labels: Labels,
    /// Its labels.
    pub labels: Labels,
    /// The addresses that it asks for; none: any.
    pub requested: Vec<IpAddr>,
    /// The pool that it asks for.
    pub pool: Option<String>,
    /// The addresses that it had when the source was written (`status.loadBalancer`).
    pub given: Vec<IpAddr>,
    /// The families that it needs addresses of; none: one of either, IPv4 rather than IPv6.
    pub families: BTreeSet<Family>,
    /// Whether one address of [`Self::families`] will do (PreferDualStack).
    pub one_family_will_do: bool,
    /// Services of an equal one, not empty, may share an address.
    pub sharing_key: Option<String>,
    /// Equal for Services that lead to the same pods, where sharing asks for that: the
    /// selector where the external policy is Local.
    pub backend_key: String,
    /// Which endpoints serve packets that come in.
    pub external_policy: TrafficPolicy,
    /// Its ports, by the services of [`super::Desired::services`] that they became.
    pub ports: BTreeMap<ServiceName, (u16, Protocol)>,
}
