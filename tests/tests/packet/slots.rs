//! Maglev flows without records: where they go while nothing changes, within the drain window
//! of a change, and after it.

use std::{collections::BTreeSet, time::Duration};

use lb_common::{Algorithm, Hook, Mode, Verdict};
use naru::desired::Service;

use crate::{
    Case,
    frames::{ACK, FIN, SYN, tcp, udp},
    primaries::restored,
    sides::{FLOWS, Side, V4, V6, all, maglev},
    world::{Act, World},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "settled: all packets of a connection go one way, here or there, unrecorded",
            run: || {
                for side in [V4, V6] {
                    let backends = [side.pods[0], side.there[0], side.there[1]];
                    let mut world = World::new(&[maglev(&[side.vip], &backends)]).settled();
                    let began = all(&mut world, &side, SYN);
                    assert_eq!(began.iter().collect::<BTreeSet<_>>().len(), 3);
                    assert_eq!(all(&mut world, &side, ACK), began);
                    assert_eq!(all(&mut world, &side, FIN | ACK), began);
                    assert_eq!(world.recorded(), (0, 0));
                    let stats = world.datapath.service_stats(0).unwrap();
                    let (begun, packets) = (u64::from(FLOWS), 3 * u64::from(FLOWS));
                    assert_eq!((stats.flows, stats.packets_in), (begun, packets));
                }
            },
        },
        Case {
            name: "settled: UDP to other nodes is unrecorded, to a pod here it is recorded",
            run: || {
                let backends = [V4.pods[0], V4.there[0]];
                let service = maglev(&["192.168.56.11:80/udp"], &backends);
                let mut world = World::new(&[service]).settled();
                let query = |n| udp(&V4.client(n), V4.vip, b"query");
                let began: Vec<_> = (0..FLOWS).map(|n| world.served(&query(n))).collect();
                let again: Vec<_> = (0..FLOWS).map(|n| world.served(&query(n))).collect();
                assert_eq!(again, began);
                let here = began.iter().filter(|it| *it == V4.pods[0]).count();
                assert!(here > 0 && here < began.len());
                assert_eq!(world.recorded(), (here, here));
            },
        },
        Case {
            name: "settled: what goes by nat is recorded, and so is all of a service with affinity",
            run: || {
                let nat = Service {
                    elsewhere: Mode::Nat,
                    ..maglev(&[V4.vip], &["192.168.56.102:3000"])
                };
                let affine = Service {
                    affinity: Some(Duration::from_secs(600)),
                    ..maglev(&[V4.second], &V4.pods[..1])
                };
                let mut world = World::new(&[nat, affine]).settled();
                assert_eq!(world.datapath.settled(), (0, 2 * 1021));
                let verdict = Verdict::ForwardNat;
                let first = world.forwarded(&V4.segment(0, SYN), verdict);
                assert_eq!(world.forwarded(&V4.segment(0, ACK), verdict), first);
                assert_eq!(world.recorded(), (1, 1));
                world.served(&tcp(&V4.client(1), V4.second, SYN));
                assert_eq!(world.recorded(), (2, 2));
            },
        },
        Case {
            name: "changed: who sends within the window stays for good, all others go by the slot",
            run: || changed(&[V4, V6]),
        },
        Case {
            name: "changed twice in a window: connections stay where they began, in between, too",
            run: || {
                let [a, b, c] = V4.pods;
                let (leaving_a, leaving_b) = (format!("{a}!"), format!("{b}!"));
                let mut world = World::new(&[maglev(&[V4.vip], &[a])]).settled();
                assert_eq!(world.served(&V4.segment(0, SYN)), a);
                world.change(&[maglev(&[V4.vip], &[&leaving_a, b])]);
                assert_eq!(world.served(&V4.segment(1, SYN)), b);
                world.change(&[maglev(&[V4.vip], &[&leaving_a, &leaving_b, c])]);
                assert_eq!(world.served(&V4.segment(2, SYN)), c);
                for _ in 0..2 {
                    for (n, pod) in (0..).zip(V4.pods) {
                        assert_eq!(world.served(&V4.segment(n, ACK)), pod);
                    }
                    world.window_passes();
                }
            },
        },
        Case {
            name: "changed: by the ports of a connection that had a record another one begins",
            run: || {
                let [a, b, _] = V4.pods;
                let leaving = format!("{a}!");
                let mut world = World::new(&[maglev(&[V4.vip], &[a])]).settled();
                assert_eq!(world.served(&V4.segment(0, SYN)), a);
                world.change(&[maglev(&[V4.vip], &[&leaving, b])]);
                assert_eq!(world.served(&V4.segment(0, FIN | ACK)), a);
                world.window_passes();
                assert_eq!(world.served(&V4.segment(0, SYN)), b);
                assert_eq!(world.served(&V4.segment(0, ACK)), b);
            },
        },
        Case {
            name: "removed, left: what is unknown where there are turns or no pods is refused",
            run: || {
                let turns = Service {
                    algorithm: Algorithm::RoundRobin,
                    ..maglev(&[V4.vip], &V4.pods)
                };
                for service in [turns, maglev(&[V4.vip], &[])] {
                    let other = maglev(&[V4.second], &V4.pods[..1]);
                    let mut world = World::leaving(&[other, service]);
                    let packet = V4.segment(0, ACK).bytes();
                    let verdict = Verdict::RefusedReset;
                    world.send(Hook::Xdp, &packet, verdict, Act::SentBack);
                    assert_eq!(world.recorded(), (0, 0));
                }
            },
        },
        Case {
            name: "changed and back in a window: connections of the time between stay as well",
            run: there_and_back,
        },
        Case {
            name: "removed: an unrecorded connection is the current pod's to refuse",
            run: || {
                let mut world = World::new(&[maglev(&[V4.vip], &V4.pods[..1])]).settled();
                assert_eq!(world.served(&V4.segment(0, SYN)), V4.pods[0]);
                world.change(&[maglev(&[V4.vip], &V4.pods[1..2])]);
                assert_eq!(world.served(&V4.segment(0, ACK)), V4.pods[1]);
                // Of one with a record it is known that its pod is gone.
                world.change(&[maglev(&[V4.vip], &V4.pods[2..])]);
                let packet = V4.segment(0, ACK).bytes();
                let verdict = Verdict::RefusedReset;
                world.send(Hook::Xdp, &packet, verdict, Act::SentBack);
            },
        },
        Case {
            name: "removed, left: an unrecorded connection goes on with its pod, and is recorded",
            run: || {
                for side in [V4, V6] {
                    let mut world = World::leaving(&[maglev(&[side.vip], &side.pods[..1])]);
                    world.window_passes();
                    assert_eq!(world.served(&side.segment(0, SYN)), side.pods[0]);
                    world.change(&[maglev(&[side.vip], &side.pods[1..2])]);
                    for _ in 0..2 {
                        assert_eq!(world.served(&side.segment(0, ACK)), side.pods[0]);
                        assert_eq!(world.recorded().0, 1);
                        let client = side.client(0);
                        restored(&mut world, side.pods[0], &client, side.vip);
                        world.window_passes();
                    }
                    assert_eq!(world.served(&side.segment(1, ACK)), side.pods[1]);
                }
            },
        },
        Case {
            name: "UDP stays within the window where its node takes new flows, and nowhere else",
            run: || {
                let [a, b] = V4.there;
                let services = |backends: &[&str]| [maglev(&["192.168.56.11:80/udp"], backends)];
                let query = udp(&V4.client(0), V4.vip, b"query");
                for (after, stays) in [
                    ([a, b], true),
                    (["10.244.2.2:3000!", b], false),
                    (["10.244.2.2:3000?", b], false),
                    ([b, b], false),
                ] {
                    let mut world = World::new(&services(&[a])).settled();
                    let moves = |world: &mut World, n: u16| {
                        world.would_serve(&udp(&V4.client(n), V4.vip, b"query")) == b
                    };
                    assert!(!moves(&mut world, 0));
                    world.change(&services(&after));
                    if !stays {
                        assert_eq!(world.served(&query), b, "{after:?}");
                        continue;
                    }
                    for n in 0..FLOWS / 2 {
                        world.served(&udp(&V4.client(n), V4.vip, b"query"));
                        assert!(!moves(&mut world, n));
                    }
                    let kept = world.recorded().0;
                    assert!(kept > 0, "none was on a slot that changed");
                    world.window_passes();
                    assert!((0..FLOWS / 2).all(|n| !moves(&mut world, n)), "recorded");
                    assert!((FLOWS / 2..FLOWS).any(|n| moves(&mut world, n)));
                }
            },
        },
    ]
}

