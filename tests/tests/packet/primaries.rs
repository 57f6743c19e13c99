//! Replies of local backends that get their frontend back without a record of the flow.

use lb_common::{Algorithm, Hook, Protocol, Verdict};
use naru::desired::Service;

use crate::{
    Case,
    frames::{ACK, FIN, PSH, SYN, tcp, udp},
    sides::{FLOWS, V4, V6, all, maglev},
    world::{Act, World},
};

/// Checks that what a pod sends to a client leaves as this frontend's.
#[track_caller]
pub(crate) fn restored(world: &mut World, pod: &str, client: &str, frontend: &str) {
    for flags in [SYN | ACK, ACK | PSH, FIN | ACK] {
        let sent = tcp(pod, client, flags).payload(b"HTTP/1.1 200");
        let seen = sent.clone().from(frontend).bytes();
        let verdict = Verdict::ReplyLocal;
        world.expect(Hook::TcEgress, &sent.bytes(), verdict, Act::Pass, &seen);
    }
}

/// Checks that what a pod sends to a client leaves as the pod's.
#[track_caller]
pub(crate) fn left_alone(world: &mut World, pod: &str, client: &str, flags: u8) {
    let sent = tcp(pod, client, flags).payload(b"HTTP/1.1 200").bytes();
    world.expect_untouched(Hook::TcEgress, &sent, Verdict::NotOurs, Act::Pass);
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "primary: replies get the VIP back, and nothing is recorded",
            run: || {
                for side in [V4, V6] {
                    let mut world = World::new(&[maglev(&[side.vip], &side.pods)]).settled();
                    let began = all(&mut world, &side, SYN);
                    for (n, pod) in (0..).zip(&began) {
                        restored(&mut world, pod, &side.client(n), side.vip);
                        assert_eq!(world.served(&side.segment(n, ACK)), *pod);
                    }
                    assert_eq!(world.recorded(), (0, 0));
                    let stats = world.datapath.service_stats(0).unwrap();
                    let flows = u64::from(FLOWS);
                    let seen = (stats.flows, stats.packets_in, stats.packets_out);
                    assert_eq!(seen, (flows, 2 * flows, 3 * flows));
                }
            },
        },
        Case {
            name: "primary: checksums hold where VIP and pod add up to the same",
            run: || {
                // Both are 0xf8b3 as the checksum has them, and 0xfd11.
                let pairs = [
                    ("192.168.56.11:80", "10.244.237.191:3000", V4),
                    ("[fd00::11]:80", "[fd00:1::10]:3000", V6),
                ];
                for (vip, pod, side) in pairs {
                    let udp_vip = format!("{vip}/udp");
                    let services = [vip, &udp_vip].map(|vip| here(maglev(&[vip], &[pod])));
                    let mut world = World::new(&services).settled();
                    let client = &side.client(0);
                    assert_eq!(world.served(&tcp(client, vip, SYN)), pod);
                    restored(&mut world, pod, client, vip);
                    assert_eq!(world.served(&udp(client, vip, b"query")), pod);
                    let sent = udp(pod, client, b"answer");
                    let (seen, verdict) = (sent.clone().from(vip).bytes(), Verdict::ReplyLocal);
                    world.expect(Hook::TcEgress, &sent.bytes(), verdict, Act::Pass, &seen);
                }
            },
        },
        Case {
            name: "primary: a new pod's flows are recorded for a window, and need not be after it",
            run: || {
                let mut world = World::new(&[maglev(&[V4.vip], &V4.pods)]);
                let began = all(&mut world, &V4, SYN);
                let flows = usize::from(FLOWS);
                assert_eq!(world.recorded(), (flows, flows));
                world.window_passes();
                let swept = world.datapath.sweeper().unwrap().sweep().unwrap();
                assert_eq!((swept.flows, swept.needless, swept.replies), (0, flows, 0));
                assert_eq!(world.recorded(), (0, 0));
                assert_eq!(all(&mut world, &V4, ACK), began);
                for (n, pod) in (0..).zip(&began) {
                    restored(&mut world, pod, &V4.client(n), V4.vip);
                }
                assert_eq!(world.recorded(), (0, 0));
            },
        },
        Case {
            name: "primary: flows by a further frontend are recorded and answered by that",
            run: || {
                for side in [V4, V6] {
                    let services = [maglev(&[side.vip, side.second], &side.pods)];
                    let mut world = World::new(&services).settled();
                    let began = all(&mut world, &side, SYN);
                    assert_eq!(world.recorded(), (0, 0));
                    // Other ports, since a pod would take one client's for one connection.
                    for n in 0..FLOWS {
                        let client = side.client(FLOWS + n);
                        let pod = world.served(&tcp(&client, side.second, SYN));
                        assert_eq!(world.served(&tcp(&client, side.second, ACK)), pod);
                        restored(&mut world, &pod, &client, side.second);
                    }
                    for (n, pod) in (0..).zip(&began) {
                        restored(&mut world, pod, &side.client(n), side.vip);
                    }
                    let flows = usize::from(FLOWS);
                    assert_eq!(world.recorded(), (flows, flows));
                    world.window_passes();
                    let swept = world.datapath.sweeper().unwrap().sweep().unwrap();
                    assert_eq!(swept.needless, 0, "their replies need them");
                }
            },
        },
        Case {
            name: "primary: a pod of two services has one, the other's flows are recorded",
            run: two_services,
        },
        Case {
            name: "primary: by the ports of a connection by a further frontend none begins",
            run: || {
                let services = [maglev(&[V4.vip, V4.second], &V4.pods[..1])];
                let mut world = World::new(&services).settled();
                let (pod, client) = (V4.pods[0], V4.client(0));
                world.served(&tcp(&client, V4.second, SYN));
                restored(&mut world, pod, &client, V4.second);
                world.served(&tcp(&client, V4.second, ACK));
                let packet = V4.segment(0, SYN).bytes();
                // The pod has sent FIN alone: it is not over.
                world.expect_untouched(Hook::Xdp, &packet, Verdict::TupleClash, Act::Drop);
                assert_eq!(world.recorded(), (1, 1));
                // Once it is, nothing is left of it.
                world.served(&tcp(&client, V4.second, FIN | ACK));
                assert_eq!(world.served(&V4.segment(0, SYN)), pod);
                assert_eq!(world.recorded().1, 0);
                restored(&mut world, pod, &client, V4.vip);
            },
        },
        Case {
            name: "primary: a connection that a change has recorded is established by its client",
            run: || {
                let [a, b, _] = V4.pods;
                let leaving = format!("{a}!");
                let mut world = World::new(&[maglev(&[V4.vip], &[a])]).settled();
                world.served(&V4.segment(0, SYN));
                world.change(&[maglev(&[V4.vip], &[&leaving, b])]);
                for _ in 0..2 {
                    assert_eq!(world.served(&V4.segment(0, ACK)), a);
                    // One that is taken to be half open would be forgotten after a minute.
                    let (flows, _) = world.datapath.flows(9).unwrap();
                    assert_eq!(flows[0].flow.state.name(true), "established");
                    restored(&mut world, a, &V4.client(0), V4.vip);
                }
                assert_eq!(world.recorded(), (1, 0));
                // By one that begins within the window, the record tells who goes on.
                world.served(&V4.segment(1, SYN));
                world.window_passes();
                let state = |world: &World| {
                    let (flows, _) = world.datapath.flows(9).unwrap();
                    let flow = flows.iter().find(|it| it.tuple.src_port.get() == 10_001);
                    flow.unwrap().flow.state.name(true)
                };
                assert_eq!(state(&world), "syn-sent");
                world.served(&V4.segment(1, ACK));
                assert_eq!(state(&world), "established");
            },
        },
        Case {
            name: "primary: the next frontend becomes it where the first one goes",
            run: || {
                let mut world = World::new(&[maglev(&[V4.vip, V4.second], &V4.pods)]).settled();
                let [of_first, of_second] = [V4.client(0), V4.client(1)];
                world.served(&tcp(&of_first, V4.vip, SYN));
                let pod = world.served(&tcp(&of_second, V4.second, SYN));
                world.change(&[maglev(&[V4.second], &V4.pods)]);
                assert_eq!(world.served(&tcp(&of_second, V4.second, ACK)), pod);
                restored(&mut world, &pod, &of_second, V4.second);
                let swept = world.datapath.sweeper().unwrap().sweep().unwrap();
                assert_eq!((swept.needless, world.recorded()), (1, (0, 0)));
                restored(&mut world, &pod, &of_second, V4.second);
                // What comes first now leaves it as it is: flows rely on it.
                world.change(&[maglev(&[V4.vip, V4.second], &V4.pods)]);
                restored(&mut world, &pod, &of_second, V4.second);
                assert_eq!(world.served(&tcp(&of_second, V4.second, ACK)), pod);
                let other = V4.client(2);
                let pod = world.served(&tcp(&other, V4.vip, SYN));
                restored(&mut world, &pod, &other, V4.vip);
                assert_eq!(world.recorded(), (1, 1));
            },
        },
        Case {
            name: "primary: a pod that leaves one of its services keeps that one's connections",
            run: || {
                for leaving in [false, true] {
                    let [a, b, _] = V4.pods;
                    let new = if leaving { World::leaving } else { World::new };
                    let other = maglev(&[V4.second], &[a]);
                    let before = [maglev(&[V4.vip], &[a]), other.clone()];
                    let mut world = new(&before).settled();
                    assert_eq!(world.served(&V4.segment(0, SYN)), a);
                    restored(&mut world, a, &V4.client(0), V4.vip);
                    world.change(&[maglev(&[V4.vip], &[b]), other]);
                    for _ in 0..2 {
                        assert_eq!(world.served(&V4.segment(0, ACK)), a);
                        restored(&mut world, a, &V4.client(0), V4.vip);
                        world.window_passes();
                    }
                    let client = V4.client(1);
                    assert_eq!(world.served(&tcp(&client, V4.second, SYN)), a);
                    restored(&mut world, a, &client, V4.second);
                }
            },
        },
        Case {
            name: "primary: UDP has none, every flow is recorded and what else leaves is left alone",
            run: || {
                let services = [maglev(&["192.168.56.11:80/udp"], &V4.pods[..1])];
                let mut world = World::new(&services).settled();
                let (pod, client) = (V4.pods[0], V4.client(0));
                let answer = |to: &str| udp(pod, to, b"answer");
                let stray = answer(&client).bytes();
                world.expect_untouched(Hook::TcEgress, &stray, Verdict::NotOurs, Act::Pass);
                world.served(&udp(&client, V4.vip, b"query"));
                let seen = answer(&client).from(V4.vip).bytes();
                let verdict = Verdict::ReplyLocal;
                world.expect(Hook::TcEgress, &stray, verdict, Act::Pass, &seen);
                assert_eq!(world.recorded(), (1, 1));
                // Nor has the TCP of a pod that is a backend for UDP.
                left_alone(&mut world, pod, &client, ACK);
            },
        },
    ]
}

