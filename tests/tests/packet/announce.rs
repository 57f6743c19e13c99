//! Claimed addresses: ARP (RFC 826) and neighbour discovery (RFC 4861).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use etherparse::{Icmpv6Header, Icmpv6Type, IpNumber, Ipv6Header};
use lb_common::{Hook, Verdict};
use naru::{announce::Claims, datapath::Lease};
use naru_tests::wire::ArpFrame;

use crate::{
    Case,
    frames::{CLIENT_MAC, NODE_MAC},
    world::{Act, POD, POD6, World, interface, service},
};

const VIP: [u8; 4] = [192, 168, 56, 11];
const CLIENT: [u8; 4] = [192, 168, 56, 1];
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x11);
const GROUP_MAC: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 0x11];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL: [u8; 6] = [0xff; 6];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "ARP: a request for a claimed address is answered, to the asker alone",
            run: || {
                let (mut world, _lease) = claiming();
                let own = ArpFrame {
                    to: NODE_MAC,
                    ..question()
                };
                let probe = ArpFrame {
                    sender_ip: [0; 4],
                    ..question()
                };
                for (n, asked) in (1..).zip([question(), own, probe]) {
                    let expected = answer(&asked);
                    for padding in [0, 18] {
                        let pad = vec![0x5a; padding];
                        let frame = [asked.bytes(), pad.clone()].concat();
                        let out = [expected.bytes(), pad].concat();
                        answered(&mut world, &frame, Verdict::ArpAnswered, &out);
                    }
                    assert_eq!(counts(&world, VIP.into()), (2 * n, 2 * n));
                }
                assert_eq!(counts(&world, VIP6.into()), (0, 0));
            },
        },
        Case {
            name: "ARP: what is no question for a claimed address is the stack's",
            run: || {
                let (mut world, _lease) = claiming();
                type Spoil = fn(&mut ArpFrame);
                let cases: [(&str, Spoil); 8] = [
                    ("a reply", |it| it.operation = 2),
                    ("another address", |it| it.target_ip = [192, 168, 56, 12]),
                    ("an announcement", |it| it.sender_ip = VIP),
                    ("to another station", |it| it.to = OTHER_MAC),
                    ("to a group", |it| it.to = [1, 0, 0x5e, 0, 0, 1]),
                    ("by a group", |it| it.sender = ALL),
                    ("by nobody", |it| it.sender = [0; 6]),
                    ("by this interface", |it| it.sender = NODE_MAC),
                ];
                for (what, spoil) in cases {
                    let mut frame = question();
                    spoil(&mut frame);
                    left(&mut world, what, &frame.bytes(), Verdict::NotIp);
                }
                let bytes: [(&str, usize, u8); 5] = [
                    ("not ARP", 13, 0x07),
                    ("not Ethernet", 15, 6),
                    ("not IPv4", 16, 0x86),
                    ("a wrong length of hardware addresses", 18, 8),
                    ("a wrong length of protocol addresses", 19, 16),
                ];
                for (what, at, byte) in bytes {
                    let mut frame = question().bytes();
                    frame[at] = byte;
                    left(&mut world, what, &frame, Verdict::NotIp);
                }
                for cut in 14..42 {
                    left(
                        &mut world,
                        "cut",
                        &question().bytes()[..cut],
                        Verdict::NotIp,
                    );
                }
                left(
                    &mut world,
                    "tagged",
                    &tagged(question().bytes()),
                    Verdict::NotIp,
                );
                for hook in [Hook::TcIngress, Hook::TcEgress] {
                    let frame = question().bytes();
                    world.expect_untouched(hook, &frame, Verdict::NotIp, Act::Pass);
                }
                assert_eq!(counts(&world, VIP.into()), (0, 0));
            },
        },
        Case {
            name: "NDP: a solicitation for a claimed address is answered with an advertisement",
            run: || {
                let (mut world, _lease) = claiming();
                let nonce = [&[14, 1, 1, 2, 3, 4, 5, 6][..], &link(CLIENT_MAC)].concat();
                let long = [&nonce[..], &[14, 2][..], &[7; 14]].concat();
                for (dst, eth_dst) in [(GROUP, GROUP_MAC), (GROUP, NODE_MAC), (VIP6, NODE_MAC)] {
                    for options in [&link(CLIENT_MAC), &nonce, &long] {
                        let asked = Solicitation {
                            dst,
                            eth_dst,
                            options: options.clone(),
                            ..Solicitation::default()
                        };
                        let out = advertisement(CLIENT_MAC, CLIENT6, 0x40);
                        answered(&mut world, &asked.bytes(), Verdict::NdpAnswered, &out);
                        let padded = [asked.bytes(), vec![0x5a; 9]].concat();
                        answered(&mut world, &padded, Verdict::NdpAnswered, &out);
                    }
                }
                // The answer goes where the option says, not where the frame came from.
                let asked = Solicitation {
                    options: link(OTHER_MAC),
                    ..Solicitation::default()
                };
                let out = advertisement(OTHER_MAC, CLIENT6, 0x40);
                answered(&mut world, &asked.bytes(), Verdict::NdpAnswered, &out);
                assert_eq!(counts(&world, VIP6.into()), (19, 19));
            },
        },
        Case {
            name: "NDP: who checks whether an address is free learns with all others that it is not",
            run: || {
                let (mut world, _lease) = claiming();
                for options in [vec![], vec![14, 1, 1, 2, 3, 4, 5, 6]] {
                    let probe = Solicitation {
                        src: Ipv6Addr::UNSPECIFIED,
                        options,
                        ..Solicitation::default()
                    };
                    let out = advertisement(ALL_NODES_MAC, ALL_NODES, 0x20);
                    answered(&mut world, &probe.bytes(), Verdict::NdpAnswered, &out);
                }
                let mut probe = Solicitation {
                    src: Ipv6Addr::UNSPECIFIED,
                    ..Solicitation::default()
                };
                let what = "a probe with a link address";
                left(&mut world, what, &probe.bytes(), Verdict::NotOurs);
                probe.options = vec![];
                (probe.dst, probe.eth_dst) = (VIP6, NODE_MAC);
                let what = "a probe that is not for the group";
                left(&mut world, what, &probe.bytes(), Verdict::NotOurs);
            },
        },
        Case {
            name: "NDP: what is no valid solicitation for a claimed address is the stack's",
            run: || {
                let (mut world, _lease) = claiming();
                type Spoil = fn(&mut Solicitation);
                let cases: [(&str, Spoil); 22] = [
                    ("through a router", |it| it.hops = 254),
                    ("another code", |it| it.code = 1),
                    ("an advertisement", |it| it.kind = 136),
                    ("a router's solicitation", |it| it.kind = 133),
                    ("a wrong checksum", |it| it.error = 1),
                    ("without a link address", |it| it.options = vec![]),
                    ("of a length of zero", |it| it.options[1] = 0),
                    ("an option beyond the end", |it| it.options[1] = 2),
                    ("an option of another kind", |it| it.options[0] = 2),
                    ("more options than are read", |it| {
                        it.options = link(CLIENT_MAC).repeat(5);
                    }),
                    ("half an option", |it| it.options.extend([14, 1, 0, 0])),
                    ("by a group", |it| it.options = link(ALL)),
                    ("by nobody", |it| it.options = link([0; 6])),
                    ("by this interface", |it| it.options = link(NODE_MAC)),
                    ("from a multicast address", |it| it.src = ALL_NODES),
                    ("from the address itself", |it| it.src = VIP6),
                    ("for another address", |it| it.target = CLIENT6),
                    ("for the group of another", |it| {
                        it.dst = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x12);
                        it.eth_dst[5] = 0x12;
                    }),
                    ("for a group", |it| it.target = GROUP),
                    ("for an IPv4 address", |it| {
                        it.target = Ipv4Addr::from(VIP).to_ipv6_mapped();
                        it.dst = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xffa8, 0x380b);
                        it.eth_dst = NODE_MAC;
                    }),
                    ("to another station", |it| it.eth_dst = OTHER_MAC),
                    ("to all stations", |it| it.eth_dst = ALL),
                ];
                for (what, spoil) in cases {
                    let mut asked = Solicitation::default();
                    spoil(&mut asked);
                    left(&mut world, what, &asked.bytes(), Verdict::NotOurs);
                }
                let whole = Solicitation::default().bytes();
                for cut in 14 + 40..whole.len() {
                    left(&mut world, "cut", &whole[..cut], Verdict::BadLength);
                }
                let short = Solicitation {
                    short: 8,
                    options: vec![],
                    ..Solicitation::default()
                };
                left(&mut world, "short", &short.bytes(), Verdict::NotOurs);
                left(
                    &mut world,
                    "tagged",
                    &tagged(whole.clone()),
                    Verdict::NotOurs,
                );
                for (what, header) in [
                    ("with options", [58, 0, 1, 4, 0, 0, 0, 0]),
                    ("in one fragment", [58, 0, 0, 0, 0, 0, 0, 9]),
                ] {
                    let mut frame = whole.clone();
                    frame[19] += 8;
                    frame[20] = if header[2] == 1 { 60 } else { 44 };
                    frame.splice(54..54, header);
                    left(&mut world, what, &frame, Verdict::NotOurs);
                }
                for hook in [Hook::TcIngress, Hook::TcEgress] {
                    world.expect_untouched(hook, &whole, Verdict::NotOurs, Act::Pass);
                }
                assert_eq!(counts(&world, VIP6.into()), (0, 0));
            },
        },
        Case {
            name: "nothing is answered before a lease begins, when it has run out, or once it is ended",
            run: || {
                let (mut world, lease) = claiming();
                let ndp = Solicitation::default().bytes();
                let expired = |world: &mut World| {
                    for frame in [&question().bytes(), &ndp] {
                        let verdict = Verdict::ClaimExpired;
                        world.expect_untouched(Hook::Xdp, frame, verdict, Act::Pass);
                    }
                };
                lease.end();
                expired(&mut world);
                assert_eq!(lease.remaining().unwrap(), Duration::ZERO);
                lease.renew(MINUTE).unwrap();
                assert!(lease.remaining().unwrap() > MINUTE / 2);
                let out = answer(&question()).bytes();
                answered(&mut world, &question().bytes(), Verdict::ArpAnswered, &out);
                // A shorter one takes the place of a longer one.
                lease.renew(Duration::from_millis(50)).unwrap();
                std::thread::sleep(Duration::from_millis(60));
                expired(&mut world);
                assert_eq!(counts(&world, VIP.into()), (3, 1));
                assert_eq!(counts(&world, VIP6.into()), (2, 0));
            },
        },
        Case {
            name: "a claim holds on its interface, until it is released, and over a restart",
            run: || {
                let (mut world, _lease) = claiming();
                let (frame, out) = (question().bytes(), answer(&question()).bytes());
                answered(&mut world, &frame, Verdict::ArpAnswered, &out);
                world.ingress = interface("east");
                left(&mut world, "elsewhere", &frame, Verdict::NotIp);
                world.ingress = interface("uplink");

                let mut world = world.reopen();
                assert_eq!(world.datapath.claims(), claims(&["uplink"]));
                answered(&mut world, &frame, Verdict::ArpAnswered, &out);
                world
                    .datapath
                    .set_claims(&claims(&["uplink", "east"]))
                    .unwrap();
                assert_eq!(
                    counts(&world, VIP.into()),
                    (2, 2),
                    "what stays keeps its counts"
                );
                world.ingress = interface("east");
                answered(&mut world, &frame, Verdict::ArpAnswered, &out);
                world.datapath.set_claims(&claims(&["uplink"])).unwrap();
                left(&mut world, "released there", &frame, Verdict::NotIp);
                world.ingress = interface("uplink");
                world.datapath.set_claims(&Claims::new()).unwrap();
                left(&mut world, "released", &frame, Verdict::NotIp);
                let frame = Solicitation::default().bytes();
                left(&mut world, "released", &frame, Verdict::NotOurs);
                assert_eq!(world.datapath.claims(), Claims::new());
                assert!(world.datapath.claim_counts().unwrap().is_empty());
            },
        },
        Case {
            name: "a claim on an interface that the program does not know is the stack's",
            run: || {
                let (mut world, _lease) = claiming();
                world.datapath.set_claims(&claims(&["side"])).unwrap();
                world.ingress = interface("side");
                left(&mut world, "ARP", &question().bytes(), Verdict::NotIp);
                let frame = Solicitation::default().bytes();
                left(&mut world, "NDP", &frame, Verdict::NotOurs);
            },
        },
    ]
}

