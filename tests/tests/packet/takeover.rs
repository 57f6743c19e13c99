//! VIPs that come from another node: what began there goes back, also where slots tell where
//! flows go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{ACK, SYN},
    sides::{FLOWS, Side, V4, V6, all, handed, maglev},
    world::{Act, World},
};

/// nuc02.
const OTHER: &str = "192.168.56.102";

fn ip(side: &Side) -> IpAddr {
    side.vip.parse::<SocketAddr>().unwrap().ip()
}

/// The VIP comes from this node, or that one is lost.
fn comes(world: &mut World, side: &Side, from: Option<&str>) {
    let from = from.map(|node| (ip(side), node.parse().unwrap()));
    let formers = BTreeMap::from_iter(from);
    let gained = BTreeSet::from([ip(side)]);
    world.datapath.set_formers(&formers, &gained).unwrap();
}

/// A segment of flow `n` goes to where the VIP was before.
#[track_caller]
fn goes_back(world: &mut World, side: &Side, n: u16) {
    let frame = side.segment(n, ACK).bytes();
    world.send(Hook::Xdp, &frame, Verdict::Returned, Act::SentBack);
}

/// A node that has had the service for long and has never had the VIP.
fn world(side: &Side) -> World {
    let backends = [&side.pods[..2], &side.there[..]].concat();
    World::shared(&[maglev(&[side.vip], &backends)]).settled()
}

fn for_good() {
    for side in [V4, V6] {
        let mut world = world(&side);
        comes(&mut world, &side, Some(OTHER));
        assert_eq!(world.datapath.settled(), (0, 1021));
        for _ in 0..2 {
            goes_back(&mut world, &side, 0);
        }
        assert_eq!(world.recorded().0, 1);
        // What begins here stays here, and is recorded for as long as not all is known.
        let here = world.served(&side.segment(1, SYN));
        assert_eq!(world.served(&side.segment(1, ACK)), here);
        assert_eq!(world.recorded().0, 2);
        world.window_passes();
        goes_back(&mut world, &side, 0);
        assert_eq!(world.served(&side.segment(1, ACK)), here);
        // A scan settles all slots but that of the connection which still goes back.
        let found = world.datapath.sweeper().unwrap().sweep().unwrap();
        assert_eq!((found.flows, found.needless), (0, 1));
        assert_eq!(world.datapath.unrecorded(&found.unrecorded), 1020);
        goes_back(&mut world, &side, 0);
        assert_eq!(world.served(&side.segment(1, ACK)), here);
        assert_eq!(world.recorded().0, 1);
        // It opens one anew by the same ports: that begins here.
        let anew = world.served(&side.segment(0, SYN));
        assert_eq!(world.served(&side.segment(0, ACK)), anew);
    }
}

fn lost() {
    let side = &V4;
    let mut world = world(side);
    let began = all(&mut world, side, SYN);
    comes(&mut world, side, Some(OTHER));
    goes_back(&mut world, side, 0);
    // Nobody else knows more than the hash by then.
    comes(&mut world, side, None);
    assert_eq!(all(&mut world, side, ACK), began);
    let found = world.datapath.sweeper().unwrap().sweep().unwrap();
    assert_eq!(found.flows, 0, "it is this node's by now");
    world.window_passes();
    let found = world.datapath.sweeper().unwrap().sweep().unwrap();
    assert_eq!(found.needless, usize::from(FLOWS));
    // Who is asked for is told at every change among nodes, mostly with nothing new.
    let nothing = BTreeSet::new();
    world
        .datapath
        .set_formers(&BTreeMap::new(), &nothing)
        .unwrap();
    assert_eq!(world.datapath.unrecorded(&found.unrecorded), 1021);
    assert_eq!(all(&mut world, side, ACK), began);
    assert_eq!(world.recorded(), (0, 0));
}

fn handed_over() {
    let side = &V4;
    let mut world = world(side);
    comes(&mut world, side, Some(OTHER));
    for n in 0..FLOWS {
        goes_back(&mut world, side, n);
        // That node hands over what is for a pod of this one.
        let pod = world.served(&handed(side.segment(n, ACK)));
        assert_eq!(world.served(&side.segment(n, ACK)), pod, "at once");
    }
}

fn handed_over_by_one_that_died() {
    let side = &V4;
    let mut world = world(side);
    // Of some the slot names a backend elsewhere: their node saw another table.
    let pods: Vec<_> = (0..FLOWS)
        .map(|n| world.served(&handed(side.segment(n, SYN))))
        .collect();
    comes(&mut world, side, None);
    for _ in 0..2 {
        for (n, pod) in (0..).zip(&pods) {
            assert_eq!(&world.served(&side.segment(n, ACK)), pod);
        }
        let found = world.datapath.sweeper().unwrap().sweep().unwrap();
        let settled = world.datapath.unrecorded(&found.unrecorded);
        assert!(world.recorded().0 > 0 && settled < 1021, "{settled} slots");
    }
    assert!(world.datapath.settled().0 > 900);
}

fn later_service() {
    let side = &V4;
    let mut world = World::shared(&[]);
    comes(&mut world, side, Some(OTHER));
    world.change(&[maglev(&[side.vip], &side.pods)]);
    goes_back(&mut world, side, 0);
    world.served(&side.segment(1, SYN));
    assert_eq!(world.recorded().0, 2);
    // A change in between does not make it this node's.
    world.change(&[maglev(&[side.vip], &side.pods[..1])]);
    goes_back(&mut world, side, 0);
    goes_back(&mut world, side, 2);
    assert_eq!(world.datapath.settled().0, 0);
}

fn swept_without_the_node() {
    let side = &V4;
    let mut world = world(side);
    comes(&mut world, side, Some(OTHER));
    goes_back(&mut world, side, 0);
    comes(&mut world, side, None);
    let found = world.datapath.sweeper().unwrap().sweep().unwrap();
    assert_eq!((found.flows, world.recorded().0), (1, 0));
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "takeover: connections of before go back until they end, new ones stay",
            run: for_good,
        },
        Case {
            name: "takeover: where the node before is lost, the hash tells where flows go on",
            run: lost,
        },
        Case {
            name: "takeover: what the node before hands over is served here from then on",
            run: handed_over,
        },
        Case {
            name: "takeover: what a node that died had handed over stays with its pods",
            run: handed_over_by_one_that_died,
        },
        Case {
            name: "takeover: connections of a service that is known later go back, too",
            run: later_service,
        },
        Case {
            name: "takeover: records of what went to a node that is lost are swept",
            run: swept_without_the_node,
        },
    ]
}
