//! ARP and neighbour discovery: whose the address is, since when and for how long.

use std::{
    net::Ipv4Addr,
    process::Child,
    time::{Duration, Instant},
};

use naru_lab::{AgentOptions, NetNs, Topology, UPLINK};

use crate::{
    capture::Capture,
    probe,
    scene::{self, NODE, Scene, VIP, wait},
};

const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 56, 12);

#[test]
fn the_address_is_claimed_only_when_it_is_served_and_no_other_one_is() {
    let (lab, manifests) = scene::set_up(Topology::nuc());
    let client = lab.node("client");
    let mac = lab.node(NODE).mac(UPLINK).unwrap();
    let short = Duration::from_millis(300);
    lab.client().timeout(short).resolve(VIP.into()).unwrap_err();
    let capture = Capture::start(client);
    let claims = |capture: &Capture, address| {
        let of = |frame: &crate::capture::Arp| frame.sender_ip == address;
        capture.arp().into_iter().filter(of).collect::<Vec<_>>()
    };
    let agent = std::thread::scope(|scope| {
        let starting = scope.spawn(|| lab.agent(NODE, scene::options(&manifests)).unwrap());
        wait("the address is claimed", || {
            !claims(&capture, VIP).is_empty()
        });
        // Whoever believes the first claim at once is served at once.
        assert!(
            !probe::ask(client, 0, probe::at(VIP, 80))
                .unwrap()
                .is_empty()
        );
        starting.join().unwrap()
    });
    wait("it is announced more than once", || {
        claims(&capture, VIP)
            .iter()
            .filter(|frame| frame.is_gratuitous())
            .count()
            >= 2
    });
    assert_eq!(lab.client().resolve(VIP.into()).unwrap(), mac);
    assert!(
        claims(&capture, VIP)
            .iter()
            .all(|frame| frame.sender == mac)
    );
    lab.client()
        .timeout(short)
        .resolve(OTHER.into())
        .unwrap_err();
    assert!(claims(&capture, OTHER).is_empty());

    // Nobody answers for it any more once it is no service's.
    for service in scene::services() {
        manifests.remove(&format!("{}.yaml", service.name)).unwrap();
    }
    wait("the address is given up", || {
        agent.json(&["status"]).unwrap()["announced"] == serde_json::json!([])
    });
    lab.client().timeout(short).resolve(VIP.into()).unwrap_err();
    manifests.service(&scene::services()[0]).unwrap();
    wait("it is claimed again", || {
        lab.client().timeout(short).resolve(VIP.into()).is_ok()
    });
    // Left to the next agent, as nobody else could announce it; or taken away for good.
    agent.stop().unwrap();
    assert_eq!(
        lab.client().timeout(short).resolve(VIP.into()).unwrap(),
        mac
    );
    agent.restart().unwrap();
    assert_eq!(
        lab.client().timeout(short).resolve(VIP.into()).unwrap(),
        mac
    );
    agent.detach().unwrap();
    lab.client().timeout(short).resolve(VIP.into()).unwrap_err();
}

#[test]
fn a_killed_agent_is_answered_for_while_its_lease_holds_and_no_longer() {
    let scene = Scene::new();
    let short = Duration::from_millis(300);
    let resolves = || scene.client().timeout(short).resolve(VIP.into()).is_ok();
    assert!(resolves());
    // A restart within the lease leaves no moment without an answer.
    scene.agent.kill().unwrap();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| (0..30).all(|_| resolves()));
        scene.agent.restart().unwrap();
        assert!(asking.join().unwrap(), "unanswered during a restart");
    });
    // Later renewals than the last one are nobody's.
    scene.agent.kill().unwrap();
    let killed = Instant::now();
    while resolves() {
        assert!(killed.elapsed() < Duration::from_secs(70), "for ever");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(killed.elapsed() > Duration::from_secs(50), "too short");
    scene.agent.restart().unwrap();
    assert!(resolves());
}

