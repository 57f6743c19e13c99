//! The LAN on which a flood comes in.
//!
//! | machine | does |
//! |---|---|
//! | `naru` | balances |
//! | `far` | has the pods of another node |
//! | `far-naru` | likewise, and runs Naru, which hands over to it |
//! | `client` | asks |
//! | `outside` | is where the flood's clients would be: answers to them end there |
//!
//! The flood itself comes in by the balancer's uplink, as if it had come over its cable.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use naru_lab::{
    Agent, AgentOptions, Endpoint, Lab, Manifests, PodKind, ServiceSpec, Topology, UPLINK,
};

use super::case::{Case, Condition, Way};

pub(super) const NARU: &str = "naru";
const FAR: &str = "far";
const FAR_NARU: &str = "far-naru";
const NODES: [&str; 3] = [NARU, FAR, FAR_NARU];
const OUTSIDE: &str = "outside";
/// Where the flood says that it comes from, and more.
const CLIENTS: &str = "10.64.0.0/10";
pub(super) const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 56, 11), 80);
/// A source address that is for nothing else: 64,512 ports a pod.
const SNAT: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 60);
/// Pods of a node.
const PODS: usize = 4;
/// The first drain window, which only has to pass; and one that does not.
const SHORT: &str = "1";
const LONG: &str = "600";
/// How long it takes, with the agent's own clock, until nothing waits for the first one.
const SETTLING: Duration = Duration::from_secs(4);
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What makes a node track connections, as a CNI's rules do.
const TRACKING: &str = "table ip scale {
    chain forward {
        type filter hook forward priority filter;
        ct state invalid drop
        ct state established,related accept
    }
}";

/// The LAN. Dropping it removes all of it.
pub(super) struct Site {
    pub(super) lab: Lab,
}

/// A service in force, and who serves it. Dropping it takes all of it away.
pub(super) struct Served<'a> {
    site: &'a Site,
    case: Case,
    manifests: Manifests,
    service: ServiceSpec,
    /// The one that balances, and the one that it hands over to.
    pub(super) agents: Vec<Agent>,
}

// === impl Site ===

impl Site {
    /// Builds it.
    pub(super) fn build() -> anyhow::Result<Self> {
        let mut topology = Topology::nuc_of(NODES.len() as u8).with_client(OUTSIDE);
        for (node, name) in topology.nodes.iter_mut().zip(NODES) {
            name.clone_into(&mut node.name);
        }
        topology.add_pods("web", PodKind::Http, 80, PODS * NODES.len());
        let lab = Lab::build(topology)?;
        let outside = lab.topology().address_of(OUTSIDE)?;
        // What comes there for others is forgotten.
        lab.node(OUTSIDE).sysctl(&[("ipv4/ip_forward", "0")])?;
        for node in NODES {
            let line = format!("route add {CLIENTS} via {outside}\n");
            lab.node(node).ip(&line)?;
        }
        Ok(Self { lab })
    }

    /// Serves as the case has it, with all pods but one, and waits until nothing of the
    /// beginning is left to be waited for.
    pub(super) fn serve(&self, naru: &Path, case: Case) -> anyhow::Result<Served<'_>> {
        let name = format!("manifests-{}", case.words().replace([' ', ','], "-"));
        let manifests = Manifests::create(self.lab.dir().join(name))?;
        manifests.nodes(self.lab.topology())?;
        let mut service = ServiceSpec::new("web", *VIP.ip(), VIP.port(), 80).by(case.algorithm);
        if case.way == Way::Dsr {
            service = service.annotated("naru.dev/mode", "dsr");
        }
        manifests.service(&service)?;
        if case.condition == Condition::Conntrack {
            for node in NODES {
                self.lab.node(node).feed("nft", &["-f", "-"], TRACKING)?;
            }
        }
        let mut served = Served {
            site: self,
            case,
            manifests,
            service,
            agents: Vec::new(),
        };
        served.list(PODS - 1)?;
        served.start(naru)?;
        served.wait_answered()?;
        Ok(served)
    }
}

// === impl Served ===

