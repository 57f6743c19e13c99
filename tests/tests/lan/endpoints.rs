//! Endpoints that die, drain, or are all gone.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    thread::sleep,
    time::Duration,
};

use naru_lab::{Endpoint, PodSpec, Tally};
use serde_json::Value;

use crate::{
    capture::Capture,
    probe,
    scene::{self, CLIENT_ADDRESS, Scene, VIP, assert_alive, wait},
};

/// A connection that this pod serves.
fn connected_to(scene: &Scene, pod: &str) -> TcpStream {
    let connect = || {
        let mut stream = probe::connect(scene.lab.node("client"), 0, probe::at(VIP, 80)).unwrap();
        let serves = probe::who(&mut stream).unwrap();
        (serves == pod).then_some(stream)
    };
    (0..100)
        .find_map(|_| connect())
        .expect("each pod has its turn")
}

#[test]
fn a_dead_pod_taken_out_gets_no_request_and_all_other_connections_live_on() {
    let scene = Scene::new();
    let mut open = scene.open(2 * scene.pods().len());
    let vip = probe::at(VIP, 80);
    let client = scene.lab.node("client");
    for local in [true, false] {
        let victim = scene.first(local).clone();
        let pod = scene.lab.pod(&victim.name);
        pod.kill().unwrap();
        wait("the connections of the killed pod end", || {
            let mut of_victim = open.iter().filter(|it| it.pod() == victim.name);
            of_victim.all(|it| it.ended().is_some())
        });
        pod.start().unwrap();
        // One whose other end goes without a word: its machine is cut off.
        let mut cut_off = connected_to(&scene, &victim.name);
        pod.namespace()
            .run("ip", &["link", "set", "eth0", "down"])
            .unwrap();
        scene.set_endpoints(scene.pods().iter().filter(|it| it.name != victim.name));

        assert!(!scene.answers(100).contains_key(&victim.name));
        let datagrams = probe::ask_from(client, 20_000..20_100, vip);
        assert!(!datagrams.contains(&victim.name));

        cut_off
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            .unwrap();
        let (kind, took) = probe::failure(|| probe::who(&mut cut_off));
        assert_eq!(kind, ErrorKind::ConnectionReset);
        assert!(took < Duration::from_secs(1), "{took:?}");

        open.retain(|it| it.pod() != victim.name);
        assert_alive(&open);
        pod.namespace()
            .run("ip", &["link", "set", "eth0", "up"])
            .unwrap();
        let gateway = if local { "10.244.1.1" } else { "10.244.2.1" };
        pod.namespace()
            .run("ip", &["route", "add", "default", "via", gateway])
            .unwrap();
        scene.set_endpoints(scene.pods());
    }
}

