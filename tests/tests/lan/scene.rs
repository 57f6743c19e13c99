//! A lab with the agent on nuc01, and the questions that all scenarios ask.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use naru_lab::{
    Agent, AgentOptions, Answer, Client, Endpoint, Lab, LongLived, Manifests, PodKind, PodRoutes,
    PodSpec, Protocol, ServiceSpec, TUNNEL, Tally, Topology, UPLINK,
};
pub use naru_tests::naru;
use serde_json::Value;

/// Where the agent runs.
pub const NODE: &str = "nuc01";
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 101);
/// What it is to the pods of other nodes where those are behind VXLAN.
pub const TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 0);
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 1);
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 11);
/// How long anything may take that is waited for. A loaded machine is slow; what is
/// meant to be quick is measured by its own test.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A running lab. The agent ends before the lab does.
pub struct Scene {
    pub agent: Agent,
    pub manifests: Manifests,
    pub lab: Lab,
}

/// The tutorial's service over TCP, and the same port over UDP.
pub fn services() -> [ServiceSpec; 2] {
    let tcp = ServiceSpec::nest_server();
    let udp = ServiceSpec {
        name: "nest-datagrams".to_owned(),
        ..tcp.clone().over(Protocol::Udp)
    };
    [tcp, udp]
}

/// A lab without an agent, with the manifests of [`services`] for all its pods.
pub fn set_up(topology: Topology) -> (Lab, Manifests) {
    let lab = Lab::build(topology).unwrap();
    let manifests = Manifests::create(lab.dir().join("manifests")).unwrap();
    for service in services() {
        manifests.service(&service).unwrap();
        manifests.endpoints(&service, &lab.topology().pods).unwrap();
    }
    (lab, manifests)
}

/// The class room with so many pods.
pub fn class_room(pods: usize) -> Topology {
    let mut topology = Topology::nuc_without_pods();
    topology.add_pods("nest-server", PodKind::Echo, 3000, pods);
    topology
}

pub fn options(manifests: &Manifests) -> AgentOptions {
    AgentOptions::new(naru()).manifests(manifests)
}

impl Scene {
    /// The class room with [`services`] in force.
    pub fn new() -> Self {
        Self::with(Topology::nuc(), &[])
    }

    /// Another topology, with further arguments for the agent.
    pub fn with(topology: Topology, args: &[&str]) -> Self {
        let (lab, manifests) = set_up(topology);
        let options = options(&manifests).args(args);
        Self::start(lab, manifests, options)
    }

    /// A lab that is there, with the agent as these options say.
    pub fn start(lab: Lab, manifests: Manifests, options: AgentOptions) -> Self {
        Self {
            agent: lab.agent(NODE, options).unwrap(),
            manifests,
            lab,
        }
    }

    /// Pods behind VXLAN, with the agent on the uplink and on the tunnel.
    pub fn with_vxlan(topology: Topology) -> Self {
        let (lab, manifests) = set_up(topology.with_vxlan());
        let options = options(&manifests).interface(UPLINK).interface(TUNNEL);
        Self::start(lab, manifests, options)
    }

    /// Where requests come from, as pods elsewhere see it.
    pub fn snat_address(&self) -> Ipv4Addr {
        match self.lab.topology().pod_routes {
            PodRoutes::Lan => NODE_ADDRESS,
            PodRoutes::Vxlan => TUNNEL_ADDRESS,
        }
    }

    pub fn pods(&self) -> &[PodSpec] {
        &self.lab.topology().pods
    }

    pub fn pod(&self, name: &str) -> &PodSpec {
        self.pods().iter().find(|pod| pod.name == name).unwrap()
    }

    /// The first pod on the agent's node, or elsewhere.
    pub fn first(&self, local: bool) -> &PodSpec {
        let mut pods = self.pods().iter();
        pods.find(|pod| (pod.node == NODE) == local).unwrap()
    }

    pub fn client(&self) -> Client {
        self.lab.client()
    }

    /// So many requests, all of which must be answered; how often by which pod.
    pub fn answers(&self, count: usize) -> BTreeMap<String, u64> {
        let url = services()[0].url("/");
        let tally = Tally::of(&self.client().many(&url, count).unwrap());
        assert_eq!(tally.failed, 0, "{:?}", tally.failures);
        tally.by_pod
    }

