//! ARP: whose the address is, and since when.

use std::{net::Ipv4Addr, time::Duration};

use naru_lab::{Topology, UPLINK};

use crate::{
    capture::Capture,
    probe,
    scene::{self, NODE, VIP, wait},
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

    // Nobody answers for it any more once it is no service's, or the agent is gone.
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
    agent.stop().unwrap();
    lab.client().timeout(short).resolve(VIP.into()).unwrap_err();
}
