//! ICMP errors about flows: whoever sent the packet finds in them what he sent.

use std::net::SocketAddr;

use etherparse::{
    Icmpv4Type, Icmpv6Type,
    icmpv4::{DestUnreachableHeader, TimeExceededCode},
};
use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{
        ACK, CLIENT_MAC, Icmp, NODE_MAC, Packet, REMOTE_MAC, SYN, about, icmp, relinked, tcp, udp,
    },
    world::{Act, CLIENT, CLIENT6, POD, POD6, REMOTE, REMOTE6, World, endpoints, service},
};

/// One family's addresses and messages.
struct Side {
    client: &'static str,
    vip: &'static str,
    udp_frontend: &'static str,
    pod: &'static str,
    remote: &'static str,
    /// Behind an interface of MTU 1,280.
    narrow: &'static str,
    router: &'static str,
    header: usize,
    too_big: fn(u16) -> Icmp,
    unreachable: fn() -> Icmp,
    expired: fn() -> Icmp,
}

const SIDES: [Side; 2] = [
    Side {
        client: CLIENT,
        vip: "192.168.56.11:80",
        udp_frontend: "192.168.56.11:80/udp",
        pod: POD,
        remote: REMOTE,
        narrow: "10.5.0.9:80",
        router: "192.168.56.1",
        header: 20,
        too_big: |mtu| {
            let header = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
            Icmp::V4(Icmpv4Type::DestinationUnreachable(header))
        },
        unreachable: || {
            Icmp::V4(Icmpv4Type::DestinationUnreachable(
                DestUnreachableHeader::Host,
            ))
        },
        expired: || {
            Icmp::V4(Icmpv4Type::TimeExceeded(
                TimeExceededCode::TtlExceededInTransit,
            ))
        },
    },
    Side {
        client: CLIENT6,
        vip: "[fd00::11]:80",
        udp_frontend: "[fd00::11]:80/udp",
        pod: POD6,
        remote: REMOTE6,
        narrow: "[fd00:5::9]:80",
        router: "fd00::1",
        header: 40,
        too_big: |mtu| Icmp::V6(Icmpv6Type::PacketTooBig { mtu: mtu.into() }),
        unreachable: || {
            Icmp::V6(Icmpv6Type::DestinationUnreachable(
                etherparse::icmpv6::DestUnreachableCode::Address,
            ))
        },
        expired: || {
            Icmp::V6(Icmpv6Type::TimeExceeded(
                etherparse::icmpv6::TimeExceededCode::HopLimitExceeded,
            ))
        },
    },
];

impl Side {
    fn world(&self, backend: &str) -> World {
        World::new(&[
            service(&[self.vip], &[backend]),
            service(&[self.udp_frontend], &[backend]),
        ])
    }

    fn kinds(&self) -> [Icmp; 3] {
        [(self.too_big)(1280), (self.unreachable)(), (self.expired)()]
    }

    /// A client's packets of both protocols.
    fn requests(&self) -> [Packet; 2] {
        [
            tcp(self.client, self.vip, SYN),
            udp(self.client, self.vip, b"query of some length"),
        ]
    }
}

fn ip(endpoint: &str) -> String {
    endpoint.parse::<SocketAddr>().unwrap().ip().to_string()
}

