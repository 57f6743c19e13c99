//! A Kubernetes cluster of the lab: a control plane, a kubelet for each node, and Naru.

mod addons;
mod endpoints;
mod objects;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

pub use self::endpoints::EndpointWatch;
use crate::{
    agent::{Agent, AgentOptions},
    cgroup::Cgroup,
    cluster::write_key,
    controlplane::ControlPlane,
    error::{Error, Result},
    kubelet::{self, Kubelet, Roll, view},
    lab::Lab,
    netns::NetNs,
    process::Process,
    topology::{Node, Topology},
};

/// How long anything may take that is waited for: all of it runs on a few cores.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where Naru's objects are.
const NAMESPACE: &str = "naru-system";

/// What a user applies, and who may do what.
const DEPLOYED: [&str; 3] = [
    include_str!("../../../deploy/namespace.yaml"),
    include_str!("../../../deploy/agent-rbac.yaml"),
    include_str!("../../../deploy/controller-rbac.yaml"),
];
/// The lab's users may do what the service accounts may.
const USERS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lab-agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: naru-agent}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: naru}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lab-controller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: naru-controller}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: naru-controller}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lab-agent, namespace: naru-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: naru-agent}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: naru}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lab-controller, namespace: naru-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: naru-controller}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: naru-controller}]
";

/// How to build a cluster.
#[derive(Clone, Debug)]
pub struct KubeOptions {
    /// The `naru` that it runs.
    pub naru: PathBuf,
    /// The directory with `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`,
    /// `kubectl` and `coredns`.
    pub control_plane: PathBuf,
    /// The machines; without pods.
    pub topology: Topology,
    /// So many controllers.
    pub controllers: usize,
    /// Further arguments of each agent.
    pub args: Vec<String>,
    /// Further arguments of each controller.
    pub controller_args: Vec<String>,
}

/// A cluster. Dropping it removes it.
#[derive(Debug)]
pub struct Kube {
    // What ends first stands first.
    controllers: Mutex<Vec<Option<Process>>>,
    agents: BTreeMap<String, Agent>,
    kubelets: Mutex<BTreeMap<String, Kubelet>>,
    cgroups: BTreeMap<String, Cgroup>,
    plane: ControlPlane,
    roll: Roll,
    options: KubeOptions,
    lab: Lab,
}

impl KubeOptions {
    /// The class room, with one controller.
    pub fn new(naru: impl Into<PathBuf>, control_plane: impl Into<PathBuf>) -> Self {
        Self {
            naru: naru.into(),
            control_plane: control_plane.into(),
            topology: Topology::nuc_without_pods(),
            controllers: 1,
            args: Vec::new(),
            controller_args: Vec::new(),
        }
    }
}

impl Kube {
    /// Starts all of it; returns when the nodes and the agents are ready.
    ///
    /// # Errors
    /// Where something does not start, with what it said last.
    pub fn start(options: KubeOptions) -> Result<Self> {
        let lab = Lab::build(options.topology.clone())?;
        let first = lab.topology().nodes[0].clone();
        let dir = lab.dir().join("controlplane");
        let namespace = lab.node(&first.name).clone();
        let plane = ControlPlane::start(&options.control_plane, namespace, first.address, &dir)?;
        let naru = options.naru.display().to_string();
        let crds = lab.node(&first.name).run(&naru, &["crds"])?;
        plane.apply(&crds)?;
        for objects in DEPLOYED.iter().chain([&USERS]) {
            plane.apply(objects)?;
        }
        let mut kube = Self {
            controllers: Mutex::default(),
            agents: BTreeMap::new(),
            kubelets: Mutex::default(),
            cgroups: BTreeMap::new(),
            plane,
            roll: Roll::default(),
            options,
            lab,
        };
        let nodes = kube.lab.topology().nodes.clone();
        for node in &nodes {
            let cgroup = kube.lab.cgroup(&node.name)?;
            kube.cgroups.insert(node.name.clone(), cgroup);
            kube.start_kubelet(&node.name)?;
        }
        kube.wait_nodes(nodes.len())?;
        let key = kube.lab.dir().join("gossip.key");
        write_key(&key)?;
        for node in &nodes {
            let agent = kube
                .lab
                .agent(&node.name, kube.agent_options(&key, &node.name)?)?;
            kube.agents.insert(node.name.clone(), agent);
        }
        for index in 0..kube.options.controllers {
            kube.start_controller(index)?;
        }
        Ok(kube)
    }

    /// The LAN.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// Where there is no such node.
    pub fn agent(&self, node: &str) -> Result<&Agent> {
        let agent = self.agents.get(node);
        agent.ok_or_else(|| Error::Topology(format!("{node} is no node")))
    }