/// A world that claims both addresses on the uplink, and the lease on that.
fn claiming() -> (World, Lease) {
    let mut world = World::new(&[
        service(&["192.168.56.11:80"], &[POD]),
        service(&["[fd00::11]:80"], &[POD6]),
    ]);
    world.datapath.set_claims(&claims(&["uplink"])).unwrap();
    let lease = world.datapath.lease().unwrap();
    lease.renew(MINUTE).unwrap();
    (world, lease)
}

fn claims(names: &[&str]) -> Claims {
    let on: BTreeSet<u32> = names.iter().map(|name| interface(name)).collect();
    Claims::from([(VIP.into(), on.clone()), (VIP6.into(), on)])
}

/// Questions and answers for an address on the uplink.
fn counts(world: &World, vip: IpAddr) -> (u64, u64) {
    let counts = world.datapath.claim_counts().unwrap();
    let count = counts[&(vip, interface("uplink"))];
    (count.requests, count.responses)
}

#[track_caller]
fn answered(world: &mut World, frame: &[u8], verdict: Verdict, out: &[u8]) {
    world.expect(Hook::Xdp, frame, verdict, Act::SentBack, out);
}

#[track_caller]
fn left(world: &mut World, what: &str, frame: &[u8], verdict: Verdict) {
    println!("{what}");
    world.expect_untouched(Hook::Xdp, frame, verdict, Act::Pass);
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0x00, 0, 10]);
    frame
}

