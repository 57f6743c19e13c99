//! Refusals: what a client gets where nobody serves it.

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{ACK, CLIENT_MAC, FIN, NODE_MAC, PSH, Packet, RST, SYN, port_unreachable, tcp, udp},
    world::{Act, CLIENT, POD, World, service},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "SYN without a backend: RST that acknowledges it",
            run: || {
                let mut world = empty();
                for (flags, payload, occupied) in [
                    (SYN, &b""[..], 1),
                    (SYN, b"fast open", 10),
                    (SYN | FIN, b"", 2),
                    (0, b"null", 4),
                    (FIN | PSH, b"xmas", 5),
                ] {
                    let packet = tcp(CLIENT, "192.168.56.11:80", flags).payload(payload);
                    let reset = answer()
                        .flags(RST | ACK)
                        .numbers(0, 0x0102_0304 + occupied, 0);
                    refused(&mut world, &packet, &reset);
                }
            },
        },
        Case {
            name: "ACK without a backend: RST at the number it expects",
            run: || {
                let mut world = empty();
                for flags in [ACK, ACK | PSH, ACK | FIN, SYN | ACK] {
                    let packet = tcp(CLIENT, "192.168.56.11:80", flags).payload(b"data");
                    let reset = answer().flags(RST).numbers(0x0a0b_0c0d, 0, 0);
                    refused(&mut world, &packet, &reset);
                }
            },
        },
        Case {
            name: "RST of a segment with IP options has none",
            run: || {
                let mut world = empty();
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN)
                    .options(&[1; 40])
                    .payload(b"four");
                let reset = answer().flags(RST | ACK).numbers(0, 0x0102_0304 + 1 + 4, 0);
                refused(&mut world, &packet, &reset);
            },
        },
        Case {
            name: "UDP without a backend: port unreachable that quotes it",
            run: || {
                let mut world = empty();
                for (options, payload) in [(0, 0), (0, 1), (0, 1400), (4, 9), (40, 9)] {
                    let packet = udp(CLIENT, "192.168.56.11:53", &vec![7; payload])
                        .options(&vec![1; options]);
                    let out = port_unreachable(&packet, 20 + options + 8);
                    let verdict = Verdict::RefusedUnreachable;
                    world.expect(Hook::Xdp, &packet.bytes(), verdict, Act::SentBack, &out);
                }
            },
        },
        Case {
            name: "TC refuses as XDP does",
            run: || {
                let mut world = empty();
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN)
                    .payload(b"data")
                    .bytes();
                let reset = answer()
                    .flags(RST | ACK)
                    .numbers(0, 0x0102_0304 + 5, 0)
                    .bytes();
                let verdict = Verdict::RefusedReset;
                world.expect(Hook::TcIngress, &packet, verdict, Act::SentOn, &reset);
                let packet = udp(CLIENT, "192.168.56.11:53", b"query");
                let out = port_unreachable(&packet, 28);
                let verdict = Verdict::RefusedUnreachable;
                world.expect(Hook::TcIngress, &packet.bytes(), verdict, Act::SentOn, &out);
            },
        },
        Case {
            name: "an RST is never answered, nor what comes from no single host",
            run: || {
                let mut world = empty();
                for packet in [
                    tcp(CLIENT, "192.168.56.11:80", RST),
                    tcp(CLIENT, "192.168.56.11:80", RST | ACK),
                    tcp("224.0.0.5:4000", "192.168.56.11:80", SYN),
                    tcp("255.255.255.255:4000", "192.168.56.11:80", SYN),
                    tcp("0.0.0.0:4000", "192.168.56.11:80", SYN),
                    tcp("127.0.0.1:4000", "192.168.56.11:80", SYN),
                    udp("239.1.2.3:4000", "192.168.56.11:53", b"x"),
                ] {
                    world.expect_untouched(
                        Hook::Xdp,
                        &packet.bytes(),
                        Verdict::RefusalSuppressed,
                        Act::Drop,
                    );
                }
            },
        },
        Case {
            name: "refusals are limited for every CPU",
            run: || {
                let mut world = empty();
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
                let refuse = |world: &mut World| {
                    let out = world.datapath.test_run(Hook::Xdp, &packet, world.ingress);
                    out.unwrap().action != 1
                };
                // Each CPU may send ten more. Where the next second begins meanwhile, again.
                let left = 10;
                let many = left * aya::util::nr_cpus().unwrap() as u32 + 1;
                let mut refused = 0;
                let limited = (0..10).find_map(|_| {
                    refused += u32::from(refuse(&mut world));
                    world.datapath.leave_refusals(left);
                    let sent = (0..many).filter(|_| refuse(&mut world)).count() as u32;
                    refused += sent;
                    assert!(sent >= left, "{sent} of {left} were sent");
                    (sent < many).then(|| many - sent)
                });
                let limited = limited.expect("a limit");
                let verdicts = world.datapath.verdicts().unwrap();
                let count = |wanted| {
                    let rows = verdicts.iter().filter(|(_, verdict, _)| *verdict == wanted);
                    rows.map(|(_, _, count)| count.packets).sum::<u64>()
                };
                assert_eq!(count(Verdict::RefusalLimited), u64::from(limited));
                assert_eq!(count(Verdict::RefusedReset), u64::from(refused));
                crate::SEEN.lock().unwrap().insert(Verdict::RefusalLimited);
            },
        },
        Case {
            name: "round robin does not know whose segment this is: RST",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD])]);
                let stray = tcp(CLIENT, "192.168.56.11:80", ACK);
                let reset = answer().flags(RST).numbers(0x0a0b_0c0d, 0, 0);
                refused(&mut world, &stray, &reset);
            },
        },
    ]
}

fn empty() -> World {
    World::new(&[
        service(&["192.168.56.11:80"], &[]),
        service(&["192.168.56.11:53/udp"], &[]),
    ])
}

/// A segment from the VIP to the client.
fn answer() -> Packet {
    tcp("192.168.56.11:80", CLIENT, 0).link(NODE_MAC, CLIENT_MAC)
}

#[track_caller]
fn refused(world: &mut World, packet: &Packet, answer: &Packet) {
    world.expect(
        Hook::Xdp,
        &packet.bytes(),
        Verdict::RefusedReset,
        Act::SentBack,
        &answer.bytes(),
    );
}
