//! A running lab: what is in it, and its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::agent::{Agent, AgentOptions};
use crate::cgroup::Cgroup;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::ownership::{self, Owned};
use crate::pod::Pod;
use crate::topology::Topology;
use crate::{interrupt, lan};

/// A running lab. Dropping it removes it; [`teardown`](Self::teardown) also says whether
/// that went well.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    // Pods end before the namespaces that they are in go.
    pods: Vec<Pod>,
    namespaces: BTreeMap<String, NetNs>,
    program: PathBuf,
    owned: Owned,
}

/// How to build a lab, where the defaults do not do.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// The `naru-lab` that pods run. Found by itself where it is `$NARU_LAB_BIN`, the
    /// running program, or beside that (as for tests in a target directory).
    pub program: Option<PathBuf>,
}

impl Lab {
    /// Builds the LAN and starts its pods; returns when all of them serve.
    pub fn build(topology: Topology) -> Result<Self> {
        Self::build_with(topology, LabOptions::default())
    }

    /// [`build`](Self::build), with options.
    pub fn build_with(topology: Topology, options: LabOptions) -> Result<Self> {
        topology.check()?;
        if !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let program = options.program.map_or_else(own_program, Ok)?;
        interrupt::watch();
        ownership::sweep()?;
        let owned = Owned::claim()?;

        let machines = topology.nodes.iter().map(|node| &node.name);
        let machines = machines.chain(topology.clients.iter().map(|client| &client.name));
        let names = machines
            .chain(topology.pods.iter().map(|pod| &pod.name))
            .cloned();
        let namespaces: BTreeMap<String, NetNs> = names
            .chain(["lan".to_owned()])
            .map(|name| (name.clone(), NetNs::new(owned.namespace(&name))))
            .collect();
        let mut lab = Self {
            topology,
            pods: Vec::new(),
            namespaces,
            program,
            owned,
        };
        lan::make(&lab)?;
        for spec in &lab.topology.pods {
            let namespace = lab.node(&spec.name).clone();
            lab.pods
                .push(Pod::new(spec.clone(), namespace, &lab.program, &lab.dir()));
        }
        // All at once, then wait for each.
        lab.pods.iter().try_for_each(Pod::launch)?;
        lab.pods.iter().try_for_each(Pod::wait_ready)?;
        Ok(lab)
    }

    /// What this lab was built from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The lab's id, which is in all its names.
    pub fn id(&self) -> &str {
        self.owned.id()
    }

    /// A directory of the lab's own, removed with it: for manifests, logs, captures.
    pub fn dir(&self) -> PathBuf {
        self.owned.dir()
    }

    /// The namespace of a node, a client or a pod, or of the switch (`lan`).
    ///
    /// # Panics
    /// Where the topology has nothing of that name.
    pub fn node(&self, name: &str) -> &NetNs {
        let known = || {
            self.namespaces
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        };
        self.namespaces
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in this lab: {}", known()))
    }

    /// What names of its namespaces begin with.
    pub(crate) fn prefix(&self) -> String {
        self.owned.namespace("")
    }

    /// The `naru-lab` that pods run.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// All namespaces.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &NetNs> {
        self.namespaces.values()
    }

    /// Requests from the (first) client of the LAN.
    pub fn client(&self) -> Client {
        Client::new(self.node(&self.topology.clients[0].name).clone())
    }

    /// A pod, by its name.
    ///
    /// # Panics
    /// Where the topology has no such pod.
    pub fn pod(&self, name: &str) -> &Pod {
        let pod = self.pods.iter().find(|pod| pod.spec().name == name);
        pod.unwrap_or_else(|| panic!("no pod {name} in this lab"))
    }

    /// All pods.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Starts the agent on a node; returns when it says that it is ready.
    pub fn agent(&self, node: &str, options: AgentOptions) -> Result<Agent> {
        let state = self.owned.dir().join(node);
        Agent::start(
            node,
            self.node(node).clone(),
            self.owned.pins(node),
            state,
            options,
        )
    }

    /// Makes a cgroup for the processes of a node.
    pub fn cgroup(&self, node: &str) -> Result<Cgroup> {
        Cgroup::make(&self.owned.cgroup(node))
    }

    /// Removes the lab, and says so where something could not be removed.
    pub fn teardown(self) -> Result<()> {
        let Self { pods, owned, .. } = self;
        drop(pods);
        owned.remove()
    }
}

/// The `naru-lab` to run pods with.
fn own_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NARU_LAB_BIN") {
        return Ok(path.into());
    }
    let running = std::env::current_exe().map_err(Error::io("the running program"))?;
    // Tests are in target/PROFILE/deps, the program itself in target/PROFILE.
    let mut candidates = running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("naru-lab"));
    candidates.find(|path| path.is_file()).ok_or_else(|| {
        Error::Topology(format!(
            "naru-lab, which serves as the pods, is not beside {}: \
             `cargo build -p naru-lab`, or name it in NARU_LAB_BIN",
            running.display()
        ))
    })
}
