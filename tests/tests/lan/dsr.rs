//! Nodes that hand packets over to each other, and answer clients themselves.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use naru_lab::{Agent, Algorithm, Lab, Manifests, ServiceSpec, Topology};

use crate::{
    capture::Capture,
    probe,
    scene::{
        NODE, VIP, assert_everyone, assert_in_turn, options, order, rows, services, set_up, text,
        wait,
    },
};

/// A dedicated source of `nat` flows.
const SOURCE: &str = "192.168.56.60";

/// A lab with an agent on every node, of which the first claims the address.
struct Peers {
    agents: Vec<Agent>,
    manifests: Manifests,
    lab: Lab,
}

impl Peers {
    fn new(mode: &str, algorithm: Algorithm, args: &[&str]) -> Self {
        let (lab, manifests) = set_up(Topology::nuc());
        manifests.nodes(lab.topology()).unwrap();
        for service in wanted(mode, algorithm) {
            manifests.service(&service).unwrap();
        }
        let agent = |name: &str| {
            let role: &[&str] = match name {
                NODE => &[],
                _ => &["--no-announce"],
            };
            let options = options(&manifests).args(role).args(args);
            lab.agent(name, options).unwrap()
        };
        let nodes = lab.topology().nodes.iter();
        Self {
            agents: nodes.map(|node| agent(&node.name)).collect(),
            manifests,
            lab,
        }
    }

    /// Packets with this verdict at all hooks of all nodes whose agents run.
    fn verdict(&self, verdict: &str) -> u64 {
        let count = |agent: &Agent| -> u64 {
            let status = agent.json(&["status"]).unwrap();
            let all = rows(&status["verdicts"]).iter();
            let named = all.filter(|row| text(row, "verdict") == verdict);
            named.map(|row| row["packets"].as_u64().unwrap()).sum()
        };
        let running = self.agents.iter().filter(|agent| agent.is_running());
        running.map(count).sum()
    }

    /// A connection of the client to each pod, as round robin has it.
    fn connections(&self) -> Vec<TcpStream> {
        let client = self.lab.node("client");
        let connect = |_| probe::connect(client, 0, probe::at(VIP, 80)).unwrap();
        self.lab.topology().pods.iter().map(connect).collect()
    }
}

fn wanted(mode: &str, algorithm: Algorithm) -> Vec<ServiceSpec> {
    let wanted = services().into_iter();
    wanted
        .map(|it| it.by(algorithm).annotated("naru.dev/mode", mode))
        .collect()
}

/// The client's ports whose replies crossed the announcing node's cable.
fn crossing(peers: &Peers, streams: &mut [TcpStream]) -> BTreeSet<u16> {
    // The switch's end of it.
    let capture = Capture::on(peers.lab.node("lan"), "port0");
    let body = probe::pattern(50_000);
    for stream in streams.iter_mut() {
        assert!(probe::echo(stream, &body).unwrap().body == body);
    }
    let vip = SocketAddr::from((VIP, 80));
    let packets = capture.packets();
    let requests = packets.iter().filter(|it| SocketAddr::V4(it.dst) == vip);
    assert!(requests.count() >= streams.len(), "requests do cross it");
    let replies = packets.iter().filter(|it| SocketAddr::V4(it.src) == vip);
    replies.map(|it| it.dst.port()).collect()
}

#[test]
fn replies_go_straight_to_the_client_and_its_address_is_kept() {
    for args in [&[][..], &["--attach", "generic"]] {
        for mode in ["dsr", "nat"] {
            let peers = Peers::new(mode, Algorithm::RoundRobin, args);
            let pods = &peers.lab.topology().pods;
            let url = ServiceSpec::nest_server().url("/");
            assert_in_turn(&order(peers.lab.client().many(&url, 10).unwrap()), pods);
            let mut streams = peers.connections();
            let here: BTreeSet<u16> = streams
                .iter_mut()
                .filter_map(|stream| {
                    let (pod, seen) = probe::seen_as(stream);
                    let own = stream.local_addr().unwrap();
                    let here = pods.iter().any(|it| it.name == pod && it.node == NODE);
                    let kept = if mode == "dsr" || here { own } else { seen };
                    assert_eq!(seen, kept, "{pod} {mode}");
                    assert_eq!(kept == own, mode == "dsr" || here, "{pod} {mode}");
                    here.then(|| own.port())
                })
                .collect();
            let crossing = crossing(&peers, &mut streams);
            if mode == "dsr" {
                assert_eq!(crossing, here, "those of pods on the node, and no others");
                assert!(peers.verdict("forward_dsr") > 0);
                assert_eq!(peers.verdict("forward_nat"), 0);
            } else {
                assert_eq!(crossing.len(), streams.len(), "this is what nat does");
            }
        }
    }
}

