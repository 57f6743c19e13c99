//! Packets that are left to the stack or dropped, each untouched.

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{CLIENT_MAC, NODE_MAC, SYN, ping, tcp, udp},
    world::{Act, CLIENT, CLIENT6, POD, REMOTE, World, frontend, interface, service},
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
            name: "a cluster IP is for sockets alone: packets to it pass",
            run: || {
                let mut both = service(&["192.168.56.11:80"], &[POD]);
                both.cluster = ["10.96.0.1:80", "[fd00:96::1]:80"].map(frontend).into();
                let mut world = World::new(&[both]);
                for frame in [
                    tcp(CLIENT, "10.96.0.1:80", SYN).bytes(),
                    tcp(CLIENT, "10.96.0.1:81", SYN).bytes(),
                    tcp(CLIENT6, "[fd00:96::1]:80", SYN).bytes(),
                    ping("192.168.56.1", "10.96.0.1"),
                ] {
                    world.expect_untouched(Hook::Xdp, &frame, Verdict::NotOurs, Act::Pass);
                }
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
            name: "frames that end within their headers pass, whatever they claim",
            run: truncated,
        },
        Case {
            name: "lengths that contradict each other are dropped at a VIP, each with its counter",
            run: inconsistent,
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
                for frame in [
                    tcp(CLIENT, "192.168.56.101:22", SYN).bytes(),
                    udp(CLIENT, "192.168.56.101:80", b"x").bytes(),
                    ping("192.168.56.1", "192.168.56.101"),
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
                let mut frame = udp(CLIENT, "192.168.56.11:80", &[7; 64]).bytes();
                // GRE.
                frame[23] = 47;
                row(&frame, Verdict::VipProtocol, Act::Drop);
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
        service(&["[fd00::11]:80"], &["[fd00:1::2]:3000"]),
    ]);
    let tcp4 = tcp(CLIENT, "192.168.56.11:80", SYN).bytes();
    let tcp6 = tcp("[fd00::1]:40000", "[fd00::11]:80", SYN).bytes();
    // The kernel takes no test frame below the length of an Ethernet header.
    for (frame, network, headers) in [(&tcp4, 34, 54), (&tcp6, 54, 74)] {
        for len in 14..headers {
            let verdict = if len < network {
                Verdict::Truncated
            } else {
                Verdict::BadLength
            };
            world.expect_untouched(Hook::Xdp, &frame[..len], verdict, Act::Pass);
        }
    }
    for (at, value, verdict, why) in [
        (14, 0x65, Verdict::BadHeader, "version 6 in an IPv4 header"),
        (14, 0x44, Verdict::BadHeader, "a header of 16 bytes"),
        (14, 0x4f, Verdict::BadLength, "options beyond the end"),
        (
            17,
            19,
            Verdict::BadLength,
            "a total length below the header's",
        ),
        (
            17,
            41,
            Verdict::BadLength,
            "a total length beyond the frame",
        ),
    ] {
        let mut frame = tcp4.clone();
        frame[at] = value;
        println!("{why}");
        world.expect_untouched(Hook::Xdp, &frame, verdict, Act::Pass);
    }
    assert_eq!(tcp4[..6], NODE_MAC);
}

/// Lengths within the packet that contradict each other, for a VIP and for the host.
fn inconsistent() {
    let mut world = World::new(&[
        service(&["192.168.56.11:80"], &[POD]),
        service(&["192.168.56.11:53/udp"], &[POD]),
    ]);
    let segment = |to| tcp(CLIENT, to, SYN).payload(b"four").bytes();
    let datagram = |to| udp(CLIENT, to, b"four").bytes();
    for (at, value, verdict, why) in [
        (46, 0x40, Verdict::BadTcp, "a TCP header of 16 bytes"),
        (
            46,
            0x70,
            Verdict::BadTcp,
            "a TCP header beyond the packet's end",
        ),
        (
            17,
            39,
            Verdict::Short,
            "a packet that ends within the TCP header",
        ),
    ] {
        println!("{why}");
        let mut frame = segment("192.168.56.11:80");
        frame[at] = value;
        world.expect_untouched(Hook::Xdp, &frame, verdict, Act::Drop);
        let mut frame = segment("192.168.56.101:80");
        frame[at] = value;
        world.expect_untouched(Hook::Xdp, &frame, Verdict::NotOurs, Act::Pass);
    }
    for (at, value, verdict, why) in [
        (39, 7, Verdict::BadUdp, "a UDP length below its header's"),
        (
            39,
            13,
            Verdict::BadUdp,
            "a UDP length beyond the packet's end",
        ),
        (
            17,
            27,
            Verdict::Short,
            "a packet that ends within the UDP header",
        ),
    ] {
        println!("{why}");
        let mut frame = datagram("192.168.56.11:53");
        frame[at] = value;
        world.expect_untouched(Hook::Xdp, &frame, verdict, Act::Drop);
    }
}
