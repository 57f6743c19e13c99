//! What is on the wire, at the client and at a pod.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use naru_lab::{PodKind, ServiceSpec, Topology, UPLINK};

use crate::{
    capture::{Capture, Packet},
    probe,
    scene::{self, CLIENT_ADDRESS, NODE, NODE_ADDRESS, Scene, VIP, assert_everyone, services},
};

const ICMP: u8 = 1;
/// Until the kernel has asked, and given up to ask where nobody is any more.
const FOUND: Duration = Duration::from_secs(40);

fn between(a: Ipv4Addr, b: Ipv4Addr) -> impl Fn(&&Packet) -> bool {
    move |packet| {
        [*packet.src.ip(), *packet.dst.ip()] == [a, b]
            || [*packet.dst.ip(), *packet.src.ip()] == [a, b]
    }
}

#[test]
fn the_client_sees_the_virtual_ip_alone_and_pods_elsewhere_the_node_with_sound_checksums() {
    let scene = Scene::new();
    let client = scene.lab.node("client");
    let (near, far) = (scene.first(true).clone(), scene.first(false).clone());
    let [at_client, at_near, at_far] = [
        client,
        scene.lab.pod(&near.name).namespace(),
        // At its node: between that and the pod, segments and checksums are left to devices.
        scene.lab.node(&far.node),
    ]
    .map(Capture::start);

    let vip = probe::at(VIP, 80);
    let mut served = Vec::new();
    let body = probe::pattern(100_000);
    for _ in scene.pods() {
        let mut stream = probe::connect(client, 0, vip).unwrap();
        let echoed = probe::echo(&mut stream, &body).unwrap();
        assert!(echoed.body == body);
        served.push(echoed.pod);
    }
    assert_everyone(&served, scene.pods());
    let answered = probe::ask_from(client, 20_000..20_005, vip);
    assert_everyone(&answered, scene.pods());

    let seen = at_client.packets();
    let mut heard = 0;
    for packet in &seen {
        assert!(packet.sound, "a wrong checksum: {packet:?}");
        assert_ne!(packet.protocol, ICMP, "{packet:?}");
        if *packet.dst.ip() == CLIENT_ADDRESS {
            assert_eq!(packet.src, SocketAddrV4::new(VIP, 80), "{packet:?}");
            heard += 1;
        }
    }
    // Each of five: an answer over UDP; over TCP, SYN and ACK, the body, FIN.
    assert!(heard >= 5 * (1 + 3), "{heard} packets from the virtual IP");

    let seen = at_near.packets();
    let own: Vec<_> = seen
        .iter()
        .filter(between(CLIENT_ADDRESS, near.address))
        .collect();
    assert!(own.len() > 10, "{seen:?}");
    let hops = |packets: &[&Packet], from: Ipv4Addr| {
        let mut ttl: Vec<u8> = packets
            .iter()
            .filter(|it| *it.src.ip() == from)
            .map(|it| it.ttl)
            .collect();
        ttl.sort_unstable();
        ttl.dedup();
        ttl
    };
    assert_eq!(
        hops(&own, CLIENT_ADDRESS),
        [63],
        "one router on the way: {NODE}"
    );

    let seen = at_far.packets();
    let own: Vec<_> = seen
        .iter()
        .filter(between(NODE_ADDRESS, far.address))
        .collect();
    assert!(own.len() > 10, "{seen:?}");
    for packet in &own {
        assert!(packet.sound, "a wrong checksum: {packet:?}");
    }
    for packet in own.iter().filter(|packet| *packet.src.ip() == NODE_ADDRESS) {
        assert!(packet.src.port() >= 61_001, "{packet:?}");
        assert_eq!(packet.dst, SocketAddrV4::new(far.address, 3000));
    }
    assert_eq!(
        hops(&own, NODE_ADDRESS),
        [63],
        "one router on the way: {NODE}"
    );
    let strange = seen
        .iter()
        .find(|packet| *packet.src.ip() == CLIENT_ADDRESS);
    assert!(strange.is_none(), "{strange:?}");
}

/// A checksum that a pod's device has left to complete is the sum of the pseudo header alone, which
/// does not change where addresses add up to the same; ports do.
#[test]
fn checksums_are_sound_where_the_virtual_ip_and_the_pod_add_up_to_the_same() {
    // As the checksum has them: c0a8 + 384e is 0af4 + ee02.
    let vip = Ipv4Addr::new(192, 168, 56, 78);
    let mut topology = Topology::nuc_without_pods();
    topology.nodes[0].pod_net = "10.244.238.0/24".parse().unwrap();
    topology.add_pods("nest-server", PodKind::Echo, 3000, 1);
    let (lab, manifests) = scene::set_up(topology);
    let [near] = &lab.topology().pods[..] else {
        panic!("{:?}", lab.topology().pods)
    };
    assert_eq!(near.address, Ipv4Addr::new(10, 244, 238, 2));
    for service in services() {
        let service = ServiceSpec {
            address: vip,
            ..service
        };
        manifests.service(&service).unwrap();
    }
    let options = scene::options(&manifests);
    let scene = Scene::start(lab, manifests, options);
    let client = scene.lab.node("client");
    let at_client = Capture::start(client);
    let body = probe::pattern(100_000);
    let mut stream = probe::connect(client, 0, probe::at(vip, 80)).unwrap();
    assert!(probe::echo(&mut stream, &body).unwrap().body == body);
    probe::ask_from(client, 20_000..20_005, probe::at(vip, 80));
    let seen = at_client.packets();
    let mut heard = seen.iter().filter(|it| *it.src.ip() == vip);
    assert!(heard.clone().count() > 5, "{seen:?}");
    assert!(heard.all(|it| it.sound), "{seen:?}");
}

#[test]
fn replies_come_with_the_hops_they_took() {
    let scene = Scene::new();
    let client = scene.lab.node("client");
    let capture = Capture::start(client);
    let vip = probe::at(VIP, 80);
    let answers = probe::ask_from(client, 20_000..20_005, vip);
    let packets = capture.packets();
    for (port, pod) in (20_000..).zip(&answers) {
        let answer = packets.iter().find(|it| it.dst.port() == port).unwrap();
        let expected = if scene.pod(pod).node == NODE { 63 } else { 62 };
        assert_eq!(answer.ttl, expected, "{pod}: {answer:?}");
    }
}

/// XDP sends by what the kernel knows of its neighbours, and the kernel takes no part in it.
#[test]
fn a_client_that_has_another_link_address_is_found_again() {
    let scene = Scene::new();
    scene.set_endpoints(scene.pods().iter().filter(|pod| pod.node != NODE));
    scene.answers(3);
    let (client, node) = (scene.lab.node("client"), scene.lab.node(NODE));
    let before = client.mac(UPLINK).unwrap().map(|it| format!("{it:02x}"));
    // Without a word, as of a machine that is given an address anew.
    client.sysctl(&[("ipv4/conf/all/arp_notify", "0")]).unwrap();
    client
        .ip(&format!(
            "link set dev {UPLINK} address 02:00:00:00:77:01\n"
        ))
        .unwrap();
    node.ip(&format!(
        "neighbour replace {CLIENT_ADDRESS} dev {UPLINK} lladdr {} nud stale\n",
        before.join(":")
    ))
    .unwrap();
    let url = services()[0].url("/");
    assert!(
        scene.client().get(&url).is_err(),
        "it is still found where it was"
    );
    let began = Instant::now();
    while scene.client().get(&url).is_err() {
        assert!(began.elapsed() < FOUND, "not found again in {FOUND:?}");
    }
}
