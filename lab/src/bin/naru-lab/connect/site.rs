//! The LAN on which candidates take turns.
//!
//! Each balancer has a node of its own, so that the rules and programs of one are not in the
//! way of another; whoever is not asked has nothing to do. All uplinks have the same offloads.
//!
//! | node | does |
//! |---|---|
//! | `plain`, `passing` | forwards; `passing` with an empty XDP program on its uplink |
//! | `nftables`, `haproxy`, `naru` | balance |
//! | `far` | has the pods of another node |
//! | `far-naru` | likewise, and runs Naru, which hands over to it |

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use naru_lab::{Agent, Algorithm, Lab, NetNs, PodKind, Process, Topology, UPLINK};

use super::candidate::{Balancer, Candidate, Way};
use super::nodes;

pub(super) const NODES: [&str; 7] = [
    "plain", "passing", "nftables", "haproxy", "naru", FAR, FAR_NARU,
];
pub(super) const FAR: &str = "far";
pub(super) const FAR_NARU: &str = "far-naru";
pub(super) const HAPROXY_LOG: &str = "haproxy.log";
/// The ports of pods, and of services where there are several.
pub(super) const PORT: u16 = 80;
pub(super) const REMOTE: u16 = 81;
/// An address that all pods have, for those who ask without a balancer: routers spread its
/// connections over the pods, as a balancer does.
pub(super) const SHARED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// How long a balancer may take to answer after it was started.
const PATIENCE: Duration = Duration::from_secs(10);
/// What all uplinks have to agree on, as `ethtool -k` names it.
const OFFLOADS: [&str; 5] = [
    "rx-checksumming",
    "tx-checksumming",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
];

/// The LAN with all candidates. Dropping it removes all of it.
pub(super) struct Site {
    // Agents and servers end before the lab does.
    _agents: Vec<Agent>,
    haproxy: Process,
    lab: Lab,
}

// === impl Site ===

impl Site {
    /// Builds it, with so many pods a node.
    pub(super) fn build(naru: &Path, pods: usize) -> anyhow::Result<Self> {
        let mut topology = Topology::nuc_of(NODES.len() as u8);
        for (node, name) in topology.nodes.iter_mut().zip(NODES) {
            name.clone_into(&mut node.name);
        }
        topology.add_pods("web", PodKind::Http, PORT, pods * NODES.len());
        let lab = Lab::build(topology)?;
        nodes::like_servers(&lab)?;
        nodes::share(&lab)?;
        let haproxy = nodes::start_rivals(&lab)?;
        let agents = nodes::start_agents(&lab, naru)?;
        lab.attach_pass("passing", UPLINK)?;
        let site = Self {
            _agents: agents,
            haproxy,
            lab,
        };
        site.check_offloads()?;
        Ok(site)
    }

    /// Where the client is.
    pub(super) fn client(&self) -> &NetNs {
        self.lab.node("client")
    }

    /// The processes that serve: pods, and the proxy.
    pub(super) fn servers(&self) -> Vec<u32> {
        let pods = self.lab.pods().iter().filter_map(naru_lab::Pod::pid);
        pods.chain([self.haproxy.pid()]).collect()
    }

    /// A place for files.
    pub(super) fn dir(&self) -> PathBuf {
        self.lab.dir()
    }

    /// Whom to ask: the virtual address, or without a balancer the one that all pods have.
    pub(super) fn target(&self, candidate: Candidate) -> anyhow::Result<SocketAddr> {
        let Candidate { way, balancer } = candidate;
        let vip = vip_of(&self.lab, balancer.node())?;
        Ok(match balancer {
            Balancer::None | Balancer::Passing => (SHARED, PORT).into(),
            Balancer::Nftables | Balancer::Haproxy if way.is_local() => (vip, PORT).into(),
            Balancer::Nftables | Balancer::Haproxy => (vip, REMOTE).into(),
            Balancer::Naru(algorithm) => (vip, service_port(way, algorithm)).into(),
        })
    }

