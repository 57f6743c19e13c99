//! Frontends by their short keys: each is its own service's, whoever else has the same place.

use std::net::IpAddr;

use lb_common::{Frontend, Hook, Port, Verdict, near::Place};

use crate::{
    Case,
    frames::{ACK, SYN, addr, tcp},
    world::{Act, World, service},
};

const VIP: &str = "192.168.56.11";
const PODS: [&str; 2] = ["10.244.1.2:3000", "10.244.1.3:3000"];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "near: a frontend that goes over to another service is that one's, and one that goes is gone",
            run: || {
                let [http, other] = [format!("{VIP}:80"), format!("{VIP}:81")];
                let mut world = World::new(&[
                    service(&[&http, &other], &PODS[..1]),
                    service(&[&format!("{VIP}:82")], &PODS[1..]),
                ]);
                expect(&mut world, 0, &http);
                world.change(&[
                    service(&[&other], &PODS[..1]),
                    service(&[&format!("{VIP}:82"), &http], &PODS[1..]),
                ]);
                expect(&mut world, 1, &http);
                expect(&mut world, 2, &other);
                let gone = tcp(&client(2), &other, ACK).bytes();
                world.change(&[
                    service(&[&format!("{VIP}:83")], &PODS[..1]),
                    service(&[&format!("{VIP}:82"), &http], &PODS[1..]),
                ]);
                world.expect_untouched(Hook::Xdp, &gone, Verdict::VipPort, Act::Drop);
            },
        },
        Case {
            name: "near: of frontends with one place each is its own service's, and stays so alone",
            run: || {
                let ports = sharing();
                let both = ports.map(|port| format!("{VIP}:{port}"));
                let services = [
                    service(&[&both[0]], &PODS[..1]),
                    service(&[&both[1]], &PODS[1..]),
                ];
                let mut world = World::new(&services);
                expect(&mut world, 3, &both[0]);
                expect(&mut world, 4, &both[1]);
                let mut world = world.reopen();
                world.change(&[service(&[], &PODS[..1]), services[1].clone()]);
                expect(&mut world, 5, &both[1]);
                world.change(&services);
                expect(&mut world, 6, &both[0]);
                expect(&mut world, 7, &both[1]);
            },
        },
        Case {
            name: "near: a frontend is found by its short key, and one that shares a place in the map",
            run: || {
                let both = sharing().map(|port| format!("{VIP}:{port}"));
                let mut world = World::new(&[
                    service(&[&both[0]], &PODS[..1]),
                    service(&[&both[1]], &PODS[1..]),
                ]);
                expect(&mut world, 8, &both[0]);
                expect(&mut world, 9, &both[1]);
                // Without the map the long way finds neither.
                for frontend in &both {
                    let key = key(addr(frontend).port());
                    world.datapath.frontends().remove(&key).unwrap();
                }
                let mut is_forwarded = |n, frontend: &str| {
                    let ack = tcp(&client(n), frontend, ACK).bytes();
                    let out = world.datapath.test_run(Hook::Xdp, &ack, world.ingress);
                    out.unwrap().bytes != ack
                };
                assert!(is_forwarded(8, &both[0]), "the short key is not used");
                assert!(!is_forwarded(9, &both[1]), "two short keys at one place");
            },
        },
    ]
}

/// The frontend at a port of [`VIP`].
fn key(port: u16) -> Frontend {
    let vip: IpAddr = VIP.parse().unwrap();
    Frontend::new(vip.into(), Port::new(port), 6)
}

fn client(n: u16) -> String {
    format!("192.168.56.1:{}", 40_000 + n)
}

/// Two ports of [`VIP`] that are looked for at one place, the lower one, which stands there, first.
fn sharing() -> [u16; 2] {
    let place = |port| Place::new(&key(port)).index;
    let other = (1..=u16::MAX).find(|&port| port != 80 && place(port) == place(80));
    let mut ports = [80, other.expect("65,535 ports share 16,384 places")];
    ports.sort_unstable();
    ports
}

/// That packets of connection `n` are counted as those of the service of its frontend.
#[track_caller]
fn expect(world: &mut World, n: u16, frontend: &str) {
    let key = key(addr(frontend).port());
    let service = world.datapath.live_image().frontends[&key].service();
    let count = |world: &mut World| world.datapath.service_stats(service).unwrap().packets_in;
    let before = count(world);
    for flags in [SYN, ACK, ACK] {
        world.forwarded(&tcp(&client(n), frontend, flags), Verdict::ForwardLocal);
    }
    assert_eq!(count(world), before + 3, "{frontend}");
}
