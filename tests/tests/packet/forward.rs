//! Packets that are rewritten and go on: towards a backend, and back to the client.

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{ACK, CLIENT_MAC, NODE_MAC, PSH, Packet, REMOTE_MAC, SYN, tcp, udp},
    world::{Act, CLIENT, POD, REMOTE, World, endpoints, interface, service},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "TCP to a pod here: destination rewritten, the stack delivers",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD])]);
                for flags in [SYN, ACK, ACK | PSH] {
                    let packet = tcp(CLIENT, "192.168.56.11:80", flags).payload(b"GET /");
                    let out = packet.clone().to(POD);
                    local(&mut world, &packet, &out);
                }
            },
        },
        Case {
            name: "UDP to a pod here, odd payload",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &[POD])]);
                let packet = udp(CLIENT, "192.168.56.11:53", b"odd");
                local(&mut world, &packet, &packet.clone().to(POD));
            },
        },
        Case {
            name: "UDP without checksum stays without",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &[POD])]);
                let packet = udp(CLIENT, "192.168.56.11:53", b"query").without_checksum();
                local(&mut world, &packet, &packet.clone().to(POD));
            },
        },
        Case {
            name: "UDP whose checksum becomes 0 is sent as 0xffff",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &[POD])]);
                let out = zero_sum(udp(CLIENT, POD, &[0, 0]));
                let packet = out.clone().to("192.168.56.11:53");
                local(&mut world, &packet, &out);
                assert_eq!(out.bytes()[40..42], [0xff, 0xff]);
            },
        },
        Case {
            name: "IP options stay where they are",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD])]);
                for words in [1, 5, 10] {
                    // No-operation options (RFC 791).
                    let packet = tcp(CLIENT, "192.168.56.11:80", SYN).options(&vec![1; words * 4]);
                    local(&mut world, &packet, &packet.clone().to(POD));
                }
            },
        },
        Case {
            name: "nat: both ends rewritten, TTL down, out by the way it came, and back",
            run: nat_and_back,
        },
        Case {
            name: "nat of UDP, and back",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &[REMOTE])]);
                let packet = udp(CLIENT, "192.168.56.11:53", b"query");
                let out = world.send(
                    Hook::Xdp,
                    &packet.bytes(),
                    Verdict::ForwardNat,
                    Act::SentBack,
                );
                let (source, _) = endpoints(&out);
                let reply = udp(REMOTE, &source.to_string(), b"answer").link(REMOTE_MAC, NODE_MAC);
                let expected = reply
                    .clone()
                    .from("192.168.56.11:53")
                    .to(CLIENT)
                    .link(NODE_MAC, CLIENT_MAC)
                    .ttl(63);
                world.expect(
                    Hook::Xdp,
                    &reply.bytes(),
                    Verdict::ReplyNat,
                    Act::SentBack,
                    &expected.bytes(),
                );
            },
        },
        Case {
            name: "nat to a neighbour not known yet: XDP leaves it to TC, which forwards it",
            run: || {
                let silent = "192.168.56.103:3000";
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[silent])]);
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN);
                world.expect_untouched(Hook::Xdp, &packet.bytes(), Verdict::LeftToTc, Act::Pass);
                let out = world.send(
                    Hook::TcIngress,
                    &packet.bytes(),
                    Verdict::ForwardNat,
                    Act::SentOn,
                );
                let (source, to) = endpoints(&out);
                assert_eq!(to.to_string(), silent);
                let expected = packet.to(silent).from(&source.to_string()).ttl(63);
                assert_eq!(
                    out,
                    expected.bytes(),
                    "TC leaves the link header to the kernel"
                );
                let (flows, _) = world.datapath.flows(10).unwrap();
                assert_eq!(flows.len(), 1, "both hooks saw one flow");
            },
        },
        Case {
            name: "nat to a backend behind another interface with native XDP is redirected",
            run: || {
                let backend = "10.7.0.9:80";
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[backend])]);
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN);
                let verdict = Verdict::ForwardNat;
                let out = world.send(Hook::Xdp, &packet.bytes(), verdict, Act::SentOn);
                let (source, _) = endpoints(&out);
                assert_eq!(
                    source.ip().to_string(),
                    "10.7.0.1",
                    "the egress's own address"
                );
                let expected = packet
                    .from(&source.to_string())
                    .to(backend)
                    .link(NODE_MAC, REMOTE_MAC)
                    .ttl(63);
                assert_eq!(out, expected.bytes());
            },
        },
        Case {
            name: "nat to a backend behind an interface without native XDP is TC's",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &["10.6.0.9:80"])]);
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::LeftToTc, Act::Pass);
                world.send(Hook::TcIngress, &packet, Verdict::ForwardNat, Act::SentOn);
            },
        },
        Case {
            name: "at an interface that Naru is not attached to nothing is ours",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[REMOTE])]);
                world.ingress = interface("pods");
                let packet = tcp("10.244.1.9:5000", "192.168.56.11:80", SYN);
                world.expect_untouched(Hook::Xdp, &packet.bytes(), Verdict::OtherHost, Act::Pass);
            },
        },
        Case {
            name: "TC rewrites for a local pod as XDP does",
            run: || {
                let mut world = World::new(&[
                    service(&["192.168.56.11:80"], &[POD]),
                    service(&["192.168.56.11:53/udp"], &[POD]),
                ]);
                for packet in [
                    tcp(CLIENT, "192.168.56.11:80", SYN),
                    tcp(CLIENT, "192.168.56.11:80", ACK | PSH).payload(b"GET / HTTP/1.1"),
                    udp(CLIENT, "192.168.56.11:53", b"query"),
                    udp(CLIENT, "192.168.56.11:53", b"query").without_checksum(),
                ] {
                    let out = packet.clone().to(POD);
                    world.expect(
                        Hook::TcIngress,
                        &packet.bytes(),
                        Verdict::ForwardLocal,
                        Act::Pass,
                        &out.bytes(),
                    );
                }
            },
        },
        Case {
            name: "reply of a local pod leaves with the VIP as source",
            run: || {
                let mut world = World::new(&[
                    service(&["192.168.56.11:80"], &[POD]),
                    service(&["192.168.56.11:53/udp"], &[POD]),
                ]);
                let request = tcp(CLIENT, "192.168.56.11:80", SYN);
                local(&mut world, &request, &request.clone().to(POD));
                let question = udp(CLIENT, "192.168.56.11:53", b"query");
                local(&mut world, &question, &question.clone().to(POD));
                for (reply, vip) in [
                    (tcp(POD, CLIENT, SYN | ACK), "192.168.56.11:80"),
                    (tcp(POD, CLIENT, ACK).payload(b"200 OK"), "192.168.56.11:80"),
                    (udp(POD, CLIENT, b"answer"), "192.168.56.11:53"),
                ] {
                    let reply = reply.link(NODE_MAC, CLIENT_MAC);
                    world.expect(
                        Hook::TcEgress,
                        &reply.bytes(),
                        Verdict::ReplyLocal,
                        Act::Pass,
                        &reply.clone().from(vip).bytes(),
                    );
                }
            },
        },
        Case {
            name: "what a pod sends of its own accord is not touched",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD])]);
                let request = tcp(CLIENT, "192.168.56.11:80", SYN);
                local(&mut world, &request, &request.clone().to(POD));
                for packet in [
                    tcp(POD, "192.168.56.1:40001", SYN | ACK),
                    tcp("10.244.1.2:3001", CLIENT, ACK),
                    tcp("10.244.1.3:3000", CLIENT, ACK),
                    udp(POD, CLIENT, b"another protocol"),
                ] {
                    world.expect_untouched(
                        Hook::TcEgress,
                        &packet.bytes(),
                        Verdict::NotOurs,
                        Act::Pass,
                    );
                }
            },
        },
    ]
}

