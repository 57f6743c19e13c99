//! Packets that are left to the stack or dropped, each untouched.

use std::net::Ipv4Addr;

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{CLIENT_MAC, NODE_MAC, SYN, ping, tcp, udp},
    world::{Act, CLIENT, POD, REMOTE, VIP, World, interface, service},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "the host's other traffic passes",
            run: || {
                let node = "192.168.56.101:22";
                row(&tcp(CLIENT, node, SYN).bytes(), Verdict::NotOurs, Act::Pass);
                row(
                    &udp(CLIENT, "10.244.1.2:53", b"x").bytes(),
                    Verdict::NotOurs,
                    Act::Pass,
                );
            },
        },
        Case {
            name: "what is not IP passes",
            run: || {
                let mut arp = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
                arp[12..14].copy_from_slice(&[0x08, 0x06]);
                row(&arp, Verdict::NotIp, Act::Pass);
            },
        },
        Case {
            name: "headers that are not read yet pass: IPv6, VLAN tags",
            run: || {
                for ethertype in [[0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8]] {
                    let mut frame = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
                    frame[12..14].copy_from_slice(&ethertype);
                    row(&frame, Verdict::Unparsed, Act::Pass);
                }
            },
        },
        Case {
            name: "frames that end within their headers pass, whatever they claim",
            run: truncated,
        },
        Case {
            name: "frames for another machine pass",
            run: || {
                let other = [0x02, 0, 0, 0, 0, 0x77];
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).link(CLIENT_MAC, other);
                row(&packet.bytes(), Verdict::OtherHost, Act::Pass);
                let everyone = tcp(CLIENT, "192.168.56.11:80", SYN).link(CLIENT_MAC, [0xff; 6]);
                row(&everyone.bytes(), Verdict::OtherHost, Act::Pass);
            },
        },
        Case {
            name: "a VIP of the host itself: only the services' ports are taken",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.101:80"], &[POD])]);
                let node = Ipv4Addr::new(192, 168, 56, 101);
                for frame in [
                    tcp(CLIENT, "192.168.56.101:22", SYN).bytes(),
                    udp(CLIENT, "192.168.56.101:80", b"x").bytes(),
                    ping(Ipv4Addr::new(192, 168, 56, 1), node),
                ] {
                    world.expect_untouched(Hook::Xdp, &frame, Verdict::HostPort, Act::Pass);
                }
                let packet = tcp(CLIENT, "192.168.56.101:80", SYN);
                crate::forward::local(&mut world, &packet, &packet.clone().to(POD));
            },
        },
        Case {
            name: "TTL at its end: the stack answers, and no turn is taken",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD, REMOTE])]);
                for ttl in [0, 1] {
                    let packet = tcp(CLIENT, "192.168.56.11:80", SYN).ttl(ttl);
                    world.expect_untouched(
                        Hook::Xdp,
                        &packet.bytes(),
                        Verdict::TtlExpired,
                        Act::Pass,
                    );
                }
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).ttl(2);
                crate::forward::local(&mut world, &packet, &packet.clone().to(POD));
            },
        },
        Case {
            name: "another port of a VIP is dropped",
            run: || {
                let other = tcp(CLIENT, "192.168.56.11:81", SYN);
                row(&other.bytes(), Verdict::VipPort, Act::Drop);
                let other = udp(CLIENT, "192.168.56.11:80", b"x");
                row(&other.bytes(), Verdict::VipPort, Act::Drop);
            },
        },
        Case {
            name: "other protocols to a VIP are dropped",
            run: || {
                let vip: Ipv4Addr = VIP.parse().unwrap();
                let frame = ping(Ipv4Addr::new(192, 168, 56, 1), vip);
                row(&frame, Verdict::VipProtocol, Act::Drop);
            },
        },
        Case {
            name: "fragments to a VIP are dropped, the first ones too",
            run: || {
                for (flags, offset) in [(0x20, 0), (0x20, 100), (0x00, 100)] {
                    let mut frame = udp(CLIENT, "192.168.56.11:80", &[7; 64]).bytes();
                    frame[20..22].copy_from_slice(&[flags, offset]);
                    row(&frame, Verdict::VipFragment, Act::Drop);
                }
            },
        },
        Case {
            name: "no route to the backend",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &["203.0.113.9:80"])]);
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::NoRoute, Act::Drop);
            },
        },
        Case {
            name: "a backend behind an interface that Naru is not attached to",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &["10.9.0.9:80"])]);
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::NoDevice, Act::Drop);
            },
        },
        Case {
            name: "an interface that does not forward",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &[REMOTE])]);
                world.ingress = interface("still");
                let packet = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::ForwardingOff, Act::Drop);
            },
        },
        Case {
            name: "larger than the MTU towards the backend",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &[REMOTE])]);
                // To XDP it might be several packets put together; TC knows.
                let packet = udp(CLIENT, "192.168.56.11:53", &[7; 1600]).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::HandedOver, Act::Pass);
                let hook = Hook::TcIngress;
                world.expect_untouched(hook, &packet, Verdict::TooBig, Act::Drop);
                let fits = udp(CLIENT, "192.168.56.11:53", &[7; 1472]);
                world.forwarded(&fits, Verdict::ForwardNat);
            },
        },
    ]
}

/// One packet in a world with one service of one local pod.
#[track_caller]
fn row(frame: &[u8], verdict: Verdict, act: Act) {
    let mut world = World::new(&[service(&["192.168.56.11:80"], &[POD])]);
    world.expect_untouched(Hook::Xdp, frame, verdict, act);
}

fn truncated() {
    let mut world = World::new(&[
        service(&["192.168.56.11:80"], &[POD]),
        service(&["192.168.56.11:53/udp"], &[POD]),
    ]);
    let tcp = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
    let udp = udp(CLIENT, "192.168.56.11:53", b"").bytes();
    // The kernel takes no test frame below the length of an Ethernet header.
    for (frame, headers) in [(&tcp, 54), (&udp, 42)] {
        for len in 14..headers {
            world.expect_untouched(Hook::Xdp, &frame[..len], Verdict::Truncated, Act::Pass);
        }
    }
    for (at, value, why) in [
        (14, 0x65, "version 6 in an IPv4 header"),
        (14, 0x44, "a header of 16 bytes"),
        (14, 0x4f, "options beyond the end"),
        (17, 39, "total length before the end of the headers"),
    ] {
        let mut frame = tcp.clone();
        frame[at] = value;
        println!("{why}");
        world.expect_untouched(Hook::Xdp, &frame, Verdict::Truncated, Act::Pass);
    }
    assert_eq!(tcp[..6], NODE_MAC);
}
