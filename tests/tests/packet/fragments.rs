//! Fragments: the first has the ports, the others follow it.

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{CLIENT_MAC, NODE_MAC, Packet, REMOTE_MAC, SYN, tcp, udp},
    world::{Act, CLIENT, CLIENT6, POD, POD6, REMOTE, World, service},
};

const DNS: &str = "192.168.56.11:53";
const DNS6: &str = "[fd00::11]:53";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "a datagram of 8,000 bytes in fragments reaches one pod, and so does the answer",
            run: || {
                let mut world = World::new(&[
                    service(&["192.168.56.11:53/udp"], &[POD, "10.244.1.3:3000"]),
                    service(&["[fd00::11]:53/udp"], &[POD6, "[fd00:1::3]:3000"]),
                ]);
                for (client, vip, pod) in [(CLIENT, DNS, POD), (CLIENT6, DNS6, POD6)] {
                    let whole = udp(client, vip, &payload());
                    for (part, out) in cut(&whole, 77).iter().zip(cut(&whole.clone().to(pod), 77)) {
                        let verdict = Verdict::ForwardLocal;
                        world.expect(Hook::Xdp, part, verdict, Act::Pass, &out);
                        world.expect(Hook::TcIngress, part, verdict, Act::Pass, &out);
                    }
                    let reply = udp(pod, client, &payload()).link(NODE_MAC, CLIENT_MAC);
                    let expected = cut(&reply.clone().from(vip), 99);
                    for (part, out) in cut(&reply, 99).iter().zip(expected) {
                        let verdict = Verdict::ReplyLocal;
                        world.expect(Hook::TcEgress, part, verdict, Act::Pass, &out);
                    }
                }
            },
        },
        Case {
            name: "fragments of TCP, cut by a router, follow the connection",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD])]);
                let syn = tcp(CLIENT, "192.168.56.11:80", SYN);
                crate::forward::local(&mut world, &syn, &syn.clone().to(POD));
                let whole = tcp(CLIENT, "192.168.56.11:80", crate::frames::ACK).payload(&payload());
                for (part, out) in cut(&whole, 5).iter().zip(cut(&whole.clone().to(POD), 5)) {
                    world.expect(Hook::Xdp, part, Verdict::ForwardLocal, Act::Pass, &out);
                }
            },
        },
        Case {
            name: "fragments through nat, and back",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &[REMOTE])]);
                let whole = udp(CLIENT, DNS, &payload());
                let parts = cut(&whole, 3);
                let verdict = Verdict::ForwardNat;
                let first = world.send(Hook::Xdp, &parts[0], verdict, Act::SentBack);
                let port = u16::from_be_bytes([first[34], first[35]]);
                let source = format!("192.168.56.101:{port}");
                let out = whole
                    .from(&source)
                    .to(REMOTE)
                    .ttl(63)
                    .link(NODE_MAC, REMOTE_MAC);
                let expected = cut(&out, 3);
                assert_eq!(first, expected[0]);
                for (part, out) in parts.iter().zip(expected).skip(1) {
                    world.expect(Hook::Xdp, part, verdict, Act::SentBack, &out);
                }
                let reply = udp(REMOTE, &source, &payload()).link(REMOTE_MAC, NODE_MAC);
                let out = reply
                    .clone()
                    .from(DNS)
                    .to(CLIENT)
                    .ttl(63)
                    .link(NODE_MAC, CLIENT_MAC);
                for (part, out) in cut(&reply, 4).iter().zip(cut(&out, 4)) {
                    let verdict = Verdict::ReplyNat;
                    world.expect(Hook::Xdp, part, verdict, Act::SentBack, &out);
                }
            },
        },
        Case {
            name: "a later fragment without its first is dropped and counted, at the host it passes",
            run: || {
                let mut world = World::new(&[
                    service(&["192.168.56.11:53/udp"], &[POD]),
                    service(&["192.168.56.101:53/udp"], &[POD]),
                ]);
                let verdict = Verdict::VipFragment;
                for part in &cut(&udp(CLIENT, DNS, &payload()), 8)[1..] {
                    world.expect_untouched(Hook::Xdp, part, verdict, Act::Drop);
                }
                // Of another packet, of another client.
                let seen = cut(&udp(CLIENT, DNS, &payload()), 9);
                world.send(Hook::Xdp, &seen[0], Verdict::ForwardLocal, Act::Pass);
                for other in [
                    &cut(&udp(CLIENT, DNS, &payload()), 10)[1],
                    &cut(&udp("192.168.56.2:40000", DNS, &payload()), 9)[1],
                ] {
                    world.expect_untouched(Hook::Xdp, other, verdict, Act::Drop);
                }
                let host = &cut(&udp(CLIENT, "192.168.56.101:53", &payload()), 8)[1];
                world.expect_untouched(Hook::Xdp, host, Verdict::HostPort, Act::Pass);
            },
        },
        Case {
            name: "a first fragment that nobody serves is refused, the others dropped",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &[])]);
                let parts = cut(&udp(CLIENT, DNS, &payload()), 8);
                let verdict = Verdict::RefusedUnreachable;
                world.send(Hook::Xdp, &parts[0], verdict, Act::SentBack);
                let verdict = Verdict::VipFragment;
                world.expect_untouched(Hook::Xdp, &parts[1], verdict, Act::Drop);
            },
        },
        Case {
            name: "an IPv6 packet with a fragment header may be whole",
            run: || {
                let mut world = World::new(&[service(&["[fd00::11]:53/udp"], &[POD6])]);
                let packet = udp(CLIENT6, DNS6, b"atomic");
                let (part, out) = (&pieces(&packet, 1, 1232)[0], packet.to(POD6));
                let out = &pieces(&out, 1, 1232)[0];
                world.expect(Hook::Xdp, part, Verdict::ForwardLocal, Act::Pass, out);
            },
        },
    ]
}

/// Bytes that are told apart.
fn payload() -> Vec<u8> {
    (0..8_000_u32).map(|n| (n % 251) as u8).collect()
}

/// A packet's fragments for an MTU of 1,280.
pub(crate) fn cut(packet: &Packet, id: u32) -> Vec<Vec<u8>> {
    pieces(packet, id, 1_232)
}

/// The same with pieces of so many bytes, a multiple of eight (RFC 791, RFC 8200).
fn pieces(packet: &Packet, id: u32, size: usize) -> Vec<Vec<u8>> {
    let whole = packet.clone().may_be_cut().bytes();
    let v6 = packet.src.is_ipv6();
    let (headers, data) = whole.split_at(if v6 { 54 } else { 34 });
    let count = data.len().div_ceil(size);
    let mut frames = Vec::new();
    for (n, piece) in data.chunks(size).enumerate() {
        let more = u16::from(n + 1 < count);
        let at = (n * size / 8) as u16;
        let mut frame = headers.to_vec();
        if v6 {
            let len = (piece.len() + 8) as u16;
            frame[18..20].copy_from_slice(&len.to_be_bytes());
            let protocol = std::mem::replace(&mut frame[20], 44);
            frame.extend([protocol, 0]);
            frame.extend((at << 3 | more).to_be_bytes());
            frame.extend(id.to_be_bytes());
        } else {
            let mut header = etherparse::Ipv4Header::from_slice(&headers[14..])
                .unwrap()
                .0;
            header.identification = id as u16;
            header.more_fragments = more == 1;
            header.fragment_offset = at.try_into().unwrap();
            header.set_payload_len(piece.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            frame[14..34].copy_from_slice(&header.to_bytes());
        }
        frame.extend(piece);
        frames.push(frame);
    }
    frames
}
