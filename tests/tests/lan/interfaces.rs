//! An uplink that goes away and comes back.

use naru_lab::UPLINK;

use crate::{
    probe,
    scene::{NODE, NODE_ADDRESS, Scene, VIP, text, wait},
};

impl Scene {
    /// What an administrator's network scripts do when the uplink appears.
    fn configure_uplink(&self, with_address: bool) {
        let node = self.lab.node(NODE);
        let address = format!("{NODE_ADDRESS}/24");
        if with_address {
            node.run(
                "ip",
                &["address", "add", &address, "broadcast", "+", "dev", UPLINK],
            )
            .unwrap();
        }
        node.run("ip", &["link", "set", UPLINK, "up"]).unwrap();
        for other in self
            .lab
            .topology()
            .nodes
            .iter()
            .filter(|it| it.name != NODE)
        {
            let (net, via) = (other.pod_net.to_string(), other.address.to_string());
            node.run("ip", &["route", "replace", &net, "via", &via])
                .unwrap();
        }
    }

    /// Waits until every pod answers over TCP, then asks for the exact turns over UDP.
    fn serves_again(&self, first_port: u16) {
        let client = self.lab.node("client");
        let vip = probe::at(VIP, 80);
        let soon = std::time::Duration::from_millis(300);
        let mut seen = std::collections::BTreeSet::new();
        wait("every pod answers again", || {
            let stream = probe::connect_within(client, 0, vip, soon);
            seen.extend(stream.and_then(|mut stream| probe::who(&mut stream)));
            seen.len() == self.pods().len()
        });
        let ports = first_port..first_port + 10;
        crate::scene::assert_in_turn(&probe::ask_from(client, ports, vip), self.pods());
    }
}

#[test]
fn an_interface_that_is_deleted_and_made_anew_is_attached_to_and_served_again() {
    let scene = Scene::new();
    scene.serves_again(20_000);
    let status = || scene.agent.json(&["status"]).unwrap();
    let index = status()["attachments"][0]["ifindex"].clone();

    scene
        .lab
        .node(NODE)
        .run("ip", &["link", "delete", UPLINK])
        .unwrap();
    wait("the agent misses it", || {
        status()["missing_interfaces"][0] == UPLINK
    });
    assert_eq!(status()["attachments"], serde_json::json!([]));

    // The other end of the cable went along: a new one, plugged into the same switch.
    let lan = scene.lab.node("lan");
    let peer = scene.lab.node(NODE).name();
    lan.run(
        "ip",
        &[
            "link", "add", "port0", "type", "veth", "peer", "name", UPLINK, "netns", peer,
        ],
    )
    .unwrap();
    lan.run("ip", &["link", "set", "port0", "master", "br0", "up"])
        .unwrap();
    let program = scene.lab.dir().join("pass.o");
    let program = program.to_str().unwrap();
    lan.run(
        "ip",
        &[
            "link", "set", "port0", "xdpdrv", "object", program, "section", "xdp",
        ],
    )
    .unwrap();
    for (machine, device) in [(lan, "port0"), (scene.lab.node(NODE), UPLINK)] {
        machine
            .run(
                "ethtool",
                &["-K", device, "gro", "on", "tx", "off", "tso", "off"],
            )
            .unwrap();
    }
    scene.configure_uplink(true);

    wait("the agent is attached again", || {
        status()["attachments"][0]["native"] == true
    });
    assert_ne!(status()["attachments"][0]["ifindex"], index);
    assert_eq!(status()["missing_interfaces"], serde_json::json!([]));
    wait("the address is answered for", || {
        let status = status();
        status["announced"][0]["state"] == "answering"
    });
    scene.serves_again(21_000);
    let mac = scene.client().resolve(VIP.into()).unwrap();
    assert_eq!(mac, scene.lab.node(NODE).mac(UPLINK).unwrap());

    // The next agent finds the same as this one.
    scene.agent.restart().unwrap();
    scene.serves_again(22_000);
}

#[test]
fn a_link_that_goes_down_and_up_serves_again() {
    let scene = Scene::new();
    scene.serves_again(20_000);
    let node = scene.lab.node(NODE);
    node.run("ip", &["link", "set", UPLINK, "down"]).unwrap();
    let state = || {
        let status = scene.agent.json(&["status"]).unwrap();
        text(&status["announced"][0], "state").to_owned()
    };
    wait("the address is not answered for", || state() != "answering");
    scene.configure_uplink(false);
    wait("the address is answered for", || state() == "answering");
    scene.serves_again(21_000);
}
