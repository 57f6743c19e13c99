//! The control socket: how the CLI asks the running agent.
//!
//! A Unix socket in the run directory, for root alone. A client sends one [`Request`]
//! as a line of JSON and gets one [`Reply`] as a line of JSON. The types here are also
//! what `-o json` prints, so programs may rely on their fields.

pub mod client;
mod owner;
pub mod server;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use lb_common::Protocol;
use serde::{Deserialize, Serialize};

pub use self::owner::{MemberStatus, Members, Owner, Place};
use crate::{
    datapath::Attachment,
    desired::{self, BalancerName, ServiceName},
    ipam::{self, Assignment, PoolUse},
};

/// Where the socket and the lock are unless told otherwise: gone with a reboot.
pub const DEFAULT_RUN_DIR: &str = "/run/naru";
/// Name of the socket in that directory.
pub const SOCKET: &str = "control.sock";
/// Longest request that the agent reads, in bytes.
pub const MAX_REQUEST: u64 = 64 * 1024;

/// What the agent can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// How the agent is.
    Status,
    /// All services.
    Services,
    /// All backends.
    Backends,
    /// All pools of addresses.
    Pools,
    /// Flows, at most so many.
    Flows(usize),
    /// Who announces an address.
    Owner {
        /// The address.
        ip: IpAddr,
        /// Among these nodes; none: among those that are there.
        nodes: Option<Vec<String>>,
    },
    /// What would become of a packet.
    Explain(Question),
    /// Take a backend out of all services, or back in.
    Drain {
        /// `ADDRESS:PORT`, an address, or a pod's name.
        backend: String,
        /// Back in.
        undo: bool,
    },
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Services`].
    Services(Vec<Service>),
    /// To [`Request::Backends`].
    Backends(Vec<Backend>),
    /// To [`Request::Pools`].
    Pools(Pools),
    /// To [`Request::Flows`].
    Flows(Flows),
    /// To [`Request::Owner`].
    Owner(Owner),
    /// To [`Request::Explain`].
    Explain(Box<Explanation>),
    /// To [`Request::Drain`].
    Drained(Drained),
    /// The request failed, and why.
    Failed(String),
}

/// The packet that `naru explain` asks about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The client.
    pub client: SocketAddr,
    /// The virtual IP and port.
    pub frontend: SocketAddr,
    /// `tcp`, `udp` or `sctp`.
    #[serde(with = "protocol")]
    pub protocol: Protocol,
    /// The interface it comes in by; the first one Naru is attached to by default.
    pub interface: Option<String>,
}

/// How the agent is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// The node it runs on.
    pub node: String,
    /// Version of the map layout.
    pub abi: u32,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Interfaces that Naru is attached to.
    pub attachments: Vec<Attachment>,
    /// Interfaces that Naru was told to use and that do not exist at the moment.
    pub missing_interfaces: Vec<String>,
    /// The cgroup whose processes are served at their sockets, if any are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// The source of services.
    pub source: SourceStatus,
    /// How many service ports are in force.
    pub services: usize,
    /// How many backends are in force.
    pub backends: usize,
    /// The nodes that share virtual IPs; none where this one is alone on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip: Option<Members>,
    /// Addresses that the agent answers ARP for.
    pub announced: Vec<Announced>,
    /// Backends that were taken out by hand.
    pub drained: Vec<String>,
    /// Packets by hook and verdict.
    pub verdicts: Vec<VerdictCount>,
    /// What may keep traffic from flowing, with the remedy.
    pub warnings: Vec<String>,
}

/// What became of a [`Request::Drain`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Drained {
    /// What was named.
    pub target: String,
    /// Whether it was taken back in.
    pub undone: bool,
    /// The backends that this concerns now.
    pub backends: Vec<SocketAddr>,
    /// Services of theirs that have no backend with any weight.
    pub without: Vec<String>,
}

/// A virtual IP that is claimed on an interface.
#[derive(Debug, Serialize, Deserialize)]
pub struct Announced {
    /// The virtual IP.
    pub vip: IpAddr,
    /// The interface.
    pub interface: String,
    /// `answering`, or why not.
    pub state: String,
    /// Questions for the address.
    pub requests_received: u64,
    /// Answers to those.
    pub responses_sent: u64,
    /// Frames sent unasked.
    pub gratuitous_sent: u64,
    /// Frames of another station that says the address is its own.
    pub conflicts: u64,
}

/// How the source of services is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceStatus {
    /// What is read: a directory, a file, or flags.
    pub from: String,
    /// Whether what is in force is what the source says. False: it was refused, and the
    /// last valid state stays.
    pub current: bool,
    /// Why it was refused.
    pub problems: Vec<String>,
    /// Whether a cluster's pool or advertisement does not count as it is; `notes` say which one.
    pub stale: bool,
    /// What its author may want to know.
    pub notes: Vec<String>,
    /// Seconds since what is in force was taken over; none before the first.
    pub age: Option<u64>,
}

/// A verdict's counter.
#[derive(Debug, Serialize, Deserialize)]
pub struct VerdictCount {
    /// Where the packets were met.
    pub hook: String,
    /// How they left the program.
    pub verdict: String,
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counters of a service or a backend.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Flows begun.
    pub flows: u64,
}

impl From<lb_common::Stats> for Traffic {
    fn from(stats: lb_common::Stats) -> Self {
        Self {
            packets_in: stats.packets_in,
            bytes_in: stats.bytes_in,
            packets_out: stats.packets_out,
            bytes_out: stats.bytes_out,
            flows: stats.flows,
        }
    }
}

/// A service port.
#[derive(Debug, Serialize, Deserialize)]
pub struct Service {
    /// `namespace/name:port`.
    pub name: String,
    /// Where clients reach it, all of one family: a service of both is listed twice, and
    /// so is one that serves the node's own sockets by another table than packets.
    pub frontends: Vec<String>,
    /// Where only sockets of the node and its pods reach this table: cluster IPs, and what
    /// is another table to packets.
    #[serde(default)]
    pub internal: Vec<String>,
    /// Port of the node that is among them on every address.
    pub node_port: Option<u16>,
    /// How a backend is picked.
    pub algorithm: String,
    /// Length of its slot table.
    pub slots: u32,
    /// Backends that take new flows.
    pub backends: usize,
    /// `Cluster`, or `Local`: whose endpoints serve those who come from outside.
    pub external_policy: String,
    /// The same for those who come by a cluster IP.
    pub internal_policy: String,
    /// Seconds of silence after which a client may get another backend; none: at once.
    pub session_affinity: Option<u64>,
    /// How its endpoints are checked, if they are.
    pub health_check: Option<String>,
    /// The networks that may use it; none: all.
    pub source_ranges: Vec<String>,
    /// Why it has no address of a pool, where it should have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_address: Option<String>,
    /// Counters.
    #[serde(flatten)]
    pub traffic: Traffic,
}

impl Service {
    /// A service that is not in force, for the lack of an address.
    pub(crate) fn idle(name: &ServiceName, service: &desired::Service, why: String) -> Self {
        Self {
            name: name.to_string(),
            frontends: Vec::new(),
            internal: Vec::new(),
            node_port: None,
            algorithm: service.algorithm.name().to_owned(),
            slots: 0,
            backends: 0,
            external_policy: service.external_policy.name().to_owned(),
            internal_policy: service.internal_policy.name().to_owned(),
            session_affinity: service.affinity.map(|it| it.as_secs()),
            health_check: service.health_check.as_ref().map(ToString::to_string),
            source_ranges: service
                .source_ranges
                .iter()
                .map(ToString::to_string)
                .collect(),
            without_address: Some(why),
            traffic: Traffic::default(),
        }
    }
}

/// An endpoint of a service.
#[derive(Debug, Serialize, Deserialize)]
pub struct Backend {
    /// The service it belongs to.
    pub service: String,
    /// Address and port.
    pub address: SocketAddr,
    /// The pod's name, where the source says so.
    pub name: Option<String>,
    /// The node it runs on, where the source says so.
    pub node: Option<String>,
    /// `local` or `nat`.
    pub mode: String,
    /// Share of new flows.
    pub weight: u32,
    /// `ready`, `draining` (by the source), `unhealthy` (by its checks) or `drained` (by
    /// hand).
    pub condition: String,
    /// What its health checks have found, where it has any.
    pub health: Option<Health>,
    /// Index and generation in the kernel.
    pub id: String,
    /// Counters; of all services that share the endpoint.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// What the health checks of an endpoint have found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Health {
    /// `healthy`, `unhealthy`, or `unknown` before the first check.
    pub state: String,
    /// For how many seconds.
    pub since: u64,
    /// Why the last check failed; none where it did not.
    pub error: Option<String>,
}

/// The pools, and who has nothing of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pools {
    /// By name.
    pub pools: Vec<PoolUse>,
    /// Services of type LoadBalancer without an address, with the reason and the remedy.
    pub without_address: BTreeMap<BalancerName, String>,
}

impl From<&Assignment> for Pools {
    fn from(assignment: &Assignment) -> Self {
        let refused = assignment.refused.iter();
        Self {
            pools: ipam::usage(assignment),
            without_address: refused
                .map(|(name, why)| (name.clone(), why.to_string()))
                .collect(),
        }
    }
}

/// Flows in the table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Flows {
    /// At most as many as were asked for.
    pub flows: Vec<Flow>,
    /// Whether there are more.
    pub more: bool,
}

/// A flow.
#[derive(Debug, Serialize, Deserialize)]
pub struct Flow {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The client.
    pub client: SocketAddr,
    /// The virtual IP and port.
    pub frontend: SocketAddr,
    /// The backend; none where it is gone, unless the flow is left to it, and where the flow began
    /// at another node.
    pub backend: Option<SocketAddr>,
    /// The source address that the backend sees, in `nat` mode.
    pub snat: Option<SocketAddr>,
    /// The state's name; `returned` where it began at another node, which has it back.
    pub state: String,
    /// For how long it has been silent, in seconds.
    pub idle: u32,
}

/// What would become of a packet.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The way out of the program.
    pub verdict: String,
    /// What that means.
    pub meaning: String,
    /// The interface it would come in by.
    pub interface: String,
    /// The service that it reaches.
    pub service: Option<String>,
    /// The slot of its table that was consulted.
    pub slot: Option<u32>,
    /// Whether an existing flow named the backend.
    pub from_flow: bool,
    /// The backend.
    pub backend: Option<SocketAddr>,
    /// `local` or `nat`.
    pub mode: Option<String>,
    /// Source of the rewritten packet.
    pub source: Option<SocketAddr>,
    /// Destination of the rewritten packet.
    pub destination: Option<SocketAddr>,
    /// The interface it would leave by; none where the stack delivers.
    pub egress: Option<String>,
}

/// [`Protocol`] as its lower-case name.
mod protocol {
    use lb_common::Protocol;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        protocol: &Protocol,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(protocol.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Protocol, D::Error> {
        let name = String::deserialize(deserializer)?;
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| protocol.name() == name)
            .ok_or_else(|| D::Error::unknown_variant(&name, &["tcp", "udp", "sctp"]))
    }
}