    /// Leads packets over the candidate's way, and lets it begin without what earlier
    /// connections have left.
    pub(super) fn prepare(&self, candidate: Candidate) -> anyhow::Result<()> {
        let Candidate { way, balancer } = candidate;
        let node = balancer.node();
        if matches!(balancer, Balancer::None | Balancer::Passing) {
            let topology = self.lab.topology();
            let router = topology.address_of(node)?;
            let client = topology.address_of("client")?;
            let line = format!("route replace {SHARED} via {router}\n");
            self.client().ip(&line)?;
            let onwards = match way {
                Way::Local => several(&pods_of(&self.lab, node)),
                Way::Nat | Way::Dsr => format!("via {}", topology.address_of(FAR)?),
            };
            let line = format!("route replace {SHARED} {onwards}\n");
            self.lab.node(node).ip(&line)?;
            let back = match way {
                Way::Nat => format!("via {router} dev {UPLINK}"),
                Way::Local | Way::Dsr => format!("dev {UPLINK}"),
            };
            let line = format!("route replace {client} {back}\n");
            self.lab.node(FAR).ip(&line)?;
        }
        if balancer == Balancer::Nftables {
            self.lab.node(node).run("conntrack", &["-F"])?;
        }
        Ok(())
    }

    /// Waits until a candidate answers.
    pub(super) fn wait(&self, candidate: Candidate) -> anyhow::Result<()> {
        let began = Instant::now();
        let url = format!("http://{}/", self.target(candidate)?);
        while let Err(error) = self.lab.client().get(&url) {
            if began.elapsed() > PATIENCE {
                let Candidate { way, balancer } = candidate;
                let log = match balancer {
                    Balancer::Haproxy => std::fs::read_to_string(self.dir().join(HAPROXY_LOG)),
                    _ => Ok(String::new()),
                };
                let log = log.unwrap_or_default();
                bail!("{} over {}: {error} {log}", balancer.name(), way.name());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Removes it.
    pub(super) fn teardown(self) -> anyhow::Result<()> {
        let Self {
            _agents: agents,
            haproxy,
            lab,
        } = self;
        drop((agents, haproxy));
        Ok(lab.teardown()?)
    }

    /// Candidates whose devices do different work are not comparable.
    fn check_offloads(&self) -> anyhow::Result<()> {
        let of = |namespace: &NetNs, device: &str| -> anyhow::Result<Vec<String>> {
            let all = namespace.run("ethtool", &["-k", device])?;
            let lines = all.lines().map(str::trim);
            let known = |line: &&str| OFFLOADS.iter().any(|name| line.starts_with(name));
            // Whether it could be changed is of no interest.
            let value = |line: &str| line.split(" [").next().unwrap_or(line).to_owned();
            Ok(lines.filter(known).map(value).collect())
        };
        let mut first = None;
        for node in NODES {
            let both = (
                of(self.lab.node(node), UPLINK)?,
                of(self.lab.node("lan"), &self.lab.port(node)?)?,
            );
            match &first {
                None => first = Some(both),
                Some(first) if *first == both => {}
                Some(first) => bail!("offloads differ: {node} has {both:?}, others {first:?}"),
            }
        }
        Ok(())
    }
}

/// A route with several next hops.
pub(super) fn several(pods: &[SocketAddr]) -> String {
    let hops = pods.iter().map(|pod| format!(" nexthop via {}", pod.ip()));
    hops.collect()
}

pub(super) fn pods_of(lab: &Lab, node: &str) -> Vec<SocketAddr> {
    let pods = lab.topology().pods.iter().filter(|pod| pod.node == node);
    pods.map(|pod| (pod.address, pod.port).into()).collect()
}

/// A balancer's virtual address: its node's own, 90 below.
pub(super) fn vip_of(lab: &Lab, node: &str) -> anyhow::Result<Ipv4Addr> {
    let [a, b, c, d] = lab.topology().address_of(node)?.octets();
    Ok(Ipv4Addr::new(a, b, c, d - 90))
}

pub(super) fn service_port(way: Way, algorithm: Algorithm) -> u16 {
    let way = match way {
        Way::Local => 0,
        Way::Nat => 2,
        Way::Dsr => 4,
    };
    PORT + way + u16::from(algorithm == Algorithm::Maglev)
}
