//! Who may use a service, and clients that come back to their backend.

use std::{thread::sleep, time::Duration};

use lb_common::{Algorithm, Hook, Verdict};
use naru::desired::{Condition, Service};

use crate::{
    Case,
    frames::{SYN, tcp, udp},
    world::{Act, POD, POD6, World, service},
};

const WEB: &str = "192.168.56.11:80";
const PODS: [&str; 3] = [POD, "10.244.1.3:3000", "10.244.1.4:3000"];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "source ranges: other clients are dropped and counted, in both families",
            run: || {
                let mut world = World::new(&[
                    guarded(service(&[WEB], &[POD]), &["192.168.56.0/28", "10.1.2.3/32"]),
                    guarded(service(&["[fd00::11]:80"], &[POD6]), &["fd00::/124"]),
                    service(&["192.168.56.11:81"], &[POD]),
                ]);
                for (client, vip, admitted) in [
                    ("192.168.56.1:1000", WEB, true),
                    ("192.168.56.15:1000", WEB, true),
                    ("192.168.56.16:1000", WEB, false),
                    ("10.1.2.3:1000", WEB, true),
                    ("10.1.2.4:1000", WEB, false),
                    ("192.168.56.16:1000", "192.168.56.11:81", true),
                    ("[fd00::f]:1000", "[fd00::11]:80", true),
                    ("[fd00::10]:1000", "[fd00::11]:80", false),
                ] {
                    let frame = tcp(client, vip, SYN).bytes();
                    let (verdict, act) = if admitted {
                        (Verdict::ForwardLocal, Act::Pass)
                    } else {
                        (Verdict::SourceDenied, Act::Drop)
                    };
                    world.send(Hook::Xdp, &frame, verdict, act);
                }
            },
        },
        Case {
            name: "source ranges hold for flows that are under way, and are lifted again",
            run: || {
                let open = service(&[WEB], &[POD]);
                let closed = guarded(open.clone(), &["10.0.0.0/8"]);
                let mut world = World::new(std::slice::from_ref(&open));
                let frame = tcp("192.168.56.1:1000", WEB, SYN).bytes();
                world.send(Hook::Xdp, &frame, Verdict::ForwardLocal, Act::Pass);
                world.change(&[closed]);
                let verdict = Verdict::SourceDenied;
                world.expect_untouched(Hook::Xdp, &frame, verdict, Act::Drop);
                world.change(&[guarded(open.clone(), &["0.0.0.0/0"])]);
                world.send(Hook::Xdp, &frame, Verdict::ForwardLocal, Act::Pass);
                let applied = world.apply_again(&[guarded(open, &["0.0.0.0/0"])]);
                assert_eq!(applied.total(), 0);
            },
        },
        Case {
            name: "session affinity: an address comes back to its pod, whatever the port",
            run: || {
                for algorithm in [Algorithm::RoundRobin, Algorithm::Maglev] {
                    let mut world = World::new(&[affine(service(&[WEB], &PODS), algorithm, 600)]);
                    let mut pods = std::collections::BTreeSet::new();
                    for client in 1..=60 {
                        let first = world.pod(client, 1000);
                        for port in 1001..1005 {
                            assert_eq!(world.pod(client, port), first, "{algorithm}");
                        }
                        pods.insert(first);
                    }
                    assert_eq!(pods.len(), PODS.len(), "all are used");
                }
            },
        },
        Case {
            name: "session affinity: a client comes back as long as its pod takes new flows",
            run: || {
                let all = affine(service(&[WEB], &PODS), Algorithm::RoundRobin, 600);
                let mut world = World::new(std::slice::from_ref(&all));
                let before = [1, 2, 3].map(|client| world.pod(client, 1000));
                assert_eq!(before, PODS.map(str::to_owned), "each its turn");
                // Others come and go: nobody moves.
                let mut more = all.clone();
                let (&addr, endpoint) = more.endpoints.iter().next().unwrap();
                let mut addr = addr;
                addr.set_port(3999);
                let endpoint = endpoint.clone();
                more.endpoints.insert(addr, endpoint);
                world.change(&[more]);
                assert_eq!([1, 2, 3].map(|client| world.pod(client, 1001)), before);
                // The second client's pod drains, while another service goes on using it.
                let mut fewer = all.clone();
                let second = PODS[1].parse().unwrap();
                fewer.endpoints.get_mut(&second).unwrap().condition = Condition::Draining;
                let other = service(&["192.168.56.11:81"], &PODS);
                world.change(&[fewer.clone(), other.clone()]);
                assert_eq!(world.pod(1, 1002), before[0]);
                assert_eq!(world.pod(3, 1002), before[2]);
                let moved = world.pod(2, 1002);
                assert_ne!(moved, before[1]);
                // Its flow goes on there; the client's next ones stay where it moved to.
                assert_eq!(world.pod(2, 1001), before[1]);
                world.change(&[all, other]);
                assert_eq!(world.pod(2, 1003), moved);
            },
        },
        Case {
            name: "session affinity ends with its time",
            run: || {
                let short = affine(service(&[WEB], &PODS), Algorithm::RoundRobin, 1);
                let mut world = World::new(&[short]);
                assert_eq!(world.pod(1, 1000), PODS[0]);
                assert_eq!(world.pod(1, 1001), PODS[0]);
                // The clock counts in 1.07 s.
                sleep(Duration::from_millis(2 * 1074 + 200));
                assert_eq!(world.pod(1, 1002), PODS[1], "the next turn");
            },
        },
        Case {
            name: "session affinity is not inherited by the service that has the index next",
            run: || {
                let first = affine(service(&[WEB], &PODS), Algorithm::RoundRobin, 600);
                let mut world = World::new(&[first]);
                assert_eq!([1, 2].map(|client| world.pod(client, 1000)), PODS[..2]);
                // The pods live on for another service.
                let other = service(&["192.168.56.11:81"], &PODS);
                world.change(std::slice::from_ref(&other));
                // Indices rest for two seconds.
                sleep(Duration::from_millis(2_100));
                let next = affine(service(&[WEB], &PODS), Algorithm::RoundRobin, 600);
                world.change(&[next, other]);
                assert_eq!(
                    world.pod(2, 1001),
                    PODS[0],
                    "the first turn, not its last pod"
                );
            },
        },
        Case {
            name: "session affinity ends where a service has no pods for a while",
            run: || {
                // The first table of all has the very pod.
                let other = service(&["192.168.56.11:70"], &PODS[..1]);
                let web = |pods: &[&str]| affine(service(&[WEB], pods), Algorithm::RoundRobin, 600);
                let mut world = World::new(std::slice::from_ref(&other));
                world.change(&[other.clone(), web(&PODS[..1])]);
                assert_eq!([1, 2].map(|client| world.pod(client, 1000)), [PODS[0]; 2]);
                world.change(&[other.clone(), web(&[])]);
                world.change(&[other, web(&PODS)]);
                let again = [1, 2].map(|client| world.pod(client, 1001));
                assert_ne!(again[0], again[1], "each has its turn");
            },
        },
        Case {
            name: "session affinity holds for UDP and for no other client",
            run: || {
                let dns = service(&["192.168.56.11:53/udp"], &PODS);
                let mut world = World::new(&[affine(dns, Algorithm::RoundRobin, 600)]);
                let mut ask = |client: &str| {
                    let query = udp(client, "192.168.56.11:53", b"query");
                    world.forwarded(&query, Verdict::ForwardLocal).1.to_string()
                };
                assert_eq!(ask("192.168.56.1:1000"), PODS[0]);
                assert_eq!(ask("192.168.56.1:1001"), PODS[0]);
                assert_eq!(ask("192.168.56.2:1000"), PODS[1]);
                assert_eq!(ask("192.168.56.1:1002"), PODS[0]);
            },
        },
    ]
}

impl World {
    /// The pod that a client's connection from a port goes to.
    #[track_caller]
    fn pod(&mut self, client: u8, port: u16) -> String {
        let syn = tcp(&format!("192.168.57.{client}:{port}"), WEB, SYN);
        self.forwarded(&syn, Verdict::ForwardLocal).1.to_string()
    }
}

fn guarded(mut service: Service, networks: &[&str]) -> Service {
    service.source_ranges = networks.iter().map(|net| net.parse().unwrap()).collect();
    service
}

fn affine(mut service: Service, algorithm: Algorithm, seconds: u64) -> Service {
    service.affinity = Some(Duration::from_secs(seconds));
    service.algorithm = algorithm;
    service.maglev_slots = 1021;
    service
}