    /// `kubectl` with these words, as somebody would type them.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn kubectl(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.plane.kubectl(&words)
    }

    /// `kubectl apply -f -` of these objects.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.plane.apply(yaml)
    }

    /// Runs a shell's lines on a node; gives what they print.
    ///
    /// # Errors
    /// Where they fail, with what they said.
    pub fn shell(&self, node: &str, lines: &str) -> Result<String> {
        let shell = self.lab.node(node).command("sh");
        self.cgroup(node)?.run(shell, lines)
    }

    /// The same in a pod on a node, as `kubectl exec` does.
    ///
    /// # Errors
    /// Where they fail, with what they said.
    pub fn exec(&self, node: &str, pod: &str, lines: &str) -> Result<String> {
        let inside = NetNs::new(format!("{}{pod}", self.lab.prefix()));
        let files = view::of(&self.kubelet_dir(node), pod);
        let shell = view::command(&inside, &files, "sh");
        self.cgroup(node)?.run(shell, lines)
    }

    /// What all kubelets know of the pods.
    pub fn roll(&self) -> &Roll {
        &self.roll
    }

    /// Notes from now on when EndpointSlices say that pods are ready.
    pub fn endpoints(&self) -> EndpointWatch {
        EndpointWatch::start(self)
    }

    /// Starts a controller, which may be one of several; the first has number 0.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_controller(&self, index: usize) -> Result<()> {
        let config = self.plane.kubeconfig("controller").display().to_string();
        let node = &self.lab.topology().nodes[0].name;
        let identity = format!("controller-{index}");
        let mut args = vec!["controller", "--kubeconfig", &config];
        args.extend(["--lease-namespace", NAMESPACE, "--identity", &identity]);
        args.extend(self.options.controller_args.iter().map(String::as_str));
        let log = self.lab.dir().join(format!("controller-{index}.log"));
        let program = self.options.naru.display().to_string();
        let process = self.lab.node(node).start(&program, &args, &log)?;
        let mut controllers = self.controllers();
        if controllers.len() <= index {
            controllers.resize_with(index + 1, || None);
        }
        controllers[index] = Some(process);
        Ok(())
    }

    /// Ends a controller at once, as a crash would.
    pub fn kill_controller(&self, index: usize) {
        if let Some(controller) = self.controllers().get_mut(index) {
            *controller = None;
        }
    }

    /// Takes a node's power away: its cable, its agent, its kubelet and its pods.
    ///
    /// # Errors
    /// Where there is no such node.
    pub fn off(&self, node: &str) -> Result<()> {
        let agent = self.agent(node)?;
        self.lab.cut(node)?;
        agent.kill()?;
        drop(self.kubelets().remove(node));
        agent.forget()
    }

    /// Gives it back.
    ///
    /// # Errors
    /// Where there is no such node, or something of it does not start.
    pub fn on(&self, node: &str) -> Result<()> {
        self.lab.heal(node)?;
        self.start_kubelet(node)?;
        self.agent(node)?.restart()
    }

    /// Whether a node has no power.
    pub fn is_off(&self, node: &str) -> bool {
        !self.kubelets().contains_key(node)
    }

    /// Removes it, and says so where something could not be removed.
    ///
    /// # Errors
    /// Then.
    pub fn teardown(self) -> Result<()> {
        let Self {
            controllers,
            agents,
            kubelets,
            plane,
            lab,
            ..
        } = self;
        drop((controllers, agents, kubelets, plane));
        lab.teardown()
    }

    fn start_kubelet(&self, name: &str) -> Result<()> {
        let dir = self.kubelet_dir(name);
        fs::create_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
        let kubelet = Kubelet::start(kubelet::Options {
            node: self.node(name)?.clone(),
            namespace: self.lab.node(name).clone(),
            cgroup: self.cgroup(name)?.clone(),
            prefix: self.lab.prefix(),
            dir,
            program: self.lab.program().to_owned(),
            control_plane: self.options.control_plane.clone(),
            dns: addons::DNS_ADDRESS,
            api_server: addons::API_SERVER,
            roll: self.roll.clone(),
            kubeconfig: self.plane.kubeconfig("admin"),
            identity: self.plane.identity(),
        });
        self.kubelets().insert(name.to_owned(), kubelet);
        Ok(())
    }

    fn kubelet_dir(&self, node: &str) -> PathBuf {
        self.lab.dir().join(format!("kubelet-{node}"))
    }

    fn agent_options(&self, key: &Path, node: &str) -> Result<AgentOptions> {
        let options = AgentOptions::new(&self.options.naru)
            .args(["--kubernetes", "--kubeconfig"])
            .arg(self.plane.kubeconfig("naru"))
            .arg("--gossip-key")
            .arg(key)
            .arg("--cgroup")
            .arg(self.cgroup(node)?.path())
            .args(&self.options.args);
        Ok(options)
    }

    fn cgroup(&self, node: &str) -> Result<&Cgroup> {
        let cgroup = self.cgroups.get(node);
        cgroup.ok_or_else(|| Error::Topology(format!("{node} is no node")))
    }

    fn node(&self, name: &str) -> Result<&Node> {
        let mut nodes = self.lab.topology().nodes.iter();
        let node = nodes.find(|it| it.name == name);
        node.ok_or_else(|| Error::Topology(format!("{name} is no node")))
    }

    fn wait_nodes(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nodes = self.kubectl("get nodes --no-headers")?;
            if nodes.lines().filter(|it| it.contains(" Ready ")).count() == count {
                return Ok(());
            }
            if Instant::now() > deadline {
                let reason = format!("the nodes are not ready: {nodes}");
                return Err(Error::Topology(reason));
            }
            sleep(Duration::from_millis(200));
        }
    }

    fn controllers(&self) -> MutexGuard<'_, Vec<Option<Process>>> {
        self.controllers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn kubelets(&self) -> MutexGuard<'_, BTreeMap<String, Kubelet>> {
        self.kubelets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