#[test]
fn an_ipv6_address_is_found_and_served() {
    let (lab, _) = scene::set_up(Topology::nuc());
    let pod = lab
        .topology()
        .pods
        .iter()
        .find(|pod| pod.node == NODE)
        .unwrap();
    let (node, client) = (lab.node(NODE), lab.node("client"));
    let inside = lab.pod(&pod.name).namespace();
    ip(node, "-6 addr add fd00:56::101/64 dev eth0 nodad");
    ip(client, "-6 addr add fd00:56::1/64 dev eth0 nodad");
    ip(node, "-6 addr add fd00:244:1::1/64 dev cni0 nodad");
    ip(inside, "-6 addr add fd00:244:1::2/64 dev eth0 nodad");
    ip(inside, "-6 route add default via fd00:244:1::1");
    let forwarding = "net.ipv6.conf.all.forwarding=1";
    node.run("sysctl", &["-w", forwarding]).unwrap();
    let server = inside
        .command(scene::naru().with_file_name("naru-lab"))
        .args(["pod", "--name", "six", "--listen", "[fd00:244:1::2]:3000"])
        .spawn();
    let _server = Server(server.unwrap());
    let options = AgentOptions::new(scene::naru()).args([
        "--vip",
        "[fd00:56::11]:80",
        "--backend",
        "[fd00:244:1::2]:3000",
    ]);
    let agent = lab.agent(NODE, options).unwrap();
    wait("a pod answers over IPv6", || {
        let answer = lab.client().get("http://[fd00:56::11]/");
        answer.is_ok_and(|answer| answer.pod == "six")
    });
    let shown = client
        .run("ip", &["-6", "neigh", "show", "fd00:56::11"])
        .unwrap();
    let [a, b, c, d, e, f] = node.mac(UPLINK).unwrap();
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    assert!(shown.contains(&mac), "{shown}");
    // The program answers before the agent listens for conflicts and joins the group.
    let mut announced = serde_json::Value::Null;
    wait("the agent speaks for it too", || {
        announced = agent.json(&["status"]).unwrap()["announced"][0].take();
        announced["state"] == "answering"
    });
    assert_eq!(announced["vip"], "fd00:56::11");
    assert!(
        announced["responses_sent"].as_u64() >= Some(1),
        "{announced}"
    );
    wait("the group is joined", || {
        let groups = node.run("ip", &["-6", "maddr", "show", "dev", UPLINK]);
        groups.unwrap().contains("ff02::1:ff00:11")
    });

    agent.detach().unwrap();
    ip(client, "-6 neigh flush dev eth0");
    let short = lab.client().timeout(Duration::from_millis(500));
    short.get("http://[fd00:56::11]/").unwrap_err();
}

#[test]
fn an_interface_that_comes_later_and_matches_a_pattern_is_answered_on() {
    let (lab, manifests) = scene::set_up(Topology::nuc());
    let options = scene::options(&manifests).interface("eth*");
    let agent = lab.agent(NODE, options).unwrap();
    let (node, client) = (lab.node(NODE), lab.node("client"));
    let names = |of: &str, name: &str| {
        let status = agent.json(&["status"]).unwrap();
        let of = status[of].as_array().unwrap().clone();
        of.iter().filter(|it| it["interface"] == name).count()
    };
    assert_eq!(names("attachments", UPLINK), 1);
    assert_eq!(names("attachments", "cni0"), 0, "does not match");
    ip(
        node,
        &format!(
            "link add eth9 type veth peer name eth9 netns {}",
            client.name()
        ),
    );
    ip(client, "addr add 192.168.57.1/24 dev eth9");
    ip(client, "link set eth9 up");
    ip(node, "link set eth9 up");
    wait("the new interface is attached to", || {
        names("attachments", "eth9") == 1
    });
    wait("the address is answered for there", || {
        let asked = ["-c", "1", "-w", "1", "-I", "eth9", "192.168.56.11"];
        client.run("arping", &asked).is_ok()
    });
    ip(node, "link delete eth9");
    wait("it is let go", || names("attachments", "eth9") == 0);
    assert_eq!(names("announced", "eth9"), 0);
}

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(machine: &NetNs, arguments: &str) {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    machine.run("ip", &arguments).unwrap();
}