/// The client's question for the address, to all.
fn question() -> ArpFrame {
    ArpFrame {
        to: ALL,
        from: CLIENT_MAC,
        operation: 1,
        sender: CLIENT_MAC,
        sender_ip: CLIENT,
        target: [0; 6],
        target_ip: VIP,
    }
}

/// The node's answer to such a question.
fn answer(asked: &ArpFrame) -> ArpFrame {
    ArpFrame {
        to: CLIENT_MAC,
        from: NODE_MAC,
        operation: 2,
        sender: NODE_MAC,
        sender_ip: VIP,
        target: CLIENT_MAC,
        target_ip: asked.sender_ip,
    }
}

/// A source link-address option.
fn link(mac: [u8; 6]) -> Vec<u8> {
    [&[1, 1], &mac[..]].concat()
}

/// A neighbour solicitation, by what may be wrong with it.
struct Solicitation {
    eth_dst: [u8; 6],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    hops: u8,
    kind: u8,
    code: u8,
    target: Ipv6Addr,
    options: Vec<u8>,
    /// By how much the checksum is off.
    error: u16,
    /// By how many bytes the message is too short.
    short: usize,
}

impl Default for Solicitation {
    fn default() -> Self {
        Self {
            eth_dst: GROUP_MAC,
            src: CLIENT6,
            dst: GROUP,
            hops: 255,
            kind: 135,
            code: 0,
            target: VIP6,
            options: link(CLIENT_MAC),
            error: 0,
            short: 0,
        }
    }
}

