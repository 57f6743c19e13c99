//! What the program remembers: turns, flows, ports, and backends that come and go.

use std::{collections::BTreeMap, net::SocketAddr, thread, time::Duration};

use lb_common::{Algorithm, Hook, Verdict};
use naru::desired::{Condition, Service};

use crate::{
    Case,
    frames::{ACK, FIN, RST, SYN, tcp, udp},
    world::{Act, CLIENT, POD, World, service},
};

const PODS: [&str; 5] = [
    "10.244.1.2:3000",
    "10.244.1.3:3000",
    "10.244.1.4:3000",
    "10.244.1.5:3000",
    "10.244.1.6:3000",
];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "round robin: ten flows over five pods are two each, in turn",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS)]);
                let order: Vec<_> = (0..10).map(|n| new_flow(&mut world, n)).collect();
                assert_eq!(order[..5], PODS);
                assert_eq!(order[5..], PODS);
            },
        },
        Case {
            name: "round robin: weights interleave",
            run: || {
                let mut heavy = service(&["192.168.56.11:80"], &PODS[..3]);
                for (endpoint, weight) in heavy.endpoints.values_mut().zip([5, 1, 1]) {
                    endpoint.weight = weight;
                }
                let mut world = World::new(&[heavy]);
                let order: Vec<_> = (0..7).map(|n| new_flow(&mut world, n)).collect();
                let [a, b, c] = [PODS[0], PODS[1], PODS[2]];
                // The order that nginx documents for 5, 1, 1.
                assert_eq!(order, [a, a, b, a, c, a, a]);
            },
        },
        Case {
            name: "Maglev: a 5-tuple always falls on the same pod, and all pods are used",
            run: || {
                let by_maglev = Service {
                    algorithm: Algorithm::Maglev,
                    ..service(&["192.168.56.11:80"], &PODS)
                };
                let mut first = World::new(std::slice::from_ref(&by_maglev));
                // Another node, with another history.
                let mut second = World::new(&[service(&["192.168.56.12:80"], &PODS)]);
                second.change(&[service(&["192.168.56.12:80"], &PODS), by_maglev]);
                let mut counts = BTreeMap::<_, u32>::new();
                for n in 0..500 {
                    let pod = new_flow(&mut first, n);
                    assert_eq!(pod, new_flow(&mut second, n), "flow {n}");
                    *counts.entry(pod).or_default() += 1;
                }
                assert_eq!(counts.len(), 5, "{counts:?}");
                assert!(
                    counts.values().all(|&n| (60..150).contains(&n)),
                    "{counts:?}"
                );
            },
        },
        Case {
            name: "Maglev: a segment of a forgotten connection finds its pod again",
            run: || {
                let by_maglev = Service {
                    algorithm: Algorithm::Maglev,
                    ..service(&["192.168.56.11:80"], &PODS)
                };
                let mut one = World::new(std::slice::from_ref(&by_maglev));
                let mut other = World::new(&[by_maglev]);
                for n in 0..20 {
                    let pod = new_flow(&mut one, n);
                    let middle = tcp(&client(n), "192.168.56.11:80", ACK);
                    let (_, to) = other.forwarded(&middle, Verdict::ForwardLocal);
                    assert_eq!(to.to_string(), pod);
                }
            },
        },
        Case {
            name: "a flow stays with its pod when pods come and go, until its own goes",
            run: flows_stay,
        },
        Case {
            name: "a draining pod keeps its flows and takes no new ones",
            run: || {
                let mut pods = service(&["192.168.56.11:80"], &PODS[..2]);
                let mut world = World::new(&[pods.clone()]);
                assert_eq!(new_flow(&mut world, 0), PODS[0]);
                let first: SocketAddr = PODS[0].parse().unwrap();
                pods.endpoints.get_mut(&first).unwrap().condition = Condition::Draining;
                world.change(&[pods]);
                assert_eq!(old_flow(&mut world, 0), PODS[0]);
                for n in 1..5 {
                    assert_eq!(new_flow(&mut world, n), PODS[1]);
                }
            },
        },
        Case {
            name: "a pod that fails its check keeps connections; UDP and new attempts leave it",
            run: || {
                let frontends = ["192.168.56.11:80", "192.168.56.11:53/udp"];
                let services = |condition| {
                    frontends.map(|frontend| {
                        let mut service = service(&[frontend], &PODS[..2]);
                        let first: SocketAddr = PODS[0].parse().unwrap();
                        service.endpoints.get_mut(&first).unwrap().condition = condition;
                        service
                    })
                };
                let mut world = World::new(&services(Condition::Ready));
                assert_eq!(new_flow(&mut world, 0), PODS[0]);
                assert_eq!(new_flow(&mut world, 1), PODS[1]);
                assert_eq!(new_flow(&mut world, 2), PODS[0]);
                let query = udp(CLIENT, "192.168.56.11:53", b"query");
                let (_, to) = world.forwarded(&query, Verdict::ForwardLocal);
                assert_eq!(to.to_string(), PODS[0]);
                world.change(&services(Condition::Unhealthy));
                assert_eq!(old_flow(&mut world, 0), PODS[0]);
                // A SYN that nobody has answered, sent once more.
                assert_eq!(new_flow(&mut world, 2), PODS[1]);
                assert_eq!(old_flow(&mut world, 2), PODS[1]);
                let (_, to) = world.forwarded(&query, Verdict::ForwardLocal);
                assert_eq!(to.to_string(), PODS[1]);
                // Where it is sound again, whoever has gone elsewhere stays there.
                world.change(&services(Condition::Ready));
                assert_eq!(old_flow(&mut world, 0), PODS[0]);
                assert_eq!(old_flow(&mut world, 2), PODS[1]);
            },
        },
        Case {
            name: "UDP moves at once when its pod goes",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:53/udp"], &PODS[..2])]);
                let packet = udp(CLIENT, "192.168.56.11:53", b"query");
                let (_, to) = world.forwarded(&packet, Verdict::ForwardLocal);
                assert_eq!(to.to_string(), PODS[0]);
                world.change(&[service(&["192.168.56.11:53/udp"], &PODS[1..2])]);
                let (_, to) = world.forwarded(&packet, Verdict::ForwardLocal);
                assert_eq!(to.to_string(), PODS[1]);
            },
        },
        Case {
            name: "a pod that comes back does not inherit the flows of its former life",
            run: || {
                let with = service(&["192.168.56.11:80"], &PODS[..1]);
                let without = service(&["192.168.56.11:80"], &[]);
                let mut world = World::new(std::slice::from_ref(&with));
                assert_eq!(new_flow(&mut world, 0), PODS[0]);
                for rest in [0, 3] {
                    world.change(std::slice::from_ref(&without));
                    // Within the rest a new index is taken, after it the old one again.
                    thread::sleep(Duration::from_secs(rest));
                    world.change(std::slice::from_ref(&with));
                    let packet = tcp(&client(0), "192.168.56.11:80", ACK).bytes();
                    world.send(Hook::Xdp, &packet, Verdict::RefusedReset, Act::SentBack);
                }
            },
        },
        Case {
            name: "a SYN on a closed connection takes the next turn, on an open one it does not",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS)]);
                assert_eq!(new_flow(&mut world, 0), PODS[0]);
                assert_eq!(new_flow(&mut world, 0), PODS[0], "a SYN sent again");
                reply(&mut world, PODS[0], SYN | ACK);
                old_flow(&mut world, 0);
                reply(&mut world, PODS[0], FIN | ACK);
                let fin = tcp(&client(0), "192.168.56.11:80", FIN | ACK);
                world.forwarded(&fin, Verdict::ForwardLocal);
                assert_eq!(new_flow(&mut world, 0), PODS[1]);
                reply(&mut world, PODS[1], RST);
                assert_eq!(new_flow(&mut world, 0), PODS[2]);
            },
        },
        Case {
            name: "the states of a connection, as `naru flows` shows them",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS[..1])]);
                new_flow(&mut world, 0);
                assert_eq!(state(&world), "syn-sent");
                reply(&mut world, PODS[0], SYN | ACK);
                assert_eq!(state(&world), "syn-received");
                old_flow(&mut world, 0);
                assert_eq!(state(&world), "established");
                reply(&mut world, PODS[0], FIN | ACK);
                assert_eq!(state(&world), "closing");
                let fin = tcp(&client(0), "192.168.56.11:80", FIN | ACK);
                world.forwarded(&fin, Verdict::ForwardLocal);
                assert_eq!(state(&world), "closed");
            },
        },
        Case {
            name: "one client port towards two frontends of one pod: the second is refused",
            run: || {
                let frontends = ["192.168.56.11:80", "192.168.56.11:8080"];
                let mut world = World::new(&[service(&frontends, &[POD])]);
                let packet = tcp(CLIENT, frontends[0], SYN);
                crate::forward::local(&mut world, &packet, &packet.clone().to(POD));
                let other = tcp(CLIENT, frontends[1], SYN);
                world.expect_untouched(Hook::Xdp, &other.bytes(), Verdict::TupleClash, Act::Drop);
                // With another pod there is a way.
                world.change(&[service(&frontends, &PODS[..2])]);
                let (_, to) = world.forwarded(&other, Verdict::ForwardLocal);
                assert_eq!(to.to_string(), PODS[1]);
                // And replies of both find their frontend.
                for (pod, vip) in [(PODS[0], frontends[0]), (PODS[1], frontends[1])] {
                    let reply = tcp(pod, CLIENT, SYN | ACK);
                    let out = reply.clone().from(vip).bytes();
                    let verdict = Verdict::ReplyLocal;
                    world.expect(Hook::TcEgress, &reply.bytes(), verdict, Act::Pass, &out);
                }
            },
        },
        Case {
            name: "local: a SYN-ACK sent again after the client's FIN is the flow's",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS[..1])]);
                new_flow(&mut world, 0);
                reply(&mut world, PODS[0], SYN | ACK);
                let fin = tcp(&client(0), "192.168.56.11:80", FIN | ACK);
                world.forwarded(&fin, Verdict::ForwardLocal);
                reply(&mut world, PODS[0], SYN | ACK);
                reply(&mut world, PODS[0], ACK);
            },
        },
        Case {
            name: "a forged RST does not end a connection that goes on",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS[..1])]);
                new_flow(&mut world, 0);
                reply(&mut world, PODS[0], SYN | ACK);
                let forged = tcp(&client(0), "192.168.56.11:80", RST);
                world.forwarded(&forged, Verdict::ForwardLocal);
                assert_eq!(state(&world), "reset");
                old_flow(&mut world, 0);
                assert_eq!(state(&world), "established");
            },
        },
        Case {
            name: "a direct connection by a port that a closed flow had is left alone",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS[..1])]);
                new_flow(&mut world, 0);
                reply(&mut world, PODS[0], SYN | ACK);
                reply(&mut world, PODS[0], FIN | ACK);
                let fin = tcp(&client(0), "192.168.56.11:80", FIN | ACK);
                world.forwarded(&fin, Verdict::ForwardLocal);
                for flags in [SYN | ACK, ACK, FIN | ACK] {
                    let direct = tcp(PODS[0], &client(0), flags).bytes();
                    world.expect_untouched(Hook::TcEgress, &direct, Verdict::NotOurs, Act::Pass);
                }
                // Until the client comes by the service again.
                new_flow(&mut world, 0);
                reply(&mut world, PODS[0], SYN | ACK);
            },
        },
        Case {
            name: "counters of service and backend add up",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS[..1])]);
                new_flow(&mut world, 0);
                old_flow(&mut world, 0);
                reply(&mut world, PODS[0], SYN | ACK);
                let stats = world.datapath.service_stats(0).unwrap();
                assert_eq!(
                    (stats.flows, stats.packets_in, stats.packets_out),
                    (1, 2, 1)
                );
                assert_eq!((stats.bytes_in, stats.bytes_out), (2 * 54, 54));
                assert_eq!(world.datapath.backend_stats(1).unwrap(), stats);
            },
        },
        Case {
            name: "a service that is gone is gone, and its index starts from zero",
            run: || {
                let mut world = World::new(&[service(&["192.168.56.11:80"], &PODS)]);
                new_flow(&mut world, 0);
                world.change(&[]);
                let packet = tcp(&client(0), "192.168.56.11:80", ACK).bytes();
                world.expect_untouched(Hook::Xdp, &packet, Verdict::NotOurs, Act::Pass);
                thread::sleep(Duration::from_secs(3));
                world.change(&[service(&["192.168.56.12:80"], &PODS)]);
                assert_eq!(world.datapath.service_stats(0).unwrap().flows, 0);
            },
        },
        Case {
            name: "applying the same again writes nothing, also after a restart",
            run: || {
                let services = [service(&["192.168.56.11:80"], &PODS)];
                let mut world = World::new(&services);
                assert_eq!(world.apply_again(&services).total(), 0);
                let mut world = world.reopen();
                assert_eq!(world.apply_again(&services).total(), 0);
            },
        },
    ]
}

