//! What the network says about packets, and packets that it cuts.

use naru_lab::{Topology, UPLINK};

use crate::{
    probe,
    scene::{CLIENT_ADDRESS, NODE, Scene, VIP, assert_everyone},
};

/// Beyond any window, buffer or burst on the way.
const BODY: usize = 2_000_000;
/// The router of the test.
const ROUTER: &str = "nuc03";

/// Links of MTU 1,280 behind the pods' nodes, which only these know of.
fn narrow_at_pods(scene: &Scene) {
    for node in &scene.lab.topology().nodes {
        let ports = scene.pods().iter().enumerate();
        let own = ports.filter(|(_, pod)| pod.node == node.name);
        let devices = own.map(|(index, _)| format!("veth{index}"));
        for device in devices.chain(["cni0".to_owned()]) {
            let mtu = ["link", "set", &device, "mtu", "1280"];
            scene.lab.node(&node.name).run("ip", &mtu).unwrap();
        }
    }
}

/// A link of MTU 1,280 before the client: replies go by a router that alone knows of it.
fn narrow_at_client(scene: &Scene) {
    let mut nodes = scene.lab.topology().nodes.iter();
    let router = nodes.find(|node| node.name == ROUTER).unwrap();
    let (client, via) = (format!("{CLIENT_ADDRESS}/32"), router.address.to_string());
    let by_router = ["route", "add", &client, "via", &via, "dev", UPLINK];
    scene.lab.node(NODE).run("ip", &by_router).unwrap();
    let narrow = ["route", "add", &client, "dev", UPLINK, "mtu", "1280"];
    scene.lab.node(ROUTER).run("ip", &narrow).unwrap();
}

/// A large body to every pod and back.
fn echoes(scene: &Scene) {
    let client = scene.lab.node("client");
    let body = probe::pattern(BODY);
    let mut served = Vec::new();
    for _ in scene.pods() {
        let mut stream = probe::connect(client, 0, probe::at(VIP, 80)).unwrap();
        let echoed = probe::echo(&mut stream, &body).unwrap();
        assert!(echoed.body == body, "{}", echoed.pod);
        served.push(echoed.pod);
    }
    assert_everyone(&served, scene.pods());
}

/// The hooks do not matter here: generic XDP leaves the work to TC.
fn seen(scene: &Scene, verdict: &str) -> u64 {
    let hooks = ["xdp", "tc-ingress", "tc-egress"].iter();
    hooks.map(|hook| scene.verdict(hook, verdict)).sum()
}

#[test]
fn uploads_find_the_mtu_of_links_behind_the_pods() {
    for args in [&[][..], &["--attach", "generic"]] {
        // Each learns it anew from every pod's node: one pod a scene.
        for node in [NODE, "nuc02"] {
            let mut topology = Topology::nuc();
            topology.pods.retain(|pod| pod.node == node);
            topology.pods.truncate(1);
            let scene = Scene::with(topology, args);
            narrow_at_pods(&scene);
            echoes(&scene);
            assert!(seen(&scene, "error_reply") > 0, "{node} {args:?}");
        }
    }
}

#[test]
fn downloads_find_the_mtu_of_a_link_before_the_client() {
    for args in [&[][..], &["--attach", "generic"]] {
        let scene = Scene::with(Topology::nuc(), args);
        narrow_at_client(&scene);
        echoes(&scene);
        assert!(seen(&scene, "error_local") > 0, "to a pod here {args:?}");
        assert!(seen(&scene, "error_nat") > 0, "to a pod elsewhere {args:?}");
    }
}

#[test]
fn datagrams_of_8_kb_come_and_go_in_fragments() {
    for args in [&[][..], &["--attach", "generic"]] {
        let scene = Scene::with(Topology::nuc(), args);
        let client = scene.lab.node("client");
        let body = probe::pattern(8_000);
        let mut served = Vec::new();
        for port in 20_000..20_010 {
            let answer = probe::echo_datagram(client, port, probe::at(VIP, 80), &body);
            assert!(answer.body == body, "{}", answer.pod);
            served.push(answer.pod);
        }
        assert_everyone(&served, scene.pods());
    }
}

#[test]
fn the_address_answers_pings_while_it_is_served() {
    let scene = Scene::new();
    let ping = || {
        let args = ["-c", "1", "-W", "1", "192.168.56.11"];
        scene.lab.node("client").run("ping", &args).is_ok()
    };
    assert!(ping());
    scene.set_endpoints(Vec::<naru_lab::Endpoint>::new());
    assert!(!ping(), "nobody serves it");
}
