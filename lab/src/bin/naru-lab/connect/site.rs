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

use anyhow::{Context, bail};
use naru_lab::{
    Agent, AgentOptions, Algorithm, Lab, Manifests, NetNs, PodKind, Process, ServiceSpec, Topology,
    UPLINK,
};

use super::candidate::{Balancer, Candidate, Way};
use super::rivals::{self, Service};

const NODES: [&str; 7] = [
    "plain", "passing", "nftables", "haproxy", "naru", FAR, FAR_NARU,
];
const FAR: &str = "far";
const FAR_NARU: &str = "far-naru";
const HAPROXY_LOG: &str = "haproxy.log";
/// The ports of pods, and of services where there are several.
const PORT: u16 = 80;
const REMOTE: u16 = 81;
/// An address that all pods have, for those who ask without a balancer: routers spread its
/// connections over the pods, as a balancer does.
const SHARED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// A source address that is for nothing else: 64,512 ports a pod.
const SNAT: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 60);
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
    _haproxy: Process,
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
        like_servers(&lab)?;
        share(&lab)?;
        let haproxy = rivals_on(&lab)?;
        let agents = agents(&lab, naru)?;
        lab.attach_pass("passing", UPLINK)?;
        let site = Self {
            _agents: agents,
            _haproxy: haproxy,
            lab,
        };
        site.check_offloads()?;
        Ok(site)
    }

    /// Where the client is.
    pub(super) fn client(&self) -> &NetNs {
        self.lab.node("client")
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
            _haproxy: haproxy,
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
fn several(pods: &[SocketAddr]) -> String {
    let hops = pods.iter().map(|pod| format!(" nexthop via {}", pod.ip()));
    hops.collect()
}

fn pods_of(lab: &Lab, node: &str) -> Vec<SocketAddr> {
    let pods = lab.topology().pods.iter().filter(|pod| pod.node == node);
    pods.map(|pod| (pod.address, pod.port).into()).collect()
}

/// A balancer's virtual address: its node's own, 90 below.
fn vip_of(lab: &Lab, node: &str) -> anyhow::Result<Ipv4Addr> {
    let [a, b, c, d] = lab.topology().address_of(node)?.octets();
    Ok(Ipv4Addr::new(a, b, c, d - 90))
}

fn service_port(way: Way, algorithm: Algorithm) -> u16 {
    let way = match way {
        Way::Local => 0,
        Way::Nat => 2,
        Way::Dsr => 4,
    };
    PORT + way + u16::from(algorithm == Algorithm::Maglev)
}

/// Room for connections that come and go by the thousand, on whoever opens them; and no
/// shortcuts past a router.
fn like_servers(lab: &Lab) -> anyhow::Result<()> {
    for machine in NODES.into_iter().chain(["client"]) {
        lab.node(machine).sysctl(&[
            ("ipv4/ip_local_port_range", "1024 65000"),
            ("ipv4/tcp_tw_reuse", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv4/conf/eth0/send_redirects", "0"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/conf/eth0/accept_redirects", "0"),
        ])?;
    }
    Ok(())
}

/// Gives all pods one more address, which their nodes spread by address and port.
fn share(lab: &Lab) -> anyhow::Result<()> {
    for pod in lab.pods() {
        let line = format!("address add {SHARED}/32 dev lo\n");
        pod.namespace().ip(&line)?;
    }
    for node in ["plain", "passing", FAR] {
        let namespace = lab.node(node);
        namespace.sysctl(&[("ipv4/fib_multipath_hash_policy", "1")])?;
        let hops = several(&pods_of(lab, node));
        namespace.ip(&format!("route add {SHARED}{hops}\n"))?;
    }
    Ok(())
}

/// The rules of one and the process of the other; both addresses are ordinary ones.
fn rivals_on(lab: &Lab) -> anyhow::Result<Process> {
    let services = |node: &str| {
        let of = |port, pods, masquerade| Service {
            port,
            pods,
            masquerade,
        };
        [
            of(PORT, pods_of(lab, node), false),
            of(REMOTE, pods_of(lab, FAR), true),
        ]
    };
    for node in ["nftables", "haproxy"] {
        let vip = vip_of(lab, node)?;
        let line = format!("address add {vip}/32 dev {UPLINK}\n");
        lab.node(node).ip(&line)?;
    }
    let vip = vip_of(lab, "nftables")?;
    let rules = rivals::nftables(vip, &services("nftables"));
    lab.node("nftables").feed("nft", &["-f", "-"], &rules)?;

    let config = lab.dir().join("haproxy.cfg");
    let text = rivals::haproxy(vip_of(lab, "haproxy")?, &services("haproxy"));
    std::fs::write(&config, text).with_context(|| config.display().to_string())?;
    let args = [Path::new("-db"), Path::new("-f"), &config];
    let log = lab.dir().join(HAPROXY_LOG);
    Ok(lab.node("haproxy").start("haproxy", &args, &log)?)
}

/// Naru with a service for each way and algorithm, on the node that balances and on the one
/// that is handed to.
fn agents(lab: &Lab, naru: &Path) -> anyhow::Result<Vec<Agent>> {
    let manifests = Manifests::create(lab.dir().join("manifests"))?;
    manifests.nodes(lab.topology())?;
    let vip = vip_of(lab, "naru")?;
    for way in Way::ALL {
        for algorithm in [Algorithm::RoundRobin, Algorithm::Maglev] {
            let name = format!("{}-{}", way.name(), algorithm.name());
            let mut service = ServiceSpec::new(&name, vip, service_port(way, algorithm), PORT);
            let node = match way {
                Way::Local => "naru",
                Way::Nat => FAR,
                Way::Dsr => {
                    service = service.annotated("naru.dev/mode", "dsr");
                    FAR_NARU
                }
            };
            manifests.service(&service.clone().by(algorithm))?;
            let pods = lab.topology().pods.iter().filter(|pod| pod.node == node);
            manifests.endpoints(&service, pods)?;
        }
    }
    let options = || AgentOptions::new(naru).manifests(&manifests);
    let balancing = options().args(["--snat-address", &SNAT.to_string()]);
    Ok(vec![
        lab.agent(FAR_NARU, options().arg("--no-announce"))?,
        lab.agent("naru", balancing)?,
    ])
}
