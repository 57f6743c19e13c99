//! ICMP errors about flows without a record.

use etherparse::{
    Icmpv4Type, Icmpv6Type, icmpv4::DestUnreachableHeader, icmpv6::DestUnreachableCode,
};
use lb_common::{Hook, Verdict};

use crate::{
    Case,
    errors::quote,
    frames::{ACK, CLIENT_MAC, Icmp, NODE_MAC, REMOTE_MAC, SYN, icmp, relinked, tcp},
    primaries::left_alone,
    sides::{FROM_PEER, Side, V4, V6, addr_of, maglev},
    world::{Act, World},
};

/// What this node says it is when it hands over.
const FROM_HERE: [u8; 6] = [0x6e, 0x61, 0x72, 0, 0, 0x65];

fn too_big(side: &Side) -> Icmp {
    if side.vip.starts_with('[') {
        Icmp::V6(Icmpv6Type::PacketTooBig { mtu: 1280 })
    } else {
        let header = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 };
        Icmp::V4(Icmpv4Type::DestinationUnreachable(header))
    }
}

fn unreachable(side: &Side) -> Icmp {
    if side.vip.starts_with('[') {
        let code = DestUnreachableCode::Address;
        Icmp::V6(Icmpv6Type::DestinationUnreachable(code))
    } else {
        let header = DestUnreachableHeader::Host;
        Icmp::V4(Icmpv4Type::DestinationUnreachable(header))
    }
}

/// A router's error about what frontend `from` sent to flow `n`'s client, as it goes to `to`.
fn about_reply(side: &Side, n: u16, from: &str, to: &str) -> Vec<u8> {
    let sent = tcp(from, &side.client(n), ACK).payload(&[7; 60]);
    let router = addr_of(&side.client(n));
    icmp(&router, &addr_of(to), too_big(side), &quote(&sent))
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "unrecorded: an error about a reply reaches the pod here, as about what it sent",
            run: || {
                for side in [V4, V6] {
                    let [a, b, _] = side.pods;
                    let mut world = World::new(&[maglev(&[side.vip], &[a])]).settled();
                    world.served(&side.segment(0, SYN));
                    let error = about_reply(&side, 0, side.vip, side.vip);
                    let out = about_reply(&side, 0, a, a);
                    for hook in [Hook::Xdp, Hook::TcIngress] {
                        let verdict = Verdict::ErrorLocal;
                        world.expect(hook, &error, verdict, Act::Pass, &out);
                    }
                    // As long as nothing is known of the connection, it is the former pod's.
                    let leaving = format!("{a}!");
                    world.change(&[maglev(&[side.vip], &[&leaving, b])]);
                    let verdict = Verdict::ErrorLocal;
                    world.expect(Hook::Xdp, &error, verdict, Act::Pass, &out);
                    world.served(&side.segment(1, SYN));
                    let error = about_reply(&side, 1, side.vip, side.vip);
                    let out = about_reply(&side, 1, b, b);
                    world.expect(Hook::Xdp, &error, verdict, Act::Pass, &out);
                }
            },
        },
        Case {
            name: "unrecorded: an error about a reply is handed over, and from there no further",
            run: || {
                for side in [V4, V6] {
                    let services = [maglev(&[side.vip], &side.there[..1])];
                    let mut world = World::new(&services).settled();
                    world.served(&side.segment(0, SYN));
                    let error = about_reply(&side, 0, side.vip, side.vip);
                    let error = relinked(error, CLIENT_MAC, NODE_MAC);
                    let out = relinked(error.clone(), FROM_HERE, REMOTE_MAC);
                    let verdict = Verdict::ErrorDsr;
                    world.expect(Hook::Xdp, &error, verdict, Act::SentBack, &out);
                    let error = relinked(error, FROM_PEER, NODE_MAC);
                    world.expect_untouched(Hook::Xdp, &error, Verdict::NotHere, Act::Drop);
                    // What a peer hands over is about a pod here.
                    world.change(&[maglev(&[side.vip], &side.pods[..1])]);
                    world.window_passes();
                    let out = about_reply(&side, 0, side.pods[0], side.pods[0]);
                    let out = relinked(out, FROM_PEER, NODE_MAC);
                    world.expect(Hook::Xdp, &error, Verdict::ErrorLocal, Act::Pass, &out);
                }
            },
        },
        Case {
            name: "unrecorded: errors about frontends whose flows are recorded are about no flow",
            run: || {
                let services = [maglev(&[V4.vip, V4.second], &V4.pods[..1])];
                let mut world = World::new(&services).settled();
                let error = about_reply(&V4, 0, V4.second, V4.second);
                world.expect_untouched(Hook::Xdp, &error, Verdict::VipError, Act::Drop);
                world.served(&tcp(&V4.client(0), V4.second, SYN));
                let out = about_reply(&V4, 0, V4.pods[0], V4.pods[0]);
                let verdict = Verdict::ErrorLocal;
                world.expect(Hook::Xdp, &error, verdict, Act::Pass, &out);
            },
        },
        Case {
            name: "unrecorded: an error that a pod or this node makes leaves as the VIP's",
            run: || {
                for side in [V4, V6] {
                    let pod = side.pods[0];
                    let mut world = World::new(&[maglev(&[side.vip], &[pod])]).settled();
                    let request = side.segment(0, SYN).payload(&[7; 60]);
                    world.served(&request);
                    let delivered = request.clone().to(pod);
                    let bridge = if pod.starts_with('[') {
                        "fd00:1::1"
                    } else {
                        "10.244.1.1"
                    };
                    let client = addr_of(&side.client(0));
                    for source in [&addr_of(pod)[..], bridge] {
                        let kind = unreachable(&side);
                        let error = icmp(source, &client, kind.clone(), &quote(&delivered));
                        let out = icmp(&addr_of(side.vip), &client, kind, &quote(&request));
                        let verdict = Verdict::ErrorReply;
                        world.expect(Hook::TcEgress, &error, verdict, Act::Pass, &out);
                    }
                    // One about a direct connection is left alone.
                    let direct = tcp(&side.client(1), pod, SYN);
                    let bytes = direct.bytes();
                    world.expect_untouched(Hook::Xdp, &bytes, Verdict::NotOurs, Act::Pass);
                    left_alone(&mut world, pod, &side.client(1), ACK);
                    let error = icmp(bridge, &client, unreachable(&side), &quote(&direct));
                    let verdict = Verdict::NotOurs;
                    world.expect_untouched(Hook::TcEgress, &error, verdict, Act::Pass);
                }
            },
        },
    ]
}