/// A packet from its network header on.
pub(crate) fn quote(packet: &Packet) -> Vec<u8> {
    packet.bytes()[14..].to_vec()
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "an error about a reply reaches the pod here, quoting what the pod sent",
            run: || {
                for side in &SIDES {
                    let mut world = side.world(side.pod);
                    for request in side.requests() {
                        crate::forward::local(&mut world, &request, &request.clone().to(side.pod));
                        let sent = request
                            .clone()
                            .from(side.pod)
                            .to(side.client)
                            .payload(&[7; 40]);
                        let seen = sent.clone().from(side.vip);
                        for kind in side.kinds() {
                            let vip = ip(side.vip);
                            // As much as a router quotes at least, and more.
                            for len in [side.header + 8, side.header + 28] {
                                let frame =
                                    icmp(side.router, &vip, kind.clone(), &quote(&seen)[..len]);
                                let pod = ip(side.pod);
                                let out =
                                    icmp(side.router, &pod, kind.clone(), &quote(&sent)[..len]);
                                let verdict = Verdict::ErrorLocal;
                                world.expect(Hook::Xdp, &frame, verdict, Act::Pass, &out);
                                world.expect(Hook::TcIngress, &frame, verdict, Act::Pass, &out);
                            }
                        }
                    }
                }
            },
        },
        Case {
            name: "an error about a reply reaches the backend elsewhere",
            run: || {
                for side in &SIDES {
                    let mut world = side.world(side.remote);
                    for request in side.requests() {
                        let snat = begin_nat(&mut world, &request);
                        let sent = request.clone().from(side.remote).to(&snat.to_string());
                        let seen = request.clone().from(side.vip).to(side.client);
                        let kind = (side.too_big)(1280);
                        let (vip, remote) = (ip(side.vip), ip(side.remote));
                        let frame = icmp(side.router, &vip, kind.clone(), &quote(&seen));
                        let out = icmp(&snat.ip().to_string(), &remote, kind, &quote(&sent));
                        let out = sent_on(out, REMOTE_MAC);
                        let verdict = Verdict::ErrorNat;
                        world.expect(Hook::Xdp, &frame, verdict, Act::SentBack, &out);
                    }
                }
            },
        },
        Case {
            name: "an error about a packet to a backend elsewhere reaches the client as the VIP's",
            run: || {
                for side in &SIDES {
                    let mut world = side.world(side.remote);
                    for request in side.requests() {
                        let snat = begin_nat(&mut world, &request);
                        let forwarded = request.clone().from(&snat.to_string()).to(side.remote);
                        for kind in side.kinds() {
                            let router = ip(side.remote);
                            let frame = icmp(
                                &router,
                                &snat.ip().to_string(),
                                kind.clone(),
                                &quote(&forwarded),
                            );
                            let frame = relinked(frame, REMOTE_MAC, NODE_MAC);
                            let out = icmp(&ip(side.vip), &ip(side.client), kind, &quote(&request));
                            let out = sent_on(out, CLIENT_MAC);
                            let verdict = Verdict::ErrorReply;
                            world.expect(Hook::Xdp, &frame, verdict, Act::SentBack, &out);
                        }
                    }
                }
            },
        },
        Case {
            name: "an error that a pod here or this node makes leaves as the VIP's",
            run: || {
                for side in &SIDES {
                    let mut world = side.world(side.pod);
                    for request in side.requests() {
                        let delivered = request.clone().to(side.pod);
                        crate::forward::local(&mut world, &request, &delivered);
                        let bridge = if side.header == 20 {
                            "10.244.1.1"
                        } else {
                            "fd00:1::1"
                        };
                        for source in [&ip(side.pod)[..], bridge] {
                            let kind = (side.unreachable)();
                            let client = ip(side.client);
                            let frame = icmp(source, &client, kind.clone(), &quote(&delivered));
                            let out = icmp(&ip(side.vip), &client, kind, &quote(&request));
                            let verdict = Verdict::ErrorReply;
                            world.expect(Hook::TcEgress, &frame, verdict, Act::Pass, &out);
                        }
                    }
                }
            },
        },
        Case {
            name: "errors about no flow are dropped at a VIP and pass at the host",
            run: || {
                let side = &SIDES[0];
                let mut world = side.world(side.remote);
                let unknown = tcp(side.vip, "192.168.56.7:1234", ACK);
                let kind = (side.too_big)(1280);
                let frame = icmp(side.router, "192.168.56.11", kind.clone(), &quote(&unknown));
                world.expect_untouched(Hook::Xdp, &frame, Verdict::VipError, Act::Drop);
                let own = tcp("192.168.56.101:61500", "192.168.56.9:22", ACK);
                let frame = icmp(side.router, "192.168.56.101", kind, &quote(&own));
                world.expect_untouched(Hook::Xdp, &frame, Verdict::NotOurs, Act::Pass);
            },
        },
        Case {
            name: "larger than the MTU towards the backend: the sender is told it, as by a router",
            run: || {
                for side in &SIDES {
                    let mut world = side.world(side.narrow);
                    let big = tcp(side.client, side.vip, SYN).payload(&[7; 1400]);
                    // To XDP it might be several packets put together; TC knows.
                    let verdict = Verdict::LeftToTc;
                    world.expect_untouched(Hook::Xdp, &big.bytes(), verdict, Act::Pass);
                    let kind = (side.too_big)(1280);
                    let out = about(&big, kind, side.header + 20);
                    let verdict = Verdict::TooBig;
                    world.expect(Hook::TcIngress, &big.bytes(), verdict, Act::SentOn, &out);
                    let fits = tcp(side.client, side.vip, SYN).payload(&[7; 1280 - 60]);
                    world.send(Hook::Xdp, &fits.bytes(), Verdict::ForwardNat, Act::SentOn);
                }
                let side = &SIDES[0];
                let mut world = side.world(side.narrow);
                // Also while so many are refused that no more may be, in one and the same second.
                let stray = tcp("192.168.56.8:40000", side.vip, ACK).bytes();
                let is_limited = |world: &mut World| {
                    let out = world.datapath.test_run(Hook::Xdp, &stray, world.ingress);
                    out.unwrap().action == 1
                };
                let big = tcp(side.client, side.vip, SYN).payload(&[7; 1400]);
                let told_meanwhile = (0..10).any(|_| {
                    is_limited(&mut world);
                    world.datapath.leave_refusals(0);
                    let before = is_limited(&mut world);
                    let verdict = Verdict::TooBig;
                    world.send(Hook::TcIngress, &big.bytes(), verdict, Act::SentOn);
                    before && is_limited(&mut world)
                });
                assert!(told_meanwhile, "refusals go on");
                let cut = udp(side.client, side.vip, &[7; 1400]).may_be_cut().bytes();
                world.expect_untouched(Hook::TcIngress, &cut, Verdict::Uncut, Act::Drop);
            },
        },
    ]
}

/// Sends a request to the backend elsewhere; the address and port that it comes from there.
fn begin_nat(world: &mut World, request: &Packet) -> SocketAddr {
    let verdict = Verdict::ForwardNat;
    let out = world.send(Hook::Xdp, &request.bytes(), verdict, Act::SentBack);
    endpoints(&out).0
}

/// The frame as the node sends it on to a neighbour: with one hop fewer to go.
fn sent_on(mut frame: Vec<u8>, to: [u8; 6]) -> Vec<u8> {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21] -= 1;
    } else {
        let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        header.time_to_live -= 1;
        header.header_checksum = header.calc_header_checksum();
        frame[14..34].copy_from_slice(&header.to_bytes());
    }
    relinked(frame, NODE_MAC, to)
}