#[test]
fn a_client_on_a_backend_s_node_is_served_by_all_pods() {
    let peers = Peers::new("dsr", Algorithm::RoundRobin, &[]);
    let nuc02 = peers.lab.node("nuc02");
    let served = probe::who_from(nuc02, 20_000..20_010, probe::at(VIP, 80));
    assert_everyone(&served, &peers.lab.topology().pods);
    assert!(peers.verdict("forward_nat") > 0, "to the pods beside it");
    assert!(peers.verdict("forward_dsr") > 0, "to those of nuc03");
}

#[test]
fn every_pod_takes_its_share_by_maglev_over_udp_too() {
    let peers = Peers::new("dsr", Algorithm::Maglev, &[]);
    let client = peers.lab.node("client");
    let asked = probe::ask_from(client, 20_000..20_100, probe::at(VIP, 80));
    assert_everyone(&asked, &peers.lab.topology().pods);
    assert_eq!(peers.verdict("not_here"), 0);
}

#[test]
fn connections_outlive_the_agents_and_a_change_elsewhere() {
    let mut peers = Peers::new("dsr", Algorithm::RoundRobin, &[]);
    let mut streams = peers.connections();
    let before: Vec<String> = streams
        .iter_mut()
        .map(|it| probe::who(it).unwrap())
        .collect();
    assert_everyone(&before, &peers.lab.topology().pods);
    for agent in &mut peers.agents {
        agent.kill().unwrap();
    }
    let killed: Vec<String> = streams
        .iter_mut()
        .map(|it| probe::who(it).unwrap())
        .collect();
    assert_eq!(killed, before);
    for agent in &mut peers.agents {
        agent.restart().unwrap();
    }
    // One pod of nuc02 goes; its neighbour's connections stay.
    let pods = &peers.lab.topology().pods;
    let gone = &pods.iter().find(|pod| pod.node == "nuc02").unwrap().name;
    let left = || pods.iter().filter(|pod| pod.name != *gone);
    for service in services() {
        peers.manifests.endpoints(&service, left()).unwrap();
    }
    for agent in &peers.agents {
        wait("the endpoints are in force", || {
            rows(&agent.json(&["backends"]).unwrap()).len() == 2 * left().count()
        });
    }
    for (stream, pod) in streams.iter_mut().zip(&before) {
        if pod != gone {
            assert_eq!(&probe::who(stream).unwrap(), pod);
        }
    }
}

#[test]
fn a_node_that_lost_its_pods_sends_nothing_on() {
    let peers = Peers::new("dsr", Algorithm::RoundRobin, &[]);
    // The client knows by then where the address is. nuc01 is not told of what follows.
    assert_eq!(peers.connections().len(), peers.lab.topology().pods.len());
    peers.agents[0].kill().unwrap();
    let pods = &peers.lab.topology().pods;
    let here = || pods.iter().filter(|pod| pod.node == NODE);
    for service in services() {
        peers.manifests.endpoints(&service, here()).unwrap();
    }
    for agent in &peers.agents[1..] {
        wait("the endpoints are in force", || {
            rows(&agent.json(&["backends"]).unwrap()).len() == 2 * here().count()
        });
    }
    let client = peers.lab.node("client");
    let patience = Duration::from_millis(1_500);
    let connect = |_: &_| probe::connect_within(client, 0, probe::at(VIP, 80), patience);
    let failed = pods.iter().map(connect).filter(Result::is_err).count();
    assert_eq!(failed, pods.len() - here().count());
    assert!(peers.verdict("not_here") > 0);
    assert_eq!(
        peers.verdict("forward_nat") + peers.verdict("forward_dsr"),
        0
    );
}

#[test]
fn thirty_thousand_flows_to_one_backend_by_a_dedicated_source() {
    let mut topology = Topology::nuc();
    topology.pods.retain(|pod| pod.node == "nuc02");
    topology.pods.truncate(1);
    let (lab, manifests) = set_up(topology);
    let options = options(&manifests).args(["--snat-address", SOURCE]);
    let agent = lab.agent(NODE, options).unwrap();
    let client = lab.node("client");
    // Over UDP: an answered flow stays for two minutes, whoever closes a socket.
    let ports = 2_000..32_000;
    let asked = probe::ask_from(client, ports.clone(), probe::at(VIP, 80));
    assert_everyone(&asked, &lab.topology().pods);
    let flows = agent.json(&["flows", "--limit", "100000"]).unwrap();
    let flows = rows(&flows["flows"]);
    assert_eq!(flows.len(), ports.len());
    let sources = flows.iter().map(|flow| text(flow, "snat"));
    let sources: BTreeSet<SocketAddr> = sources.map(|it| it.parse().unwrap()).collect();
    assert_eq!(sources.len(), flows.len(), "a port for each");
    assert!(sources.iter().all(|it| it.ip().to_string() == SOURCE));
    // Those that began it all are served on, and so is a connection.
    probe::ask_from(client, 2_000..2_100, probe::at(VIP, 80));
    let mut stream = probe::connect(client, 0, probe::at(VIP, 80)).unwrap();
    let (_, source) = probe::seen_as(&mut stream);
    assert_eq!(source.ip().to_string(), SOURCE);
    assert!(client.run("ping", &["-c", "1", "-W", "1", SOURCE]).is_ok());
}
