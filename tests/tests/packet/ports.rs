//! Ports that `nat` flows come from: who has one, and who makes room where there is none.

use std::{collections::BTreeSet, net::SocketAddr, thread, time::Duration};

use lb_common::{Hook, Verdict};
use naru::desired::Snat;

use crate::{
    Case,
    frames::{ACK, FIN, NODE_MAC, REMOTE_MAC, RST, SYN, tcp, udp},
    world::{Act, REMOTE, World, service},
};

const VIP: &str = "192.168.56.11:80";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "nat: no free port towards the backend",
            run: || {
                let mut world = four_ports(VIP);
                let sources: Vec<_> = (0..4).map(|n| established(&mut world, n)).collect();
                for (n, source) in sources.iter().enumerate() {
                    assert!(
                        !sources[..n].contains(source),
                        "{source} is given out twice"
                    );
                }
                none_is_left(&mut world, 4);
                // One that is closed by FIN gives its port back only where no other is free:
                // the backend may be in TIME_WAIT. One that is reset gives it back at once.
                from_backend(&mut world, sources[1], FIN | ACK);
                request(&mut world, 1, FIN | ACK);
                from_backend(&mut world, sources[2], RST);
                assert_eq!(established(&mut world, 4), sources[2]);
                assert_eq!(established(&mut world, 5), sources[1]);
                none_is_left(&mut world, 6);
            },
        },
        Case {
            name: "nat: in a flood there are ports, and connections keep theirs",
            run: || {
                let mut world = four_ports(VIP);
                let kept = established(&mut world, 0);
                for n in 1..40 {
                    assert_ne!(request(&mut world, n, SYN), kept, "flow {n}");
                }
                assert_eq!(request(&mut world, 0, ACK), kept);
                // Who made room is forgotten: else it had its say in another's connection.
                let ack = tcp(&client(1), VIP, ACK).bytes();
                world.send(Hook::Xdp, &ack, Verdict::RefusedReset, Act::SentBack);
                established(&mut world, 1);
            },
        },
        Case {
            name: "nat: who has been silent makes room before who has just begun",
            run: || {
                let mut world = four_ports(VIP);
                for round in 0..3 {
                    // All four are taken from who had them before, and none from who has just got it.
                    let clients = 4 * round..4 * (round + 1);
                    let taken = clients.map(|n| request(&mut world, n, SYN));
                    assert_eq!(taken.collect::<BTreeSet<_>>().len(), 4, "round {round}");
                    // More than two ticks.
                    thread::sleep(Duration::from_secs(4));
                }
            },
        },
        Case {
            name: "nat: a question that was answered makes room, one that goes on does not",
            run: || {
                let mut world = four_ports("192.168.56.11:53/udp");
                let kept = question(&mut world, 0);
                assert_eq!(question(&mut world, 0), kept);
                for n in 1..40 {
                    assert_ne!(question(&mut world, n), kept, "flow {n}");
                }
                assert_eq!(question(&mut world, 0), kept);
            },
        },
    ]
}

/// A service whose backend sees clients by four ports.
fn four_ports(frontend: &str) -> World {
    World::with_snat(
        &[service(&[frontend], &[REMOTE])],
        Snat::shared([192, 168, 56, 101].into(), 61_001..=61_004),
    )
}

fn client(n: u16) -> String {
    format!("192.168.56.1:{}", 40_000 + n)
}

/// A segment of client `n`; gives where the backend sees it come from.
#[track_caller]
fn request(world: &mut World, n: u16, flags: u8) -> SocketAddr {
    let packet = tcp(&client(n), VIP, flags);
    world.forwarded(&packet, Verdict::ForwardNat).0
}

/// A segment of the backend to whom it sees as `source`.
#[track_caller]
fn from_backend(world: &mut World, source: SocketAddr, flags: u8) {
    let packet = tcp(REMOTE, &source.to_string(), flags).link(REMOTE_MAC, NODE_MAC);
    world.send(Hook::Xdp, &packet.bytes(), Verdict::ReplyNat, Act::SentBack);
}

/// The handshake of client `n`; gives where the backend sees it come from.
#[track_caller]
fn established(world: &mut World, n: u16) -> SocketAddr {
    let source = request(world, n, SYN);
    from_backend(world, source, SYN | ACK);
    assert_eq!(request(world, n, ACK), source);
    source
}

/// Nobody makes room for client `n`.
#[track_caller]
fn none_is_left(world: &mut World, n: u16) {
    let syn = tcp(&client(n), VIP, SYN).bytes();
    world.expect_untouched(Hook::Xdp, &syn, Verdict::PortsExhausted, Act::Drop);
}

/// A datagram of client `n`, and its answer; gives where the backend sees it come from.
#[track_caller]
fn question(world: &mut World, n: u16) -> SocketAddr {
    let query = udp(&client(n), "192.168.56.11:53", b"query");
    let (source, _) = world.forwarded(&query, Verdict::ForwardNat);
    let answer = udp(REMOTE, &source.to_string(), b"answer").link(REMOTE_MAC, NODE_MAC);
    world.send(Hook::Xdp, &answer.bytes(), Verdict::ReplyNat, Act::SentBack);
    source
}
