//! IPv6 takes the same path: everything that IPv4 has, and what only IPv6 has.

use etherparse::Icmpv6Type;
use lb_common::{Hook, Verdict};

use crate::{
    Case,
    forward::local,
    frames::{
        ACK, CLIENT_MAC, Icmp, NODE_MAC, PSH, Packet, REMOTE_MAC, RST, SYN, icmp, ping, pong,
        port_unreachable, sctp, tcp, udp,
    },
    world::{Act, CLIENT6, POD6, REMOTE6, World, endpoints, service},
};

const WEB: &str = "[fd00::11]:80";
const DNS: &str = "[fd00::11]:53";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "IPv6: TCP and UDP to a pod here, and back",
            run: || {
                let mut world = World::new(&[
                    service(&[WEB], &[POD6]),
                    service(&["[fd00::11]:53/udp"], &[POD6]),
                ]);
                for (request, reply) in [
                    (tcp(CLIENT6, WEB, SYN), tcp(POD6, CLIENT6, SYN | ACK)),
                    (
                        tcp(CLIENT6, WEB, ACK | PSH).payload(b"odd"),
                        tcp(POD6, CLIENT6, ACK).payload(b"reply"),
                    ),
                    (udp(CLIENT6, DNS, b"query"), udp(POD6, CLIENT6, b"answer")),
                ] {
                    local(&mut world, &request, &request.clone().to(POD6));
                    let reply = reply.link(NODE_MAC, CLIENT_MAC);
                    let vip = request.dst.to_string();
                    world.expect(
                        Hook::TcEgress,
                        &reply.bytes(),
                        Verdict::ReplyLocal,
                        Act::Pass,
                        &reply.clone().from(&vip).bytes(),
                    );
                }
            },
        },
        Case {
            name: "IPv6: TC rewrites as XDP does",
            run: || {
                let mut world = World::new(&[
                    service(&[WEB], &[POD6]),
                    service(&["[fd00::11]:53/udp"], &[POD6]),
                ]);
                for packet in [
                    tcp(CLIENT6, WEB, SYN),
                    tcp(CLIENT6, WEB, ACK).payload(b"GET /").extended(),
                    udp(CLIENT6, DNS, b"query"),
                ] {
                    world.expect(
                        Hook::TcIngress,
                        &packet.bytes(),
                        Verdict::ForwardLocal,
                        Act::Pass,
                        &packet.clone().to(POD6).bytes(),
                    );
                }
            },
        },
        Case {
            name: "IPv6: nat, and back",
            run: || {
                let mut world = World::new(&[service(&[WEB], &[REMOTE6])]);
                let packet = tcp(CLIENT6, WEB, SYN);
                let verdict = Verdict::ForwardNat;
                let out = world.send(Hook::Xdp, &packet.bytes(), verdict, Act::SentBack);
                let (source, _) = endpoints(&out);
                assert_eq!(source.ip().to_string(), "fd00::101");
                let source = source.to_string();
                let expected = packet
                    .from(&source)
                    .to(REMOTE6)
                    .link(NODE_MAC, REMOTE_MAC)
                    .ttl(63);
                assert_eq!(out, expected.bytes());
                let reply = tcp(REMOTE6, &source, SYN | ACK).link(REMOTE_MAC, NODE_MAC);
                let expected = reply
                    .clone()
                    .from(WEB)
                    .to(CLIENT6)
                    .link(NODE_MAC, CLIENT_MAC)
                    .ttl(63);
                let verdict = Verdict::ReplyNat;
                world.expect(
                    Hook::Xdp,
                    &reply.bytes(),
                    verdict,
                    Act::SentBack,
                    &expected.bytes(),
                );
            },
        },
        Case {
            name: "IPv6: hop-by-hop and destination options stay where they are",
            run: || {
                let mut world = World::new(&[
                    service(&[WEB], &[POD6]),
                    service(&["[fd00::11]:53/udp"], &[POD6]),
                ]);
                for packet in [tcp(CLIENT6, WEB, SYN), udp(CLIENT6, DNS, b"query")] {
                    let packet = packet.extended();
                    local(&mut world, &packet, &packet.clone().to(POD6));
                }
            },
        },
        Case {
            name: "IPv6: more extension headers than are read pass",
            run: || {
                let mut frame = tcp(CLIENT6, WEB, SYN).extended().bytes();
                // The second becomes the first of four more.
                frame[54 + 8] = 60;
                let options = [60, 0, 1, 4, 0, 0, 0, 0].repeat(3);
                frame.splice(70..70, options);
                let len = (frame.len() - 54) as u16;
                frame[18..20].copy_from_slice(&len.to_be_bytes());
                row(&frame, Verdict::Unparsed, Act::Pass);
            },
        },
        Case {
            name: "IPv6: an IPv4 address in the header is no IPv4 flow's",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD4])]);
                let mut frame = tcp(CLIENT6, WEB, SYN).bytes();
                let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 56, 11];
                frame[38..54].copy_from_slice(&mapped);
                world.expect_untouched(Hook::Xdp, &frame, Verdict::Unparsed, Act::Pass);
            },
        },
        Case {
            name: "IPv6: refused with RST, or with port unreachable that quotes the packet",
            run: || {
                let mut world =
                    World::new(&[service(&[WEB], &[]), service(&["[fd00::11]:53/udp"], &[])]);
                for hook in [Hook::Xdp, Hook::TcIngress] {
                    let back = if hook == Hook::Xdp {
                        Act::SentBack
                    } else {
                        Act::SentOn
                    };
                    for syn in [tcp(CLIENT6, WEB, SYN), tcp(CLIENT6, WEB, SYN).extended()] {
                        let syn = syn.payload(b"four");
                        let reset = tcp(WEB, CLIENT6, RST | ACK)
                            .numbers(0, 0x0102_0304 + 5, 0)
                            .link(NODE_MAC, CLIENT_MAC);
                        let verdict = Verdict::RefusedReset;
                        world.expect(hook, &syn.bytes(), verdict, back, &reset.bytes());
                    }
                    for (query, quoted) in [
                        (udp(CLIENT6, DNS, b""), 48),
                        (udp(CLIENT6, DNS, &[7; 1400]), 48),
                        (udp(CLIENT6, DNS, b"x").extended(), 64),
                    ] {
                        let answer = port_unreachable(&query, quoted);
                        let verdict = Verdict::RefusedUnreachable;
                        world.expect(hook, &query.bytes(), verdict, back, &answer);
                    }
                }
            },
        },
        Case {
            name: "IPv6: what comes from no single host is not answered",
            run: || {
                let mut world = World::new(&[service(&[WEB], &[])]);
                for source in ["[ff02::1]:4000", "[::]:4000", "[::1]:4000"] {
                    let frame = tcp(source, WEB, SYN).bytes();
                    let verdict = Verdict::RefusalSuppressed;
                    world.expect_untouched(Hook::Xdp, &frame, verdict, Act::Drop);
                }
            },
        },
        Case {
            name: "pings of a VIP with backends are answered, of others dropped, by both hooks",
            run: || {
                let mut world = World::new(&[
                    service(&["192.168.56.11:80"], &[POD4]),
                    service(&[WEB], &[POD6]),
                    service(&["192.168.56.12:80"], &[]),
                    service(&["192.168.56.101:80"], &[POD4]),
                ]);
                for (client, vip) in [("192.168.56.1", "192.168.56.11"), ("fd00::1", "fd00::11")] {
                    let (ping, pong) = (ping(client, vip), pong(vip, client));
                    let verdict = Verdict::EchoReply;
                    world.expect(Hook::Xdp, &ping, verdict, Act::SentBack, &pong);
                    world.expect(Hook::TcIngress, &ping, verdict, Act::SentOn, &pong);
                }
                for (nobody, vip) in [("224.0.0.5", "192.168.56.11"), ("ff02::1", "fd00::11")] {
                    let (frame, verdict) = (ping(nobody, vip), Verdict::RefusalSuppressed);
                    world.expect_untouched(Hook::Xdp, &frame, verdict, Act::Drop);
                }
                let other = ping("192.168.56.1", "192.168.56.12");
                world.expect_untouched(Hook::Xdp, &other, Verdict::VipEcho, Act::Drop);
                let host = ping("192.168.56.1", "192.168.56.101");
                world.expect_untouched(Hook::Xdp, &host, Verdict::HostPort, Act::Pass);
            },
        },
        Case {
            name: "neighbour discovery of a VIP is the host's business",
            run: || {
                let mut world = World::new(&[service(&[WEB], &[POD6])]);
                let target = "fd00::11".parse::<std::net::Ipv6Addr>().unwrap().octets();
                for kind in [
                    Icmpv6Type::NeighborSolicitation,
                    Icmpv6Type::RouterSolicitation,
                ] {
                    let frame = icmp("fd00::1", "fd00::11", Icmp::V6(kind), &target);
                    world.expect_untouched(Hook::Xdp, &frame, Verdict::NotOurs, Act::Pass);
                }
            },
        },
        Case {
            name: "SCTP: addresses change, ports and checksum stay",
            run: || {
                for (client, vip, frontend, pod) in [
                    (
                        CLIENT4,
                        "192.168.56.11:3000",
                        "192.168.56.11:3000/sctp",
                        POD4,
                    ),
                    (CLIENT6, "[fd00::11]:3000", "[fd00::11]:3000/sctp", POD6),
                ] {
                    let mut world = World::new(&[service(&[frontend], &[pod])]);
                    let packet = sctp(client, vip, b"chunk");
                    local(&mut world, &packet, &packet.clone().to(pod));
                    let reply = sctp(pod, client, b"chunk").link(NODE_MAC, CLIENT_MAC);
                    let (verdict, bytes) = (Verdict::ReplyLocal, reply.bytes());
                    let out = reply.from(vip).bytes();
                    world.expect(Hook::TcEgress, &bytes, verdict, Act::Pass, &out);
                }
                let remote = "192.168.56.102:3000";
                let mut world = World::new(&[service(&["192.168.56.11:3000/sctp"], &[remote])]);
                let packet: Packet = sctp(CLIENT4, "192.168.56.11:3000", b"chunk");
                let out = packet
                    .clone()
                    .from("192.168.56.101:40000")
                    .to(remote)
                    .link(NODE_MAC, REMOTE_MAC)
                    .ttl(63);
                world.expect(
                    Hook::Xdp,
                    &packet.bytes(),
                    Verdict::ForwardNat,
                    Act::SentBack,
                    &out.bytes(),
                );
                // Another client with the same port has no other to be told apart by.
                let second = packet.from("192.168.56.2:40000").bytes();
                let verdict = Verdict::PortsExhausted;
                world.expect_untouched(Hook::Xdp, &second, verdict, Act::Drop);
            },
        },
    ]
}

const CLIENT4: &str = crate::world::CLIENT;
const POD4: &str = crate::world::POD;

#[track_caller]
fn row(frame: &[u8], verdict: Verdict, act: Act) {
    let mut world = World::new(&[service(&[WEB], &[POD6])]);
    world.expect_untouched(Hook::Xdp, frame, verdict, act);
}
