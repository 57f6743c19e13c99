//! A lab with a control plane on its first node, and the agent there.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use naru_lab::{
    Agent, AgentOptions, ControlPlane, Lab, Load, LoadOptions, PodSpec, ServiceSpec, Topology,
};
use serde_json::Value;

/// Where the agent and the control plane run.
pub const NODE: &str = "nuc01";
/// How long anything may take that is waited for: an API server that comes back is asked again
/// within a minute.
pub const PATIENCE: Duration = Duration::from_secs(120);

const NAMESPACE: &str = include_str!("../../../deploy/namespace.yaml");
/// The agent may do what is written for it, and belongs to the group of that name.
const RBAC: &str = include_str!("../../../deploy/agent-rbac.yaml");
const GROUP: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: naru-lab}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: naru-agent}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: naru}]
";

/// A running lab. What ends first stands first.
pub struct Scene {
    pub agent: Agent,
    pub plane: ControlPlane,
    pub lab: Lab,
}

/// The tutorial's Service, its endpoints written by hand.
pub fn service() -> ServiceSpec {
    ServiceSpec::nest_server()
}

impl Scene {
    /// The class room, with the tutorial's Service for all its pods.
    pub fn new() -> Self {
        let lab = Lab::build(Topology::nuc()).unwrap();
        let node = lab.topology().nodes.iter().find(|it| it.name == NODE);
        let address = node.unwrap().address;
        let namespace = lab.node(NODE).clone();
        let dir = lab.dir().join("controlplane");
        let plane = ControlPlane::start(&control_plane(), namespace, address, &dir).unwrap();
        plane.apply(NAMESPACE).unwrap();
        plane.apply(RBAC).unwrap();
        plane.apply(GROUP).unwrap();
        plane.apply(&service().yaml()).unwrap();
        plane.apply(&endpoints(&lab.topology().pods)).unwrap();
        let config = plane.kubeconfig("naru");
        let options = AgentOptions::new(naru())
            .args(["--kubernetes", "--kubeconfig"])
            .arg(config);
        Self {
            agent: lab.agent(NODE, options).unwrap(),
            plane,
            lab,
        }
    }

    pub fn pods(&self) -> &[PodSpec] {
        &self.lab.topology().pods
    }

    /// Makes these the endpoints of the Service, and waits until they are the ones that answer.
    pub fn set_endpoints(&self, pods: &[PodSpec]) -> Duration {
        self.plane.apply(&endpoints(pods)).unwrap();
        let expected: BTreeSet<String> = pods.iter().map(|it| it.name.clone()).collect();
        wait("the endpoints are followed", || {
            self.answering() == expected
        })
    }

    /// The pods that answer twenty requests.
    pub fn answering(&self) -> BTreeSet<String> {
        let answers = self.lab.client().many(&service().url("/"), 20).unwrap();
        answers
            .into_iter()
            .filter_map(|it| Some(it.ok()?.pod))
            .collect()
    }

    /// Requests that go on until they are stopped, each on a connection of its own.
    pub fn load(&self) -> Load {
        let options = LoadOptions {
            connections: 2,
            ..LoadOptions::default()
        };
        self.lab.client().load(&service().url("/"), options)
    }

    /// What there is to know of the source, by `naru status`.
    pub fn notes(&self) -> Vec<String> {
        let status = self.agent.json(&["status"]).unwrap();
        let notes = status["source"]["notes"].as_array().cloned();
        let text = |note: Value| note.as_str().map(str::to_owned);
        notes
            .unwrap_or_default()
            .into_iter()
            .filter_map(text)
            .collect()
    }
}

/// Stops requests of which none may have failed, and some must have been answered.
pub fn none_failed(load: Load) {
    let tally = load.stop().unwrap();
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.ok > 0, "no request was answered");
}

fn endpoints(pods: &[PodSpec]) -> String {
    let endpoints: Vec<_> = pods.iter().map(Into::into).collect();
    service().endpoints_yaml(&endpoints)
}

/// The program of `tests/controlplane`.
pub fn control_plane() -> PathBuf {
    let program = std::env::var_os("NARU_CONTROLPLANE").map(PathBuf::from);
    program.expect("NARU_CONTROLPLANE names no program: `cargo xtask test cluster`")
}

pub fn naru() -> PathBuf {
    std::env::var_os("NARU_BIN").map_or_else(
        || {
            let running = std::env::current_exe().unwrap();
            running.ancestors().nth(2).unwrap().join("naru")
        },
        PathBuf::from,
    )
}

/// Waits until something is so; tells how long that took.
#[track_caller]
pub fn wait(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        sleep(Duration::from_millis(50));
    }
    start.elapsed()
}