impl Solicitation {
    fn bytes(&self) -> Vec<u8> {
        let mut body = [&self.target.octets()[..], &self.options].concat();
        body.truncate(body.len() - self.short);
        let kind = (self.kind, self.code, [0; 4]);
        let mut bytes = message(
            [self.eth_dst, CLIENT_MAC],
            [self.src, self.dst],
            self.hops,
            kind,
            &body,
        );
        let sum = u16::from_be_bytes([bytes[56], bytes[57]]).wrapping_add(self.error);
        bytes[56..58].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// The node's answer, with these flags.
fn advertisement(eth_dst: [u8; 6], dst: Ipv6Addr, flags: u8) -> Vec<u8> {
    let body = [&VIP6.octets()[..], &[2, 1], &NODE_MAC].concat();
    let kind = (136, 0, [flags, 0, 0, 0]);
    message([eth_dst, NODE_MAC], [VIP6, dst], 255, kind, &body)
}

/// An ICMPv6 message of this type, code and word, its checksum computed from scratch.
fn message(
    link: [[u8; 6]; 2],
    [src, dst]: [Ipv6Addr; 2],
    hops: u8,
    (type_u8, code_u8, bytes5to8): (u8, u8, [u8; 4]),
    body: &[u8],
) -> Vec<u8> {
    let kind = Icmpv6Type::Unknown {
        type_u8,
        code_u8,
        bytes5to8,
    };
    let icmp = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), body).unwrap();
    let ip = Ipv6Header {
        payload_length: (8 + body.len()) as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: hops,
        source: src.octets(),
        destination: dst.octets(),
        ..Ipv6Header::default()
    };
    [
        &link.concat()[..],
        &[0x86, 0xdd],
        &ip.to_bytes(),
        &icmp.to_bytes(),
        body,
    ]
    .concat()
}
