//! All kinds of traffic, in each of the surroundings that have broken balancers before.

use std::time::{Duration, Instant};

use naru_lab::{LoadOptions, Topology};

use crate::{
    probe,
    scene::{self, CLIENT_ADDRESS, NODE, Scene, VIP, assert_everyone, assert_in_turn, order, rows},
};

/// Beyond any window, buffer or burst on the way.
const BODY: usize = 5_000_000;

/// Round robin, kept connections, large bodies both ways, the client's address: over TCP
/// and UDP, to pods on the node and elsewhere.
fn carries_everything(scene: &Scene) {
    let url = scene::services()[0].url("/");
    let client = scene.lab.node("client");
    let (pods, vip) = (scene.pods(), probe::at(VIP, 80));
    assert_in_turn(&order(scene.client().many(&url, 10).unwrap()), pods);
    assert_in_turn(&probe::ask_from(client, 20_000..20_010, vip), pods);

    let body = probe::pattern(BODY);
    let mut served = Vec::new();
    for _ in pods {
        let mut stream = probe::connect(client, 0, vip).unwrap();
        let port = stream.local_addr().unwrap().port();
        let pod = probe::who(&mut stream).unwrap();
        for _ in 0..20 {
            assert_eq!(
                probe::who(&mut stream).unwrap(),
                pod,
                "a connection stays where it is"
            );
        }
        let began = Instant::now();
        let echoed = probe::echo(&mut stream, &body).unwrap();
        println!(
            "{pod}: {BODY} bytes there and back in {:?}",
            began.elapsed()
        );
        assert_eq!(echoed.pod, pod);
        assert!(
            echoed.body == body,
            "what comes back of {BODY} bytes is not what was sent"
        );

        let (_, seen) = probe::seen_as(&mut stream);
        if scene.pod(&pod).node == NODE {
            assert_eq!(seen, probe::at(CLIENT_ADDRESS, port), "the client's own");
        } else {
            assert_eq!(seen.ip(), scene.snat_address(), "the node's");
            assert!(seen.port() >= 61_001, "{seen}");
        }
        served.push(pod);
    }
    assert_everyone(&served, pods);
    let status = scene.agent.json(&["status"]).unwrap();
    for count in rows(&status["verdicts"]) {
        let bad = [
            "emit_failed",
            "too_big",
            "no_device",
            "no_route",
            "tuple_clash",
        ];
        assert!(!bad.contains(&scene::text(count, "verdict")), "{count}");
    }
}

#[test]
fn everything_is_carried_by_native_xdp() {
    let scene = Scene::new();
    let status = scene.agent.json(&["status"]).unwrap();
    assert_eq!(status["attachments"][0]["native"], true);
    carries_everything(&scene);
}

#[test]
fn everything_is_carried_past_a_cni_with_masquerading_and_conntrack() {
    let scene = Scene::with(Topology::nuc().with_cni_masquerade(), &[]);
    carries_everything(&scene);
}

#[test]
fn everything_is_carried_by_generic_xdp() {
    let scene = Scene::with(Topology::nuc(), &["--attach", "generic"]);
    let status = scene.agent.json(&["status"]).unwrap();
    assert_eq!(status["attachments"][0]["native"], false);
    carries_everything(&scene);
}

#[test]
fn everything_is_carried_over_the_virtual_cables_of_containers() {
    let (lab, manifests) = scene::set_up(Topology::nuc());
    for machine in ["client", "nuc01", "nuc02", "nuc03"] {
        lab.like_a_container(machine).unwrap();
    }
    let options = scene::options(&manifests).arg("--attach").arg("auto");
    let scene = Scene::start(lab, manifests, options);
    let status = scene.agent.json(&["status"]).unwrap();
    assert_eq!(status["attachments"][0]["native"], false);
    carries_everything(&scene);
}

#[test]
fn everything_is_carried_by_filters_as_on_kernels_before_6_6() {
    let scene = Scene::with(Topology::nuc(), &["--tc", "clsact"]);
    let status = scene.agent.json(&["status"]).unwrap();
    assert_eq!(status["attachments"][0]["tc"], "clsact");
    carries_everything(&scene);
}

#[test]
fn everything_is_carried_by_filters_and_generic_xdp_past_a_cni() {
    let topology = Topology::nuc().with_cni_masquerade();
    let args = ["--tc", "clsact", "--attach", "generic"];
    carries_everything(&Scene::with(topology, &args));
}

#[test]
fn everything_is_carried_by_generic_xdp_past_a_cni() {
    let topology = Topology::nuc().with_cni_masquerade();
    carries_everything(&Scene::with(topology, &["--attach", "generic"]));
}

#[test]
fn everything_is_carried_through_vxlan() {
    carries_everything(&Scene::with_vxlan(Topology::nuc()));
}

#[test]
fn everything_is_carried_through_vxlan_past_a_cni() {
    let topology = Topology::nuc().with_cni_masquerade();
    carries_everything(&Scene::with_vxlan(topology));
}

#[test]
fn everything_is_carried_while_the_node_forgets_its_neighbours() {
    let scene = Scene::new();
    let url = scene::services()[0].url("/");
    let load = scene.client().load(&url, LoadOptions::default());
    let node = scene.lab.node(NODE).clone();
    let forgetting = scene.lab.node(NODE).spawn(move || {
        let until = Instant::now() + Duration::from_secs(2);
        // Of one that is being asked for the kernel itself would tell the client that it is unreachable.
        let known = ["reachable", "stale", "delay"].map(|state| ["nud", state]);
        let flush = [&["neigh", "flush", "all"], known.as_flattened()].concat();
        while Instant::now() < until {
            node.run("ip", &flush).unwrap();
        }
    });
    let client = scene.lab.node("client");
    let body = probe::pattern(BODY);
    for _ in scene.pods() {
        let mut stream = probe::connect(client, 0, probe::at(VIP, 80)).unwrap();
        assert!(probe::echo(&mut stream, &body).unwrap().body == body);
    }
    forgetting.join().unwrap().unwrap();
    let tally = load.stop().unwrap();
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.ok > 100, "{tally:?}");
    // XDP knew no neighbour; the same code one hook later had it found.
    assert!(scene.verdict("xdp", "left_to_tc") > 0);
    assert!(scene.verdict("tc-ingress", "forward_nat") > 0);
    assert!(scene.verdict("tc-ingress", "reply_nat") > 0);
    for verdict in ["too_big", "emit_failed", "no_route"] {
        assert_eq!(scene.verdict("tc-ingress", verdict), 0, "{verdict}");
    }
}

#[test]
fn a_packet_that_must_not_be_forwarded_any_more_is_reported_to_its_sender() {
    let scene = Scene::new();
    let client = scene.lab.node("client");
    let ask = |ttl: u32| {
        let send = || -> std::io::Result<usize> {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.set_ttl(ttl)?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.connect(probe::at(VIP, 80))?;
            // Asynchronous errors of a datagram are reported where they are asked for.
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv4RecvErr, &true)?;
            socket.send(b"who?")?;
            socket.recv(&mut [0; 64])
        };
        client.enter(send).unwrap()
    };
    let error = ask(1).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(nix::errno::Errno::EHOSTUNREACH as i32),
        "{error}"
    );
    assert_eq!(scene.verdict("xdp", "ttl_expired"), 1);
    // Nothing was begun for it: the first turn is still to come.
    assert_in_turn(
        &probe::ask_from(client, 20_000..20_010, probe::at(VIP, 80)),
        scene.pods(),
    );
}
