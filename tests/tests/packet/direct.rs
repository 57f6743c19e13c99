//! Connections to and from backends that come by no frontend: they are left alone.

use lb_common::{Hook, Verdict};

use crate::{
    Case,
    frames::{ACK, FIN, PSH, Packet, RST, SYN, tcp, udp},
    primaries::{left_alone, restored},
    sides::{Side, V4, V6, maglev},
    world::{Act, World},
};

/// A client's packet to a pod's own address, which passes as it is.
#[track_caller]
fn passes(world: &mut World, hook: Hook, packet: &Packet) {
    let bytes = packet.bytes();
    world.expect_untouched(hook, &bytes, Verdict::NotOurs, Act::Pass);
}

/// A client's segment to a pod's own address.
fn to_pod(side: &Side, n: u16, flags: u8) -> Packet {
    tcp(&side.client(n), side.pods[0], flags)
}

fn world(side: &Side) -> World {
    World::new(&[maglev(&[side.vip], &side.pods[..1])]).settled()
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "direct: a connection to a pod's own address stays as it is",
            run: || {
                for side in [V4, V6] {
                    let mut world = world(&side);
                    // TC sees it after XDP has.
                    let passes = |world: &mut World, flags| {
                        for hook in [Hook::Xdp, Hook::TcIngress] {
                            passes(world, hook, &to_pod(&side, 0, flags));
                        }
                    };
                    passes(&mut world, SYN);
                    for flags in [SYN | ACK, ACK | PSH, FIN | ACK] {
                        left_alone(&mut world, side.pods[0], &side.client(0), flags);
                        passes(&mut world, ACK);
                    }
                    assert_eq!((world.direct(), world.recorded()), (1, (0, 0)));
                    // Another client's is none of these.
                    world.served(&side.segment(1, SYN));
                    restored(&mut world, side.pods[0], &side.client(1), side.vip);
                }
            },
        },
        Case {
            name: "direct: what XDP sent to the pod is not taken for one where TC sees it",
            run: || {
                for side in [V4, V6] {
                    let mut world = world(&side);
                    for flags in [SYN, ACK] {
                        assert_eq!(world.served(&side.segment(0, flags)), side.pods[0]);
                        passes(&mut world, Hook::TcIngress, &to_pod(&side, 0, flags));
                    }
                    assert_eq!(world.direct(), 0);
                    restored(&mut world, side.pods[0], &side.client(0), side.vip);
                }
            },
        },
        Case {
            name: "direct: by the same ports as a connection by the VIP, before it and after it",
            run: || {
                for side in [V4, V6] {
                    let mut world = world(&side);
                    let (pod, client) = (side.pods[0], side.client(0));
                    for _ in 0..2 {
                        passes(&mut world, Hook::Xdp, &to_pod(&side, 0, SYN));
                        left_alone(&mut world, pod, &client, SYN | ACK);
                        assert_eq!(world.direct(), 1);
                        assert_eq!(world.served(&side.segment(0, SYN)), pod);
                        assert_eq!(world.direct(), 0, "a SYN by the VIP forgets it");
                        restored(&mut world, pod, &client, side.vip);
                        assert_eq!(world.served(&side.segment(0, ACK)), pod);
                        assert_eq!(world.direct(), 0);
                    }
                    // What the pod still sends belongs to the later one.
                    passes(&mut world, Hook::Xdp, &to_pod(&side, 0, SYN));
                    left_alone(&mut world, pod, &client, ACK);
                }
            },
        },
        Case {
            name: "direct: a sweep forgets those that are over or were silent for a day",
            run: || {
                for side in [V4, V6] {
                    let mut world = world(&side);
                    for n in 0..4 {
                        for flags in [SYN, ACK] {
                            passes(&mut world, Hook::Xdp, &to_pod(&side, n, flags));
                        }
                    }
                    passes(&mut world, Hook::Xdp, &to_pod(&side, 4, SYN));
                    passes(&mut world, Hook::Xdp, &to_pod(&side, 3, RST));
                    // Its last acknowledgement comes after that.
                    for flags in [FIN | ACK, ACK] {
                        passes(&mut world, Hook::Xdp, &to_pod(&side, 2, flags));
                    }
                    let left = |seconds| {
                        world.direct_were_silent(seconds);
                        world.datapath.sweeper().unwrap().sweep().unwrap();
                        world.direct()
                    };
                    assert_eq!(left(0), 5);
                    assert_eq!(left(20), 4, "the reset one is gone");
                    assert_eq!(left(50), 3, "and the one that never got an answer");
                    assert_eq!(left(3_500), 3, "one ended, but its backend may go on");
                    assert_eq!(left(200), 2);
                    assert_eq!(left(80_000), 2);
                    left_alone(&mut world, side.pods[0], &side.client(0), ACK);
                    passes(&mut world, Hook::Xdp, &to_pod(&side, 0, ACK));
                    world.direct_were_silent(30_000);
                    world.datapath.sweeper().unwrap().sweep().unwrap();
                    assert_eq!(world.direct(), 1, "it has sent something since");
                    left_alone(&mut world, side.pods[0], &side.client(0), ACK);
                }
            },
        },
        Case {
            name: "direct: a pod that opens connections from the port that it serves is left alone",
            run: || {
                for side in [V4, V6] {
                    let mut world = world(&side);
                    let (pod, peer) = (side.pods[0], side.client(7));
                    for flags in [SYN, ACK, ACK | PSH, FIN | ACK] {
                        left_alone(&mut world, pod, &peer, flags);
                        passes(&mut world, Hook::Xdp, &to_pod(&side, 7, ACK));
                    }
                    assert_eq!((world.direct(), world.recorded()), (1, (0, 0)));
                }
            },
        },
        Case {
            name: "direct: connections from before there was a service are left alone",
            run: || {
                for side in [V4, V6] {
                    let mut world = World::new(&[]);
                    passes(&mut world, Hook::Xdp, &to_pod(&side, 0, ACK));
                    left_alone(&mut world, side.pods[0], &side.client(0), ACK);
                    world.change(&[maglev(&[side.vip], &side.pods[..1])]);
                    // Nothing has been seen of it yet, but this is the window to wait in.
                    left_alone(&mut world, side.pods[0], &side.client(0), ACK | PSH);
                    // By then it is known, if its client says anything.
                    passes(&mut world, Hook::Xdp, &to_pod(&side, 0, ACK));
                    left_alone(&mut world, side.pods[0], &side.client(0), ACK | PSH);
                    // A new one by the VIP is recorded, and restored by that.
                    world.served(&side.segment(1, SYN));
                    restored(&mut world, side.pods[0], &side.client(1), side.vip);
                    assert_eq!(world.recorded(), (1, 1));
                    world.window_passes();
                    left_alone(&mut world, side.pods[0], &side.client(0), ACK | PSH);
                    world.served(&side.segment(2, SYN));
                    restored(&mut world, side.pods[0], &side.client(2), side.vip);
                    assert_eq!(world.recorded(), (1, 1));
                }
            },
        },
        Case {
            name: "direct: only what would be taken for the VIP's is noted, and never by a dry run",
            run: || {
                let services = [
                    maglev(&[V4.vip], &V4.pods[..1]),
                    maglev(&["192.168.56.11:80/udp"], &V4.pods[..1]),
                ];
                let mut world = World::new(&services).settled();
                let client = V4.client(0);
                for packet in [
                    tcp(&client, "10.244.1.2:3001", SYN),
                    tcp(&client, "10.244.1.3:3000", SYN),
                    udp(&client, V4.pods[0], b"query"),
                ] {
                    passes(&mut world, Hook::Xdp, &packet);
                }
                assert_eq!(world.direct(), 0);
                let ingress = world.ingress;
                let packet = to_pod(&V4, 0, SYN).bytes();
                let told = world.datapath.explain_frame(&packet, ingress).unwrap();
                assert_eq!((told.verdict, world.direct()), (Verdict::NotOurs, 0));
                // Nor does it forget.
                passes(&mut world, Hook::Xdp, &to_pod(&V4, 0, SYN));
                world.would_serve(&V4.segment(0, SYN));
                assert_eq!(world.direct(), 1);
                // From the port of no service, the pod is nobody's backend.
                left_alone(&mut world, "10.244.1.2:3001", &client, ACK);
            },
        },
    ]
}
