//! Pods behind a VXLAN device like Flannel's: the way is narrower than the LAN, and what
//! comes back is addressed to the device's own address.

use std::{io::ErrorKind, time::Duration};

use naru_lab::{PodSpec, TUNNEL, Topology, UPLINK};
use nix::errno::Errno;

use crate::{
    agent_gone::Busy,
    probe,
    scene::{self, CLIENT_ADDRESS, NODE, Scene, TUNNEL_ADDRESS, VIP, rows, text, wait},
};

fn scene() -> Scene {
    Scene::with_vxlan(Topology::nuc())
}

/// The pods of another node, which alone serve from now on.
fn only_behind_the_tunnel(scene: &Scene) -> Vec<PodSpec> {
    let pods = scene.pods().iter().filter(|pod| pod.node == "nuc02");
    let pods: Vec<_> = pods.cloned().collect();
    scene.set_endpoints(&pods);
    pods
}

#[test]
fn what_is_behind_the_tunnel_is_shown_with_the_tunnel_s_own_address() {
    let scene = scene();
    let status = scene.agent.json(&["status"]).unwrap();
    let attached: Vec<_> = rows(&status["attachments"])
        .iter()
        .map(|row| text(row, "interface"))
        .collect();
    assert_eq!(attached, [UPLINK, TUNNEL]);
    assert_eq!(status["warnings"], serde_json::json!([]));

    let client = scene.lab.node("client");
    let mut streams: Vec<_> = (0..scene.pods().len())
        .map(|_| probe::connect(client, 0, probe::at(VIP, 80)).unwrap())
        .collect();
    for stream in &mut streams {
        let (pod, seen) = probe::seen_as(stream);
        let expected = if scene.pod(&pod).node == NODE {
            CLIENT_ADDRESS
        } else {
            TUNNEL_ADDRESS
        };
        assert_eq!(seen.ip(), expected, "{pod}");
    }

    let backends = scene.agent.json(&["backends"]).unwrap();
    for row in rows(&backends) {
        let mode = if text(row, "node") == NODE {
            "local"
        } else {
            "nat"
        };
        assert_eq!(text(row, "mode"), mode, "{row}");
        if text(row, "service") == "default/nest-server:80" {
            let packets = |field: &str| row[field].as_u64().unwrap();
            assert!(packets("packets_in") > 2, "{row}");
            // Replies of pods here are the stack's to carry.
            assert!(mode == "local" || packets("packets_out") > 2, "{row}");
        }
    }
    let flows = scene.agent.json(&["flows"]).unwrap();
    let flows = rows(&flows["flows"]);
    assert_eq!(flows.len(), streams.len(), "{flows:?}");
    let by_tunnel = flows.iter().filter(|flow| {
        let snat = flow["snat"].as_str();
        snat.is_some_and(|snat| snat.starts_with(&format!("{TUNNEL_ADDRESS}:")))
    });
    assert_eq!(by_tunnel.count(), 3, "{flows:?}");

    only_behind_the_tunnel(&scene);
    let explained = scene.explain("192.168.56.1:40000", "192.168.56.11:80");
    assert_eq!(explained["mode"], "nat", "{explained}");
    assert_eq!(explained["egress"], TUNNEL, "{explained}");
    assert!(
        text(&explained, "source").starts_with("10.244.1.0:"),
        "{explained}"
    );
}

#[test]
fn a_tunnel_that_the_agent_is_not_told_of_is_named_with_the_remedy() {
    let (lab, manifests) = scene::set_up(Topology::nuc().with_vxlan());
    let options = scene::options(&manifests);
    let scene = Scene::start(lab, manifests, options);
    let said = scene.agent.cli(&["status"]).unwrap();
    assert!(said.contains("add --interface flannel.1"), "{said}");
}

#[test]
fn a_client_is_told_the_tunnel_s_mtu_and_uploads_arrive_whole() {
    let scene = scene();
    let pods = only_behind_the_tunnel(&scene);
    let client = scene.lab.node("client");
    // A CNI that has not thought of it: the servers know of the LAN's MTU alone, and tell
    // clients that.
    let all = scene.pods().iter().enumerate();
    for (index, pod) in all.filter(|(_, pod)| pods.contains(pod)) {
        let [inside, outside] = [scene.lab.node(&pod.name), scene.lab.node(&pod.node)];
        for (end, device) in [(inside, "eth0"), (outside, &format!("veth{index}"))] {
            let wide = ["link", "set", device, "mtu", "1500"];
            end.run("ip", &wide).unwrap();
        }
    }
    let vip = probe::at(VIP, 80);
    let datagram = probe::pattern(1_472);
    let soon = Duration::from_millis(500);
    let ask = || probe::try_echo_datagram(client, 20_000, vip, &datagram, soon);
    let told = ask().err().expect("larger than the tunnel's MTU");
    assert_eq!(told.raw_os_error(), Some(Errno::EMSGSIZE as i32), "{told}");
    assert_eq!(scene.verdict("tc-ingress", "too_big"), 1);
    // The pod is told of it as well, by its node, when it first answers.
    wait("a datagram in parts comes back whole", || {
        ask().is_ok_and(|answer| answer.body == datagram)
    });
    assert_eq!(scene.verdict("tc-ingress", "too_big"), 1);

    // The client forgets what it was told.
    client.run("ip", &["route", "flush", "cache"]).unwrap();
    let body = probe::pattern(3_000_000);
    for _ in &pods {
        let mut stream = probe::connect(client, 0, vip).unwrap();
        let echoed = probe::echo(&mut stream, &body).unwrap();
        assert!(echoed.body == body);
    }
    assert!(scene.verdict("tc-ingress", "too_big") > 1);
}

#[test]
fn a_datagram_that_comes_in_parts_as_large_as_the_lan_s_mtu_arrives_whole() {
    let scene = scene();
    let pods = only_behind_the_tunnel(&scene);
    // Nobody is told of a smaller MTU who has left it to routers to cut packets.
    let datagram = probe::pattern(4_000);
    for port in 20_000..20_000 + pods.len() as u16 {
        let vip = probe::at(VIP, 80);
        let answer = probe::echo_datagram(scene.lab.node("client"), port, vip, &datagram);
        assert!(answer.body == datagram);
    }
}

#[test]
fn an_error_from_behind_the_tunnel_reaches_the_client() {
    let scene = scene();
    let pods = only_behind_the_tunnel(&scene);
    let client = scene.lab.node("client");
    for pod in &pods {
        scene.lab.pod(&pod.name).kill().unwrap();
    }
    let vip = probe::at(VIP, 80);
    for _ in &pods {
        let (kind, took) = probe::failure(|| probe::ask(client, 0, vip));
        assert_eq!(kind, ErrorKind::ConnectionRefused);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    assert_eq!(
        scene.verdict("tc-ingress", "error_reply"),
        pods.len() as u64
    );
}

#[test]
fn an_agent_killed_and_restarted_loses_no_request_through_the_tunnel() {
    let scene = scene();
    only_behind_the_tunnel(&scene);
    let busy = Busy::start(&scene);
    busy.goes_on_for(Duration::from_millis(300));
    scene.agent.kill().unwrap();
    busy.goes_on_for(Duration::from_secs(2));
    scene.agent.restart().unwrap();
    busy.goes_on_for(Duration::from_millis(300));
    busy.end();
}
