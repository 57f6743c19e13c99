//! Other ways in than the virtual IP: node ports and external IPs; and whose endpoints
//! serve those who come by them.

use std::{
    io::ErrorKind,
    net::Ipv4Addr,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use naru_lab::{Endpoint, ServiceSpec};
use serde_json::{Value, json};

use crate::{
    probe,
    scene::{
        self, CLIENT_ADDRESS, NODE, NODE_ADDRESS, Scene, VIP, assert_in_turn, change, rows, wait,
    },
};

fn frontends(scene: &Scene) -> Vec<String> {
    let services = scene.agent.json(&["services"]).unwrap();
    let all = rows(&services)
        .iter()
        .flat_map(|row| rows(&row["frontends"]));
    all.map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// Who answers on this address and port, over TCP and over UDP.
///
/// Each time from ports of its own: a pod cannot tell two conversations with one port
/// of a client apart, by whatever ways they came.
fn answers(scene: &Scene, at: Ipv4Addr, port: u16) -> [Vec<String>; 2] {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let first = NEXT.fetch_add(10, Ordering::Relaxed);
    let client = scene.lab.node("client");
    let at = probe::at(at, port);
    [
        probe::who_from(client, first..first + 10, at),
        probe::ask_from(client, first..first + 10, at),
    ]
}

#[test]
fn a_node_port_is_reached_on_every_address_of_the_node_as_they_come_and_go() {
    let mut scene = Scene::new();
    change(
        &scene,
        |it| it.on_node(30_080),
        |row| row["node_port"] == 30_080,
    );
    for answers in answers(&scene, NODE_ADDRESS, 30_080) {
        assert_in_turn(&answers, scene.pods());
    }
    assert!(frontends(&scene).contains(&"10.244.1.1:30080/tcp".to_owned()));
    assert!(!frontends(&scene).contains(&"127.0.0.1:30080/tcp".to_owned()));

    // The address comes and goes; what listens beside the node port is left alone.
    let node = scene.lab.node(NODE);
    let second = Ipv4Addr::new(192, 168, 56, 111);
    let address = |what: &str| {
        let args = ["address", what, "192.168.56.111/24", "dev", "eth0"];
        node.run("ip", &args).unwrap();
    };
    address("add");
    let listed = |scene: &Scene| frontends(scene).contains(&format!("{second}:30080/udp"));
    wait("the new address has the port", || listed(&scene));
    for answers in answers(&scene, second, 30_080) {
        assert_in_turn(&answers, scene.pods());
    }
    let client = scene.lab.node("client");
    let (kind, _) = probe::failure(|| probe::connect(client, 0, probe::at(second, 30_081)));
    assert_eq!(kind, ErrorKind::ConnectionRefused, "by the host's stack");
    address("del");
    wait("the port goes with the address", || !listed(&scene));

    // Where that is asked for, on addresses of some networks only.
    address("add");
    let options = scene::options(&scene.manifests);
    let options = options.args(["--node-port-addresses", "192.168.56.111/32"]);
    scene.agent.restart_with(options).unwrap();
    let client = scene.lab.node("client");
    let (kind, _) = probe::failure(|| probe::connect(client, 0, probe::at(NODE_ADDRESS, 30_080)));
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    for answers in answers(&scene, second, 30_080) {
        assert_in_turn(&answers, scene.pods());
    }
}

#[test]
fn an_external_ip_that_is_routed_to_the_node_is_served_and_not_announced() {
    let scene = Scene::new();
    let external = Ipv4Addr::new(203, 0, 113, 7);
    let listed = |row: &Value| rows(&row["frontends"]).len() == 2;
    change(&scene, |it| it.with("externalIPs", "[203.0.113.7]"), listed);
    let announced = scene.agent.json(&["status"]).unwrap()["announced"].clone();
    let announced: Vec<_> = rows(&announced)
        .iter()
        .map(|it| it["vip"].clone())
        .collect();
    assert_eq!(announced, [json!(VIP)]);

    let client = scene.lab.node("client");
    let via = NODE_ADDRESS.to_string();
    client
        .run("ip", &["route", "add", "203.0.113.7", "via", &via])
        .unwrap();
    for answers in answers(&scene, external, 80) {
        assert_in_turn(&answers, scene.pods());
    }
    // The pods of this node see the client itself, as by the virtual IP.
    let mut stream = probe::connect(client, 0, probe::at(external, 80)).unwrap();
    let (pod, seen) = probe::seen_as(&mut stream);
    if scene.pod(&pod).node == NODE {
        assert_eq!(seen.ip(), CLIENT_ADDRESS);
    }
}

#[test]
fn under_policy_local_the_nodes_own_pods_serve_and_without_any_it_claims_nothing() {
    let scene = Scene::new();
    let how = |it: ServiceSpec| it.on_node(30_080).with("externalTrafficPolicy", "Local");
    change(&scene, how, |row| row["external_policy"] == "Local");
    let (here, elsewhere): (Vec<_>, Vec<_>) = scene
        .pods()
        .iter()
        .cloned()
        .partition(|pod| pod.node == NODE);
    for (at, port) in [(VIP, 80), (NODE_ADDRESS, 30_080)] {
        for mut answers in answers(&scene, at, port) {
            answers.sort();
            answers.dedup();
            scene::assert_everyone(&answers, &here);
        }
    }
    let announced = || {
        let status = scene.agent.json(&["status"]).unwrap();
        rows(&status["announced"]).len()
    };
    assert_eq!(announced(), 1);

    // One that ends but still serves is better than none.
    let ending = Endpoint {
        ready: false,
        terminating: true,
        ..Endpoint::from(&here[0])
    };
    scene.set_endpoints(elsewhere.iter().map(Endpoint::from).chain([ending]));
    for answers in answers(&scene, VIP, 80) {
        assert!(answers.iter().all(|it| *it == here[0].name), "{answers:?}");
    }

    // None on this node: another one may have the address, and nobody is sent astray.
    scene.set_endpoints(elsewhere.iter());
    wait("nothing is announced", || announced() == 0);
    let client = scene.lab.node("client");
    let (kind, took) =
        probe::failure(|| probe::connect(client, 0, probe::at(NODE_ADDRESS, 30_080)));
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    assert!(took < Duration::from_secs(1), "{took:?}");

    scene.set_endpoints(scene.pods());
    wait("it is announced again", || announced() == 1);
    for answers in answers(&scene, VIP, 80) {
        assert!(
            answers
                .iter()
                .all(|it| here.iter().any(|pod| pod.name == *it))
        );
    }
}

#[test]
fn ranges_and_affinity_of_a_service_are_those_of_its_manifest() {
    let scene = Scene::new();
    let (client, vip) = (scene.lab.node("client"), probe::at(VIP, 80));
    let ranges = |list: &str, expected: &str| {
        let how = |it: ServiceSpec| {
            it.with("loadBalancerSourceRanges", list)
                .with("sessionAffinity", "ClientIP")
                .on_node(30_080)
        };
        change(&scene, how, |row| {
            row["source_ranges"] == json!([expected]) && row["session_affinity"] == 10_800
        });
    };
    ranges("[10.1.2.3/8]", "10.0.0.0/8");
    let patience = Duration::from_millis(500);
    let (kind, _) = probe::failure(|| probe::connect_within(client, 0, vip, patience));
    assert_eq!(kind, ErrorKind::TimedOut);
    ranges("[192.168.56.0/24]", "192.168.56.0/24");
    for mut answers in answers(&scene, VIP, 80) {
        answers.dedup();
        assert_eq!(answers.len(), 1, "one client, one pod: {answers:?}");
    }
}
