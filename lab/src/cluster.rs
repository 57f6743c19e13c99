//! A LAN with an agent on every node, and what can happen to a machine of it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use crate::agent::{Agent, AgentOptions};
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::manifests::{Manifests, Protocol, ServiceSpec};
use crate::owner::owners_now;
use crate::pod::Pod;
use crate::topology::{PodRoutes, TUNNEL, Topology, UPLINK};

/// Debian's place for the library that shows a process another time of day.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// How long pods go on after their endpoints are gone, as with a pre-stop hook of Kubernetes.
const GRACE: Duration = Duration::from_secs(1);

/// How to run the agents of a [`Cluster`].
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    naru: PathBuf,
    owner: OwnerChoice,
    services: Vec<ServiceSpec>,
    args: Vec<String>,
    clocks: bool,
    without: Vec<String>,
}

/// Who claims an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerChoice {
    /// The nodes agree on it, by gossip with a key that is made for the lab.
    Elected,
    /// The first node claims all, whatever happens: without membership.
    First,
}

/// How a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs and is heard.
    Up,
    /// It has no power.
    Off,
    /// It hangs.
    Frozen,
    /// It runs, but the first client cannot reach it.
    CutOff,
}

/// A LAN with an agent on every node. Dropping it removes all of it.
#[derive(Debug)]
pub struct Cluster {
    // Agents end before the lab does.
    agents: BTreeMap<String, Agent>,
    conditions: Mutex<BTreeMap<String, Condition>>,
    manifests: Manifests,
    services: Vec<ServiceSpec>,
    lab: Lab,
}

// === impl ClusterOptions ===

impl ClusterOptions {
    /// Agents of this binary that elect owners, and [`tutorial_services`].
    pub fn new(naru: impl Into<PathBuf>) -> Self {
        Self {
            naru: naru.into(),
            owner: OwnerChoice::Elected,
            services: tutorial_services().to_vec(),
            args: Vec::new(),
            clocks: false,
            without: Vec::new(),
        }
    }

    /// Who claims addresses.
    #[must_use]
    pub fn owner(self, owner: OwnerChoice) -> Self {
        Self { owner, ..self }
    }

    /// Serves these, all of them by the pods whose app is `nest-server`.
    #[must_use]
    pub fn services(self, services: impl Into<Vec<ServiceSpec>>) -> Self {
        let services = services.into();
        Self { services, ..self }
    }

    /// Further arguments of `naru agent`, on every node.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Gives every agent a time of day of its own, for [`Cluster::set_clock`].
    #[must_use]
    pub fn clocks(self, clocks: bool) -> Self {
        Self { clocks, ..self }
    }

    /// Leaves a node out of the cluster until it [joins](Cluster::join).
    #[must_use]
    pub fn without(mut self, node: &str) -> Self {
        self.without.push(node.to_owned());
        self
    }