fn client(n: u16) -> String {
    format!("192.168.56.1:{}", 40_000 + n)
}

/// The pod that a SYN of flow `n` goes to.
#[track_caller]
fn new_flow(world: &mut World, n: u16) -> String {
    let syn = tcp(&client(n), "192.168.56.11:80", SYN);
    world.forwarded(&syn, Verdict::ForwardLocal).1.to_string()
}

/// The pod that a later segment of flow `n` goes to.
#[track_caller]
fn old_flow(world: &mut World, n: u16) -> String {
    let ack = tcp(&client(n), "192.168.56.11:80", ACK);
    world.forwarded(&ack, Verdict::ForwardLocal).1.to_string()
}

/// A segment of a pod to flow 0's client.
#[track_caller]
fn reply(world: &mut World, pod: &str, flags: u8) {
    let packet = tcp(pod, &client(0), flags).bytes();
    world.send(Hook::TcEgress, &packet, Verdict::ReplyLocal, Act::Pass);
}

fn state(world: &World) -> &'static str {
    let (flows, _) = world.datapath.flows(10).unwrap();
    assert_eq!(flows.len(), 1);
    flows[0].flow.state.name(true)
}

fn flows_stay() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Maglev] {
        let pods = |pods: &[&str]| Service {
            algorithm,
            ..service(&["192.168.56.11:80"], pods)
        };
        let mut world = World::new(&[pods(&PODS[..3])]);
        let before: Vec<_> = (0..60).map(|n| new_flow(&mut world, n)).collect();
        world.change(&[pods(&PODS)]);
        for (n, pod) in (0..).zip(&before) {
            assert_eq!(old_flow(&mut world, n), *pod, "after two pods came");
        }
        world.change(&[pods(&PODS[1..])]);
        for (n, pod) in (0..).zip(&before) {
            if pod == PODS[0] {
                let packet = tcp(&client(n), "192.168.56.11:80", ACK).bytes();
                world.send(Hook::Xdp, &packet, Verdict::RefusedReset, Act::SentBack);
            } else {
                assert_eq!(old_flow(&mut world, n), *pod, "after another pod went");
            }
        }
    }
}