impl Served<'_> {
    /// Lets the last pod come, which takes slots of the others.
    pub(super) fn change(&self) -> anyhow::Result<()> {
        self.list(PODS)?;
        let began = Instant::now();
        for agent in &self.agents {
            loop {
                let backends = agent.json(&["backends"])?;
                let count = backends.as_array().map_or(0, Vec::len);
                if count == PODS {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    bail!("{} has {count} backends, not {PODS}", agent.node());
                }
                sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn list(&self, count: usize) -> anyhow::Result<()> {
        let node = match self.case.way {
            Way::Local => NARU,
            Way::Nat => FAR,
            Way::Dsr => FAR_NARU,
        };
        let pods = self.site.lab.topology().pods.iter();
        let pods = pods.filter(|pod| pod.node == node).take(count);
        let endpoints: Vec<Endpoint> = pods.map(Into::into).collect();
        Ok(self.manifests.endpoints(&self.service, endpoints)?)
    }

    /// Begins with a short drain window, so that pods are known soon; where one is to be open,
    /// goes on with a long one.
    fn start(&mut self, naru: &Path) -> anyhow::Result<()> {
        let options = |node: &str, window: &str| {
            let options = AgentOptions::new(naru).manifests(&self.manifests);
            let options = options.args(["--drain-window", window]);
            match node {
                NARU => options.args(["--snat-address", &SNAT.to_string()]),
                _ => options.arg("--no-announce"),
            }
        };
        let lab = &self.site.lab;
        let mut agents = Vec::new();
        if self.case.way == Way::Dsr {
            agents.push(lab.agent(FAR_NARU, options(FAR_NARU, SHORT))?);
        }
        agents.push(lab.agent(NARU, options(NARU, SHORT))?);
        sleep(SETTLING);
        if self.case.condition == Condition::Drain {
            for agent in &mut agents {
                let options = options(agent.node(), LONG);
                agent.restart_with(options)?;
            }
        }
        self.agents = agents;
        self.check_mode()
    }

    /// Numbers of one mode under the name of another would be worse than none.
    fn check_mode(&self) -> anyhow::Result<()> {
        let agent = self.agents.last().context("no agent")?;
        let backends = agent.json(&["backends"])?;
        let modes = backends.as_array().context("no list of backends")?.iter();
        let mut other = modes.filter(|it| it["mode"].as_str() != Some(self.case.way.name()));
        match other.next() {
            None => Ok(()),
            Some(backend) => bail!("{} is served by {}", backend["address"], backend["mode"]),
        }
    }

    fn wait_answered(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Err(error) = self.site.lab.client().get(&self.service.url("/")) {
            if began.elapsed() > PATIENCE {
                bail!("{}: {error}", self.case.words());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// How many flows of the service have begun so far.
    pub(super) fn begun(&self) -> anyhow::Result<f64> {
        let agent = self.agents.last().context("no agent")?;
        let services = agent.json(&["services"])?;
        let flows = services[0]["flows"].as_f64();
        flows.context("the agent counts no flows")
    }

    /// The number of the program on the balancer's uplink, and the device's link address.
    pub(super) fn uplink(&self) -> anyhow::Result<(u64, String)> {
        let node = self.site.lab.node(NARU);
        let text = node.run("ip", &["-j", "link", "show", "dev", UPLINK])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let program = links[0]["xdp"]["prog"]["id"].as_u64();
        let program = program.with_context(|| format!("no program on {UPLINK}: {text}"))?;
        let mac = node.mac(UPLINK)?;
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        Ok((program, mac))
    }

    /// Takes everything away.
    pub(super) fn end(self) -> anyhow::Result<()> {
        for agent in &self.agents {
            agent.detach()?;
        }
        if self.case.condition == Condition::Conntrack {
            for node in NODES {
                let namespace = self.site.lab.node(node);
                // What the flood has left would be in the way of nobody, but in memory.
                namespace.run("conntrack", &["-F"])?;
                namespace.run("nft", &["delete", "table", "ip", "scale"])?;
            }
        }
        Ok(())
    }
}