    fn agent(&self, lab: &Lab, manifests: &Manifests, key: &Path, node: &str) -> AgentOptions {
        let options = AgentOptions::new(&self.naru).manifests(manifests);
        let options = match self.owner {
            OwnerChoice::Elected => options.arg("--gossip-key").arg(key),
            OwnerChoice::First if lab.topology().nodes[0].name == node => options,
            OwnerChoice::First => options.arg("--no-announce"),
        };
        let options = match lab.topology().pod_routes {
            PodRoutes::Lan => options,
            // Pods of other nodes are behind the tunnel.
            PodRoutes::Vxlan => options.interface(UPLINK).interface(TUNNEL),
        };
        let options = options.args(&self.args);
        if !self.clocks {
            return options;
        }
        options
            .env("LD_PRELOAD", FAKETIME)
            .env("FAKETIME_TIMESTAMP_FILE", clock(lab, node))
            .env("FAKETIME_NO_CACHE", "1")
            // Only the time of day jumps: no machine's monotonic clock ever does.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

/// The tutorial's service over TCP, and the same address and port over UDP.
pub fn tutorial_services() -> [ServiceSpec; 2] {
    let tcp = ServiceSpec::nest_server();
    let udp = ServiceSpec {
        name: "nest-datagrams".to_owned(),
        ..tcp.clone().over(Protocol::Udp)
    };
    [tcp, udp]
}

// === impl Cluster ===

impl Cluster {
    /// Builds the LAN and starts the agents; returns when all of them are ready.
    pub fn start(topology: Topology, options: &ClusterOptions) -> Result<Self> {
        if options.clocks && !can_fake_clocks() {
            let what = format!("{FAKETIME} (`apt-get install libfaketime`)");
            return Err(Error::io(what)(ErrorKind::NotFound.into()));
        }
        let lab = Lab::build(topology)?;
        let manifests = Manifests::create(lab.dir().join("manifests"))?;
        let without: Vec<&str> = options.without.iter().map(String::as_str).collect();
        let topology = lab.topology();
        manifests.nodes_but(topology, &without)?;
        for service in &options.services {
            manifests.service(service)?;
            let pods = topology.pods_of("nest-server");
            let pods = pods.filter(|pod| !without.contains(&&*pod.node));
            manifests.endpoints(service, pods)?;
        }
        let key = lab.dir().join("gossip.key");
        write_key(&key)?;
        let start = |node: &str| {
            if options.clocks {
                write_clock(&lab, node, 0)?;
            }
            let options = options.agent(&lab, &manifests, &key, node);
            lab.agent(node, options)
        };
        // One after the other: each keeps a core busy until the kernel has verified it.
        let mut agents = BTreeMap::new();
        for node in &topology.nodes {
            agents.insert(node.name.clone(), start(&node.name)?);
        }
        let conditions = topology
            .nodes
            .iter()
            .map(|it| (it.name.clone(), Condition::Up))
            .collect();
        let cluster = Self {
            agents,
            conditions: Mutex::new(conditions),
            manifests,
            services: options.services.clone(),
            lab,
        };
        for node in &options.without {
            cluster.off(node)?;
        }
        Ok(cluster)
    }

    /// The LAN.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What all agents read.
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// What is served.
    pub fn services(&self) -> &[ServiceSpec] {
        &self.services
    }

    /// The agent of a node.
    pub fn agent(&self, node: &str) -> Result<&Agent> {
        let agent = self.agents.get(node);
        agent.ok_or_else(|| Error::Topology(format!("{node} is no node: {}", self.node_names())))
    }

    /// How a machine is.
    pub fn condition(&self, node: &str) -> Condition {
        self.conditions()
            .get(node)
            .copied()
            .unwrap_or(Condition::Up)
    }

    /// Takes a node's power away: nobody hears of it again, and its kernel forgets all.
    /// Its cable has no carrier at the switch, as with a real one.
    pub fn off(&self, node: &str) -> Result<()> {
        let agent = self.agent(node)?;
        // The cable first: what ends after that has no one to say goodbye to.
        self.lab.cut(node)?;
        self.set(node, Condition::Off);
        agent.kill()?;
        self.pods_on(node).try_for_each(Pod::kill)?;
        agent.forget()
    }

    /// Switches a node on again: pods, cable, agent.
    pub fn on(&self, node: &str) -> Result<()> {
        self.power(node)?;
        self.agent(node)?.restart()
    }

    /// What a node has before its agent runs: pods that serve, and a cable.
    fn power(&self, node: &str) -> Result<()> {
        self.agent(node)?;
        self.pods_on(node).try_for_each(Pod::launch)?;
        self.pods_on(node).try_for_each(Pod::wait_ready)?;
        self.lab.heal(node)?;
        self.set(node, Condition::Up);
        Ok(())
    }

    /// Has a node hang with its links up, as a virtual machine that is paused: nothing
    /// comes out of it and nothing gets in, its processes stand still.
    pub fn freeze(&self, node: &str) -> Result<()> {
        let agent = self.agent(node)?;
        self.lab.block(node)?;
        self.set(node, Condition::Frozen);
        agent.pause()?;
        self.pods_on(node).try_for_each(Pod::pause)
    }

    /// Lets a node that hangs go on where it was. Its kernel answers again before any of
    /// its processes runs.
    pub fn thaw(&self, node: &str) -> Result<()> {
        let agent = self.agent(node)?;
        self.lab.unblock(node)?;
        self.set(node, Condition::Up);
        agent.resume()?;
        self.pods_on(node).try_for_each(Pod::resume)
    }

    /// Pulls a node's cable.
    pub fn cut(&self, node: &str) -> Result<()> {
        self.agent(node)?;
        self.lab.cut(node)?;
        self.set(node, Condition::CutOff);
        Ok(())
    }

    /// Plugs a node's cable in.
    pub fn heal(&self, node: &str) -> Result<()> {
        self.agent(node)?;
        self.lab.heal(node)?;
        self.set(node, Condition::Up);
        Ok(())
    }

    /// Splits the LAN: one node, with the last of several clients, on one side, everybody
    /// else on the other.
    pub fn split_off(&self, node: &str) -> Result<()> {
        self.agent(node)?;
        let topology = self.lab.topology();
        let nodes = topology.nodes.iter().map(|it| &*it.name);
        let clients: Vec<&str> = topology.clients.iter().map(|it| &*it.name).collect();
        let last = clients.last().filter(|_| clients.len() > 1).copied();
        let machines = nodes.chain(clients.iter().copied());
        let (there, here): (Vec<&str>, Vec<&str>) =
            machines.partition(|it| *it == node || Some(*it) == last);
        self.lab.split(&[&here, &there])?;
        self.set(node, Condition::CutOff);
        Ok(())
    }

    /// Undoes [`split_off`](Self::split_off).
    pub fn unite(&self, node: &str) -> Result<()> {
        self.agent(node)?;
        self.lab.unite()?;
        self.set(node, Condition::Up);
        Ok(())
    }

    /// Adds a node that was left out: its power, its Node object and endpoints, its agent.
    pub fn join(&self, node: &str) -> Result<()> {
        let off = |it: &&crate::Node| it.name != node && self.condition(&it.name) == Condition::Off;
        let nodes = self.lab.topology().nodes.iter();
        let without: Vec<&str> = nodes.filter(off).map(|it| &*it.name).collect();
        // An endpoint is one once its pod serves.
        self.power(node)?;
        self.describe(&without)?;
        self.agent(node)?.restart()
    }

    /// Undoes [`join`](Self::join), in the order of a planned removal: its endpoints go, its
    /// pods have a moment to end, its agent stops, its power goes.
    pub fn leave(&self, node: &str) -> Result<()> {
        self.describe(&[node])?;
        sleep(GRACE);
        self.agent(node)?.stop()?;
        self.off(node)
    }

    /// Shows a node's agent another time of day, so many seconds from the true one, where
    /// [`ClusterOptions::clocks`] was asked for.
    pub fn set_clock(&self, node: &str, offset: i64) -> Result<()> {
        write_clock(&self.lab, node, offset)
    }

    /// Who answers for an address on the LAN just now, as the first client sees it.
    pub fn owners(&self, address: Ipv4Addr) -> Result<Vec<String>> {
        let client = &self.lab.topology().clients[0].name;
        owners_now(&self.lab, client, address, Duration::from_millis(150))
    }

    /// Ends all agents at once, then removes the lab.
    pub fn teardown(self) -> Result<()> {
        let Self { agents, lab, .. } = self;
        drop(agents);
        lab.teardown()
    }

    /// Writes the Node objects and the endpoints, without some nodes.
    fn describe(&self, without: &[&str]) -> Result<()> {
        let topology = self.lab.topology();
        self.manifests.nodes_but(topology, without)?;
        for service in &self.services {
            let pods = topology.pods_of("nest-server");
            let pods = pods.filter(|pod| !without.contains(&&*pod.node));
            self.manifests.endpoints(service, pods)?;
        }
        Ok(())
    }

    fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        let pods = self.lab.pods().iter();
        pods.filter(move |pod| pod.spec().node == node)
    }

    fn node_names(&self) -> String {
        self.agents.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    fn set(&self, node: &str, condition: Condition) {
        self.conditions().insert(node.to_owned(), condition);
    }

    fn conditions(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether agents can be shown another time of day on this machine.
pub fn can_fake_clocks() -> bool {
    Path::new(FAKETIME).is_file()
}

/// Where an agent's time of day stands.
fn clock(lab: &Lab, node: &str) -> PathBuf {
    lab.dir().join(format!("{node}.clock"))
}

fn write_clock(lab: &Lab, node: &str, offset: i64) -> Result<()> {
    let path = clock(lab, node);
    let draft = path.with_extension("clock.draft");
    fs::write(&draft, format!("{offset:+}\n")).map_err(Error::io(draft.display().to_string()))?;
    // At once: half a number is a time as well.
    fs::rename(&draft, &path).map_err(Error::io(path.display().to_string()))
}

/// A key that nobody else has, readable by root alone.
pub(crate) fn write_key(path: &Path) -> Result<()> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(Error::io("/dev/urandom"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let failed = || Error::io(path.display().to_string());
    fs::write(path, format!("{text}\n")).map_err(failed())?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed())
}
