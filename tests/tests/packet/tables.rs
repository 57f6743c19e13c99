//! What becomes of unrecorded flows where a service gets another table, where records are swept,
//! and where the agent starts anew.

use std::{collections::BTreeSet, time::Duration};

use lb_common::{Algorithm, Hook, Mode, Verdict};
use naru::desired::{Service, TrafficPolicy};

use crate::{
    Case,
    frames::{ACK, SYN},
    primaries::restored,
    sides::{FLOWS, Side, V4, V6, all, handed, maglev},
    world::{Act, World},
};

/// Two pods here and two elsewhere.
fn four(side: &Side) -> Service {
    let backends = [&side.pods[..2], &side.there].concat();
    maglev(&[side.vip], &backends)
}

fn larger(side: &Side) -> Service {
    Service {
        maglev_slots: 4093,
        ..four(side)
    }
}

fn in_turn(side: &Side) -> Service {
    Service {
        algorithm: Algorithm::RoundRobin,
        ..four(side)
    }
}

fn affine(side: &Side) -> Service {
    Service {
        affinity: Some(Duration::from_secs(600)),
        ..four(side)
    }
}

/// One whose backends all fail their checks.
fn failing(side: &Side) -> Service {
    let backends = [&side.pods[..2], &side.there].concat();
    let backends: Vec<_> = backends.iter().map(|it| format!("{it}?")).collect();
    let backends: Vec<_> = backends.iter().map(|it| &it[..]).collect();
    maglev(&[side.vip], &backends)
}

/// Connections go on by all of these tables, where they send once by each.
fn go_on(sides: &[Side], tables: &[fn(&Side) -> Service]) {
    for side in sides {
        let mut world = World::new(&[four(side)]).settled();
        let began = all(&mut world, side, SYN);
        assert_eq!(world.recorded(), (0, 0));
        for (n, table) in tables.iter().enumerate() {
            world.change(&[table(side)]);
            assert_eq!(all(&mut world, side, ACK), began, "table {n}");
            assert_eq!(all(&mut world, side, ACK), began, "table {n}, again");
        }
        world.window_passes();
        assert_eq!(all(&mut world, side, ACK), began, "after the window");
    }
}

/// The same, where each of the tables lasts for longer than a window.
fn go_on_for_long(tables: &[fn(&Side) -> Service]) {
    let side = &V4;
    let mut world = World::new(&[four(side)]).settled();
    let began = all(&mut world, side, SYN);
    for (n, table) in tables.iter().enumerate() {
        world.change(&[table(side)]);
        for _ in 0..2 {
            assert_eq!(all(&mut world, side, ACK), began, "table {n}");
            world.window_passes();
        }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "another table: of another size, connections that send within the window stay",
            run: || {
                go_on(&[V4, V6], &[larger]);
                go_on(&[V4], &[larger, four]);
                go_on_for_long(&[larger, four]);
            },
        },
        Case {
            name: "another table: to round robin and back, connections that send stay",
            run: || {
                go_on(&[V4, V6], &[in_turn, four]);
                go_on_for_long(&[in_turn, four]);
            },
        },
        Case {
            name: "another table: while all pods fail their checks, connections that send stay",
            run: || {
                go_on(&[V4, V6], &[failing, four]);
                go_on_for_long(&[failing, four]);
            },
        },
        Case {
            name: "another table: with session affinity and without, connections that send stay",
            run: || {
                go_on(&[V4, V6], &[affine, four]);
                go_on_for_long(&[affine, four]);
            },
        },
        Case {
            name: "another table: a connection that is silent goes as all that are unknown do",
            run: || {
                let mut world = World::new(&[four(&V4)]).settled();
                all(&mut world, &V4, SYN);
                world.change(&[larger(&V4)]);
                world.window_passes();
                let fresh: Vec<_> = (0..FLOWS)
                    .map(|n| world.would_serve(&V4.segment(n, SYN)))
                    .collect();
                assert_eq!(all(&mut world, &V4, ACK), fresh);
                world.change(&[in_turn(&V4)]);
                world.window_passes();
                let stray = V4.segment(FLOWS, ACK).bytes();
                world.send(Hook::Xdp, &stray, Verdict::RefusedReset, Act::SentBack);
            },
        },
        Case {
            name: "sweep: slots settle once no record names another backend",
            run: sweep,
        },
        Case {
            name: "restart: what began before a change stays with its pod, replies included",
            run: restart,
        },
        Case {
            name: "handed over: unrecorded to the slot's own pod, recorded to any other one here",
            run: || {
                for side in [V4, V6] {
                    let mut world = World::new(&[four(&side)]).settled();
                    let mut recorded = 0;
                    for n in 0..FLOWS {
                        let own = world.would_serve(&side.segment(n, SYN));
                        let here = side.pods.contains(&&own[..]);
                        recorded += usize::from(!here);
                        let pod = world.served(&handed(side.segment(n, SYN)));
                        assert!(side.pods.contains(&&pod[..]), "never sent on");
                        assert!(!here || pod == own);
                        assert_eq!(world.served(&handed(side.segment(n, ACK))), pod);
                        let client = side.client(n);
                        restored(&mut world, &pod, &client, side.vip);
                    }
                    assert!(recorded > 0 && recorded < FLOWS.into());
                    assert_eq!(world.recorded(), (recorded, 0));
                }
            },
        },
        Case {
            name: "handed over: who came to a pod before it gave way stays with it",
            run: || {
                let leaving = format!("{}!", V4.pods[0]);
                let mut world = World::new(&[maglev(&[V4.vip], &V4.pods[..1])]).settled();
                world.change(&[maglev(&[V4.vip], &[&leaving, V4.pods[1], V4.there[0]])]);
                for n in 0..FLOWS {
                    let packet = handed(V4.segment(n, ACK));
                    assert_eq!(world.served(&packet), V4.pods[0]);
                    let packet = handed(V4.segment(FLOWS + n, SYN));
                    assert_eq!(world.served(&packet), V4.pods[1]);
                }
            },
        },
        Case {
            name: "shared VIPs: where nodes do not find the same by the hash, all is recorded",
            run: || {
                let nat = Service {
                    elsewhere: Mode::Nat,
                    ..maglev(&[V4.vip], &V4.pods)
                };
                let of_node = Service {
                    external_policy: TrafficPolicy::Local,
                    ..maglev(&[V4.vip], &V4.pods)
                };
                let flows = usize::from(FLOWS);
                for (service, recorded) in [
                    (nat, (flows, flows)),
                    (of_node, (flows, flows)),
                    (maglev(&[V4.vip], &V4.pods), (0, 0)),
                ] {
                    let mut world = World::shared(std::slice::from_ref(&service)).settled();
                    let began = all(&mut world, &V4, SYN);
                    assert_eq!(all(&mut world, &V4, ACK), began);
                    assert_eq!(world.recorded(), recorded);
                    // Alone, no node can disagree.
                    drop(world);
                    let mut world = World::new(&[service]).settled();
                    all(&mut world, &V4, SYN);
                    assert_eq!(world.recorded(), (0, 0));
                }
            },
        },
    ]
}