    /// So many connections that stay open, with a line now and then.
    pub fn open(&self, count: usize) -> Vec<LongLived> {
        let url = services()[0].url("/stream");
        let one = |_| self.client().long_lived(&url).unwrap();
        (0..count).map(one).collect()
    }

    /// Changes the endpoints of both services, and waits until that is in force.
    pub fn set_endpoints<E: Into<Endpoint>>(&self, endpoints: impl IntoIterator<Item = E>) {
        let endpoints: Vec<Endpoint> = endpoints.into_iter().map(Into::into).collect();
        for service in services() {
            self.manifests
                .endpoints(&service, endpoints.iter().cloned())
                .unwrap();
        }
        let state = |endpoint: &Endpoint| {
            let word = if endpoint.ready { "ready" } else { "draining" };
            (endpoint.address.to_string(), word.to_owned())
        };
        let mut wanted: Vec<_> = endpoints
            .iter()
            .flat_map(|it| [state(it), state(it)])
            .collect();
        wanted.sort();
        wait("the endpoints are in force", || {
            let mut now: Vec<_> = rows(&self.agent.json(&["backends"]).unwrap())
                .iter()
                .map(|row| {
                    let address: SocketAddr = text(row, "address").parse().unwrap();
                    (address.ip().to_string(), text(row, "condition").to_owned())
                })
                .collect();
            now.sort();
            now == wanted
        });
    }

    /// Packets that left the program in this way at this hook.
    pub fn verdict(&self, hook: &str, verdict: &str) -> u64 {
        let status = self.agent.json(&["status"]).unwrap();
        let counts = rows(&status["verdicts"]);
        let count = counts
            .iter()
            .find(|it| text(it, "hook") == hook && text(it, "verdict") == verdict);
        count.map_or(0, |it| it["packets"].as_u64().unwrap())
    }

    pub fn explain(&self, client: &str, frontend: &str) -> Value {
        self.agent.json(&["explain", client, frontend]).unwrap()
    }
}

/// Both services, changed alike, are in force once the agent lists what is new of them.
pub fn change(
    scene: &Scene,
    how: impl Fn(ServiceSpec) -> ServiceSpec,
    so: impl Fn(&Value) -> bool,
) {
    for service in services() {
        scene.manifests.service(&how(service)).unwrap();
    }
    wait("the changed services are in force", || {
        let services = scene.agent.json(&["services"]).unwrap();
        rows(&services).iter().all(&so)
    });
}

/// A `naru` command with directories of its own, in the namespace of a node.
pub fn naru_on(lab: &Lab, node: &str, args: &[&str]) -> Command {
    let mut command = lab.node(node).command(naru());
    // The lab removes whatever carries its id.
    let pins = format!("/sys/fs/bpf/naru-lab-{}-by-hand", lab.id());
    let state = lab.dir().join("by-hand");
    command.args(args).args(["--pin-dir", &pins, "--state-dir"]);
    command.arg(state);
    command
}

/// Waits until something is so.
pub fn wait(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "after {PATIENCE:?} not: {what}");
        sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

pub fn rows(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

pub fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {row}"))
}

/// Asserts that lines go on coming on connections that stay open.
pub fn assert_alive<'a>(open: impl IntoIterator<Item = &'a LongLived>) {
    for connection in open {
        let before = connection.lines();
        wait("a line comes on an open connection", || {
            assert_eq!(connection.ended(), None, "to {}", connection.pod());
            connection.lines() > before
        });
    }
}

/// The names of the pods that answered, in order.
pub fn order(answers: Vec<naru_lab::Result<Answer>>) -> Vec<String> {
    answers.into_iter().map(|it| it.unwrap().pod).collect()
}

/// Asserts that every pod is named exactly twice, in turn.
pub fn assert_in_turn(order: &[String], pods: &[PodSpec]) {
    let half = pods.len();
    assert_eq!(order.len(), 2 * half);
    assert_eq!(order[..half], order[half..], "the same turn again");
    assert_everyone(&order[..half], pods);
}

/// Asserts that the pods named are exactly these, whatever the order and how often.
pub fn assert_everyone(named: &[String], pods: &[PodSpec]) {
    let mut named = named.to_vec();
    named.sort();
    named.dedup();
    let mut all: Vec<_> = pods.iter().map(|pod| pod.name.clone()).collect();
    all.sort();
    assert_eq!(named, all);
}
