//! Services, backends and clients.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use lb_common::Algorithm;

use crate::{
    node::{self, find, host_of},
    rng::Rng,
    scene::{Backend, Service, Share},
    wire::{SCTP, TCP, UDP},
};

const PORTS: [u16; 3] = [80, 53, 8080];

/// Addresses that services have: two that are nobody else's, and the host's own.
pub(super) fn vips(v6: bool) -> [IpAddr; 4] {
    let uplink = find("uplink");
    let own: IpAddr = if v6 {
        uplink.v6.into()
    } else {
        uplink.v4.into()
    };
    let other = find("east");
    let eastern = if v6 { other.v6.into() } else { other.v4.into() };
    [
        host_of(uplink, 11, v6),
        host_of(uplink, 12, v6),
        own,
        eastern,
    ]
}

/// One to five services without a frontend in common.
pub(super) fn services(rng: &mut Rng) -> Vec<Service> {
    let mut taken = BTreeSet::new();
    let mut services = Vec::new();
    for _ in 0..1 + rng.below(5) {
        let v6 = rng.percent(40);
        let protocol = rng.pick(&[TCP, TCP, TCP, UDP, UDP, SCTP]);
        let vips = vips(v6);
        let mut frontends = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let vip = vips[rng.pick(&[0, 0, 0, 1, 2, 3])];
            let port = rng.pick(&PORTS);
            if taken.insert((vip, port, protocol)) {
                frontends.push(SocketAddr::new(vip, port));
            }
        }
        let Some(first) = frontends.first().copied() else {
            continue;
        };
        if protocol == SCTP {
            // Its ports are not rewritten.
            frontends.retain(|frontend| frontend.port() == first.port());
        }
        let mut service = Service {
            algorithm: rng.pick(&[Algorithm::RoundRobin, Algorithm::Maglev, Algorithm::Maglev]),
            protocol,
            frontends,
            sticky: rng.percent(20).then_some(600),
            dsr: rng.percent(40),
            sources: sources(rng, v6),
            backends: Vec::new(),
        };
        for _ in 0..rng.pick(&[0, 1, 1, 2, 2, 3, 4, 5]) {
            add_backend(rng, &mut service);
        }
        services.push(service);
    }
    services
}

/// For most services none: everybody may use them.
fn sources(rng: &mut Rng, v6: bool) -> Vec<(IpAddr, u8)> {
    if rng.percent(85) {
        return Vec::new();
    }
    let host = host_of(find("uplink"), 1, v6);
    let net = |name: &str| host_of(find(name), 0, v6);
    let (all, some) = if v6 { (128, 64) } else { (32, 24) };
    rng.pick(&[
        vec![(host, all)],
        vec![(net("uplink"), some), (net("pods"), some)],
        vec![(net("east"), some), (net("uplink"), all - 6)],
    ])
}

fn add_backend(rng: &mut Rng, service: &mut Service) {
    let v6 = service.frontends[0].is_ipv6();
    let at = |name: &str, n: u8| host_of(find(name), n, v6);
    let pod = 2 + rng.below(3) as u8;
    let ip = match rng.below(30) {
        0..=12 => at("pods", pod),
        13..=19 => at("uplink", 102),
        20..=21 => at("uplink", 103),
        22..=23 => at("east", 9),
        24 => at("slow", 9),
        25..=26 => at("narrow", 9),
        27 => at("side", 9),
        28 => vips(v6)[2],
        _ if v6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 9]),
        _ => IpAddr::from([203, 0, 113, 9]),
    };
    let port = if service.protocol == SCTP {
        service.frontends[0].port()
    } else {
        rng.pick(&[3000, 3000, 3001])
    };
    let addr = SocketAddr::new(ip, port);
    if service.backends.iter().any(|backend| backend.addr == addr) {
        return;
    }
    let [one, two, three, none] = [1, 2, 3, 0].map(Share::Weight);
    let share = rng.pick(&[one, one, one, two, three, none, Share::Drain, Share::Failed]);
    service.backends.push(Backend { addr, share });
}

/// An endpoint goes, comes, or changes what it takes; now and then a service gets another table,
/// or goes.
pub(super) fn change(rng: &mut Rng, services: &mut Vec<Service>) {
    if services.is_empty() || rng.percent(10) {
        *services = self::services(rng);
        return;
    }
    // Mostly one whose flows may go without records.
    let mut at = rng.below(services.len());
    if services[at].algorithm == Algorithm::RoundRobin {
        at = rng.below(services.len());
    }
    let service = &mut services[at];
    match rng.below(9) {
        0 | 1 if !service.backends.is_empty() => {
            let gone = rng.below(service.backends.len());
            service.backends.remove(gone);
        }
        2 if !service.backends.is_empty() => {
            let drained = rng.below(service.backends.len());
            let [none, two] = [0, 2].map(Share::Weight);
            service.backends[drained].share = rng.pick(&[Share::Drain, Share::Failed, none, two]);
        }
        3 => {
            services.remove(at);
        }
        4 | 5 => {
            service.algorithm = match service.algorithm {
                Algorithm::RoundRobin => Algorithm::Maglev,
                Algorithm::Maglev => Algorithm::RoundRobin,
            };
        }
        // What it takes is nothing at all.
        6 if rng.percent(50) => {
            let [none, failed] = [Share::Weight(0), Share::Failed];
            for backend in &mut service.backends {
                backend.share = rng.pick(&[none, none, failed]);
            }
        }
        _ => add_backend(rng, service),
    }
}

/// Clients with their ports: near, behind no neighbour that is known, far, and a pod.
pub(super) fn clients(rng: &mut Rng) -> Vec<(IpAddr, u16)> {
    let mut clients = Vec::new();
    for v6 in [false, true] {
        for _ in 0..4 {
            let ip = match rng.below(20) {
                0..=9 => host_of(find("uplink"), 1, v6),
                10..=14 => host_of(find("uplink"), 2, v6),
                15 => host_of(find("uplink"), 50, v6),
                16 => host_of(find("east"), 9, v6),
                17 => host_of(find("pods"), 7, v6),
                18 if v6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
                18 => IpAddr::from([198, 51, 100, 1]),
                _ => nobody(rng, v6),
            };
            clients.push((ip, 40_000 + rng.below(3) as u16));
        }
    }
    clients
}

/// An address that nothing may be sent to.
fn nobody(rng: &mut Rng, v6: bool) -> IpAddr {
    let text = if v6 {
        rng.pick(&["ff02::1", "::", "::1", "fe80::1", "fd00::"])
    } else {
        rng.pick(&[
            "224.0.0.5",
            "255.255.255.255",
            "0.0.0.0",
            "127.0.0.1",
            "192.168.56.255",
        ])
    };
    text.parse().expect("an address")
}

/// A client of a family with its port.
pub(super) fn client(rng: &mut Rng, clients: &[(IpAddr, u16)], v6: bool) -> (IpAddr, u16) {
    let mut fitting = clients.to_vec();
    fitting.retain(|(ip, _)| ip.is_ipv6() == v6);
    rng.pick(&fitting)
}

/// The interface that packets from an address come in by.
pub(super) fn towards(ip: IpAddr) -> &'static node::Device {
    node::DEVICES
        .iter()
        .find(|device| {
            [false, true].into_iter().any(|v6| {
                let octets = |ip| crate::wire::octets(ip);
                let (net, host) = (octets(host_of(device, 0, v6)), octets(ip));
                let prefix = if v6 { 8 } else { 3 };
                net.len() == host.len() && net[..prefix] == host[..prefix]
            })
        })
        .unwrap_or_else(|| find("uplink"))
}