fn sweep() {
    let [a, b, c] = V4.pods;
    let mut world = World::new(&[maglev(&[V4.vip], &[a])]).settled();
    assert_eq!(world.datapath.settled(), (1021, 1021));
    world.served(&V4.segment(0, SYN));
    world.change(&[maglev(&[V4.vip], &["10.244.1.2:3000!", b])]);
    assert_eq!(world.datapath.settled(), (0, 1021));
    assert_eq!(world.served(&V4.segment(0, ACK)), a);
    assert_eq!(world.served(&V4.segment(1, SYN)), b);
    // Within the window records tell the new ones from the old ones.
    let found = world.datapath.sweeper().unwrap().sweep().unwrap();
    assert_eq!((found.needless, found.unrecorded.is_empty()), (0, true));
    assert_eq!(world.recorded().0, 2);
    world.window_passes();
    let stale = world.datapath.sweeper().unwrap().sweep().unwrap();
    assert_eq!(stale.needless, 1, "the one that is where its slot says");
    assert_eq!(world.recorded(), (1, 0));
    // What was found before a change says nothing after it.
    let leaving = format!("{a}!");
    world.change(&[maglev(&[V4.vip], &[&leaving, b, c])]);
    assert_eq!(world.datapath.unrecorded(&stale.unrecorded), 0);
    world.window_passes();
    settle(&mut world);
    assert_eq!(world.datapath.settled(), (1020, 1021));
    assert_eq!(world.served(&V4.segment(0, ACK)), a);
    assert_eq!(world.recorded(), (1, 0));
    // Until that one is over: its pod is gone.
    world.change(&[maglev(&[V4.vip], &[b, c])]);
    settle(&mut world);
    assert_eq!(world.datapath.settled(), (1021, 1021));
    assert_eq!(world.recorded(), (0, 0));
}

/// Settles slots that need not be looked up.
fn settle(world: &mut World) {
    let swept = world.datapath.sweeper().unwrap().sweep().unwrap();
    world.datapath.unrecorded(&swept.unrecorded);
}

fn restart() {
    for side in [V4, V6] {
        let [a, b, _] = side.pods;
        let leaving = format!("{a}!");
        let mut world = World::new(&[maglev(&[side.vip], &[a])]).settled();
        for n in 0..4 {
            assert_eq!(world.served(&side.segment(n, SYN)), a);
        }
        // Restored without a record, still.
        let mut world = world.reopen();
        restored(&mut world, a, &side.client(0), side.vip);
        assert_eq!(world.served(&side.segment(0, ACK)), a);
        assert_eq!(world.recorded(), (0, 0));
        let after = [maglev(&[side.vip], &[&leaving, b])];
        world.change(&after);
        assert_eq!(world.served(&side.segment(1, ACK)), a);
        let mut world = world.reopen();
        assert_eq!(world.apply_again(&after).total(), 0);
        for n in 0..3 {
            assert_eq!(world.served(&side.segment(n, ACK)), a);
        }
        assert_eq!(world.served(&side.segment(9, SYN)), b);
        world.window_passes();
        let of: BTreeSet<_> = (0..3)
            .map(|n| world.served(&side.segment(n, ACK)))
            .collect();
        assert_eq!(of, BTreeSet::from([a.to_owned()]));
        assert_eq!(world.served(&side.segment(3, ACK)), b, "too late");
        assert_eq!(world.recorded().0, 4);
        for n in 0..3 {
            restored(&mut world, a, &side.client(n), side.vip);
        }

        // A former table is known to the next agent as well.
        let mut world = World::new(&[four(&side)]).settled();
        let began = all(&mut world, &side, SYN);
        world.change(&[larger(&side)]);
        let mut world = world.reopen();
        assert_eq!(world.apply_again(&[larger(&side)]).total(), 0);
        // Who comes next does not get its room.
        let next = maglev(&[side.second], &side.pods[2..]);
        world.change(&[larger(&side), next]);
        assert_eq!(all(&mut world, &side, ACK), began);
        world.window_passes();
        assert_eq!(all(&mut world, &side, ACK), began);
    }
}
