//! The LAN on which endpoints change: one node, a client, a few pods, and one pod that
//! stands for any number of endpoints.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use naru_lab::{
    Agent, AgentOptions, Endpoint, Lab, Manifests, PodKind, PodSpec, ServiceSpec, Topology,
};

/// The node that balances, and has the pods.
pub(super) const NODE: &str = "nuc01";
/// Pods that stay.
pub(super) const KEPT: &str = "kept";
/// The pod that has every address of [`ANY_NET`].
const ANY: &str = "any";
/// Where pods serve.
pub(super) const PORT: u16 = 3000;
/// The first address that `any` answers at.
const ANY_BASE: u32 = u32::from_be_bytes([10, 128, 1, 0]);
const ANY_NET: &str = "10.128.0.0/9";
/// Endpoints that are on this node; no node has more pods. What comes after them is said to be
/// on another one, which nobody asks.
const HERE: usize = 10_000;
const ELSEWHERE: &str = "nuc02";
/// How long the agent may take to have all in force.
const PATIENCE: Duration = Duration::from_secs(120);

/// The LAN. Dropping it removes all of it.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
}

// === impl Scene ===

impl Scene {
    /// Builds it with so many pods that stay.
    pub(crate) fn build(kept: usize) -> anyhow::Result<Self> {
        let mut topology = Topology::nuc_of(1);
        topology.add_pods(KEPT, PodKind::Echo, PORT, kept);
        topology.add_pods(ANY, PodKind::EchoAny, PORT, 1);
        let lab = Lab::build(topology)?;
        let any = lab.topology().pods_of(ANY).next();
        let any = any.context("the topology has no such pod")?;
        lab.node(&any.name)
            .ip(&format!("route add local {ANY_NET} dev lo\n"))?;
        lab.node(NODE)
            .ip(&format!("route add {ANY_NET} via {}\n", any.address))?;
        Ok(Self { lab })
    }

    /// The pods that stay.
    pub(super) fn kept(&self) -> Vec<PodSpec> {
        self.lab.topology().pods_of(KEPT).cloned().collect()
    }

    /// An empty directory of manifests, but for the node.
    pub(super) fn manifests(&self, name: &str) -> anyhow::Result<Manifests> {
        let manifests = Manifests::create(self.lab.dir().join(name))?;
        manifests.nodes(self.lab.topology())?;
        Ok(manifests)
    }

    /// Starts the agent on what a directory holds; gives how long it took until so many
    /// services were in force.
    pub(crate) fn agent(
        &self,
        naru: &Path,
        manifests: &Manifests,
        services: usize,
    ) -> anyhow::Result<(Agent, Duration)> {
        let began = Instant::now();
        let options = AgentOptions::new(naru).manifests(manifests);
        let agent = self.lab.agent(NODE, options)?;
        wait_services(&agent, services)?;
        Ok((agent, began.elapsed()))
    }
}

/// Waits until so many services are in force.
pub(super) fn wait_services(agent: &Agent, services: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let status = agent.json(&["status"])?;
        let there = status["services"].as_u64().unwrap_or_default();
        if there as usize >= services {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let source = &status["source"];
            bail!("{there} of {services} services in force; {source}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One of the endpoints that `any` stands for.
pub(super) fn endpoint(number: usize) -> Endpoint {
    let address = Ipv4Addr::from(ANY_BASE + number as u32);
    Endpoint {
        pod: format!("any-{number}"),
        node: if number < HERE { NODE } else { ELSEWHERE }.to_owned(),
        address,
        ready: true,
        serving: true,
        terminating: false,
    }
}

/// A file that is written and only has to be moved to its place, which is the moment from
/// which time counts.
pub(super) struct Draft {
    from: std::path::PathBuf,
    to: std::path::PathBuf,
}

// === impl Draft ===

impl Draft {
    /// Writes it beside the directory.
    pub(super) fn write(manifests: &Manifests, file: &str, text: &str) -> anyhow::Result<Self> {
        let from = manifests.dir().with_extension(format!("{file}.draft"));
        std::fs::write(&from, text).with_context(|| from.display().to_string())?;
        let to = manifests.dir().join(file);
        Ok(Self { from, to })
    }

    /// Puts it in force; gives the moment just before.
    pub(super) fn publish(self) -> anyhow::Result<Instant> {
        let now = Instant::now();
        std::fs::rename(&self.from, &self.to).with_context(|| self.to.display().to_string())?;
        Ok(now)
    }
}

/// The file of one of a service's slices.
pub(super) fn slice_file(service: &ServiceSpec, number: usize) -> String {
    format!("{}-endpoints-{number}.yaml", service.name)
}
