//! What is wanted: services, their frontends and their endpoints, whatever the source.
//!
//! Every source (manifests, flags, a config file, a cluster) ends here, and nothing
//! behind this point knows where a service came from. No I/O, no kernel types.

mod census;
mod lan;
mod service;
mod shared;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use lb_common::{Protocol, config};

pub use self::{
    census::Census,
    lan::{
        AddressRange, Advertisement, Balancer, BalancerName, Labels, Node, Pool, ServiceAllocation,
    },
    service::Service,
    shared::Shared,
};

/// All services that should be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By name, so that equal input gives equal order.
    pub services: Shared<ServiceName, Service>,
    /// The nodes that [`Endpoint::node`] may name, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The Services that [`Self::services`] are ports of, where those take addresses of
    /// [`Self::pools`] or are announced by [`Self::advertisements`].
    pub balancers: Shared<BalancerName, Balancer>,
    /// Where addresses come from, by name. Without any, services have the addresses that
    /// they ask for.
    pub pools: BTreeMap<String, Pool>,
    /// Addresses that Services have which are none of [`Self::balancers`], as those themselves say:
    /// of another load balancer, or invalid at the moment. Nobody else is given one.
    pub foreign: BTreeMap<IpAddr, BalancerName>,
    /// How those addresses are announced, by name. What is of no pool is announced by every
    /// node on every interface.
    pub advertisements: BTreeMap<String, Advertisement>,
}

impl Desired {
    /// The services that have other endpoints than in `other`, as they are here and there; none
    /// where anything else differs.
    pub fn endpoint_changes<'a>(
        &'a self,
        other: &'a Self,
    ) -> Option<Vec<(&'a ServiceName, &'a Service, &'a Service)>> {
        let Self {
            services,
            nodes,
            balancers,
            pools,
            foreign,
            advertisements,
        } = self;
        let rest = *nodes == other.nodes
            && *balancers == other.balancers
            && *pools == other.pools
            && *foreign == other.foreign
            && *advertisements == other.advertisements;
        let changes = services.changes(&other.services).filter(|_| rest)?;
        let mut alike = changes.iter();
        alike
            .all(|(_, one, other)| one.is_but_for_endpoints(other))
            .then_some(changes)
    }
}

/// One port of one service: `namespace/name:port`.
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

/// A port of the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePort {
    /// On each of [`Surroundings::node_port_addresses`].
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On addresses of these families.
    pub families: BTreeSet<Family>,
}

impl std::fmt::Display for NodePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node port {}/{}", self.port, self.protocol)
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The name as Kubernetes writes it: `IPv4`, `IPv6`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Which endpoints take new flows (Kubernetes' traffic policies).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of the node that the client came to.
    Local,
}

impl TrafficPolicy {
    /// The name as Kubernetes writes it: `Cluster`, `Local`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
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
    /// Keeps its connections and takes nothing new: its health check failed, or its node is
    /// lost.
    Unhealthy,
}

/// How the endpoints of a service are asked whether they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: HealthProbe,
    /// Another port than the endpoint's own.
    pub port: Option<u16>,
    /// From the beginning of one check to that of the next.
    pub interval: Duration,
    /// What takes longer has failed.
    pub timeout: Duration,
    /// So many good ones in a row make an endpoint healthy again.
    pub rise: u32,
    /// So many bad ones in a row make it unhealthy.
    pub fall: u32,
}

/// What a health check asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HealthProbe {
    /// A connection that is accepted.
    #[default]
    Tcp,
    /// A GET that is answered with a status of 200 to 399.
    Http {
        /// Path and query.
        path: String,
    },
}

impl Default for HealthCheck {
    /// HAProxy's numbers, and half the interval for an answer.
    fn default() -> Self {
        Self {
            probe: HealthProbe::default(),
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }
    }
}

impl std::fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.probe {
            HealthProbe::Tcp => f.write_str("tcp")?,
            HealthProbe::Http { path } => write!(f, "http:{path}")?,
        }
        if let Some(port) = self.port {
            write!(f, " port={port}")?;
        }
        let Self {
            interval,
            timeout,
            rise,
            fall,
            ..
        } = self;
        let (interval, timeout) = (interval.as_millis(), timeout.as_millis());
        write!(
            f,
            " interval={interval}ms timeout={timeout}ms rise={rise} fall={fall}"
        )
    }
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
    /// Those of them that node ports are served on.
    pub node_port_addresses: BTreeSet<IpAddr>,
    /// Endpoint addresses that the routing table places on this node; consulted
    /// where [`Endpoint::node`] is unknown.
    pub local_endpoints: BTreeSet<IpAddr>,
    /// The nodes that a frame can be handed over to, with the address that each has on the
    /// LAN behind one of the interfaces below.
    pub peers: BTreeMap<String, IpAddr>,
    /// The interfaces that Naru is attached to, by index.
    pub devices: BTreeMap<u32, DeviceFacts>,
    /// Whether the node's own sockets are served.
    pub sockets: bool,
    /// Whether other nodes may take VIPs over from this one, or it from them.
    pub shared: bool,
}

impl Surroundings {
    /// Whether others are the same but for where endpoints are.
    pub fn is_but_for_endpoints(&self, other: &Self) -> bool {
        let Self {
            node,
            seed,
            host_addresses,
            node_port_addresses,
            local_endpoints: _,
            peers,
            devices,
            sockets,
            shared,
        } = self;
        *node == other.node
            && *seed == other.seed
            && *host_addresses == other.host_addresses
            && *node_port_addresses == other.node_port_addresses
            && *peers == other.peers
            && *devices == other.devices
            && *sockets == other.sockets
            && *shared == other.shared
    }
}

impl Default for Surroundings {
    /// A node that nothing is known of.
    fn default() -> Self {
        Self {
            node: String::new(),
            seed: config::DEFAULT_SEED,
            host_addresses: BTreeSet::new(),
            node_port_addresses: BTreeSet::new(),
            local_endpoints: BTreeSet::new(),
            peers: BTreeMap::new(),
            devices: BTreeMap::new(),
            sockets: false,
            shared: false,
        }
    }
}

/// An interface that Naru is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name.
    pub name: String,
    /// The source of IPv4 `nat` flows that leave here.
    pub snat_v4: Option<Snat>,
    /// The source of IPv6 `nat` flows that leave here.
    pub snat_v6: Option<Snat>,
    /// Its hardware address; all zero where it has none.
    pub mac: [u8; 6],
    /// Whether XDP may redirect to it: it runs a native XDP program of ours.
    pub xdp_redirect: bool,
    /// Whether it puts packets into others that the kernel may cut.
    pub tunnel: bool,
}

/// Where `nat` flows come from, as the backends see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snat {
    /// An address of the interface, or one that is for nothing else.
    pub addr: IpAddr,
    /// The ports that flows may take.
    pub ports: RangeInclusive<u16>,
}

impl Snat {
    /// An address that the host itself uses too: its own sockets keep out of these `ports`.
    pub const fn shared(addr: IpAddr, ports: RangeInclusive<u16>) -> Self {
        Self { addr, ports }
    }

    /// An address that is for nothing else.
    pub const fn dedicated(addr: IpAddr) -> Self {
        Self {
            addr,
            ports: config::DEDICATED_SNAT_PORTS,
        }
    }
}
