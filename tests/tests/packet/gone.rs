//! Connections whose backend is gone, where they are left to it (`--gone-flows leave`).

use std::{thread::sleep, time::Duration};

use etherparse::{Icmpv4Type, icmpv4::DestUnreachableHeader};
use lb_common::{Hook, Verdict};
use naru::desired::Service;

use crate::{
    Case,
    frames::{ACK, Icmp, NODE_MAC, REMOTE_MAC, SYN, icmp, tcp, udp},
    world::{Act, CLIENT, POD, REMOTE, World, service},
};

const VIP: &str = "192.168.56.11:80";
const OTHER: &str = "10.244.1.3:3000";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "gone, left: a connection goes on with its pod, both ways; new ones do not",
            run: local,
        },
        Case {
            name: "gone, left: a connection by nat goes on, both ways",
            run: nat,
        },
        Case {
            name: "gone, left: UDP moves at once all the same",
            run: || {
                let services = |pods: &[&str]| [service(&["192.168.56.11:53/udp"], pods)];
                let mut world = World::leaving(&services(&[POD, OTHER]));
                let packet = udp(CLIENT, "192.168.56.11:53", b"query");
                assert_eq!(to(&mut world, &packet), POD);
                world.change(&services(&[OTHER]));
                assert_eq!(to(&mut world, &packet), OTHER);
            },
        },
        Case {
            name: "gone, left: a sweep leaves them, and takes them where they are reset",
            run: || {
                let services = web(&[POD]);
                let worlds: [fn(&[Service]) -> World; 2] = [World::new, World::leaving];
                for (left, world) in worlds.into_iter().enumerate() {
                    let mut world = world(&services);
                    assert_eq!(to(&mut world, &tcp(CLIENT, VIP, SYN)), POD);
                    world.change(&web(&[]));
                    let swept = world.datapath.sweeper().unwrap().sweep().unwrap();
                    assert_eq!(swept.flows, 1 - left);
                    assert_eq!(world.datapath.flows(9).unwrap().0.len(), left);
                }
            },
        },
        Case {
            name: "gone, left: backends that come later take other places",
            run: || {
                let mut world = World::leaving(&web(&[POD]));
                assert_eq!(to(&mut world, &tcp(CLIENT, VIP, SYN)), POD);
                world.change(&web(&[]));
                // Longer than what was given up rests.
                sleep(Duration::from_secs(3));
                world.change(&web(&[OTHER, POD]));
                assert_eq!(to(&mut world, &tcp(CLIENT, VIP, ACK)), POD);
                // An agent that starts over the same maps, too.
                let mut world = world.reopen();
                assert_eq!(world.apply_again(&web(&[OTHER, POD])).total(), 0);
                assert_eq!(to(&mut world, &tcp(CLIENT, VIP, ACK)), POD);
            },
        },
    ]
}

fn local() {
    let mut world = World::leaving(&web(&[POD, OTHER]));
    assert_eq!(to(&mut world, &tcp(CLIENT, VIP, SYN)), POD);
    let (segment, answer) = (tcp(CLIENT, VIP, ACK), tcp(POD, CLIENT, ACK));
    for pods in [&[OTHER][..], &[]] {
        world.change(&web(pods));
        assert_eq!(world.apply_again(&web(pods)).total(), 0);
        assert_eq!(to(&mut world, &segment), POD);
        let out = answer.clone().from(VIP).bytes();
        let verdict = Verdict::ReplyLocal;
        world.expect(Hook::TcEgress, &answer.bytes(), verdict, Act::Pass, &out);
        // The client's router about that answer.
        let quote = |packet: &[u8]| packet[14..][..28].to_vec();
        let kind = Icmp::V4(Icmpv4Type::DestinationUnreachable(
            DestUnreachableHeader::Host,
        ));
        let error = icmp("192.168.56.1", "192.168.56.11", kind, &quote(&out));
        world.send(Hook::Xdp, &error, Verdict::ErrorLocal, Act::Pass);
        let backend = world.datapath.flows(9).unwrap().0[0].backend.unwrap();
        assert_eq!(
            (backend.addr.to_string(), backend.alive),
            ("10.244.1.2".into(), 0)
        );
    }
    // Nobody is left for new ones; where somebody is, a client that begins anew goes there.
    let other = tcp("192.168.56.1:50000", VIP, SYN).bytes();
    world.send(Hook::Xdp, &other, Verdict::RefusedReset, Act::SentBack);
    world.change(&web(&[OTHER]));
    assert_eq!(to(&mut world, &tcp(CLIENT, VIP, SYN)), OTHER);
    assert_eq!(to(&mut world, &segment), OTHER);
}

fn nat() {
    let mut world = World::leaving(&web(&[REMOTE]));
    let syn = tcp(CLIENT, VIP, SYN);
    let (source, _) = world.forwarded(&syn, Verdict::ForwardNat);
    world.change(&web(&[POD]));
    let segment = tcp(CLIENT, VIP, ACK);
    let (again, to) = world.forwarded(&segment, Verdict::ForwardNat);
    assert_eq!((again, to.to_string()), (source, REMOTE.to_owned()));
    let answer = tcp(REMOTE, &source.to_string(), ACK).link(REMOTE_MAC, NODE_MAC);
    let act = Act::SentBack;
    world.send(Hook::Xdp, &answer.bytes(), Verdict::ReplyNat, act);
}

fn web(pods: &[&str]) -> [Service; 1] {
    [service(&[VIP], pods)]
}

/// The pod here that a packet goes to.
#[track_caller]
fn to(world: &mut World, packet: &crate::frames::Packet) -> String {
    world.forwarded(packet, Verdict::ForwardLocal).1.to_string()
}