#[test]
fn a_draining_pod_keeps_its_connections_and_gets_no_new_one_until_it_is_removed() {
    let scene = Scene::new();
    let open = scene.open(2 * scene.pods().len());
    let (vip, client) = (probe::at(VIP, 80), scene.lab.node("client"));
    let datagrams = probe::ask_from(client, 20_000..20_005, vip);
    let victims = [true, false].map(|local| scene.first(local).name.clone());
    let (leaving, staying): (Vec<_>, Vec<_>) = scene
        .pods()
        .iter()
        .map(Endpoint::from)
        .partition(|endpoint| victims.contains(&endpoint.pod));
    let draining = leaving.into_iter().map(|endpoint| Endpoint {
        ready: false,
        terminating: true,
        ..endpoint
    });
    scene.set_endpoints(draining.chain(staying.iter().cloned()));

    let by_pod = scene.answers(60);
    assert_eq!(by_pod.len(), 3, "{by_pod:?}");
    let news = probe::ask_from(client, 21_000..21_030, vip);
    assert!(
        victims
            .iter()
            .all(|it| !by_pod.contains_key(it) && !news.contains(it))
    );
    assert_alive(&open);
    assert_eq!(
        probe::ask_from(client, 20_000..20_005, vip),
        datagrams,
        "flows go on where they were"
    );

    // Their time is up. What they still have is refused rather than left to wait.
    scene.set_endpoints(staying);
    assert_alive(
        open.iter()
            .filter(|it| !victims.contains(&it.pod().to_owned())),
    );
    let moved = probe::ask_from(client, 20_000..20_005, vip);
    for (old, new) in datagrams.iter().zip(&moved) {
        if victims.contains(old) {
            assert!(!victims.contains(new), "{old} is gone");
        } else {
            assert_eq!(old, new);
        }
    }
    scene.answers(60);
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_other_ports_are_dropped() {
    let scene = Scene::new();
    let client = scene.lab.node("client");
    // Who knows the node by its link address is told; nobody else finds it any more.
    wait("the client knows the way", || {
        probe::ask(client, 0, probe::at(VIP, 80)).is_ok()
    });
    scene.set_endpoints::<Endpoint>([]);
    let status = scene.agent.json(&["status"]).unwrap();
    assert_eq!(status["announced"], serde_json::json!([]));
    let [before, then] =
        ["refused_reset", "refused_unreachable"].map(|it| scene.verdict("xdp", it));
    // The best of three: a refusal is quick, a loaded machine is not.
    let soon = |attempt: &dyn Fn() -> std::io::Result<()>| {
        let attempts = (0..3).map(|_| probe::failure(attempt));
        let (kinds, times): (Vec<_>, Vec<_>) = attempts.unzip();
        assert_eq!(kinds, [ErrorKind::ConnectionRefused; 3]);
        assert!(
            times.iter().min().unwrap() < &Duration::from_millis(100),
            "{times:?}"
        );
    };
    let capture = Capture::start(client);
    let vip = probe::at(VIP, 80);
    soon(&|| probe::connect(client, 0, vip).map(drop));
    soon(&|| probe::ask(client, 0, vip).map(drop));
    assert_eq!(scene.verdict("xdp", "refused_reset"), before + 3);
    assert_eq!(scene.verdict("xdp", "refused_unreachable"), then + 3);
    for packet in capture.packets() {
        assert!(packet.sound, "{packet:?}");
        assert!(
            [*packet.src.ip(), *packet.dst.ip()].contains(&VIP),
            "{packet:?}"
        );
    }

    // Silence on any other port, and each packet is met once: none goes round in circles.
    let capture = Capture::start(client);
    let patience = Duration::from_millis(500);
    let other = probe::at(VIP, 81);
    let (kind, _) = probe::failure(|| probe::connect_within(client, 0, other, patience));
    assert_eq!(kind, ErrorKind::TimedOut);
    let (kind, _) = probe::failure(|| {
        client
            .enter(|| probe::ask_here(0, other, patience))
            .unwrap()
    });
    assert_eq!(kind, ErrorKind::WouldBlock);
    let (sent, received): (Vec<_>, Vec<_>) = capture
        .packets()
        .into_iter()
        .partition(|it| *it.src.ip() == CLIENT_ADDRESS);
    assert!(received.is_empty(), "{received:?}");
    assert_eq!(scene.verdict("xdp", "vip_port"), sent.len() as u64);

    // It goes on where endpoints come back.
    scene.set_endpoints(scene.pods());
    wait("an answer", || probe::ask(client, 0, vip).is_ok());
}

#[test]
fn connections_of_an_endpoint_that_is_gone_go_on_where_they_are_left_to_it() {
    let scene = Scene::with(scene::class_room(3), &["--gone-flows", "leave"]);
    let open = scene.open(2 * scene.pods().len());
    let left = [true, false].map(|local| scene.first(local).name.clone());
    let stays = |pod: &&PodSpec| !left.contains(&pod.name);
    let rest: Vec<_> = scene.pods().iter().filter(stays).cloned().collect();
    scene.set_endpoints(rest.iter());
    assert_alive(&open);
    let url = scene::services()[0].url("/");
    let tally = Tally::of(&scene.client().many(&url, 10).unwrap());
    let named: Vec<_> = tally.by_pod.keys().cloned().collect();
    scene::assert_everyone(&named, &rest);
    // The next agent leaves them as well, until it is told otherwise.
    scene.agent.restart().unwrap();
    assert_alive(&open);
    let flows = scene.agent.json(&["flows"]).unwrap();
    let known = |flow: &Value| flow["backend"].is_string();
    assert!(scene::rows(&flows["flows"]).iter().all(known), "{flows}");
}

#[test]
fn a_connection_never_reaches_the_pod_that_takes_the_place_of_its_own() {
    let scene = Scene::with(scene::class_room(2), &[]);
    let (first, next) = (scene.first(true), scene.first(false));
    scene.set_endpoints([first]);
    let id = || -> (u32, u32) {
        let backends = scene.agent.json(&["backends"]).unwrap();
        let mut rows = scene::rows(&backends).iter();
        let row = rows.find(|row| row["service"] == "default/nest-server:80");
        let (index, generation) = scene::text(row.unwrap(), "id").split_once('.').unwrap();
        (index.parse().unwrap(), generation.parse().unwrap())
    };
    let (index, generation) = id();
    let mut old = connected_to(&scene, &first.name);
    scene.set_endpoints::<Endpoint>([]);
    // What was given up is not given out again before this.
    sleep(Duration::from_millis(2100));
    let capture = Capture::start(scene.lab.pod(&next.name).namespace());
    scene.set_endpoints([next]);
    assert_eq!(id(), (index, generation + 1), "the same place in the table");

    old.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    let (kind, _) = probe::failure(|| probe::who(&mut old));
    assert_eq!(kind, ErrorKind::ConnectionReset);
    let refused = scene.verdict("xdp", "refused_reset");
    assert_eq!(refused, 1, "by the balancer, not by a pod");
    let packets = capture.packets();
    assert!(packets.is_empty(), "{packets:?}");
}