/// The same with all backends on this node.
fn here(mut service: Service) -> Service {
    for endpoint in service.endpoints.values_mut() {
        endpoint.node = Some("nuc01".to_owned());
    }
    service
}

fn two_services() {
    let [a, b, c] = V4.pods;
    let in_turn = Service {
        algorithm: Algorithm::RoundRobin,
        ..maglev(&["192.168.56.12:80"], &[a])
    };
    assert_eq!(in_turn.protocol(), Some(Protocol::Tcp));
    let services = [
        maglev(&[V4.vip], &[a, b]),
        maglev(&[V4.second], &[b, c]),
        in_turn,
    ];
    let mut world = World::new(&services).settled();
    let mut shared = 0;
    for n in 0..FLOWS {
        let (first, second) = (V4.client(2 * n), V4.client(2 * n + 1));
        let pod = world.served(&tcp(&first, V4.vip, SYN));
        restored(&mut world, &pod, &first, V4.vip);
        assert_eq!(world.recorded(), (shared, shared));
        // Some of its pods are answered for by the other's frontend, so all have records.
        let pod = world.served(&tcp(&second, V4.second, SYN));
        restored(&mut world, &pod, &second, V4.second);
        shared += 1;
        assert_eq!(world.recorded(), (shared, shared));
    }
    let client = V4.client(1000);
    assert_eq!(world.served(&tcp(&client, "192.168.56.12:80", SYN)), a);
    restored(&mut world, a, &client, "192.168.56.12:80");
    assert_eq!(world.recorded(), (shared + 1, shared + 1));
}