#[track_caller]
pub(crate) fn local(world: &mut World, packet: &Packet, out: &Packet) {
    world.expect(
        Hook::Xdp,
        &packet.bytes(),
        Verdict::ForwardLocal,
        Act::Pass,
        &out.bytes(),
    );
}

fn nat_and_back() {
    let mut world = World::new(&[service(&["192.168.56.11:80"], &[REMOTE])]);
    let request = tcp(CLIENT, "192.168.56.11:80", SYN);
    let out = world.send(
        Hook::Xdp,
        &request.bytes(),
        Verdict::ForwardNat,
        Act::SentBack,
    );
    let (source, _) = endpoints(&out);
    assert_eq!(source.ip().to_string(), "192.168.56.101");
    assert!((61_001..=65_535).contains(&source.port()), "{source}");
    let expected = request
        .from(&source.to_string())
        .to(REMOTE)
        .link(NODE_MAC, REMOTE_MAC)
        .ttl(63);
    assert_eq!(out, expected.bytes());

    let next = tcp(CLIENT, "192.168.56.11:80", ACK).payload(b"GET /");
    let (again, _) = world.forwarded(&next, Verdict::ForwardNat);
    assert_eq!(again, source, "a flow keeps its port");

    let reply = tcp(REMOTE, &source.to_string(), SYN | ACK).link(REMOTE_MAC, NODE_MAC);
    let expected = reply
        .clone()
        .from("192.168.56.11:80")
        .to(CLIENT)
        .link(NODE_MAC, CLIENT_MAC)
        .ttl(63);
    world.expect(
        Hook::Xdp,
        &reply.bytes(),
        Verdict::ReplyNat,
        Act::SentBack,
        &expected.bytes(),
    );
    let stranger = tcp("192.168.56.102:3001", &source.to_string(), ACK);
    world.expect_untouched(Hook::Xdp, &stranger.bytes(), Verdict::NotOurs, Act::Pass);
}

/// Chooses the payload so that the checksum's sum is 0, which UDP sends as all ones.
fn zero_sum(packet: Packet) -> Packet {
    let bytes = packet.bytes();
    let sum = u16::from_be_bytes([bytes[40], bytes[41]]);
    packet.payload(&sum.to_be_bytes())
}