fn changed(sides: &[Side]) {
    for side in sides {
        let backends = [side.pods[0], side.pods[1], side.there[0]];
        let leaving = format!("{}!", side.pods[0]);
        let after = [&leaving, side.pods[1], side.pods[2], side.there[1]];
        let after = [&after[..], &[side.there[0]]].concat();
        let mut world = World::new(&[maglev(&[side.vip], &backends)]).settled();
        let began = all(&mut world, side, SYN);
        assert_eq!(world.recorded(), (0, 0));
        world.change(&[maglev(&[side.vip], &after)]);
        let would = |n| world.would_serve(&side.segment(n, SYN));
        let now: Vec<_> = (0..FLOWS).map(would).collect();
        assert!(!now.contains(&side.pods[0].to_owned()), "it takes nobody");
        let flows = || (0..FLOWS).map(usize::from);
        let moves = |n: &usize| began[*n] != now[*n];
        let moved = |rest: usize| flows().filter(moves).filter(|n| n % 3 == rest).count();
        for rest in 0..3 {
            assert!(moved(rest) > 0, "choose other ports");
        }
        // A third goes on, a third begins anew, a third is silent.
        for n in 0..FLOWS {
            let at = usize::from(n);
            match n % 3 {
                0 => assert_eq!(world.served(&side.segment(n, ACK)), began[at]),
                1 => assert_eq!(world.served(&side.segment(n, SYN)), now[at]),
                _ => {}
            }
        }
        let recorded = moved(0) + moved(1);
        assert_eq!(world.recorded().0, recorded);
        for _ in 0..2 {
            for n in 0..FLOWS {
                let at = usize::from(n);
                match n % 3 {
                    0 => assert_eq!(world.served(&side.segment(n, ACK)), began[at]),
                    1 => assert_eq!(world.served(&side.segment(n, ACK)), now[at]),
                    _ => {}
                }
            }
            world.window_passes();
        }
        for n in (2..FLOWS).step_by(3) {
            let at = usize::from(n);
            assert_eq!(world.served(&side.segment(n, ACK)), now[at], "too late");
        }
        assert_eq!(world.recorded().0, recorded, "by slots of one backend");
    }
}

fn there_and_back() {
    let [a, b, _] = V4.pods;
    let leaving = format!("{b}!");
    let mut world = World::new(&[maglev(&[V4.vip], &[a])]).settled();
    assert_eq!(world.served(&V4.segment(0, SYN)), a);
    world.change(&[maglev(&[V4.vip], &["10.244.1.2:3000!", b])]);
    assert_eq!(world.served(&V4.segment(1, SYN)), b);
    world.change(&[maglev(&[V4.vip], &[a, &leaving])]);
    for _ in 0..2 {
        assert_eq!(world.served(&V4.segment(0, ACK)), a);
        assert_eq!(world.served(&V4.segment(1, ACK)), b);
        assert_eq!(world.served(&V4.segment(2, SYN)), a);
        world.window_passes();
    }
    assert_eq!(world.recorded().0, 1);
}
