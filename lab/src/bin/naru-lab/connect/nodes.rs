//! Making ordinary nodes into balancers, pods and routers.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, ensure};
use naru_lab::{Agent, AgentOptions, Algorithm, Lab, Manifests, Process, ServiceSpec, UPLINK};

use super::candidate::Way;
use super::rivals::{self, Service};
use super::site::{
    FAR, FAR_NARU, HAPROXY_LOG, NODES, PORT, REMOTE, SHARED, pods_of, service_port, several, vip_of,
};

/// A source address that is for nothing else: 64,512 ports a pod.
const SNAT: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 60);

/// Where the kernel keeps whether bridges show their frames to packet filters; not every one
/// has it.
const BRIDGE_FILTER: &str = "bridge/bridge-nf-call-iptables";

/// Room for connections that come and go by the thousand, on whoever opens them; no shortcuts
/// past a router; and a switch that only switches.
pub(super) fn like_servers(lab: &Lab) -> anyhow::Result<()> {
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
    if Path::new("/proc/sys/net").join(BRIDGE_FILTER).exists() {
        lab.node("lan").sysctl(&[(BRIDGE_FILTER, "0")])?;
    }
    Ok(())
}

/// Gives all pods one more address, which their nodes spread by address and port.
pub(super) fn share(lab: &Lab) -> anyhow::Result<()> {
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
pub(super) fn start_rivals(lab: &Lab) -> anyhow::Result<Process> {
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
pub(super) fn start_agents(lab: &Lab, naru: &Path) -> anyhow::Result<Vec<Agent>> {
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
    let agents = vec![
        lab.agent(FAR_NARU, options().arg("--no-announce"))?,
        lab.agent("naru", balancing)?,
    ];
    check_modes(&agents[1])?;
    Ok(agents)
}

/// Numbers of one mode under the name of another would be worse than none.
fn check_modes(agent: &Agent) -> anyhow::Result<()> {
    let backends = agent.json(&["backends"])?;
    let backends = backends.as_array().context("no list of backends")?;
    for backend in backends {
        let (service, mode) = (&backend["service"], &backend["mode"]);
        let text = service.as_str().unwrap_or_default();
        let (_, name) = text.rsplit_once('/').unwrap_or(("", text));
        let wanted = name.split('-').next();
        ensure!(mode.as_str() == wanted, "{service} is served by {mode}");
    }
    ensure!(!backends.is_empty(), "no backends");
    Ok(())
}
