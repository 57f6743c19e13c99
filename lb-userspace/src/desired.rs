//! What is wanted: services, their frontends and their endpoints, whatever the source.
//!
//! Every source (manifests, flags, a config file, a cluster) ends here, and nothing
//! behind this point knows where a service came from. No I/O, no kernel types.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::{Algorithm, Protocol};

/// All services that should be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By name, so that equal input gives equal order.
    pub services: BTreeMap<ServiceName, Service>,
}

/// One port of one service, the unit that has a slot table: `namespace/name:port`.
///
/// `port` is the port's name, or its number where it has none. Services that do not
/// come from Kubernetes have the namespace `-`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ServiceName(pub String);

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service port with all that stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where clients reach it, all of one protocol; no other service has any of these.
    pub frontends: BTreeSet<Frontend>,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// Size of the Maglev table, one of [`lb_common::maglev::LADDER`].
    pub maglev_slots: u32,
    /// The endpoints, by address and port. Empty: clients are refused.
    pub endpoints: BTreeMap<SocketAddr, Endpoint>,
}

/// Address, port and protocol that clients speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Virtual IP and port.
    pub addr: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl std::fmt::Display for Frontend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.protocol)
    }
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Share of new flows relative to the service's other endpoints; 0 takes none.
    pub weight: u32,
    /// Whether it takes new flows.
    pub condition: Condition,
    /// The node it runs on, where the source says so.
    pub node: Option<String>,
    /// What people call it (the pod's name), where the source says so.
    pub name: Option<String>,
}

/// What an endpoint may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Takes new flows.
    Ready,
    /// Keeps its old flows; takes new ones only where no endpoint is ready
    /// (serving and terminating, as kube-proxy treats it).
    Draining,
}

/// What the node itself knows and `compile` needs: facts read off the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// This node's name, compared with [`Endpoint::node`].
    pub node: String,
    /// Seed of the Maglev tables, the same on every node of a cluster.
    pub seed: u64,
    /// The host's own addresses: a VIP among them shares its address with the host.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Endpoint addresses that the routing table places on this node; consulted
    /// where [`Endpoint::node`] is unknown.
    pub local_endpoints: BTreeSet<IpAddr>,
    /// The interfaces that Naru is attached to, by index.
    pub devices: BTreeMap<u32, DeviceFacts>,
}

impl Default for Surroundings {
    /// A node that nothing is known of.
    fn default() -> Self {
        Self {
            node: String::new(),
            seed: lb_common::config::DEFAULT_SEED,
            host_addresses: BTreeSet::new(),
            local_endpoints: BTreeSet::new(),
            devices: BTreeMap::new(),
        }
    }
}

/// An interface that Naru is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name.
    pub name: String,
    /// Its first global IPv4 address, the source of `nat` flows that leave here.
    pub snat_v4: Option<IpAddr>,
    /// Its first global IPv6 address, likewise.
    pub snat_v6: Option<IpAddr>,
    /// Whether XDP may redirect to it: it runs a native XDP program of ours.
    pub xdp_redirect: bool,
}
